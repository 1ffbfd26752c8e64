"""Rasters that are not imagery: maps of this package, and palettes of classes; pictures with a palette stay."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasters import write_raster

from crossearth_hf.data.image_files import read_mask
from crossearth_hf.errors import InputError
from crossearth_hf.labels import get_label_set
from crossearth_hf.raster.imagery import OwnOutput
from crossearth_hf.raster.scene import Scene
from crossearth_hf.raster.writing import write_geotiff

PLACE = Affine(1, 0, 5e5, 0, -1, 5e6)
COLORS = {n: (n * 20, 255 - n * 20, n * 9, 255) for n in range(12)}


@pytest.fixture
def regions():
    """(1, 90, 120) of five classes in fields of 15 pixels."""
    return np.kron(np.random.default_rng(0).integers(1, 6, (6, 8)), np.ones((15, 15)))[None].astype(
        np.uint8
    )


def paint(path, values, colors=COLORS):
    write_raster(path, values)
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=90, width=120, dtype="uint8"
    ) as target:
        target.write_colormap(1, colors)
        target.write(values)
    return path


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_palette_of_few_flat_values_is_no_picture_unless_a_person_says_so(tmp_path, regions):
    path = paint(tmp_path / "a.tif", regions)
    with pytest.raises(
        InputError,
        match=r"uses 5 colors of its color table in flat regions.* add --palette-as-image",
    ):
        Scene(path)
    with Scene(path, palette_as_image=True) as scene:
        np.testing.assert_array_equal(scene.read(0, 0, 90, 120).pixels[0], regions[0] * 20)
    np.testing.assert_array_equal(read_mask(path, "a"), regions[0])  # as a mask it is welcome


def test_a_picture_with_a_palette_is_mapped(tmp_path, shared):
    photo = Image.open(shared / "data" / "dubai" / "images" / "tile2_part005.jpg").crop(
        (0, 0, 300, 300)
    )
    for colors in (256, 32, 16):
        for name in ("a.png", "a.gif"):
            photo.quantize(colors, dither=Image.Dither.NONE).save(tmp_path / name)
            with Scene(tmp_path / name) as scene:
                assert scene.read(0, 0, 300, 300).valid.all()


def test_the_land_cover_among_the_real_scenes(shared):
    with pytest.raises(InputError, match="uses 11 colors"):
        Scene(shared / "data" / "geotiff" / "riotiler_cog_cmap.tif")


def test_ids_without_a_palette_are_mapped_with_a_word(tmp_path, regions):
    with Scene(write_raster(tmp_path / "a.tif", regions * 10)) as scene:
        (notice,) = scene.notices()
    assert "5 values in flat regions, like a map of classes" in str(notice)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_scene_of_one_value_is_told(tmp_path, dtype):
    with Scene(write_raster(tmp_path / "a.tif", np.full((1, 40, 50), 7, dtype))) as scene:
        assert list(map(str, scene.notices())) == ["all pixels of the scene have the same value"]
    with Scene(write_raster(tmp_path / "b.tif", np.full((1, 1, 1), 7, dtype))) as scene:
        assert scene.notices() == []


def test_a_picture_of_few_flat_colors_is_mapped_with_a_word(tmp_path, regions):
    colors = np.random.default_rng(1).integers(0, 256, (3, 6), dtype=np.uint8)
    with Scene(write_raster(tmp_path / "a.tif", colors[:, regions[0]])) as scene:
        (notice,) = scene.notices()
    assert "5 colors in flat regions, like a map of classes" in str(notice)


def test_our_own_labels_are_known(tmp_path, regions):
    path = tmp_path / "a.tif"
    write_geotiff(
        path, regions - 1, crs="EPSG:32632", transform=PLACE, label_set=get_label_set("land-cover")
    )
    with pytest.raises(OwnOutput, match=r"a.tif holds a map of this package, not imagery"):
        Scene(path)
    np.testing.assert_array_equal(read_mask(path, "a"), regions[0] - 1)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_maps_of_older_releases_are_known(tmp_path, regions):
    path = paint(tmp_path / "map.tif", regions)
    with rasterio.open(path, "r+") as target:
        target.set_band_description(1, "class")
        target.update_tags(1, CLASS_0="road")
    shares = write_raster(
        tmp_path / "sure.tif", np.random.rand(1, 20, 20).astype(np.float32), nodata=np.nan
    )
    with rasterio.open(shares, "r+") as target:
        target.set_band_description(1, "confidence")
    for result in (path, shares):
        with pytest.raises(OwnOutput, match="of this package"):
            Scene(result)
