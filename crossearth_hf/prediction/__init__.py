"""Maps of scenes of any size: parts of one, many of them, on one process or a cluster."""

from .one_scene import MapOutputs, MapReport, predict_map, resolution_advice

__all__ = ["MapOutputs", "MapReport", "predict_map", "resolution_advice"]
