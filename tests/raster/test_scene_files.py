"""The files on disk behind a scene, by whatever name GDAL opens it."""

import os

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasters import write_raster
from small_jobs import vrt_of

from crossearth_hf.raster.scene import Scene
from crossearth_hf.raster.scene_files import files_of


def test_files_of_scenes(place):
    vrt_of("v.vrt", "vrt://GTIFF_DIR:1:in.tif")
    with rasterio.open("v.vrt") as scene:
        assert {"v.vrt", "in.tif"} <= set(files_of(scene))


@pytest.mark.parametrize("kind", ["link", "latin-1"])
def test_a_source_behind_a_vrt_of_any_name_is_an_input(tmp_path, kind):
    """A VRT in a VRT whose name does not end in .vrt, behind a link or in another encoding."""
    pixels = np.zeros((3, 40, 40), dtype=np.uint8)
    (tmp_path / "sub").mkdir()
    source = write_raster(tmp_path / "sub" / "in.tif", pixels)
    inner = tmp_path / "sub" / "v"
    with rasterio.open(source) as dataset:
        rasterio.shutil.copy(dataset, inner, driver="VRT")
    text = (
        inner.read_text()
        .replace(str(source), "in.tif")
        .replace('relativeToVRT="0"', 'relativeToVRT="1"')
    )
    if kind == "latin-1":
        text = '<?xml version="1.0" encoding="ISO-8859-1"?>' + text.replace(
            "</VRTDataset>", "<Metadata><MDI key='a'>\u00e9</MDI></Metadata></VRTDataset>"
        )
    inner.write_bytes(text.encode("latin-1"))
    name = inner
    if kind == "link":
        name = tmp_path / "l"
        name.symlink_to(inner)
    outer = tmp_path / "o.vrt"
    with rasterio.open(name) as dataset:
        rasterio.shutil.copy(dataset, outer, driver="VRT")
    with Scene(outer) as scene:
        assert os.path.realpath(source) in {os.path.realpath(file) for file in scene.stamps}
