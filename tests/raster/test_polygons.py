"""Polygons of a map: no gaps, no overlaps, in the right place; and where a scene lies in degrees."""

import json

import numpy as np
import pyarrow.parquet
import pyproj
import pytest
import rasterio.features
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from scipy.ndimage import gaussian_filter

pyogrio = pytest.importorskip("pyogrio")
shapely = pytest.importorskip("shapely")

from crossearth_hf.errors import InputError  # noqa: E402
from crossearth_hf.labels import get_label_set  # noqa: E402
from crossearth_hf.raster.grid import Grid  # noqa: E402
from crossearth_hf.raster.outlines import _OpenRegions, outlines  # noqa: E402
from crossearth_hf.raster.polygons import draw_polygons, footprint, write_polygons  # noqa: E402
from crossearth_hf.raster.writing import write_geotiff  # noqa: E402

LABEL_SET = get_label_set("land-cover")
UTM = CRS.from_epsg(32632)
PLACE = Affine(2, 0, 499_000, 0, -2, 5_000_000)


def blobs(side=160, classes=4):
    rng = np.random.default_rng(0)
    fields = [gaussian_filter(rng.standard_normal((side, side)), 6) for _ in range(classes)]
    return np.argmax(fields, axis=0).astype(np.uint8)


def saved(folder, labels, crs=UTM, transform=PLACE):
    write_geotiff(
        folder / "map.tif",
        labels[None],
        crs=crs,
        transform=transform,
        nodata=255,
        label_set=LABEL_SET,
    )
    return folder / "map.tif", Grid(labels.shape[1], labels.shape[0], crs, transform)


def read(path):
    """CRS, polygons and columns of a GeoPackage."""
    meta, _, geometry, columns = pyogrio.raw.read(path, layer=pyogrio.list_layers(path)[0, 0])
    return meta["crs"], shapely.from_wkb(geometry), dict(zip(meta["fields"], columns, strict=True))


def outlined(labels, **options):
    """Polygons, classes and square meters of labels whose pixels measure a square meter."""
    found = list(
        outlines(
            lambda row, col, height, width: labels[row : row + height, col : col + width],
            *labels.shape,
            lambda row, col, counted: np.ones(counted.shape),
            **options,
        )
    )
    return [
        np.concatenate([getattr(batch, name) for batch in found])
        for name in ("polygons", "ids", "areas")
    ]


NOISE = np.random.default_rng(1).integers(0, 3, (70, 90)).astype(np.uint8)
HOLES = np.where(blobs(classes=3) == 0, np.uint8(255), blobs())
SPIRAL = np.zeros((64, 64), np.uint8)
for ring in range(0, 30, 4):  # two arms that wind through every part
    SPIRAL[ring : ring + 2, ring : 64 - ring] = SPIRAL[ring : 62 - ring, 62 - ring : 64 - ring] = 1
    SPIRAL[62 - ring : 64 - ring, ring + 4 : 64 - ring] = SPIRAL[
        ring + 4 : 64 - ring, ring + 4 : ring + 6
    ] = 1


@pytest.mark.parametrize(
    "labels", [blobs(), NOISE, HOLES, SPIRAL, NOISE[:1], NOISE[:, :1], NOISE[:1, :1]]
)
@pytest.mark.parametrize("side", [7, 64, 1000])
def test_parts_give_the_polygons_of_the_whole(labels, side):
    """Those of GDAL's polygonizing of the whole map, which all regions across many parts must become again."""
    polygons, ids, areas = outlined(labels, side=side)
    whole = rasterio.features.shapes(labels, mask=labels != 255)
    expected = sorted(
        (int(value), shapely.geometry.shape(shape).normalize().wkt) for shape, value in whole
    )
    plain = shapely.normalize(shapely.simplify(polygons, 0))  # without vertices on straight edges
    assert sorted(zip(ids.tolist(), (polygon.wkt for polygon in plain), strict=True)) == expected
    assert shapely.coverage_is_valid(polygons)
    np.testing.assert_array_equal(areas, shapely.area(polygons))


@pytest.mark.parametrize("side", [37, 64, 1000])
@pytest.mark.parametrize("labels", [blobs(), HOLES])
def test_simplified_outlines_leave_no_gap(labels, side):
    polygons, ids, _ = outlined(labels, side=side, tolerance=2.0)
    assert shapely.coverage_is_valid(polygons)
    assert shapely.is_valid(polygons).all()
    exact, _, _ = outlined(labels)
    assert len(polygons) == len(exact)
    assert (
        shapely.get_num_coordinates(polygons).sum() < shapely.get_num_coordinates(exact).sum() / 2
    )
    np.testing.assert_allclose(shapely.area(polygons).sum(), (labels != 255).sum(), rtol=0.01)
    drawn = rasterio.features.rasterize(
        zip(polygons, ids.tolist(), strict=True), labels.shape, fill=255
    )
    assert (drawn == labels).mean() > 0.95


def test_corners_of_rectangles_stay():
    labels = np.zeros((40, 60), np.uint8)
    labels[20:, :25], labels[20:, 25:], labels[:10, 50:] = 1, 2, 255
    polygons, ids, _ = outlined(labels, tolerance=2.0)
    areas = {
        int(index): float(shapely.area(polygon))
        for polygon, index in zip(polygons, ids, strict=True)
    }
    assert areas == {0: 20 * 60 - 100, 1: 20 * 25, 2: 20 * 35}
    # corners, and where three classes meet
    assert shapely.get_num_coordinates(polygons[list(ids).index(1)]) <= 6


def test_small_regions_join_their_largest_neighbor(tmp_path):
    """As GDAL's sieve of the whole map has it; no data stays no data."""
    labels = HOLES.copy()
    labels[::9, ::11] = 1
    path, grid = saved(tmp_path, labels)
    draw_polygons(path, tmp_path / "p.gpkg", grid, LABEL_SET, min_pixels=20, side=50)
    _, polygons, columns = read(tmp_path / "p.gpkg")
    calm = rasterio.features.sieve(labels, 20, mask=labels != 255)
    drawn = rasterio.features.rasterize(
        zip(polygons, columns["class_id"].tolist(), strict=True),
        labels.shape,
        fill=255,
        transform=PLACE,
    )
    np.testing.assert_array_equal(drawn, calm)
    assert (calm != labels).any()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["map.tif", "p.gpkg"]


@pytest.mark.parametrize("ending", ["geojson", "fgb", "parquet"])
def test_other_formats_hold_the_same(tmp_path, ending):
    path, grid = saved(tmp_path, HOLES)
    count = draw_polygons(path, tmp_path / f"p.{ending}", grid, LABEL_SET)
    draw_polygons(path, tmp_path / "p.gpkg", grid, LABEL_SET)
    _, polygons, columns = read(tmp_path / "p.gpkg")
    if ending == "parquet":
        crs, found, attributes = read_geoparquet(tmp_path / "p.parquet")
    else:
        crs, found, attributes = read(tmp_path / f"p.{ending}")
    if ending == "geojson":  # degrees, by its standard
        assert crs == "EPSG:4326"
        forward = pyproj.Transformer.from_crs(32632, 4326, always_xy=True).transform
        polygons = shapely.transform(polygons, lambda points: np.stack(forward(*points.T), axis=1))
    else:
        assert crs == "EPSG:32632"
    assert count == len(found) == len(polygons)
    order = other = np.arange(count)
    if ending == "fgb":  # sorted for its spatial index
        order, other = (np.lexsort(shapely.bounds(each).T) for each in (polygons, found))
    np.testing.assert_allclose(
        shapely.bounds(found[other]), shapely.bounds(polygons[order]), atol=1e-6
    )
    # GeoJSON: to 1 cm
    np.testing.assert_allclose(shapely.area(found[other]), shapely.area(polygons[order]), rtol=0.01)
    for name in ("class", "class_id", "color", "hectares"):
        assert attributes[name][other].tolist() == columns[name][order].tolist()
    assert not list(tmp_path.glob("*.gpkg.*"))


def read_geoparquet(path):
    """CRS, polygons and columns of GeoParquet, as its specification says."""
    table = pyarrow.parquet.read_table(path)
    geo = json.loads(table.schema.metadata[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    assert (geo["version"], column["encoding"], column["geometry_types"]) == (
        "1.1.0",
        "WKB",
        ["Polygon"],
    )
    polygons = shapely.from_wkb(np.array(table[geo["primary_column"]].to_pylist(), dtype=object))
    np.testing.assert_allclose(column["bbox"], shapely.total_bounds(polygons))
    columns = {
        name: np.array(table[name].to_pylist()) for name in table.column_names if name != "geometry"
    }
    return pyproj.CRS.from_json_dict(column["crs"]).to_string(), polygons, columns


def test_geopackage(tmp_path):
    labels = blobs()
    labels[:20] = 255
    path, grid = saved(tmp_path, labels)
    count = write_polygons(path, tmp_path / "p.gpkg", grid, LABEL_SET)
    crs, polygons, columns = read(tmp_path / "p.gpkg")
    assert crs == "EPSG:32632"
    assert count == len(polygons) == len(columns["class"])
    assert shapely.total_bounds(polygons).tolist() == [
        499_000,
        5_000_000 - 320,
        499_320,
        5_000_000 - 40,
    ]
    names = np.array(LABEL_SET.classes)[columns["class_id"]]
    assert (columns["class"] == names).all()
    assert columns["color"][0] == "#{:02x}{:02x}{:02x}".format(
        *LABEL_SET.colors[columns["class_id"][0]]
    )
    # UTM's scale is 0.9996 near the central meridian.
    np.testing.assert_allclose(
        columns["hectares"], shapely.area(polygons) / 0.9996**2 / 10_000, rtol=1e-5
    )
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".gpkg"] == ["p.gpkg"]


def test_without_a_place_the_rows_count_downwards(tmp_path):
    labels = np.zeros((30, 50), np.uint8)
    labels[:10] = 3
    path, grid = saved(tmp_path, labels, crs=None, transform=Affine.identity())
    write_polygons(path, tmp_path / "p.gpkg", grid, LABEL_SET)
    crs, polygons, columns = read(tmp_path / "p.gpkg")
    assert crs is None or "Undefined" in crs
    boxes = {name: polygon.bounds for name, polygon in zip(columns["class"], polygons, strict=True)}
    assert boxes == {"water": (0, -10, 50, 0), "land": (0, -30, 50, -10)}
    assert np.isnan(columns["hectares"].astype(float)).all()


def test_memory_does_not_hold_the_map(tmp_path, monkeypatch):
    """A reader sees one part and its rim at a time, and regions are given out once no part can continue them."""
    labels = np.kron(np.random.default_rng(0).integers(0, 3, (40, 40)), np.ones((16, 16))).astype(
        np.uint8
    )
    sizes, waiting = [], []

    def read_part(row, col, height, width):
        sizes.append(height * width)
        return labels[row : row + height, col : col + width]

    close = _OpenRegions.close

    def counted(regions, still_open):
        found = close(regions, still_open)
        waiting.append(len(regions._pieces))
        return found

    monkeypatch.setattr(_OpenRegions, "close", counted)
    list(outlines(read_part, 640, 640, lambda *_: None, side=64))
    assert max(sizes) == 66**2
    assert len(waiting) == 10
    assert waiting[-1] == 0


def test_an_old_file_stays(tmp_path):
    (tmp_path / "p.gpkg").write_text("old")
    path, grid = saved(tmp_path, blobs(64))
    with pytest.raises(InputError, match="exists already"):
        write_polygons(path, tmp_path / "p.gpkg", grid, LABEL_SET)
    with pytest.raises(InputError, match=r"must end in \.gpkg or"):
        write_polygons(path, tmp_path / "p.shp", grid, LABEL_SET)
    assert (tmp_path / "p.gpkg").read_text() == "old"


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 2), (2, 2), (3, 5), (4, 4), (1, 40), (32, 32)]
)
def test_tiny_maps_keep_their_area(tmp_path, height, width):
    labels = np.zeros((height, width), np.uint8)
    labels[:, width // 2 :] = 1
    path, grid = saved(tmp_path, labels)
    write_polygons(path, tmp_path / "p.gpkg", grid, LABEL_SET)
    _, polygons, columns = read(tmp_path / "p.gpkg")
    pairs = zip(columns["class_id"].tolist(), polygons, strict=True)
    areas = {
        number: shapely.area(polygon) / 4 for number, polygon in pairs
    }  # pixels of 4 square meters
    assert areas == {
        number: area for number, area in enumerate(np.bincount(labels.ravel())) if area
    }


@pytest.mark.parametrize("known", [0, 3])
def test_maps_almost_without_data(tmp_path, known):
    labels = np.full((100, 100), 255, np.uint8)
    labels[50, 50 : 50 + known] = 1
    path, grid = saved(tmp_path, labels)
    assert write_polygons(path, tmp_path / "p.gpkg", grid, LABEL_SET) == min(known, 1)
    _, polygons, _ = read(tmp_path / "p.gpkg")
    assert shapely.area(polygons).sum() <= 4 * known


def test_footprint_on_the_equator():
    """UTM zone 32 has its central meridian, 9 degrees east, at 500 km, and counts meters north from the equator."""
    found = footprint(Grid(200, 100, UTM, Affine(10, 0, 499_000, 0, -10, 500)))
    assert (found.longitude, found.latitude) == pytest.approx((9, 0), abs=1e-9)
    degree = 2 * np.pi * 6378137 / 360
    assert found.east - 9 == pytest.approx(1000 / 0.9996 / degree, rel=1e-5)
    assert (found.west, found.south) == pytest.approx((18 - found.east, -found.north), abs=1e-9)


def test_footprint_in_degrees_over_the_date_line_and_nowhere():
    degrees = footprint(Grid(10, 20, CRS.from_epsg(4326), Affine(0.1, 0, 30, 0, -0.1, 50)))
    assert vars(degrees) == pytest.approx(
        {"longitude": 30.5, "latitude": 49, "west": 30, "south": 48, "east": 31, "north": 50}
    )
    pacific = CRS.from_epsg(3832)  # Mercator about 150 degrees east
    x = np.radians(30) * 6378137
    crossing = footprint(Grid(100, 100, pacific, Affine(1000, 0, x - 50_000, 0, -1000, 50_000)))
    assert crossing.west > 179
    assert crossing.east < -179
    assert footprint(Grid(10, 10, None, PLACE)) is None
    assert footprint(Grid(10, 10, UTM, Affine.identity())) is None


def test_footprint_of_control_points():
    points = tuple(
        GroundControlPoint(row=row, col=col, x=30 + col / 10, y=50 - row / 10)
        for row in (0, 20)
        for col in (0, 10)
    )
    found = footprint(Grid(10, 20, None, Affine.identity(), points, CRS.from_epsg(4326)))
    assert (found.longitude, found.latitude, found.west) == pytest.approx((30.5, 49, 30))
