"""Working files, put together and copied to Cloud-Optimized GeoTIFFs, judged by rasterio, numpy and rio-cogeo."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasters import PLACE, read_shares, write_raster
from rio_cogeo import cog_validate

from crossearth_hf.errors import InputError
from crossearth_hf.labels import get_label_set
from crossearth_hf.raster.cog import (
    BlockFile,
    Piece,
    map_layers,
    raster_reader,
    read_share,
    write_cog,
    write_mosaic,
)
from crossearth_hf.raster.grid import Grid
from crossearth_hf.raster.writing import Block

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

UTM = CRS.from_epsg(32632)
ROTATED = Affine(0.4330127, 0.25, 5e5, 0.25, -0.4330127, 5e6)  # 30 degrees
GCPS = tuple(
    GroundControlPoint(r, c, 8 + c / 1e4, 50 - r / 1e4, 0) for r in (0, 600) for c in (0, 700)
)
LABEL_SET = get_label_set("land-cover")
LAYERS = map_layers(LABEL_SET)


def cut(folder, values, layer, corners):
    """Pieces of (bands, H, W) values, each in a file of its own, written in blocks of 256 rows."""
    pieces = []
    for index, (top, bottom, left, right) in enumerate(corners):
        grid = Grid(right - left, bottom - top, None, Affine(2, 0, 0, 0, -2, 0))
        path = folder / f"piece & {index}.tif"
        with BlockFile(path, grid, layer) as file:
            for row in range(top, bottom, 256):
                file.write(row - top, 0, values[:, row : min(row + 256, bottom), left:right])
        pieces.append(Piece(path, top, left, bottom - top, right - left, tuple(file.blocks)))
    return pieces


def make_cog(folder, values, layer, grid, corners):
    pieces = cut(folder, values, layer, corners)
    write_mosaic(folder / "whole.vrt", grid, layer, pieces)
    whole = Block.of(0, 0, values)
    write_cog(folder / "map.tif", folder / "whole.vrt", layer, [whole])
    return folder / "map.tif"


FOUR = [(0, 512, 0, 256), (512, 600, 0, 256), (0, 512, 256, 700), (512, 600, 256, 700)]
GRIDS = {
    "utm": Grid(700, 600, UTM, PLACE),
    "rotated": Grid(700, 600, UTM, ROTATED),
    "no-crs": Grid(700, 600, None, PLACE),
    "no-place": Grid(700, 600, None, Affine.identity()),
    "gcps": Grid(700, 600, None, Affine.identity(), GCPS, CRS.from_epsg(4326)),
}


@pytest.mark.parametrize("kind", GRIDS)
def test_map_of_pieces_is_a_valid_cog_on_the_same_grid(tmp_path, kind):
    grid = GRIDS[kind]
    labels = np.random.default_rng(0).integers(0, 5, (600, 700)).astype(np.uint8)
    labels[:100, :100] = 255
    path = make_cog(tmp_path, labels[None], LAYERS["labels"], grid, FOUR)
    assert cog_validate(str(path), quiet=True) == (True, [], [])
    with rasterio.open(path) as result:
        np.testing.assert_array_equal(result.read(1), labels)
        assert Grid.of(result).transform == grid.transform
        assert Grid.of(result).crs == grid.crs
        assert [(p.row, p.col, p.x, p.y) for p in result.gcps[0]] == [
            (p.row, p.col, p.x, p.y) for p in grid.gcps
        ]
        assert result.gcps[1] == grid.gcps_crs
        assert result.nodata == 255
        assert [result.colormap(1)[i][:3] for i in range(5)] == list(LABEL_SET.colors)
        assert [result.tags(1)[f"CLASS_{i}"] for i in range(5)] == list(LABEL_SET.classes)


def test_probabilities_have_a_band_per_class(tmp_path):
    shares = np.random.default_rng(0).integers(0, 4096, (5, 600, 700)).astype(np.float32) / 4096
    shares[:, :300, :300] = np.nan
    path = make_cog(
        tmp_path,
        shares,
        map_layers(LABEL_SET, float_shares=True)["probabilities"],
        GRIDS["utm"],
        FOUR,
    )
    assert cog_validate(str(path), quiet=True) == (True, [], [])
    with rasterio.open(path) as result:
        np.testing.assert_array_equal(result.read(), shares)
        assert result.descriptions == LABEL_SET.classes
        assert np.isnan(result.nodata)
        assert set(result.dtypes) == {"float32"}


def test_shares_are_bytes_with_a_scale(tmp_path):
    """Whoever heeds GDAL's metadata, as rasterio and QGIS do, reads shares from 0 to 1."""
    shares = np.random.default_rng(0).random((5, 600, 700)).astype(np.float32)
    shares[:, :300, :300] = np.nan
    shares[0, 400, 400:402] = 0, 1
    layer = LAYERS["probabilities"]
    path = make_cog(tmp_path, layer.stored(shares), layer, GRIDS["utm"], FOUR)
    assert cog_validate(str(path), quiet=True) == (True, [], [])
    found = read_shares(path)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(shares))
    np.testing.assert_allclose(found, shares, atol=0.002001)
    assert found[0, 400, 400:402].tolist() == [0, 1]
    np.testing.assert_allclose(read_share(path, (0, 0, 600, 700), (600, 700)), found[0], rtol=1e-6)
    small = read_share(path, (300, 300, 300, 400), (75, 100))  # from an overview
    np.testing.assert_allclose(small.mean(), found[0, 300:, 300:].mean(), atol=0.01)


def test_pixels_of_no_piece_hold_no_data(tmp_path):
    values = np.ones((1, 600, 700), np.uint8)
    write_mosaic(
        tmp_path / "m.vrt",
        GRIDS["utm"],
        LAYERS["labels"],
        cut(tmp_path, values, LAYERS["labels"], FOUR[:1]),
    )
    with raster_reader(tmp_path / "m.vrt") as read:
        found = read((0, 0, 600, 700), (600, 700))[0]
    assert (found[:512, :256] == 1).all()
    assert (
        np.delete(found.ravel(), np.flatnonzero(np.pad(values[0, :512, :256], ((0, 88), (0, 444)))))
        == 255
    ).all()


def test_overviews_hold_the_most_frequent_class(tmp_path):
    pattern = np.array([[1, 1], [1, 4]], dtype=np.uint8)  # the mode is 1, the average 1.75
    grid = Grid(1024, 1024, UTM, PLACE)
    path = make_cog(
        tmp_path, np.tile(pattern, (512, 512))[None], LAYERS["labels"], grid, [(0, 1024, 0, 1024)]
    )
    with rasterio.open(path, overview_level=0) as overview:
        assert overview.shape == (512, 512)
        assert (overview.read(1) == 1).all()


def test_what_cannot_be_read_again_is_reported(tmp_path, monkeypatch):
    grid = Grid(300, 300, UTM, PLACE)
    with BlockFile(tmp_path / "b.tif", grid, LAYERS["confidence"]) as file:
        file.write(0, 0, np.ones((300, 300), np.uint8))
    other = np.zeros((1, 300, 300), np.uint8)
    monkeypatch.setattr(
        "rasterio.shutil.copy", lambda source, target, **_: write_raster(target, other)
    )
    with pytest.raises(
        InputError, match=r"c.tif cannot be written \(the written data cannot be read again\)"
    ):
        write_cog(tmp_path / "c.tif", tmp_path / "b.tif", LAYERS["confidence"], file.blocks)


def test_a_damaged_piece_is_an_input_error(tmp_path):
    values = np.random.default_rng(0).integers(0, 5, (1, 600, 700)).astype(np.uint8)
    pieces = cut(tmp_path, values, LAYERS["labels"], [(0, 600, 0, 700)])
    write_mosaic(tmp_path / "m.vrt", GRIDS["utm"], LAYERS["labels"], pieces)
    content = pieces[0].path.read_bytes()
    pieces[0].path.write_bytes(content[: len(content) // 2])
    with (
        raster_reader(tmp_path / "m.vrt") as read,
        pytest.raises(InputError, match="cannot be read again"),
    ):
        read((0, 0, 600, 700), (600, 700))
