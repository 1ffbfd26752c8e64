"""Labelled images: folders of images and masks, or SynthEarth scenes, checked before anything is trained or scored."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from .errors import InputError
from .labels import LabelSet
from .synthetic import DOMAINS, generate_scene

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
CACHE_BYTES = 1_000_000_000
"""Data sets whose decoded images and masks need less than this are kept in memory."""
SYNTHETIC_LABELS, SYNTHETIC_COUNT = "land-cover", 64

_EIGHT_BIT_MODES = {"L", "P", "RGB", "RGBA"}
_LABEL_MODES = {"1", "L", "P", "I", "I;16"}


class LabelledImage(Protocol):
    """One image with its label map."""

    @property
    def name(self) -> str:
        """Name shown in messages and reports."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 RGB and (H, W) uint8 ids, 255 ignored."""


@dataclass(frozen=True)
class FilePair:
    """An image file and its mask file, of the same size."""

    name: str
    image: Path
    mask: Path
    size: tuple[int, int]

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 RGB and (H, W) uint8 ids, 255 ignored; `InputError` if a file cannot be decoded."""
        return _decode(self.image, "RGB"), read_mask(self.mask)


@dataclass(frozen=True)
class ArrayPair:
    """An image and its label map in memory."""

    name: str
    image: np.ndarray
    labels: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.labels.shape[0], self.labels.shape[1]

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 RGB and (H, W) uint8 ids, 255 ignored."""
        return self.image, self.labels


@dataclass(frozen=True)
class DrawnScene:
    """A SynthEarth scene of `size` pixels, drawn anew by every `read`."""

    domain: str
    seed: int
    size: tuple[int, int] = (512, 512)

    @property
    def name(self) -> str:
        """Domain and seed."""
        return f"{self.domain}-{self.seed}"

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 in the domain's band order and (H, W) uint8 ids."""
        scene = generate_scene(self.domain, self.seed, *self.size)
        return scene.image, scene.labels


def load_sources(sources: Iterable[str], label_set: LabelSet) -> list[list[LabelledImage]]:
    """One list of labelled images per source; see `load_source`. Small sets are decoded once and kept in memory."""
    return [in_memory(load_source(source, label_set)) for source in sources]


def load_source(source: str, label_set: LabelSet) -> list[LabelledImage]:
    """Labelled images of `FOLDER`, `FOLDER:GLOB` (a pattern on names) or `synth:DOMAIN[:COUNT]`.

    Raises:
        InputError: nothing there, or a file that does not fit (see `load_pairs`).
    """
    if source.startswith("synth:"):
        return _synthetic(source, label_set)
    folder, colon, pattern = source.rpartition(":")
    if not colon or Path(source).is_dir():
        folder, pattern = source, "*"
    return list(load_pairs(folder, pattern, label_set))


def load_pairs(folder: str | Path, pattern: str, label_set: LabelSet) -> list[FilePair]:
    """The pairs `folder`/images/NAME.{jpg,png,tif} and `folder`/masks/NAME.png whose NAME matches `pattern`.

    Every mask is decoded once to check its ids, so that nothing wrong surfaces hours into a run.

    Raises:
        InputError: no such folder, no image that matches, an image without mask, two images of one name, sizes that
            differ, files that cannot be decoded, images of more than 8 bits, ids outside `label_set`.
    """
    root = Path(folder)
    for part in ("images", "masks"):
        if not (root / part).is_dir():
            raise InputError(
                f"{root} holds no folder '{part}'; a data folder holds images/NAME.jpg (.png, .tif) and masks/NAME.png"
            )
    files = sorted(path for path in (root / "images").iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    files = [path for path in files if fnmatch(path.stem, pattern)]
    if not files:
        raise InputError(f"{root / 'images'} holds no .jpg, .png or .tif file whose name matches '{pattern}'")
    pairs = [_checked_pair(path, root / "masks" / f"{path.stem}.png", label_set) for path in files]
    for first, second in pairwise(pairs):
        if first.name == second.name:
            raise InputError(f"{first.image} and {second.image} share one mask; give every image a name of its own")
    return pairs


def in_memory(images: Sequence[LabelledImage], limit: int = CACHE_BYTES) -> list[LabelledImage]:
    """The same images decoded once, if they need less than `limit` bytes; else as they came."""
    if sum(4 * image.size[0] * image.size[1] for image in images) > limit:
        return list(images)
    return [image if isinstance(image, ArrayPair) else ArrayPair(image.name, *image.read()) for image in images]


def read_mask(path: Path) -> np.ndarray:
    """(H, W) uint8 ids of a single-band mask file; `InputError` for colour masks and ids above 255."""
    labels = _decode(path, None)
    if labels.ndim != 2 or labels.max(initial=0) > 255:
        raise InputError(f"{path} is no label map; a mask holds one band of class ids from 0 to 255, not colours")
    return labels.astype(np.uint8)


def _checked_pair(image: Path, mask: Path, label_set: LabelSet) -> FilePair:
    if not mask.is_file():
        raise InputError(f"{image} has no mask; {mask} is missing")
    width, height, mode = _header(image)
    if mode not in _EIGHT_BIT_MODES:
        raise InputError(f"{image} has the pixel type '{mode}'; training reads 8-bit gray or RGB: convert it first")
    labels = read_mask(mask)
    if labels.shape != (height, width):
        raise InputError(
            f"{image} is {width}x{height} pixels and {mask} is {labels.shape[1]}x{labels.shape[0]}; "
            "an image and its mask must have the same size"
        )
    label_set.check(labels, str(mask))
    return FilePair(image.stem, image, mask, (height, width))


def _header(path: Path) -> tuple[int, int, str]:
    """Width, height and PIL mode of an image file."""
    try:
        with Image.open(path) as image:
            return image.width, image.height, image.mode
    except (OSError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as an image ({error}); replace the file") from error


def _decode(path: Path, mode: str | None) -> np.ndarray:
    """Pixels of an image file as an array, converted to the PIL `mode` if one is given."""
    try:
        with Image.open(path) as image:
            return np.array(image if mode is None else image.convert(mode))
    except (OSError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as an image ({error}); replace the file") from error


def _synthetic(source: str, label_set: LabelSet) -> list[LabelledImage]:
    """Scenes of `synth:DOMAIN[:COUNT]`, seeds 0 to COUNT-1."""
    _, domain, *rest = source.split(":")
    if domain not in DOMAINS:
        raise InputError(f"'{source}' names no SynthEarth domain; write synth: and one of {', '.join(DOMAINS)}")
    if len(rest) > 1 or not all(text.isdecimal() and int(text) > 0 for text in rest):
        raise InputError(f"'{source}' is no synth:DOMAIN[:COUNT]; COUNT is a whole number above 0")
    if label_set.name != SYNTHETIC_LABELS:
        raise InputError(f"'{source}' has the label set '{SYNTHETIC_LABELS}', not '{label_set.name}'; train them apart")
    return [DrawnScene(domain, seed) for seed in range(int(rest[0]) if rest else SYNTHETIC_COUNT)]
