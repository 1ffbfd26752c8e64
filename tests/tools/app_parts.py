"""What the app's tests share: a stand-in for the network, and scenes whose map is known."""

import numpy as np
import rasterio
from affine import Affine
from stub_model import ColorModel

from crossearth_hf import CrossEarthImageProcessor
from crossearth_hf.raster.writing import write_geotiff

PLACE = Affine(2, 0, 499_000, 0, -2, 5_000_000)
CRS = "EPSG:32632"


def stub_model(trained_at=None, model=None):
    """A model and its processor as `load_model` gives them."""
    network = model or ColorModel()
    network.config.ground_sampling_distance = trained_at
    return network, CrossEarthImageProcessor()


def patches(seed=0, height=160, width=200, side=40):
    """(3, H, W) uint8 of pure red, green and blue patches, and (H, W) the classes that `ColorModel` gives them."""
    ids = np.kron(
        np.random.default_rng(seed).integers(0, 3, (height // side, width // side)),
        np.ones((side, side), int),
    )
    return np.where(np.arange(3)[:, None, None] == ids, 230, 20).astype(np.uint8), ids


def write_patches(path, seed=0, **options):
    """Writes a scene of patches in UTM; returns its classes."""
    pixels, ids = patches(seed)
    write_geotiff(path, pixels, **({"crs": CRS, "transform": PLACE} | options))
    return ids


def read_map(path):
    """The class ids of a map."""
    with rasterio.open(path) as source:
        return source.read(1)
