"""Which bands are red, green and blue by what they are called."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasters import write_raster

from crossearth_hf.raster.scene import Scene

RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
SENTINEL = ["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12"]
PLANET = ["coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"]
WORLDVIEW = ["Coastal", "Blue", "Green", "Yellow", "Red", "Red Edge", "NIR1", "NIR2"]


def write(path, names, roles=(), tags=None):
    pixels = (
        np.full((len(names), 8, 9), 7, np.uint8)
        + np.arange(len(names), dtype=np.uint8)[:, None, None]
    )
    roles = roles or (ColorInterp.undefined,) * len(names)
    write_raster(path, pixels, roles=roles)
    with rasterio.open(path, "r+") as target:
        for band, name in enumerate(names, 1):
            target.set_band_description(band, name)
            if tags:
                target.update_tags(band, **{tags[0]: tags[1][band - 1]})
    return path


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        (["blue", "green", "red"], [3, 2, 1]),
        (["b", "g", "r"], [3, 2, 1]),
        (["Blau", "Grün", "Rot", "NIR"], [3, 2, 1]),
        (["bleu", "vert", "rouge"], [3, 2, 1]),
        (["BLUE", "GREEN", "RED", "NIR"], [3, 2, 1]),
        (["B2", "B3", "B4"], [3, 2, 1]),
        (["B02", "B03", "B04", "B08"], [3, 2, 1]),
        (["B4", "B3", "B2"], [1, 2, 3]),
        (SENTINEL, [4, 3, 2]),
        ([f"SR_B{n}" for n in range(1, 8)], [4, 3, 2]),
        (["SR_B2", "SR_B3", "SR_B4"], [3, 2, 1]),
        (["Band 2 - Blue", "Band 3 - Green", "Band 4 - Red"], [3, 2, 1]),
        (PLANET, [6, 4, 2]),
        (WORLDVIEW, [5, 3, 2]),
        (["Vegetation red edge", "Red (665 nm)", "Green (560 nm)", "Blue (490 nm)"], [2, 3, 4]),
        (["nir", "RedEdge", "red", "green", "blue"], [3, 4, 5]),
        (["443 nm", "490 nm", "560 nm", "665 nm", "842 nm"], [4, 3, 2]),
        (["Oa04_radiance", "Oa06_radiance", "Oa08_radiance", "Oa17_radiance"], [3, 2, 1]),
        ([f"sur_refl_b{n:02}" for n in range(1, 8)], [1, 4, 3]),
        # What tells nothing leaves the order of the file.
        (["Band 1", "Band 2", "Band 3", "Band 4"], [1, 2, 3]),
        (["B1", "B2", "B3"], [1, 2, 3]),  # blue, green, red of old Landsats, or numbers
        (["B1", "B2", "B3", "B4"], [1, 2, 3]),
    ],
)
def test_names_decide(tmp_path, names, bands):
    with Scene(write(tmp_path / "a.tif", names)) as scene:
        assert scene.bands == bands
        pixels = scene.read(0, 0, 8, 9).pixels
        summary = scene.summary()
    assert pixels[:, 0, 0].tolist() == [6 + band for band in bands]
    assert (
        f"bands {', '.join(f'{band} ({names[band - 1]})' for band in bands)} of {len(names)} as RGB"
        in summary
    )


@pytest.mark.parametrize(
    "names", [("NIR", "Red", "Green"), ("rot", "blau", "gelb"), ("red", "red", "green", "blue")]
)
def test_names_that_do_not_tell_red_green_and_blue_are_told(tmp_path, names):
    pixels = np.random.default_rng(0).integers(20, 230, (len(names), 40, 50), dtype=np.uint8)
    path = write_raster(tmp_path / "a.tif", pixels)
    with rasterio.open(path, "r+") as target:
        target.descriptions = names
    with Scene(path) as scene:
        assert scene.bands == [1, 2, 3]
        assert "as the model's red, green and blue" in scene.summary()
        notice = str(scene.notices()[0])
    assert notice.endswith(
        "are read as red, green and blue in the order of the file; --bands R,G,B changes this"
    )
    with Scene(path, bands=[1, 2, 3]) as scene:
        assert "names others" not in "".join(map(str, scene.notices()))


def test_names_beat_marks_and_a_choice_beats_names(tmp_path):
    path = write(tmp_path / "a.tif", ["Blue", "Green", "Red"], RGB)
    with Scene(path) as scene:
        assert scene.bands == [3, 2, 1]
    with Scene(path, bands=[1, 2, 3]) as scene:
        assert scene.bands == [1, 2, 3]


def test_marks_decide_where_names_do_not(tmp_path):
    with Scene(write(tmp_path / "a.tif", ["x", "y", "z"], RGB[::-1])) as scene:
        assert scene.bands == [3, 2, 1]


@pytest.mark.parametrize(
    "tags",
    [
        ("BAND_NAME", ["blue", "green", "red"]),
        ("common_name", ["blue", "green", "red"]),
        ("wavelength", ["492.4 nm", "559.8", "664.6"]),
        ("CENTRAL_WAVELENGTH_UM", ["0.49", "0.56", "0.66"]),
    ],
)
def test_tags_of_bands(tmp_path, tags):
    with Scene(write(tmp_path / "a.tif", ["", "", ""], tags=tags)) as scene:
        assert scene.bands == [3, 2, 1]


def test_more_channels_keep_the_order_of_the_file(tmp_path):
    with Scene(write(tmp_path / "a.tif", ["blue", "green", "red", "nir"]), num_channels=4) as scene:
        assert scene.bands == [1, 2, 3, 4]
        assert "bands 1 (blue), 2 (green), 3 (red), 4 (nir) of 4 as 4 channels" in scene.summary()
