"""CrossEarth (Gong et al., IEEE TPAMI 2026) for transformers: segmentation of imagery from unseen domains.

The package promises the names in `__all__`; all others may change from one version to the next.
"""

import sys
from functools import cache
from importlib import import_module
from inspect import isfunction
from typing import TYPE_CHECKING, Any

from .arguments import in_python
from .errors import InputError
from .labels import LabelSet

if TYPE_CHECKING:
    from .evaluation.report_file import read_report
    from .evaluation.run import evaluate
    from .evaluation.targets import FolderTarget as folder
    from .evaluation.targets import ScenarioTarget as scenario
    from .inference.arrays import predict_array
    from .inference.loading import load_model
    from .model import (
        CrossEarthConfig,
        CrossEarthForSemanticSegmentation,
        CrossEarthImageProcessor,
        CrossEarthModel,
    )
    from .model.earth_style import EarthStyle
    from .model.style_bank import StyleBank
    from .prediction.mapper import predict
    from .training.config import TrainConfig
    from .training.trainer import train

__version__ = "0.2.0"

__all__ = [
    "CrossEarthConfig",
    "CrossEarthForSemanticSegmentation",
    "CrossEarthImageProcessor",
    "CrossEarthModel",
    "EarthStyle",
    "InputError",
    "LabelSet",
    "StyleBank",
    "TrainConfig",
    "__version__",
    "evaluate",
    "folder",
    "load_model",
    "predict",
    "predict_array",
    "read_report",
    "scenario",
    "train",
]

# Imported when they are first used: PyTorch, GDAL and the training loop take seconds, and some of them are extras.
_LATER = {
    "CrossEarthConfig": (".model", "CrossEarthConfig"),
    "CrossEarthForSemanticSegmentation": (".model", "CrossEarthForSemanticSegmentation"),
    "CrossEarthImageProcessor": (".model", "CrossEarthImageProcessor"),
    "CrossEarthModel": (".model", "CrossEarthModel"),
    "EarthStyle": (".model.earth_style", "EarthStyle"),
    "StyleBank": (".model.style_bank", "StyleBank"),
    "TrainConfig": (".training.config", "TrainConfig"),
    "evaluate": (".evaluation.run", "evaluate"),
    "folder": (".evaluation.targets", "FolderTarget"),
    "load_model": (".inference.loading", "load_model"),
    "predict": (".prediction.mapper", "predict"),
    "predict_array": (".inference.arrays", "predict_array"),
    "read_report": (".evaluation.report_file", "read_report"),
    "scenario": (".evaluation.targets", "ScenarioTarget"),
    "train": (".training.trainer", "train"),
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    module, attribute = _LATER[name]
    try:
        found = import_module(module, __name__)
    except ModuleNotFoundError as error:
        if module.startswith(".training"):
            extra = "train"
        else:
            extra = "benchmark"
        raise ImportError(
            f"{__name__}.{name} needs '{error.name}'; install it with pip install 'crossearth-hf[{extra}]'"
        ) from error
    return _spoken(getattr(found, attribute))


@cache
def _spoken(promised: Any) -> Any:
    """A promised name; a function names keyword arguments, not flags, in its sentences about mistakes."""
    if isfunction(promised):
        return in_python(promised)
    return promised


def __dir__() -> list[str]:
    return __all__


if "crossearth_command" not in sys.modules:
    # Registers the model with transformers' Auto classes. The command `crossearth` leaves it to the subcommands that
    # use a model: help and mistakes are answered at once.
    import_module(".model", __name__)
