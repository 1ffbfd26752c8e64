"""Maps of scenes of any size, one or many, on one process or on a cluster."""

from .map_report import MapReport
from .mapper import predict
from .one_scene import MapOutputs, predict_map, resolution_advice

__all__ = ["MapOutputs", "MapReport", "predict", "predict_map", "resolution_advice"]
