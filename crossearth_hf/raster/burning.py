"""Shapes burned into label maps: a pixel belongs to the shape that holds its center, and the last one wins."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from affine import Affine
from rasterio.features import rasterize


def burn(shapes: Iterable[tuple[Any, int]], canvas: np.ndarray, transform: Affine) -> np.ndarray:
    """Burns shapes into a label map in their order.

    Args:
        shapes: Polygons, as shapely or GeoJSON has them, with the value of each.
        canvas: (H, W) uint8, which is changed.
        transform: From (column, row) of the canvas to the coordinates of the shapes.

    Returns:
        The canvas.
    """
    pairs = list(shapes)
    if pairs:  # rasterio refuses an empty list
        rasterize(pairs, out=canvas, transform=transform)
    return canvas
