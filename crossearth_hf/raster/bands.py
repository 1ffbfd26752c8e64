"""The bands of a raster that become a model's channels; transparency and palettes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp

from ..errors import InputError
from .band_names import rgb_by_name


def choose_bands(
    source: Any, bands: Sequence[int] | None, num_channels: int, alpha: int | None = None
) -> list[int]:
    """Numbers of the bands that become a model's channels.

    The requested bands come first; a single one may be used as gray. Otherwise, for three channels: the bands that are
    red, green and blue by name or else by color interpretation, or else the first three, or the first one. For more
    channels: the first bands in order. Transparency is used only if requested.

    Args:
        source: An open rasterio dataset.
        bands: Requested numbers, counted from 1.
        num_channels: Channels of the model, 3 or more.
        alpha: The band with transparency; other bands that are marked as such are data.

    Raises:
        InputError: The band numbers do not fit, there are too few bands, or a band holds complex numbers.
    """
    colors = [band for band in range(1, source.count + 1) if band != alpha]
    if bands is not None:
        chosen = list(bands)
        _check_choice(source, chosen, num_channels)
    elif not colors:
        raise InputError(
            f"{source.name} has only transparency; give a raster with at least one color band"
        )
    elif num_channels > 3:
        chosen = colors[:num_channels]
        _check_count(source, len(chosen), num_channels, alpha)
    else:
        if len(colors) >= 3:
            first = colors[:3]
        else:
            first = colors[:1]
        chosen = rgb_by_name(source) or _rgb_by_mark(source) or first
    for band in chosen:
        if source.dtypes[band - 1].startswith("complex"):  # numpy has no "complex_int16"
            raise InputError(
                f"band {band} of {source.name} holds complex numbers; convert it to amplitudes first"
            )
    return chosen


def _rgb_by_mark(source: Any) -> list[int] | None:
    """Numbers of the bands that are marked as red, green and blue, if there is one of each."""
    roles = source.colorinterp
    marked = [
        role for role in (ColorInterp.red, ColorInterp.green, ColorInterp.blue) if role in roles
    ]
    if len(marked) == 3:
        return [roles.index(role) + 1 for role in marked]
    return None


def _check_choice(source: Any, bands: list[int], num_channels: int) -> None:
    """Refuses band numbers that do not exist, or whose count differs from the channels."""
    fits = len(bands) == num_channels or (len(bands) == 1 and num_channels == 3)
    if fits and all(1 <= band <= source.count for band in bands):
        return
    refused, last = f"bands {','.join(map(str, bands))} do not fit {source.name}", source.count
    if num_channels == 3:
        if last > 2:
            example = "1,2,3"
        else:
            example = "1"
        raise InputError(
            f"{refused}; give one or three numbers from 1 to {last}, such as {example}"
        )
    if num_channels <= last:
        remedy = f"give {num_channels} numbers from 1 to {last}"
    else:
        remedy = "give a raster with all of them"
    raise InputError(
        f"{refused}, which has {last} bands, and a model of {num_channels} channels; {remedy}"
    )


def _check_count(source: Any, count: int, num_channels: int, alpha: int | None) -> None:
    """Refuses a raster with fewer color bands than a model has channels."""
    if count == num_channels:
        return
    remedy = f"give a raster with {num_channels} bands, or use a model of 3 channels"
    if alpha is not None and source.count >= num_channels:
        numbers = ",".join(map(str, range(1, num_channels + 1)))
        remedy = (
            f"band {alpha} is marked as transparency: if it holds data, choose the bands {numbers}"
        )
    raise InputError(
        f"{source.name} has {count} bands of data, but the model takes {num_channels} channels; {remedy}"
    )


def alpha_band(source: Any) -> int | None:
    """Number of the band that is marked as transparency, or None."""
    if ColorInterp.alpha in source.colorinterp:
        return source.colorinterp.index(ColorInterp.alpha) + 1
    return None


def palette_of(source: Any, bands: list[int]) -> np.ndarray | None:
    """(65536, 4) uint8 RGBA of a single palette band, else None."""
    if len(bands) > 1 or source.colorinterp[bands[0] - 1] != ColorInterp.palette:
        return None
    palette = np.zeros((65536, 4), dtype=np.uint8)
    for value, color in source.colormap(bands[0]).items():
        palette[value] = color
    return palette
