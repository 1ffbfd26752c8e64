"""Versions of a scene in other styles and bands, on the page."""

import re

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pyogrio")
pytest.importorskip("shapely")

from app_parts import patches, stub_model, write_patches
from rasters import write_raster

from crossearth_hf.app import pages
from crossearth_hf.app.pictures import save_version
from crossearth_hf.app.shift import compare_versions, infrared_scene
from crossearth_hf.errors import InputError
from crossearth_hf.labels import LabelSet
from crossearth_hf.model.earth_style import EarthStyle
from crossearth_hf.raster.scene import Scene

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(scope="module")
def style():
    return EarthStyle.from_file()


def versions(path, style, infrared=False, **options):
    with Scene(path) as scene:
        settings = {"alpha": 1.0, "mask_ratio": 1.0, "seed": 3} | options
        extra = infrared_scene(scene) if infrared else None
        found = compare_versions(scene, *stub_model(), style, infrared=extra, **settings)
        if extra is not None:
            extra.close()
    return found


def test_versions_of_a_scene(tmp_path, style):
    pixels, ids = patches()
    write_raster(
        tmp_path / "s.tif",
        np.concatenate([pixels, pixels[2:]]),
        photometric="RGB",
        alpha="unspecified",
    )
    original, styled = versions(tmp_path / "s.tif", style)
    np.testing.assert_array_equal(original.labels, ids)
    assert original.agreement is None
    assert styled.agreement == (styled.labels == ids).mean() < 1
    assert np.abs(styled.raster.pixels.astype(int) - pixels).mean() > 5
    again = versions(tmp_path / "s.tif", style)
    np.testing.assert_array_equal(again[1].raster.pixels, styled.raster.pixels)
    other = versions(tmp_path / "s.tif", style, seed=4)
    assert (other[1].raster.pixels != styled.raster.pixels).any()
    untouched = versions(tmp_path / "s.tif", style, mask_ratio=0.0)
    assert untouched[1].agreement == 1.0
    infrared = versions(tmp_path / "s.tif", style, infrared=True, mask_ratio=0.0)
    assert infrared[1].title == "In near infrared, red and green"
    # its band 4 equals its band 3
    np.testing.assert_array_equal(infrared[1].raster.pixels, pixels[[2, 0, 1]])
    np.testing.assert_array_equal(infrared[2].raster.pixels, pixels[[2, 0, 1]])


def test_version_cards(tmp_path, folder, style):
    pixels, ids = patches()
    write_raster(tmp_path / "s.tif", pixels)
    found = versions(tmp_path / "s.tif", style)
    label_set = LabelSet(
        "custom", ("red", "green", "blue"), ((200, 0, 0), (0, 200, 0), (0, 0, 200))
    )
    files = [
        save_version(v.raster, v.labels, ids, label_set, folder, i) for i, v in enumerate(found)
    ]
    html = pages.version_cards(found, files, label_set)
    assert html.count("<figure>") == 3
    assert re.findall("<h3>(.*?)</h3>", html) == [
        "As it was taken",
        "As another sensor might show it",
        "What changes in the map",
    ]
    assert html.count("<img") == 5
    assert all(alt for alt in re.findall(r"alt='(.*?)'", html))
    assert f"{found[1].agreement:.1%}".replace("%", " %") in html
    changed = np.asarray(Image.open(files[1][2]))[..., :3].max(axis=2) == 200
    np.testing.assert_array_equal(changed, found[1].labels != ids)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"alpha": 2.0}, "alpha 2.0"),
        ({"seed": -1}, "non-negative"),
        ({"infrared": True}, "needs a fourth band"),
    ],
)
def test_versions_that_cannot_be(tmp_path, style, options, sentence):
    write_patches(tmp_path / "s.tif")
    with pytest.raises(InputError, match=sentence):
        versions(tmp_path / "s.tif", style, **options)


def test_a_model_of_four_bands_has_no_styles(tmp_path, style):
    write_patches(tmp_path / "s.tif")
    network, processor = stub_model()
    network.config.num_channels = 4
    with (
        Scene(tmp_path / "s.tif") as scene,
        pytest.raises(InputError, match="this model takes 4 bands"),
    ):
        compare_versions(scene, network, processor, style, alpha=1.0, mask_ratio=1.0, seed=3)


def test_scenes_too_small_or_empty_for_a_style(tmp_path, style):
    write_raster(tmp_path / "small.tif", np.ones((3, 20, 90), np.uint8))
    write_raster(tmp_path / "empty.tif", np.zeros((3, 90, 90), np.uint8), nodata=0)
    with pytest.raises(InputError, match="90 x 20 pixels"):
        versions(tmp_path / "small.tif", style)
    with pytest.raises(InputError, match="no pixel with data"):
        versions(tmp_path / "empty.tif", style)
