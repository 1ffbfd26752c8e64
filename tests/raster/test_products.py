"""Archives, Sentinel-2 folders and stacks of satellites: what is read, and what a person is told."""

import zipfile

import numpy as np
import pytest
import rasterio
from rasters import write_raster

from crossearth_hf.errors import InputError
from crossearth_hf.raster.products import finest, raster_of
from crossearth_hf.raster.scene import Scene


def test_an_archive_says_how_to_name_its_raster(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (3, 40, 50), dtype=np.uint8)
    write_raster(tmp_path / "a.tif", pixels)
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        archive.write(tmp_path / "a.tif", "north/a.tif")
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match="is an archive; unpack it") as caught:
        Scene(tmp_path / "one.zip")
    named = str(caught.value).rsplit(": ", 1)[1]
    with Scene(named) as scene:
        np.testing.assert_array_equal(scene.read(0, 0, 40, 50).pixels, pixels)
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match="archive without a raster"):
        Scene(tmp_path / "none.zip")


def test_folders_of_sentinel_2(tmp_path):
    folder = tmp_path / "S2A_MSIL2A.SAFE"
    folder.mkdir()
    with pytest.raises(InputError, match="the Sentinel-2 product is incomplete"):
        Scene(folder)
    names = [
        f"SENTINEL2_L2A:{folder}/MTD_MSIL2A.xml:{part}:EPSG_32632"
        for part in ("10m", "20m", "60m", "TCI")
    ]
    assert finest(str(folder), names) == names[0]
    with pytest.raises(InputError, match="has 0 subdatasets of 10 m; name one of SENTINEL2_L2A"):
        finest(str(folder), names[1:])
    (folder / "MTD_MSIL2A.xml").write_text("<a/>")
    with pytest.raises(InputError, match="cannot be read by GDAL's driver SENTINEL2"):
        Scene(folder)
    assert raster_of("a.tif") == "a.tif"


def test_scale_and_offset_of_reflectance_change_no_pixel(tmp_path):
    """The stretch between percentiles is the same for digital numbers and for the reflectance that they stand for."""
    numbers = np.random.default_rng(0).integers(1000, 9000, (3, 60, 70), dtype=np.uint16)
    write_raster(tmp_path / "numbers.tif", numbers)
    write_raster(tmp_path / "scaled.tif", numbers)
    with rasterio.open(tmp_path / "scaled.tif", "r+") as target:  # as Sentinel-2 since 2022
        target.scales, target.offsets = (0.0001,) * 3, (-0.1,) * 3
    write_raster(tmp_path / "reflectance.tif", numbers * 0.0001 - 0.1)
    read = []
    for name in ("numbers", "scaled", "reflectance"):
        with Scene(tmp_path / f"{name}.tif") as scene:
            read.append(scene.read(0, 0, 60, 70).pixels)
    np.testing.assert_array_equal(read[0], read[1])
    np.testing.assert_array_equal(read[0], read[2])


def test_stacks_without_names_get_a_hint(tmp_path):
    numbers = np.random.default_rng(0).integers(1000, 9000, (4, 60, 70), dtype=np.uint16)
    stack = write_raster(tmp_path / "stack.tif", numbers)

    def sentences(**options):
        with Scene(stack, **options) as scene:
            return " ".join(map(str, scene.notices()))

    assert "try --bands 3,2,1" in sentences()
    assert "--bands" not in sentences(bands=[3, 2, 1])
    with rasterio.open(stack, "r+") as target:
        target.descriptions = ("B02", "B03", "B04", "B08")
    assert "--bands" not in sentences()
