"""What a contestant has to do in a case, and the data that all contestants of a case share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

Outcome = Tensor | list[float]
"""Scores (1, K, H, W), a map of labels (H, W), or the losses of the steps so far."""

CLASSES = 6
"""Of the published models, and of the peers."""


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        name: Unique.
        kind: "scores", "training" or "predict": what is done; "engines" is predict by this package alone.
        preset: Of `CrossEarthConfig`, or a configuration's file; "bundled" and "crossearth-small" for the models that
            come with a clone.
        size: Side of the image in pixels.
        window, stride: Of the sliding window in pixels.
        stays: Whether contestants stay in memory between their turns; else each turn is a new process, warmed up.
    """

    name: str
    kind: str
    preset: str
    size: int
    window: int
    stride: int
    stays: bool = True


@dataclass(frozen=True)
class Setup:
    """What a contestant's process is told.

    Attributes:
        family: Who competes, one of `cases.FAMILIES`.
        option: A precision, an engine, or a configuration of training; "" for the family's only one.
        case: What is measured.
        model: Folder with CrossEarth's weights for this case.
        scene, corner: GeoTIFFs for "predict", and its corner for the warm-up.
        folder: For what the contestant writes.
        threads: Of PyTorch.
        device: "cpu" or "cuda".
    """

    family: str
    option: str
    case: Case
    model: Path
    scene: Path | None
    corner: Path | None
    folder: Path
    threads: int
    device: str


@dataclass
class Job:
    """A contestant that is ready to run.

    Attributes:
        run: The measured work; what it returns is compared with the baseline's.
        warm_up: Work before the first measurement, at most as much as `run`.
    """

    run: Callable[[], Outcome]
    warm_up: Callable[[], Outcome]


def image_of(case: Case, device: str) -> Tensor:
    """(1, 3, size, size) normalized pixels, the same for every contestant: smooth shapes under noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 3, case.size // 32, case.size // 32, generator=generator)
    shapes = torch.nn.functional.interpolate(coarse, size=(case.size, case.size), mode="bilinear")
    return (shapes + 0.3 * torch.randn(1, 3, case.size, case.size, generator=generator)).to(device)


def labels_of(case: Case, classes: int, device: str) -> Tensor:
    """(1, size, size) class ids in squares of 32 pixels, an eighth of them unlabeled (255)."""
    generator = torch.Generator().manual_seed(1)
    side = case.size // 32
    cells = torch.randint(0, classes, (1, side, side), generator=generator)
    cells[torch.rand(cells.shape, generator=generator) < 1 / 8] = 255
    return cells.repeat_interleave(32, 1).repeat_interleave(32, 2).to(device)
