"""A model on scenarios and folders of images: tasks, counts, scores with intervals, the report folder."""

from .run import EvaluationSettings, evaluate
from .targets import folder_task, scenario_task

__all__ = ["EvaluationSettings", "evaluate", "folder_task", "scenario_task"]
