"""Rasters for tests, written by rasterio itself."""

import warnings
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

PLACE = Affine(0.5, 0, 5e5, 0, -0.5, 5e6)


def write_raster(
    path: Path,
    pixels: np.ndarray,
    *,
    driver: str = "GTiff",
    transform: Affine | None = PLACE,
    roles: tuple[ColorInterp, ...] = (),
    **profile: object,
) -> Path:
    """Writes (C, H, W) `pixels`; in UTM unless `transform` is None."""
    count, height, width = pixels.shape
    place = {} if transform is None else {"crs": "EPSG:32632", "transform": transform}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver=driver, count=count, height=height, width=width, dtype=pixels.dtype, **place, **profile
        ) as target:
            if roles:
                target.colorinterp = roles
            target.write(pixels)
    return path
