"""Training: a configuration in, a model folder out."""

from .config import TrainConfig, build_train_config, parse_train_config
from .trainer import Trainer, train

__all__ = ["TrainConfig", "Trainer", "build_train_config", "parse_train_config", "train"]
