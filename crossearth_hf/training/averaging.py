"""Averages of weights: over the steps of a run, and of several models."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import InputError
from ..files.documents import read_json
from ..files.downloads import CONFIG, WEIGHTS
from ..inference.loading import load_config, load_model, model_folder
from ..inference.model_copy import NO_READ_OUT, REMEDY, change_config, model_copy, replace_weights

OF_ONE_MODEL = (*NO_READ_OUT, "dtype", "freeze_backbone", "transformers_version")
"""Configuration fields that may differ between averaged models."""


class WeightAverage:
    """The exponential moving average of the trained weights (Polyak averaging; Tarvainen & Valpola, NeurIPS 2017).

    The decay starts as (1 + step) / (10 + step), as in TensorFlow, so that the average forgets its start.

    Args:
        network: The parameters that need gradients are averaged.
        decay: Weight of the old average, below 1; 0.999 averages over about a thousand steps.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.trained = {
            name: weight for name, weight in network.named_parameters() if weight.requires_grad
        }
        self.averages = {name: weight.detach().clone() for name, weight in self.trained.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Adds the weights after an optimizer step to the average."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        averages = list(self.averages.values())
        weights = [weight.detach() for weight in self.trained.values()]
        torch._foreach_lerp_(averages, weights, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A block in which the network's weights are the average."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, weight in self.trained.items():
            weight.data, self.averages[name] = self.averages[name], weight.data

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint."""
        return {"steps": self.steps, "averages": self.averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.steps = state["steps"]
        saved: dict[str, Tensor] = state["averages"]
        for name, average in self.averages.items():
            average.copy_(saved[name])


def average_models(
    models: Sequence[str | os.PathLike[str]],
    output_dir: str | os.PathLike[str],
    *,
    weights: Sequence[float] | None = None,
    overwrite: bool = False,
    tell: Callable[[str], object] | None = None,
) -> list[float]:
    """Writes the weighted mean of several models that have one architecture and one start.

    The mean of fine-tuned models is a uniform soup (Wortsman et al., ICML 2022). The mean of a model and its start is
    WiSE-FT (Wortsman et al., CVPR 2022), which keeps the start's knowledge of other domains. The other files come from
    the first model, without the choices of `crossearth calibrate`, which belong to its own scores.

    Args:
        models: Two or more folders or Hub ids.
        output_dir: Folder to write.
        weights: A weight for each model, 0 or more; by default all the same. They are divided by their sum.
        overwrite: Whether an existing model folder may be replaced.
        tell: Told if a model was calibrated.

    Returns:
        The weights of the models, which sum to 1.

    Raises:
        InputError: There are fewer than two models, the weights do not fit, or the architectures differ.
    """
    if len(models) < 2:
        raise InputError(
            f"an average needs two models or more, not {len(models)}; name another one"
        )
    numbers = list(weights or [])
    if weights is None:
        numbers = [1.0] * len(models)
    total = sum(numbers)
    if len(numbers) != len(models) or min(numbers) < 0 or not 0 < total < float("inf"):
        raise InputError(
            f"weights {numbers} must be {len(models)} numbers, 0 or more, one for each model"
        )
    shares = [number / total for number in numbers]
    folders = [model_folder(model) for model in models]
    with model_copy(folders, output_dir, overwrite=overwrite) as copy:
        for folder in folders:
            load_model(folder, device="cpu")  # raises InputError for an incomplete model
        _check_alike(folders)
        replace_weights(
            copy, _averaged([load_file(folder / WEIGHTS) for folder in folders], shares)
        )
        if tell is not None and any(_is_calibrated(folder) for folder in folders):
            tell(
                "the average is not calibrated, though a model was: run crossearth calibrate on it"
            )
        change_config(copy, NO_READ_OUT)
    return shares


def _is_calibrated(folder: Path) -> bool:
    config = read_json(folder / CONFIG, REMEDY)
    return any(config.get(field) is not None for field in NO_READ_OUT)


def _check_alike(folders: Sequence[Path]) -> None:
    """Raises `InputError` if the configurations differ in fields other than `OF_ONE_MODEL`."""
    first, *others = (_fields(folder) for folder in folders)
    for folder, fields in zip(folders[1:], others, strict=True):
        different = sorted(
            name for name in first.keys() | fields.keys() if first.get(name) != fields.get(name)
        )
        if different:
            raise InputError(
                f"{folders[0]} and {folder} differ in {', '.join(different[:4])}; average models of one architecture, "
                "classes and start"
            )


def _fields(folder: Path) -> dict[str, Any]:
    """Every field, those that an earlier release did not write with their defaults."""
    config = load_config(folder).to_dict()
    config["backbone_config"].pop("_name_or_path", None)  # where somebody had it
    return {name: value for name, value in config.items() if name not in OF_ONE_MODEL}


def _averaged(states: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """The weighted mean of every tensor, in the number format of the first model."""
    averaged = {}
    for name, first in states[0].items():
        weighted = [
            share * state[name].double() for share, state in zip(shares, states, strict=True)
        ]
        averaged[name] = torch.stack(weighted).sum(dim=0).to(first.dtype).contiguous()
    return averaged
