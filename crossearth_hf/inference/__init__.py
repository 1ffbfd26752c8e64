"""Pixels to scores: a model and its processor from a folder or the Hub, and sliding windows."""

from .loading import load_config, load_model, load_processor
from .windows import sliding_window_scores

__all__ = ["load_config", "load_model", "load_processor", "sliding_window_scores"]
