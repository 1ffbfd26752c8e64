"""From the text of a source to its labeled images, checked before anything is trained or scored."""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..labels import LabelSet
from ..raster.scene import DEFAULT_READING, Reading
from ..synthetic import DOMAINS
from . import hub
from .fill_notices import fill_notices
from .hub import HubStream
from .image_files import IMAGE_SUFFIXES, MASK_SUFFIXES, image_size, mask_counts, mask_palette, pixel_size, raster_grid
from .labeled_images import ArrayPair, DrawnScene, FilePair, LabeledImage
from .mask_values import MaskValues, check_masks, check_palette, checked_values

CACHE_BYTES = 1_000_000_000
"""Decoded images and masks that a run keeps in memory."""
LARGEST_SHIFT = 0.5
"""Pixels by which the georeferences of an image and its mask may differ."""
SYNTHETIC_LABELS, SYNTHETIC_COUNT = "land-cover", 64

Source = Sequence[LabeledImage] | HubStream


def load_sources(
    sources: Iterable[str],
    label_set: LabelSet,
    *,
    reading: Reading = DEFAULT_READING,
    labeled: bool = True,
    mask_values: Sequence[int] | None = None,
    cache_bytes: int = CACHE_BYTES,
    tell: Callable[[str], object] | None = None,
) -> list[Source]:
    """The images of every source, see `load_source`; those that fit into `cache_bytes` are decoded once and kept.

    The budget holds for all sources together, in their order. What does not fit is read anew for every crop. Lines on
    undeclared fill are told if `tell` is given, see `fill_notices`.
    """
    loaded: list[Source] = []
    for text in sources:
        source = load_source(text, label_set, reading=reading, labeled=labeled, mask_values=mask_values)
        if tell is not None:
            for line in fill_notices(text, source):
                tell(line)
        if not isinstance(source, HubStream):
            source, cache_bytes = in_memory(source, cache_bytes, reading.num_channels)
        loaded.append(source)
    return loaded


def all_images(sources: Iterable[Source]) -> list[LabeledImage]:
    """The images of several sources in one list, as evaluation reads them; `InputError` for a stream."""
    images: list[LabeledImage] = []
    for source in sources:
        if isinstance(source, HubStream):
            raise InputError(f"{source.name} has no end and cannot be scored; name it with {hub.MAP_PREFIX}")
        images += source
    return images


def load_source(
    source: str,
    label_set: LabelSet,
    *,
    reading: Reading = DEFAULT_READING,
    labeled: bool = True,
    mask_values: Sequence[int] | None = None,
) -> Source:
    """Labeled images of a source.

    Args:
        source: `FOLDER` or `FOLDER:GLOB` (a pattern on names), see `load_pairs`; `hf:PATH_OR_ID[:CONFIG[:SPLIT]]` or
            `hf-stream:` with the same, see `data.hub`; `synth:DOMAIN[:COUNT]`.
        label_set: Classes of the labels.
        reading: Bands of rasters and values without data; by default as `crossearth predict` finds them.
        labeled: False for images alone: every label is 255, and a folder needs no masks.
        mask_values: Value of class 0, 1, ... in the masks; by default the ids. 255 is ignored unless it is listed.

    Raises:
        InputError: nothing there, a file that does not fit, masks that say nothing, see `mask_values.check_masks`.
    """
    values = checked_values(mask_values, label_set)
    if source.startswith("synth:"):
        if reading.num_channels > 3:
            channels = reading.num_channels
            raise InputError(f"'{source}' is drawn in three bands, not {channels}; leave it out or give three bands")
        return _synthetic(source, label_set, labeled)
    if source.startswith(hub.MAP_PREFIX):
        return hub.load_map(source, label_set, reading, labeled, values)
    if source.startswith(hub.STREAM_PREFIX):
        return hub.load_stream(source, label_set, reading, labeled, values)
    folder, pattern = _folder_and_pattern(source)
    return load_pairs(folder, pattern, label_set, reading=reading, labeled=labeled, mask_values=values)


def source_folder(source: str) -> Path | None:
    """The folder on this machine that a source is read from; None for drawn scenes and for data sets of the Hub."""
    if source.startswith("synth:"):
        return None
    for prefix in (hub.MAP_PREFIX, hub.STREAM_PREFIX):
        if source.startswith(prefix):
            path, _, _ = hub.parse_source(source, prefix)
            if Path(path).is_dir():
                return Path(path)
            return None
    return Path(_folder_and_pattern(source)[0])


def _folder_and_pattern(source: str) -> tuple[str, str]:
    """The two parts of `FOLDER:GLOB`."""
    folder, colon, pattern = source.rpartition(":")
    if colon and not Path(source).is_dir():
        return (folder, pattern)
    return (source, "*")


def load_pairs(
    folder: str | Path,
    pattern: str,
    label_set: LabelSet,
    *,
    reading: Reading = DEFAULT_READING,
    labeled: bool = True,
    mask_values: MaskValues = None,
) -> list[FilePair]:
    """The pairs `folder`/images/NAME.* and `folder`/masks/NAME.{png,tif} whose NAME matches `pattern`, by name.

    Every mask is decoded once to check its ids, so that nothing wrong surfaces hours into a run. Without labels the
    images may also lie in `folder` itself.

    Raises:
        InputError: no such folder, no image that matches, an image without mask or with two, two images of one name,
            sizes that differ, files that cannot be read, bands that an image lacks, values that it cannot hold, masks
            that do not fit `label_set`.
    """
    root = Path(folder)
    files = _image_files(_image_folder(root, labeled), pattern)
    for first, second in pairwise(files):
        if first.stem == second.stem:
            raise InputError(f"{first} and {second} have one name; give every image a name of its own")
    if not labeled:
        return [
            FilePair(path.stem, path, None, image_size(path, str(path), reading), reading, pixel_size(path))
            for path in files
        ]
    masks = [_mask_of(path, root / "masks") for path in files]
    values = [_checked_values(*pair, label_set, reading, mask_values) for pair in zip(files, masks, strict=True)]
    named = [(str(mask), counts) for mask, (counts, _) in zip(masks, values, strict=True)]
    counted = check_masks(str(root), named, label_set, mask_values)
    return [
        FilePair(image.stem, image, mask, size, reading, pixel_size(image), mask_values, ids)
        for image, mask, (_, size), ids in zip(files, masks, values, counted, strict=True)
    ]


def in_memory(
    images: Sequence[LabeledImage], cache_bytes: int, num_channels: int = 3
) -> tuple[list[LabeledImage], int]:
    """The same images, decoded in their order as long as `cache_bytes` last; and the bytes that are left."""
    kept: list[LabeledImage] = []
    for image in images:
        if (num_channels + 1) * image.size[0] * image.size[1] <= cache_bytes and not isinstance(image, ArrayPair):
            image = image.decode()
            cache_bytes -= image.image.nbytes + image.labels.nbytes + (0 if image.valid is None else image.valid.nbytes)
        kept.append(image)
    return kept, max(cache_bytes, 0)


def _image_folder(root: Path, labeled: bool) -> Path:
    """The folder of the images; `InputError` if it or the masks' one is missing."""
    if not labeled and not (root / "images").is_dir():
        if not root.is_dir():
            raise InputError(f"{root} is not a folder; name one that holds images")
        return root
    for part in ("images", "masks") if labeled else ("images",):
        if not (root / part).is_dir():
            raise InputError(
                f"{root} holds no folder '{part}'; a data folder holds images/NAME.jpg (.png, .tif) and masks/NAME.png"
            )
    return root / "images"


def _image_files(folder: Path, pattern: str) -> list[Path]:
    """Image files whose name without ending matches, in the order of their names."""
    files = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and fnmatch(path.stem, pattern)]
    if not files:
        raise InputError(f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)}) whose name matches '{pattern}'")
    return sorted(files, key=lambda path: (path.stem, path.suffix))


def _mask_of(image: Path, folder: Path) -> Path:
    """The one mask of an image."""
    candidates = [folder / f"{image.stem}{suffix}" for suffix in MASK_SUFFIXES]
    found = [path for path in candidates if path.is_file()]
    if not found:
        raise InputError(f"{image} has no mask; {candidates[0]} (or .tif) is missing")
    if len(found) > 1:
        raise InputError(f"{image} has the masks {found[0].name} and {found[1].name}; keep one of them")
    return found[0]


def _checked_values(
    image: Path, mask: Path, label_set: LabelSet, reading: Reading, mask_values: MaskValues
) -> tuple[np.ndarray, tuple[int, int]]:
    """(256,) pixels of every value of a mask that fits its image, and the (height, width) of both."""
    size = image_size(image, str(image), reading)
    counts, mask_size = mask_counts(mask, str(mask), mask_values)
    if mask_size != size:
        raise InputError(
            f"{image} is {size[1]}x{size[0]} pixels and {mask} is {mask_size[1]}x{mask_size[0]}; "
            "an image and its mask must have the same size"
        )
    _check_place(image, mask)
    check_palette(str(mask), mask_palette(mask, str(mask)), np.flatnonzero(counts).tolist(), label_set, mask_values)
    return counts, size


def _check_place(image: Path, mask: Path) -> None:
    """Refuses two rasters that say of themselves that they lie apart."""
    grid, other = raster_grid(image), raster_grid(mask)
    if grid is None or other is None:
        return
    shift = grid.distance_to(other)
    if shift is not None and shift > LARGEST_SHIFT:
        raise InputError(
            f"{image} and {mask} lie {shift:.3g} pixels apart by their georeference; warp the mask to the image's grid"
        )


def _synthetic(source: str, label_set: LabelSet, labeled: bool) -> list[DrawnScene]:
    """Scenes of `synth:DOMAIN[:COUNT]`, seeds 0 to COUNT-1."""
    _, domain, *rest = source.split(":")
    if domain not in DOMAINS:
        raise InputError(f"'{source}' names no SynthEarth domain; write synth: and one of {', '.join(DOMAINS)}")
    if len(rest) > 1 or not all(text.isdecimal() and int(text) > 0 for text in rest):
        raise InputError(f"'{source}' is not of the form synth:DOMAIN[:COUNT]; COUNT is a whole number above 0")
    if labeled and label_set.name != SYNTHETIC_LABELS:
        raise InputError(f"'{source}' has the label set '{SYNTHETIC_LABELS}', not '{label_set.name}'; train them apart")
    return [DrawnScene(domain, seed, labeled=labeled) for seed in range(int(rest[0]) if rest else SYNTHETIC_COUNT)]
