"""Models in files that run without Python: ONNX and OpenVINO."""

from .exporting import export_model

__all__ = ["export_model"]
