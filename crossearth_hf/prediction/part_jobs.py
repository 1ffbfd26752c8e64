"""The parts of a map as jobs: what a worker needs besides the scene and the model, and the files of a finished part."""

import json
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..raster.area import PlacedArea
from ..raster.cog import Piece
from ..raster.grid import Grid
from ..raster.writing import Block
from .parts import Part, SceneParts, count_windows

BLOCKS = "blocks.json"

CONFIDENCE = "mean confidence"  # in it


@dataclass(frozen=True)
class PartSettings:
    """Settings with which parts are computed.

    Attributes:
        window, stride, batch_size, tta: As in `predict_part`.
        layers: Names of the layers to write.
        model: `model_digest` of the model.
        device_type: Type of the device that it runs on.
        float_shares: As in `map_layers`.
        engine: What computes the model in PyTorch's place; None for PyTorch.
    """

    window: int
    stride: int
    batch_size: int
    tta: bool
    layers: tuple[str, ...]
    model: str
    device_type: str
    float_shares: bool = False
    engine: str | None = None


@dataclass(frozen=True)
class PartJob:
    """A part to compute: all that a worker needs besides the scene and the model.

    Attributes:
        part: Its place on the scene's grid.
        folder: Its folder, which exists once the part is finished.
        windows: Number of windows that touch it.
        settings: How it is computed.
    """

    part: Part
    folder: Path
    windows: int
    settings: PartSettings

    @property
    def is_finished(self) -> bool:
        """Whether the part is finished."""
        return self.folder.is_dir()

    @property
    def output(self) -> Path:
        """The output whose part this is."""
        parts = self.folder.parent
        return parts.with_name(parts.name.removeprefix(".").removesuffix(".parts"))

    def confidence(self) -> tuple[float, int]:
        """Sum of the confidences of the finished part's pixels with data, and their number; zeros if unknown."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            total, pixels = json.loads((self.folder / BLOCKS).read_text())[CONFIDENCE]
            return float(total), int(pixels)
        return 0.0, 0

    def piece(self, layer: str) -> Piece:
        """The finished part of a layer; `InputError` if it cannot be read."""
        try:
            blocks = json.loads((self.folder / BLOCKS).read_text())[layer]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"the part {self.folder} is missing or damaged; delete that folder and run again"
            ) from error
        part = self.part
        size = (part.bottom - part.top, part.right - part.left)
        return Piece(
            layer_file(self.folder, layer),
            part.top,
            part.left,
            *size,
            tuple(Block(*block) for block in blocks),
        )


@dataclass(frozen=True)
class PartJobs(Sequence[PartJob]):
    """The jobs of a map, made when they are needed, in the order of `scene_parts`.

    Attributes:
        grid: `Scene.grid`.
        folder: Folder of the finished parts.
        parts: `scene_parts` of the grid.
        settings: How they are computed.
        numbers: Numbers of the parts among these jobs.
        area: What of the scene becomes a map; None for all of it.
    """

    grid: Grid
    folder: Path
    parts: SceneParts
    settings: PartSettings
    numbers: Sequence[int]
    area: PlacedArea | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        number, settings = self.numbers[index], self.settings
        if not isinstance(number, int):  # of a slice
            return replace(self, numbers=number)
        part = self.parts[number]
        windows = count_windows(self.grid, part, settings.window, settings.stride, self.area)
        return PartJob(part, self.folder / _name(number), windows, settings)

    def unfinished(self) -> "PartJobs":
        """The jobs whose parts are not finished."""
        standing = {path.name for path in self.folder.iterdir() if is_part(path)}
        return replace(
            self, numbers=array("q", (n for n in self.numbers if _name(n) not in standing))
        )


def is_part(path: Path) -> bool:
    """Whether something in a folder of parts is a finished part."""
    return path.is_dir() and path.name.isdecimal()


def _name(number: int) -> str:
    return f"{number:04d}"


def layer_file(folder: Path, layer: str) -> Path:
    """The file of a layer in the folder of a part."""
    return folder / f"{layer}.tif"


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Turns errors of the file system into `InputError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{path} cannot be written: {reason}; free space or choose another folder"
        ) from error
