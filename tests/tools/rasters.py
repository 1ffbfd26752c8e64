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
    crs: str | None = "EPSG:32632",
    roles: tuple[ColorInterp, ...] = (),
    **profile: object,
) -> Path:
    """Writes (C, H, W) `pixels`; without a place if `transform` is None and there are no ground control points."""
    count, height, width = pixels.shape
    if transform is not None:
        place = {"crs": crs, "transform": transform}
    elif "gcps" in profile:
        place = {"crs": crs}
    else:
        place = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path,
            "w",
            driver=driver,
            count=count,
            height=height,
            width=width,
            dtype=pixels.dtype,
            **place,
            **profile,
        ) as target:
            if roles:
                target.colorinterp = roles
            target.write(pixels)
    return path


def with_legend(name):
    """Names of a map and of the files beside it that name its classes, sorted."""
    return sorted([name, f"{name}.aux.xml", f"{name.rsplit('.', 1)[0]}.qml"])


def read_shares(path):
    """(bands, H, W) values as GDAL's metadata mean them, NaN without data."""
    with rasterio.open(path) as source:
        scales = np.array(source.scales)[:, None, None]
        return np.ma.filled(source.read(masked=True).astype(float) * scales, np.nan)
