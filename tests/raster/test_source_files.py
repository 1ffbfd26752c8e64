"""Pipes, devices and virtual rasters that stand for too much are refused before GDAL opens them."""

import os
import socket
import time
from itertools import pairwise
from xml.sax.saxutils import escape

import numpy as np
import pytest
from rasters import write_raster

from crossearth_hf.data.image_files import read_image, read_mask
from crossearth_hf.errors import InputError
from crossearth_hf.prediction.scene_list import list_scenes
from crossearth_hf.raster import raw_bands
from crossearth_hf.raster.scene import Scene
from crossearth_hf.raster.source_files import DEEPEST_NESTING, MOST_SOURCES, check_raster

SOURCE = (
    '<SimpleSource><SourceFilename relativeToVRT="1">{}</SourceFilename><SourceBand>1</SourceBand>'
    '<SrcRect xOff="0" yOff="0" xSize="8" ySize="8"/><DstRect xOff="0" yOff="0" xSize="8" ySize="8"/></SimpleSource>'
)


def write_vrt(path, *names, width=8, height=8, dtype="Byte"):
    """A VRT of one band over sources beside it, in their order."""
    sources = "".join(map(SOURCE.format, names))
    path.write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">'
        f'<VRTRasterBand dataType="{dtype}" band="1">{sources}</VRTRasterBand></VRTDataset>'
    )
    return path


@pytest.fixture
def tile(tmp_path):
    return write_raster(tmp_path / "tile.tif", np.full((1, 8, 8), 7, np.uint8))


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.tif")
    return tmp_path / "pipe.tif"


@pytest.mark.parametrize(
    "name", ["{}", "vrt://{}?bands=1", "/vsigzip/{}", "GTIFF_DIR:1:{}", "/vsisubfile/0_9,{}"]
)
def test_a_pipe_is_refused_under_any_name(pipe, name):
    with pytest.raises(
        InputError, match=r"pipe\.tif is a named pipe .*, not a file; save its content to a file"
    ):
        Scene(name.format(pipe))


def test_a_pipe_behind_or_beside_a_scene_is_refused(tmp_path, tile, pipe):
    outer = write_vrt(
        tmp_path / "outer.vrt", write_vrt(tmp_path / "inner.vrt", "tile.tif", "pipe.tif").name
    )
    with pytest.raises(InputError, match=r"pipe\.tif is a named pipe"):
        Scene(outer)
    with pytest.raises(InputError, match=r"pipe\.tif is a named pipe"):
        Scene(outer.read_text().replace('relativeToVRT="1">inner.vrt', f">{tmp_path}/inner.vrt"))
    within = write_vrt(tmp_path / "within.vrt", str(pipe)).read_text()
    with pytest.raises(InputError, match=r"pipe\.tif is a named pipe"):
        Scene(write_vrt(tmp_path / "text.vrt", escape(within)))
    for name in ("tile.tif.aux.xml", "tile_rpc.txt", "tile.IMD"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(InputError, match=rf"{name} is a named pipe"):
            Scene(tile)
        (tmp_path / name).unlink()


def test_a_damaged_side_file_is_named(tile):
    tile.with_name("tile_rpc.txt").write_text("nonsense")
    with pytest.raises(InputError, match=r"beside .*tile\.tif is damaged \(.*tile_rpc\.txt"):
        Scene(tile)


def test_sockets_devices_and_loops_of_links_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(InputError, match="socket is a socket, not a file"):
            Scene("socket")
    with pytest.raises(InputError, match="/dev/zero is a device, not a file"):
        Scene("/dev/zero")
    (tmp_path / "loop.tif").symlink_to(tmp_path / "loop.tif")
    with pytest.raises(InputError, match=r"loop\.tif is a loop of symbolic links"):
        Scene(tmp_path / "loop.tif")


def test_nested_vrts_that_double_at_each_level_are_refused_at_once(tmp_path, tile):
    write_vrt(tmp_path / "0.vrt", "tile.tif", "tile.tif")
    for level in range(1, 30):
        write_vrt(tmp_path / f"{level}.vrt", f"{level - 1}.vrt", f"{level - 1}.vrt")
    start = time.monotonic()
    with pytest.raises(InputError, match=f"has more than {MOST_SOURCES:,} sources"):
        Scene(tmp_path / "29.vrt")
    assert time.monotonic() - start < 60  # 2^30 reads take hours
    check_raster(str(tmp_path / "16.vrt"))  # 131 072


def test_a_vrt_of_too_many_sources_is_refused_before_gdal_reads_it(tmp_path, tile):
    flat = write_vrt(tmp_path / "flat.vrt", *["tile.tif"] * 250_000)
    with pytest.raises(InputError, match=f"flat.vrt has more than {MOST_SOURCES:,} sources"):
        Scene(flat)


def test_vrts_that_refer_to_themselves_or_nest_too_deep_are_refused(tmp_path, tile):
    write_vrt(tmp_path / "a.vrt", "b.vrt")
    with pytest.raises(InputError, match="refers to itself"):
        Scene(write_vrt(tmp_path / "b.vrt", "a.vrt"))
    names = ["tile.tif", *(f"deep{level}.vrt" for level in range(DEEPEST_NESTING + 1))]
    for inner, outer in pairwise(names):
        write_vrt(tmp_path / outer, inner)
    check_raster(str(tmp_path / names[-2]))
    with pytest.raises(InputError, match=f"nests VRTs more than {DEEPEST_NESTING} levels deep"):
        Scene(tmp_path / names[-1])


def test_plain_names_pass(tmp_path, tile):
    for name in (
        str(tile),
        str(tmp_path),
        "missing.tif",
        "",
        "a\0b",
        "/vsimem/x.tif",
        f"vrt://{tile}?bands=1",
    ):
        check_raster(name)
    with Scene(
        write_vrt(tmp_path / "odd &amp; 'name'.vrt".replace("&amp;", "&"), "tile.tif")
    ) as scene:
        assert scene.read(0, 0, 8, 8).pixels.min() == 7


@pytest.mark.parametrize("read", [lambda path: list_scenes([str(path)], []), lambda path: read_image(path, "image"),
                                  lambda path: read_mask(path, "mask")])  # fmt: skip
def test_pipes_in_place_of_lists_images_and_masks_are_refused(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(InputError, match=r"pipe\.txt is a named pipe"):
        read(tmp_path / "pipe.txt")


@pytest.mark.parametrize(("width", "height"), [(2**31 - 1, 2**31 - 1), (1_000_001, 1_000_000)])
def test_scenes_of_impossible_size_are_refused(tmp_path, width, height):
    with pytest.raises(
        InputError, match=f"has {width:,} x {height:,} pixels, but a scene may have at most"
    ):
        Scene(write_vrt(tmp_path / "huge.vrt", width=width, height=height))


@pytest.mark.parametrize(("width", "height"), [(500_000, 500_000), (10**9, 1), (1, 10**9)])
def test_the_search_for_data_to_stretch_ends(tmp_path, monkeypatch, width, height):
    monkeypatch.setattr(raw_bands, "_MOST_SEARCHED", 2**24)
    monkeypatch.setattr(raw_bands, "_MOST_STRIPS", 256)
    path = write_vrt(tmp_path / "empty.vrt", width=width, height=height, dtype="UInt16")
    text = path.read_text().replace('band="1">', 'band="1"><NoDataValue>0</NoDataValue>')
    path.write_text(text)
    with (
        Scene(path) as scene,
        pytest.raises(InputError, match="has no pixel with data in a sample"),
    ):
        scene.read(0, 0, 1, 1)


def test_a_speck_of_data_in_a_large_scene_is_found(tmp_path):
    pixels = np.zeros((1, 3_000, 30_000), np.uint16)
    pixels[0, 2_003, 17:19] = 100, 300
    with Scene(write_raster(tmp_path / "speck.tif", pixels, nodata=0)) as scene:
        assert scene.read(2_003, 17, 1, 2).pixels[0].tolist() == [[0, 255]]
