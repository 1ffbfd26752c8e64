"""A model on scenarios and folders of images: targets, counts, scores with intervals, the report folder."""

from .run import evaluate
from .targets import FolderTarget, ScenarioTarget

__all__ = ["FolderTarget", "ScenarioTarget", "evaluate"]
