"""The app: drop in a scene, get a map. It needs the extra `app`."""

from .app import Prediction, main, predict

__all__ = ["Prediction", "main", "predict"]
