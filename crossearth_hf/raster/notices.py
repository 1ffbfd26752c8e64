"""Sentences about a scene that a person should read before its map is made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from .band_names import band_names, has_meaning, rgb_by_name
from .bands import alpha_band
from .fill import Collar, Fill
from .imagery import flat_classes
from .raw_bands import RawBands

_LEAST_PIXELS = 1024  # in smaller scenes, few values mean nothing
_MOST_OF_A_SCENE = 0.9
_DARK = 32  # none of 900 pictures is this dark
_OTHER_COLOR_MODELS = {
    *(
        ColorInterp.hue,
        ColorInterp.saturation,
        ColorInterp.lightness,
        ColorInterp.Y,
        ColorInterp.Cb,
        ColorInterp.Cr,
    ),
    *(ColorInterp.cyan, ColorInterp.magenta, ColorInterp.yellow, ColorInterp.black),
}


@dataclass(frozen=True)
class Notice:
    """An oddity of a scene.

    Attributes:
        finding: The oddity, and how it is handled.
        remedy: What to add to the command if that is wrong; None if there is no remedy.
    """

    finding: str
    remedy: str | None = None

    def __str__(self) -> str:
        if self.remedy is None:
            return self.finding
        return f"{self.finding}; {self.remedy}"


def describe(raw: RawBands, source: Any) -> str:
    """Bands and their use, type, limits of the stretch and origin of the validity, from an open rasterio dataset."""
    count, kind = len(raw.bands), raw.dtypes[0]
    if raw.has_palette:
        return f"palette as RGB, {kind}, {_validity(raw, source)}"
    shown = {1: "gray", 3: "RGB"}.get(count, f"{count} channels")
    if count == 3 and has_meaning(source, raw.bands) and raw.bands != rgb_by_name(source):
        shown = "the model's red, green and blue"
    text = f"bands {_named(raw.bands, band_names(source))} of {source.count} as {shown}, {kind}"
    if not raw.measured.has_data:
        return f"{text}, no pixel with data"
    if not raw.is_byte:
        limits = zip(raw.measured.low, raw.measured.high, strict=True)
        text += ", stretched from " + ", ".join(f"{low:.6g}..{high:.6g}" for low, high in limits)
    return f"{text}, {_validity(raw, source)}"


def find_notices(raw: RawBands, source: Any, *, bands_were_named: bool) -> list[Notice]:
    """Notices on band names without colors, an alpha band with data, undeclared fill, collars and maps of classes.

    Args:
        raw: The bands that are read.
        source: Their open rasterio dataset.
        bands_were_named: Whether a person chose them.
    """
    classes = _of_classes(raw, source)
    if classes:
        return classes
    fills, collars = _of_fills(raw), _of_collars(raw)
    if fills or collars:
        plateaus = []
    else:
        plateaus = _of_plateau(raw)
    if bands_were_named:
        names = []
    else:
        names = _of_names(raw, source)
    marks, darkness = _of_marks(raw, source), _of_range(raw, source)
    return [*names, *marks, *darkness, *_of_alpha(raw, source), *fills, *collars, *plateaus]


def _of_names(raw: RawBands, source: Any) -> list[Notice]:
    """A notice for three bands with meaningful names that are not red, green and blue, or with nothing to go by."""
    if _are_unknown(raw, source):
        finding = (
            "nothing says which bands are red, green and blue, so the first three are read as such"
        )
        return [
            Notice(
                finding,
                "stacks of Sentinel-2 and Landsat often begin with blue: try --bands 3,2,1",
            )
        ]
    if len(raw.bands) != 3 or not has_meaning(source, raw.bands) or rgb_by_name(source) is not None:
        return []
    named = _named(raw.bands, band_names(source))
    finding = f"the bands {named} are read as red, green and blue in the order of the file"
    return [Notice(finding, "--bands R,G,B changes this")]


def _are_unknown(raw: RawBands, source: Any) -> bool:
    """Whether a stack of more than three bands, as satellites record them, has neither names nor marks of colors."""
    if raw.is_byte or raw.bands != [1, 2, 3] or source.count < 4:
        return False
    has_colors = any(role.name in ("red", "green", "blue") for role in source.colorinterp)
    return not has_colors and not has_meaning(source, range(1, source.count + 1))


def _of_marks(raw: RawBands, source: Any) -> list[Notice]:
    """A notice for bands of another color model, and for gray in which 0 is white."""
    marks = [source.colorinterp[band - 1] for band in raw.bands]
    others = [mark.name for mark in marks if mark in _OTHER_COLOR_MODELS]
    if others:
        finding = (
            f"the bands are marked as {', '.join(others)}, but are read as red, green and blue"
        )
        return [Notice(finding, "convert the scene to RGB first")]
    if source.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
        return [Notice("0 is white in this file, but is read as black", "invert the values first")]
    return []


def _of_range(raw: RawBands, source: Any) -> list[Notice]:
    """A notice for 8-bit pixels that use a small part of their range; none for a tiny scene."""
    if source.height * source.width < _LEAST_PIXELS:
        return []
    brightest = float(raw.measured.high.max())
    if not raw.is_byte or raw.has_palette or brightest >= _DARK:
        return []
    finding = f"98% of the pixels are below {brightest + 1:.0f} of 255, so the model sees a nearly black scene"
    return [Notice(finding, "stretch the values first (gdal_translate -scale)")]


def _named(bands: Sequence[int], names: Sequence[str]) -> str:
    """Numbers of bands, with their names if they have any."""
    if not any(names[band - 1] for band in bands):
        return ",".join(map(str, bands))
    return ", ".join(
        f"{band} ({names[band - 1]})" if names[band - 1] else str(band) for band in bands
    )


def _validity(raw: RawBands, source: Any) -> str:
    """The origin of a scene's mask."""
    flags = {flag for band in raw.bands for flag in source.mask_flag_enums[band - 1]}
    origins = []
    if raw.has_transparent_colors:
        origins.append("transparent colors of the palette")
    if raw.alpha is not None:
        origins.append(f"band {raw.alpha} (alpha)")
    if MaskFlags.nodata in flags:
        values = dict.fromkeys(source.nodatavals[band - 1] for band in raw.bands)
        origins.append("nodata " + ", ".join(f"{value:g}" for value in values if value is not None))
    if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        origins.append("the file's mask")
    if raw.nodata:
        origins.append("nodata " + ", ".join(f"{value:g}" for value in raw.nodata) + " as given")
    found = dict.fromkeys(fill.value for fill in raw.certain_fills)
    if found:
        origins.append("undeclared fill " + ", ".join(f"{value:.9g}" for value in found))
    if origins:
        return f"validity from {' and '.join(origins)}"
    return "all pixels valid"


def _of_alpha(raw: RawBands, source: Any) -> list[Notice]:
    alpha = alpha_band(source)
    if alpha is None or alpha == raw.alpha or alpha in raw.bands:
        return []
    return [
        Notice(
            f"band {alpha} is marked as transparency, but has many values like data, so it hides no pixel"
        )
    ]


def _of_fills(raw: RawBands) -> list[Notice]:
    by_value: dict[tuple[float, bool], list[Fill]] = {}
    for fill in raw.fills:
        by_value.setdefault((fill.value, fill.certain), []).append(fill)
    return [_of_fill(raw, value, certain, group) for (value, certain), group in by_value.items()]


def _of_fill(raw: RawBands, value: float, certain: bool, fills: Sequence[Fill]) -> Notice:
    numbers = [str(raw.bands[fill.band]) for fill in fills]
    where = f"band{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
    share = max(fill.share for fill in fills)
    held = f"{share:.1%} of the pixels of {where} have the value {value:.9g}, far from all others"
    if certain:
        return Notice(f"{held}, which is treated as no data", "--nodata none keeps it as data")
    return Notice(f"{held}, which is treated as data", _leave_out(raw, value))


def _of_collars(raw: RawBands) -> list[Notice]:
    return [
        Notice(
            f"a {collar.color} region at the border covers {collar.share:.1%} of the scene and is mapped like the rest",
            _collar_remedy(raw, collar),
        )
        for collar in raw.measured.collars
        if collar.share < _MOST_OF_A_SCENE
    ]


def _collar_remedy(raw: RawBands, collar: Collar) -> str:
    if collar.values:
        return _leave_out(raw, *collar.values)
    return f"GDAL's nearblack -setmask{' -white' if collar.color == 'white' else ''} leaves it out"


def _of_plateau(raw: RawBands) -> list[Notice]:
    plateau = raw.measured.plateau
    if plateau is None:
        return []
    finding = f"{plateau.share:.1%} of the pixels have the value {plateau.value:.9g} in flat regions, treated as data"
    return [Notice(finding, _leave_out(raw, plateau.value))]


def _leave_out(raw: RawBands, *values: float) -> str:
    """The flag that excludes these values and those excluded already, because naming any ends the search for fill."""
    found = [fill.value for fill in raw.certain_fills]
    all_values = dict.fromkeys([*(raw.nodata or ()), *found, *values])
    return f"--nodata={','.join(f'{value:.9g}' for value in all_values)} leaves it out"


def _of_classes(raw: RawBands, source: Any) -> list[Notice]:
    """A notice for whole numbers with few values, or colors, in flat regions; none for a tiny scene."""
    is_tiny = source.height * source.width < _LEAST_PIXELS
    if is_tiny or raw.has_palette or (len(raw.bands) > 1 and not raw.is_byte):
        return []

    def read(window: Window, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        values, masks = raw.read(window, shape)
        return _colors(values), np.any(masks, axis=0)

    classes = flat_classes(read, source.height, source.width, fewest=1)
    if classes is None or not raw.measured.has_data:
        return []
    if classes == 1:
        return [Notice("all pixels of the scene have the same value")]
    if len(raw.bands) == 1:
        kind = "values"
    else:
        kind = "colors"
    finding = f"the scene has {classes} {kind} in flat regions, like a map of classes"
    return [Notice(f"{finding}, but is mapped as imagery")]


def _colors(values: np.ndarray) -> np.ndarray:
    """(H, W) numbers that differ for different colors of (bands, H, W) pixels; the values of a single band."""
    if len(values) == 1:
        return values[0]
    weights = 256 ** np.arange(len(values), dtype=np.uint64)
    return np.tensordot(weights, values.astype(np.uint64), axes=1)
