"""Training: `config` says what a run is, `trainer` runs it; only the latter needs the extra `train`."""

from .config import TrainConfig, build_train_config, parse_train_config

__all__ = ["TrainConfig", "build_train_config", "parse_train_config"]
