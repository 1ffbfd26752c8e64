"""Pairs of image and mask files in folders or manifests, checked before the work."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..labels import IGNORE_INDEX
from ..raster.scene import DEFAULT_READING, Reading
from .image_files import (
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    image_size,
    is_in_color,
    mask_counts,
    mask_palette,
    pixel_size,
    raster_grid,
)
from .labeled_images import FilePair, PartialLabels
from .manifest import read_manifest
from .mask_values import MaskReading, check_masks, check_palette

LARGEST_SHIFT = 0.5
"""Largest allowed shift in pixels between the georeferences of an image and its mask."""


def load_pairs(
    folder: str | Path,
    pattern: str,
    masks: MaskReading,
    *,
    reading: Reading = DEFAULT_READING,
    labeled: bool = True,
) -> list[FilePair]:
    """Loads the pairs `folder`/images/NAME.* and `folder`/masks/NAME.{png,tif} whose NAME matches `pattern`, by name.

    Without labels the images may also lie in `folder` itself.

    Raises:
        InputError: The folder does not exist, no image matches, an image has no mask or two, or two images have one
            name; see also `checked_pairs`.
    """
    root = Path(folder)
    files = _image_files(_image_folder(root, labeled), pattern)
    for first, second in pairwise(files):
        if first.stem == second.stem:
            raise InputError(
                f"{first} and {second} have the same name; give every image its own name"
            )
    if not labeled:
        return [unlabeled_image(path, reading) for path in files]
    return checked_pairs(
        str(root), [(path, _mask_of(path, root / "masks")) for path in files], masks, reading
    )


def checked_pairs(
    source: str,
    files: Sequence[tuple[Path, Path]],
    masks: MaskReading,
    reading: Reading,
    *,
    partly: bool = False,
) -> list[FilePair]:
    """Pairs of image and mask; every mask is decoded once, so errors appear before a run and not hours into it.

    Args:
        source: Name of the data source in messages.
        files: Image and mask of each pair.
        masks: Meaning of the mask values.
        reading: Bands of the images and no-data values.
        partly: Whether the masks label only some classes.

    Raises:
        InputError: Sizes differ, a file cannot be read, an image lacks a band or cannot hold a value, or masks do not
            fit the classes.
    """
    values = [_checked_values(image, mask, reading, masks) for image, mask in files]
    named = [(str(mask), counts) for (_, mask), (counts, _) in zip(files, values, strict=True)]
    in_color = any(is_in_color(mask, str(mask), masks) for _, mask in files)
    counted = check_masks(source, named, masks, in_color=in_color, partly=partly)
    return [
        FilePair(image.stem, image, mask, size, reading, pixel_size(image), masks, ids)
        for (image, mask), (_, size), ids in zip(files, values, counted, strict=True)
    ]


def load_manifest(
    source: str, masks: MaskReading, *, reading: Reading = DEFAULT_READING, labeled: bool = True
) -> list[FilePair]:
    """Loads the pairs in a manifest, see `manifest.read_manifest`; raises `InputError` like `load_pairs`."""
    entries = read_manifest(source)
    if not labeled:
        images = [
            replace(unlabeled_image(entry.image, reading), name=entry.name) for entry in entries
        ]
        return [
            replace(image, pixel_size=entry.pixel_size or image.pixel_size)
            for image, entry in zip(images, entries, strict=True)
        ]
    pairs, values = [], []
    for entry in entries:
        partial = entry.partial and entry.partial.checked(masks.label_set, source)
        own, partial = read_partly(masks, partial)
        counts, size = _checked_values(entry.image, entry.mask, reading, own)
        values.append((str(entry.mask), counts))
        pair = FilePair(
            entry.name,
            entry.image,
            entry.mask,
            size,
            reading,
            masks=own,
            group=entry.region or None,
        )
        pairs.append(
            replace(pair, pixel_size=entry.pixel_size or pixel_size(entry.image), partial=partial)
        )
    first = entries[0].mask
    in_color = is_in_color(first, str(first), masks)
    if any(pair.partial for pair in pairs):
        counted = [
            check_masks(source, [value], pair.masks, in_color=in_color, partly=True)[0]
            for value, pair in zip(values, pairs, strict=True)
        ]
    else:
        counted = check_masks(source, values, masks, in_color=in_color)
    for pair, ids in zip(pairs, counted, strict=True):
        _check_listed(pair, ids)
    return [replace(pair, counts=ids) for pair, ids in zip(pairs, counted, strict=True)]


def _check_listed(pair: FilePair, found: Iterable[int]) -> None:
    """Raises `InputError` if a mask shows classes that its manifest does not list as labeled."""
    if pair.partial is None:
        return
    others = sorted(set(found) - {*pair.partial.labeled, pair.partial.no_label, IGNORE_INDEX})
    if others:
        raise InputError(
            f"{pair.mask} holds the ids {others[:8]}, and its manifest says that it labels "
            f"{list(pair.partial.labeled)[:8]}; list them under labeled too, or write {IGNORE_INDEX} in their place"
        )


def read_partly(
    masks: MaskReading, partial: PartialLabels | None
) -> tuple[MaskReading, PartialLabels | None]:
    """The meaning of partly labeled masks, and their labeled classes.

    Ignored values may hide a labeled class. They are therefore read differently from pixels without a label, if these
    are certainly none of the labeled classes.

    Args:
        masks: The meaning of completely labeled masks.
        partial: The labeled classes; None for all.
    """
    if partial is None or not partial.complete or not masks.classes.ignored:
        return masks, partial
    marked = replace(partial, is_marked=True)
    return replace(masks, no_label=marked.no_label), marked


def unlabeled_image(path: Path, reading: Reading) -> FilePair:
    """An image whose labels are all 255."""
    return FilePair(
        path.stem, path, None, image_size(path, str(path), reading), reading, pixel_size(path)
    )


def _image_folder(root: Path, labeled: bool) -> Path:
    """The folder of the images; raises `InputError` if it or the folder of the masks is missing."""
    images = root / "images"
    if not labeled:
        if images.is_dir():
            return images
        if not root.is_dir():
            raise InputError(f"{root} is not a folder; name one that holds images")
        return root
    for folder in (images, root / "masks"):
        if not folder.is_dir():
            raise InputError(
                f"{root} holds no folder '{folder.name}'; a data folder holds images/NAME.jpg (.png, .tif) and "
                "masks/NAME.png"
            )
    return images


def _image_files(folder: Path, pattern: str) -> list[Path]:
    """Image files whose name without ending matches, in the order of their names."""
    files = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    files = [path for path in files if fnmatch(path.stem, pattern)]
    if not files:
        raise InputError(
            f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)}) whose name matches '{pattern}'"
        )
    return sorted(files, key=lambda path: (path.stem, path.suffix))


def _mask_of(image: Path, folder: Path) -> Path:
    """The one mask of an image."""
    candidates = [folder / f"{image.stem}{suffix}" for suffix in MASK_SUFFIXES]
    found = [path for path in candidates if path.is_file()]
    if not found:
        raise InputError(f"{image} has no mask; {candidates[0]} (or .tif) is missing")
    if len(found) > 1:
        raise InputError(
            f"{image} has the masks {found[0].name} and {found[1].name}; keep one of them"
        )
    return found[0]


def _checked_values(
    image: Path, mask: Path, reading: Reading, masks: MaskReading
) -> tuple[np.ndarray, tuple[int, int]]:
    """(256,) pixels of every value of a mask that fits its image, and the (height, width) of both."""
    size = image_size(image, str(image), reading)
    counts, mask_size = mask_counts(mask, str(mask), masks)
    check_fit(image, size, mask, mask_size)
    check_palette(str(mask), mask_palette(mask, str(mask)), np.flatnonzero(counts).tolist(), masks)
    return counts, size


def check_fit(image: Path, size: tuple[int, int], mask: Path, mask_size: tuple[int, int]) -> None:
    """Raises `InputError` if image and mask have different (height, width) or georeferences."""
    if mask_size != size:
        raise InputError(
            f"{image} is {size[1]}x{size[0]} pixels and {mask} is {mask_size[1]}x{mask_size[0]}; "
            "an image and its mask must have the same size"
        )
    grid, other = raster_grid(image), raster_grid(mask)
    if grid is None or other is None:
        return
    shift = grid.distance_to(other)
    if shift is not None and shift > LARGEST_SHIFT:
        raise InputError(
            f"{image} and {mask} lie {shift:.3g} pixels apart by their georeference; warp the mask to the image's grid"
        )
