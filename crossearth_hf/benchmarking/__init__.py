"""A model on scenarios and folders of images: tasks, counts, scores with intervals, the report folder."""

from .evaluation import EvaluationSettings, evaluate
from .tasks import folder_task, scenario_task

__all__ = ["EvaluationSettings", "evaluate", "folder_task", "scenario_task"]
