"""Masks of several bands and masks with a color table: converts colors, or one band per class, to classes.

A mask of three bands shows the classes in their colors. A mask with as many bands as classes holds a band for each
class, 0 where a pixel does not have the class. With three classes, three bands are colors only if the classes have
chosen colors.
"""

from collections.abc import Mapping
from typing import NoReturn

import numpy as np

from ..errors import InputError
from ..labels import IGNORE_INDEX, Color
from .class_list import as_hex
from .mask_values import MaskReading, is_ramp

SHOWN = 8
"""Number of colors that a message names."""
BLURRED = 64
"""A mask with this many colors is probably blurred: our choice, more than a person's classes and fewer than the shades
that JPEG makes around one edge."""


def places_of_bands(bands: np.ndarray, name: str, masks: MaskReading) -> np.ndarray:
    """(H, W) uint8: positions of the classes of `masks`, 255 ignored, for a mask of several bands.

    Args:
        bands: (B, H, W) whole numbers, B >= 2: colors, optionally followed by transparency, or a band per class.
        name: Name of the mask.
        masks: Its classes and their colors.

    Raises:
        InputError: The number of bands is wrong, the mask holds fractions or a color of no class, a pixel is set in two
            bands, or mask values are given, which need masks of one band.
    """
    classes = len(masks.classes.classes)
    if bands.dtype.kind not in "iub":
        raise InputError(f"{name} is not a label map; a mask holds whole numbers, not fractions")
    if (
        masks.colors is None
        and len(bands) in (3, 4)
        and classes != len(bands)
        and _is_gray(bands[:3])
    ):
        return bands[0].astype(np.uint8)
    if not (masks.is_plain or masks.counts_only):
        raise InputError(
            f"{name} has {len(bands)} bands, and mask values are for masks of one; leave --mask-values and "
            "--mask-offset out, or write masks of one band"
        )
    is_color = len(bands) in (3, 4) and (masks.colors is not None or classes != len(bands))
    if is_color and not (len(bands) == classes == 4 and _is_one_hot(bands)):
        return _places_of_colors(bands, name, masks)
    if len(bands) == classes:
        return _places_of_one_hot(bands, name, masks)
    raise InputError(
        f"{name} is not a label map of {len(bands)} bands; a mask holds one band of class ids from 0 to 255, three of "
        f"colors, or a band for each of the {classes} classes"
    )


def places_of_palette(
    values: np.ndarray, palette: Mapping[int, Color] | None, name: str, masks: MaskReading
) -> np.ndarray:
    """(H, W) uint8: positions of the classes for a mask of one band with a color table.

    Its values are returned unchanged if there is no color table or its colors do not decide. Raises `InputError` for a
    color of no class.
    """
    if palette is None or not masks.colors_decide or is_ramp(palette):
        return values
    known = _known(masks)
    places = np.full(256, IGNORE_INDEX, dtype=np.uint8)
    for value in np.unique(values).tolist():
        color = palette.get(value, (0, 0, 0))
        if color in known:
            places[value] = known[color]
        elif value != IGNORE_INDEX:
            numbers = ",".join(map(str, range(len(masks.classes.classes))))
            raise InputError(
                f"{name} shows the value {value} in the color {as_hex(color)}, which is that of no class "
                f"({_listed(masks)}); correct the colors of the classes, name it under 'ignored', or add --mask-values "
                f"{numbers} if the values are ids"
            )
    return places[values]


def _known(masks: MaskReading) -> dict[Color, int]:
    """Place of the class of every color, and of ignored ones."""
    ignored = {
        value: masks.ignored_place for value in masks.classes.ignored if not isinstance(value, int)
    }
    return ignored | {color: place for place, color in enumerate(masks.colors or ())}


def _places_of_colors(bands: np.ndarray, name: str, masks: MaskReading) -> np.ndarray:
    codes = _codes(bands[:3])
    hidden = np.zeros(codes.shape, bool)
    if len(bands) == 4:
        hidden = bands[3] == 0
    if masks.colors is None and not hidden.all():
        _refuse_unnamed(codes[~hidden], name)
    known = sorted(
        (red << 16 | green << 8 | blue, place)
        for (red, green, blue), place in _known(masks).items()
    )
    if hidden.all() or not known:
        return np.full(codes.shape, IGNORE_INDEX, dtype=np.uint8)
    keys = np.array([key for key, _ in known])
    places = np.array([place for _, place in known], dtype=np.uint8)
    nearest = np.searchsorted(keys, codes).clip(max=len(keys) - 1)
    unknown = (keys[nearest] != codes) & ~hidden
    if unknown.any():
        _refuse_color(codes[unknown], name, masks)
    return np.where(hidden, np.uint8(IGNORE_INDEX), places[nearest])


def _codes(bands: np.ndarray) -> np.ndarray:
    """(H, W) int64: a number for each color; 16-bit colors stay distinct."""
    red, green, blue = bands.astype(np.int64)
    return red << 16 | green << 8 | blue


def _colors(codes: np.ndarray) -> tuple[list[str], int]:
    """The most frequent colors, and the number of all colors."""
    found, counts = np.unique(codes, return_counts=True)
    first = found[np.argsort(-counts, kind="stable")[:SHOWN]].tolist()
    return [as_hex((code >> 16, code >> 8 & 255, code & 255)) for code in first], len(found)


def _refuse_color(codes: np.ndarray, name: str, masks: MaskReading) -> NoReturn:
    shown, count = _colors(codes)
    colors = f"the color {shown[0]}"
    if count > 1:
        colors = f"{count} colors, such as {shown[0]},"
    if count >= BLURRED:
        raise InputError(
            f"{name} holds {colors} of no class ({_listed(masks)}): so many come from JPEG compression or resampling, "
            "and the nearest class would be a guess at every edge; export the masks as PNG, without smoothing"
        )
    remedy = "give the classes and colors of these masks, as --classes classes.yaml"
    if masks.colors_decide:
        remedy = (
            "add it to the file of classes under 'classes' or 'ignored', or correct a color there"
        )
    raise InputError(
        f"{name} holds {colors} of no class ({_listed(masks)}); {remedy}; a mask of ids has one band"
    )


def _refuse_unnamed(codes: np.ndarray, name: str) -> NoReturn:
    shown, count = _colors(codes)
    if count >= BLURRED:
        raise InputError(
            f"{name} holds {count} colors: it is a picture, or a mask that JPEG or resampling blurred; a mask holds "
            "class ids in one band, or a color for each class, as PNG"
        )
    colors = ", ".join(shown)
    if count > len(shown):
        colors += f" and {count - len(shown)} more"
    raise InputError(
        f"{name} holds colors, {colors}, and the classes have none; write a file classes.yaml with "
        f"'classes:' and a line 'NAME: \"{shown[0]}\"' for each, those without label under 'ignored:', and give it "
        "as --classes classes.yaml"
    )


def _places_of_one_hot(bands: np.ndarray, name: str, masks: MaskReading) -> np.ndarray:
    is_set = bands != 0
    several = is_set.sum(axis=0) > 1
    if several.any():
        first, second = np.flatnonzero(is_set[:, several][:, 0])[:2].tolist()
        names = masks.classes.classes
        raise InputError(
            f"{name} has a band for each of {len(names)} classes, and {several.sum()} pixels are both "
            f"'{names[first]}' and '{names[second]}'; give every pixel one class, or write one band of class ids"
        )
    return np.where(is_set.any(axis=0), is_set.argmax(axis=0), IGNORE_INDEX).astype(np.uint8)


def _is_one_hot(bands: np.ndarray) -> bool:
    return bool(((bands != 0).sum(axis=0) <= 1).all())


def _is_gray(bands: np.ndarray) -> bool:
    return bool((bands == bands[0]).all() and bands.max(initial=0) <= IGNORE_INDEX)


def _listed(masks: MaskReading) -> str:
    pairs = zip(masks.classes.classes, masks.colors or (), strict=True)
    return ", ".join(f"{name} {as_hex(color)}" for name, color in pairs)
