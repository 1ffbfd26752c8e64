"""Tiles as one map: the map of the mosaic, to the bit, and sentences for what is no mosaic."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.merge import merge
from rasters import with_legend, write_raster
from small_jobs import predict as crossearth_predict
from small_jobs import refused
from stub_model import ColorModel

from crossearth_hf import CrossEarthImageProcessor
from crossearth_hf.errors import InputError
from crossearth_hf.prediction import predict
from crossearth_hf.prediction.mosaics import tiles_as_one
from crossearth_hf.raster.scene import Scene
from crossearth_hf.raster.tiles import mosaic_tiles, mosaic_vrt

PLACE = Affine(2, 0, 500_000, 0, -2, 5_000_000)
CORNERS = {
    "a": (0, 0),
    "b": (0, 100),
    "c": (90, 100),
}  # row, column; the place below "a" has no tile


def write_tiles(folder, dtype=np.uint8, count=3, **profile):
    folder.mkdir()
    rng = np.random.default_rng(0)
    highest = min(np.iinfo(dtype).max, 5000)
    tiles = []
    for name, (row, col) in CORNERS.items():
        size = (100 if row == 0 else 80, 100 if col == 0 else 120)
        pixels = rng.integers(1, highest, (count, *size)).astype(dtype)
        pixels[3:] = 255  # alpha
        tiles.append(
            str(
                write_raster(
                    folder / f"{name}.tif",
                    pixels,
                    transform=PLACE @ Affine.translation(col, row),
                    **profile,
                )
            )
        )
    return tiles


def map_of(scene, target, **reading):
    model = (ColorModel(patch_sensitive=4), CrossEarthImageProcessor())
    options = {"window": 64, "stride": 43, "progress": False, "tell": None}
    predict(scene, target, model=model, confidence=f"{target}.c.tif", **options, **reading)
    with rasterio.open(target) as labels, rasterio.open(f"{target}.c.tif") as sure:
        return labels.read(), sure.read(), labels.transform, labels.crs


@pytest.mark.parametrize("kind", ["plain", "nodata", "alpha", "sixteen"])
def test_the_map_of_tiles_is_that_of_their_mosaic(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    profile = {
        "plain": {},
        "nodata": {"nodata": 0},
        "alpha": {
            "count": 4,
            "roles": (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha),
        },
        "sixteen": {"dtype": np.uint16, "nodata": 0},
    }[kind]
    tiles = write_tiles(tmp_path / "tiles", **profile)
    pixels, transform = merge(tiles, method="last", nodata=profile.get("nodata", 0), masked=True)
    roles = profile.get("roles", ())
    gaps = np.ma.getmaskarray(pixels)[0]
    whole = pixels.filled(profile.get("nodata", 0))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write_raster(
            tmp_path / "mosaic.tif",
            whole,
            transform=transform,
            roles=roles,
            nodata=profile.get("nodata"),
        )
        if kind == "plain":
            with rasterio.open(tmp_path / "mosaic.tif", "r+") as target:
                target.write_mask(~gaps)
    expected = map_of("mosaic.tif", "one.tif")
    with tiles_as_one(tiles, "two.tif") as mosaic:
        found = map_of(mosaic, "two.tif")
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert found[2:] == expected[2:]
    assert (found[0][0, 120:, :90] == 255).all()
    assert not mosaic.exists()


GIVEN = 211  # told, not declared
RGBA = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)


def write_overlapping(folder, kind):
    """Two tiles of 60 x 80 pixels that share 50 columns and have holes there, and their mosaic by hand."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    dtype = {"sixteen": np.uint16, "float": np.float32}.get(kind, np.uint8)
    nodata = {"nodata": 0, "sixteen": 0}.get(kind)
    whole, shown = np.zeros((3, 60, 110), dtype), np.zeros((60, 110), bool)
    for name, col in (("a", 0), ("b", 30)):
        pixels = rng.integers(1, 200, (3, 60, 80)).astype(dtype)
        valid = rng.random((60, 80)) > 0.2
        valid[:, :20] = name == "a"
        pixels[rng.integers(0, 3, (60, 80)) == np.arange(3)[:, None, None]] = 0  # one band is black
        fill = {"float": np.nan, "given": GIVEN}.get(kind, 0 if nodata == 0 else 7)
        pixels[:, ~valid] = fill
        whole[:, :, col : col + 80][:, valid] = pixels[:, valid]
        shown[:, col : col + 80] |= valid
        write_with(folder / f"{name}.tif", pixels, valid, kind, nodata, col)
    whole[:, ~shown] = {"float": np.nan, "given": GIVEN}.get(kind, 0)
    write_with(folder.with_name("mosaic.tif"), whole, shown, kind, nodata, 0)
    return [str(folder / "a.tif"), str(folder / "b.tif")]


def write_with(path, pixels, valid, kind, nodata, col):
    """Writes a raster in which pixels without data are transparent, masked or have the nodata value."""
    roles = RGBA if kind == "alpha" else ()
    if roles:
        pixels = np.concatenate([pixels, 255 * valid[None].astype(np.uint8)])
    place = PLACE @ Affine.translation(col, 0)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write_raster(path, pixels, transform=place, roles=roles, nodata=nodata)
        if kind == "mask":
            with rasterio.open(path, "r+") as target:
                target.write_mask(valid)


@pytest.mark.parametrize("kind", ["alpha", "mask", "nodata", "sixteen", "float", "given"])
def test_a_pixel_comes_whole_from_the_topmost_tile_with_data(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    tiles = write_overlapping(tmp_path / "tiles", kind)
    options = {"nodata": [GIVEN]} if kind == "given" else {}
    (tmp_path / "tiles.vrt").write_text(mosaic_vrt(tiles, **options))
    with Scene("tiles.vrt", **options) as mosaic, Scene("mosaic.tif", **options) as expected:
        found, wanted = mosaic.read(0, 0, 60, 110), expected.read(0, 0, 60, 110)
        assert set(tiles) <= set(mosaic.stamps)
    np.testing.assert_array_equal(found.valid, wanted.valid)
    np.testing.assert_array_equal(found.pixels[:, found.valid], wanted.pixels[:, wanted.valid])
    assert mosaic_tiles("tiles.vrt") == tiles
    labels, sure, *_ = map_of(tiles, "one.tif", **options)
    expected_labels, expected_sure, *_ = map_of("mosaic.tif", "two.tif", **options)
    np.testing.assert_array_equal(labels, expected_labels)
    np.testing.assert_array_equal(sure, expected_sure)


def test_a_fourth_band_of_data_that_is_marked_as_alpha_hides_nothing(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (4, 60, 60)).astype(np.uint8)
    tile = write_raster(tmp_path / "a.tif", pixels, transform=PLACE, roles=RGBA)
    (tmp_path / "m.vrt").write_text(mosaic_vrt([str(tile)]))
    with Scene(tmp_path / "m.vrt") as mosaic:
        found = mosaic.read(0, 0, 60, 60)
    assert found.valid.all()
    np.testing.assert_array_equal(found.pixels, pixels[:3])


def test_the_command_and_a_job_that_stops(tmp_path, model_folder, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_tiles(tmp_path / "tiles")
    assert crossearth_predict(model_folder, "tiles", "--as-one", "map.tif", "--window", 64) == 0
    with rasterio.open("map.tif") as source:
        assert source.shape == (170, 220)
    assert sorted(path.name for path in tmp_path.iterdir()) == [*with_legend("map.tif"), "tiles"]
    refused(
        capsys,
        crossearth_predict(model_folder, "tiles", "--as-one", "map.tif"),
        "map.tif exists already",
    )
    (tmp_path / ".other.tif.tiles.vrt").write_text("mine")
    refused(
        capsys, crossearth_predict(model_folder, "tiles", "--as-one", "other.tif"), "move it away"
    )
    assert (tmp_path / ".other.tif.tiles.vrt").read_text() == "mine"


def test_a_list_of_tiles_from_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiles = write_tiles(tmp_path / "tiles")
    with tiles_as_one(tiles, "one.tif") as mosaic:
        expected = map_of(mosaic, "one.tif")
    found = map_of(tiles, "two.tif")
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_tables_and_items_name_the_map_and_its_tiles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiles = write_tiles(tmp_path / "tiles")
    model = (ColorModel(), CrossEarthImageProcessor())
    options = {"progress": False, "tell": None, "stac": True, "areas": "areas.csv"}
    predict(tiles, "map.tif", model=model, **options)
    links = json.loads(Path("map.json").read_text())["links"]
    assert [link["href"] for link in links] == ["tiles/a.tif", "tiles/b.tif", "tiles/c.tif"]
    _, *rows = Path("areas.csv").read_text().splitlines()
    assert rows[0].startswith("map,")


def test_lists_that_are_no_tiles(tmp_path):
    with pytest.raises(InputError, match="the list of tiles is empty"):
        predict([], tmp_path / "map.tif")
    with pytest.raises(TypeError, match=r"scene\[1\]"):
        predict(["a.tif", 5], tmp_path / "map.tif")
    tiles = write_tiles(tmp_path / "tiles")
    with pytest.raises(InputError, match="is the same file as"):
        predict(tiles, tiles[1], overwrite=True)
    assert Path(tiles[1]).exists()


def test_what_is_no_mosaic(tmp_path):
    first, *_ = write_tiles(tmp_path / "tiles")
    pixels = np.ones((3, 20, 20), np.uint8)
    others = {
        "has another CRS": {"crs": "EPSG:32633"},
        "has 1 bands, not 3": {"pixels": pixels[:1]},
        "holds uint16, not uint8": {"pixels": pixels.astype(np.uint16)},
        "has another nodata value": {"nodata": 3},
        "has pixels of another size": {"transform": PLACE @ Affine.scale(1.01)},
        "lies between the pixels": {"transform": PLACE @ Affine.translation(100.3, 0)},
        "has no georeference or is rotated": {"transform": PLACE @ Affine.rotation(10)},
    }
    for words, differing in others.items():
        arguments = {"pixels": pixels, "transform": PLACE @ Affine.translation(100, 0)} | differing
        write_raster(tmp_path / "other.tif", arguments.pop("pixels"), **arguments)
        with pytest.raises(InputError, match=words):
            mosaic_vrt([first, str(tmp_path / "other.tif")])


def test_degrees_keep_their_order(tmp_path):
    place = Affine(0.001, 0, 8, 0, -0.001, 47)
    tile = write_raster(
        tmp_path / "a.tif", np.ones((3, 20, 20), np.uint8), transform=place, crs="EPSG:4326"
    )
    (tmp_path / "m.vrt").write_text(mosaic_vrt([str(tile)]))
    with Scene(tmp_path / "m.vrt") as found, Scene(tile) as expected:
        assert found.grid.transform == expected.grid.transform
        assert found.grid.pixel_size() == expected.grid.pixel_size()
