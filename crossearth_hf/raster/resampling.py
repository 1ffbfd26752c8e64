"""Windows of a scene at another pixel size, by GDAL's warper, with each band weighted by its mask."""

from collections.abc import Callable

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject

_SOURCE_SIDE = (
    2048  # pixels per side read at once, which limits memory if pixels become much larger
)
_OPAQUE = 255
_NOWHERE = CRS.from_epsg(3857)  # any CRS: both grids are in pixels of the file

_TYPES = (
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "float32",
)  # types of the warper; others become float64

ReadBands = Callable[[int, int, int, int], tuple[np.ndarray, np.ndarray]]
"""Values (bands, h, w) and masks (bands, h, w) bool of the file at (row, col, h, w)."""


def read_resampled(
    read: ReadBands,
    size: tuple[int, int],
    scale: tuple[float, float],
    window: tuple[int, int, int, int],
    *,
    nearest: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """A window of the grid that starts at the file's corner and has pixels `scale` times as large.

    Bilinear; where pixels grow, over all pixels below. In each band only pixels with data count, and there is data
    where at least one of them counts.

    Args:
        read: Reads the file, at most about 2048 x 2048 pixels at once.
        size: Height and width of the file.
        scale: Pixels of the file per pixel of the result, down and across.
        window: Row, column, height and width in the result's grid.
        nearest: Nearest neighbors in place of bilinear.

    Returns:
        (bands, height, width) values and bool.
    """
    row, col, height, width = window
    steps = [max(1, int(_SOURCE_SIDE / factor)) for factor in scale]
    rows = []
    for top in range(row, row + height, steps[0]):
        blocks = []
        for left in range(col, col + width, steps[1]):
            place = top, left, min(steps[0], row + height - top), min(steps[1], col + width - left)
            blocks.append(_block(read, size, scale, place, nearest))
        rows.append(np.concatenate(blocks, axis=3))
    values, alpha = np.concatenate(rows, axis=2)
    return values, alpha > 0


def _block(
    read: ReadBands,
    size: tuple[int, int],
    scale: tuple[float, float],
    place: tuple[int, int, int, int],
    nearest: bool,
) -> np.ndarray:
    """(2, bands, height, width) of a piece of the new grid: values, and numbers above 0 where there is data."""
    starts, ends = place[:2], (place[0] + place[2], place[1] + place[3])
    margins = [int(np.ceil(factor)) + 2 for factor in scale]  # the kernel's reach
    first = [
        max(0, int(start * f) - margin)
        for start, f, margin in zip(starts, scale, margins, strict=True)
    ]
    last = [
        min(n, int(np.ceil(end * f)) + m)
        for n, end, f, m in zip(size, ends, scale, margins, strict=True)
    ]
    values, masks = read(first[0], first[1], last[0] - first[0], last[1] - first[1])
    # The last pixels of the new grid may extend over the file's edge, where GDAL has no data beyond half a pixel.
    over = [max(0, int(np.ceil(end * f)) - n) for n, end, f in zip(size, ends, scale, strict=True)]
    values, masks = (
        np.pad(part, [(0, 0), (0, over[0]), (0, over[1])], mode="edge") for part in (values, masks)
    )
    kind = values.dtype if values.dtype.name in _TYPES else np.float64
    target = np.zeros((2, len(values), *place[2:]), dtype=kind)
    for band, (pixels, mask) in enumerate(zip(values, masks, strict=True)):
        resampled = np.zeros((2, *place[2:]), dtype=kind)
        reproject(
            np.stack([np.where(mask, pixels, 0), np.where(mask, _OPAQUE, 0)]).astype(kind),
            resampled,
            src_transform=Affine(1, 0, first[1], 0, 1, first[0]),
            dst_transform=Affine(
                scale[1], 0, starts[1] * scale[1], 0, scale[0], starts[0] * scale[0]
            ),
            src_crs=_NOWHERE,
            dst_crs=_NOWHERE,
            src_alpha=2,
            dst_alpha=2,
            resampling=Resampling.nearest if nearest else Resampling.bilinear,
            tolerance=0,
            # otherwise GDAL derives them from the window's size, and windows would differ
            XSCALE=1 / scale[1],
            YSCALE=1 / scale[0],
            SRC_ALPHA_MAX=str(_OPAQUE),
            DST_ALPHA_MAX=str(_OPAQUE),
        )
        target[:, band] = resampled
    return target
