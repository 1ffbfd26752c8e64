"""The class head of a model that learns other classes: classes that keep their names keep their weights."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..errors import on_one_line
from ..files.documents import read_json
from ..files.downloads import INDEX, WEIGHTS
from ..inference.loading import load_config
from ..labels import LabelSet, label_set_of, listed

CLASSIFIERS = ("class_predictor", "classifier")
"""Names of the class head: CrossEarth's, whose last row means "no object", and the convolutional peer's."""

_NUMBER = re.compile(r"LABEL_\d+")  # transformers' names of unnamed classes


def fit_class_head(
    model: Any, folder: Path, name: str, label_set: LabelSet, tell: Callable[[str], object] = print
) -> None:
    """Gives a loaded model a new class head if its classes differ from the saved ones.

    The new head keeps the rows of classes that keep their names (capitals aside) and the row of "no object": our
    choice. All other rows are initialized anew. A model whose classes were mere numbers keeps its head if their number
    stays the same.

    Args:
        model: Model loaded for the new classes.
        folder: Folder of the saved model.
        name: Name of the model in messages.
        label_set: The new classes.
        tell: Takes a line that says what is new and what is kept.
    """
    before, now = label_set_of(load_config(folder)).classes, label_set.classes
    if before == now or (are_numbers(before) and len(before) == len(now)):
        return
    attribute = next(each for each in CLASSIFIERS if hasattr(model, each))
    fresh = _fresh(model, getattr(model, attribute))
    old = _saved(folder, attribute)
    kept = _kept_rows(before, now, has_rest=attribute == CLASSIFIERS[0])
    with torch.no_grad():
        for key, parameter in fresh.named_parameters():
            for row, saved in kept.items():
                parameter[row] = old[key][saved]
    setattr(model, attribute, fresh)
    shared = [each for row, each in enumerate(now) if row in kept]
    remains = "it knew none of them"
    if shared:
        remains = f"what it knows of {listed(shared)} is kept"
    tell(on_one_line(f"'{name}' gets a new class head for {label_set.listed}; {remains}"))


def are_numbers(classes: Sequence[str]) -> bool:
    """Whether all classes have numbers instead of names."""
    return all(_NUMBER.fullmatch(each) for each in classes)


def _kept_rows(before: Sequence[str], now: Sequence[str], *, has_rest: bool) -> dict[int, int]:
    """New row -> old row of classes with the same name, and of "no object", the last row, if the head has it."""
    places = {each.casefold(): index for index, each in enumerate(before)}
    kept = {
        row: places[each.casefold()] for row, each in enumerate(now) if each.casefold() in places
    }
    if has_rest:
        kept[len(now)] = len(before)
    return kept


def _fresh(model: Any, layer: nn.Module) -> nn.Module:
    """An untrained layer of the same kind and size."""
    if isinstance(layer, nn.Conv2d):
        fresh: nn.Module = nn.Conv2d(layer.in_channels, layer.out_channels, kernel_size=1)
    else:
        fresh = nn.Linear(layer.in_features, layer.out_features)  # type: ignore[arg-type]
    model._init_weights(fresh)
    return fresh


def _saved(folder: Path, attribute: str) -> Mapping[str, Tensor]:
    """Weight and bias of the saved head, in float32."""
    found: dict[str, Tensor] = {}
    for key in ("weight", "bias"):
        full, path = f"{attribute}.{key}", folder / WEIGHTS
        if not path.is_file():
            path = folder / read_json(folder / INDEX, "save the model again")["weight_map"][full]
        with safe_open(path, "pt") as file:
            found[key] = file.get_tensor(full).float()
    return found
