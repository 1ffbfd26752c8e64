"""Training: `config` says what a run is, `trainer` runs it; only the latter needs the extra `train`."""

from .config import TrainConfig
from .recipe import build_train_config, parse_train_config

__all__ = ["TrainConfig", "build_train_config", "parse_train_config"]
