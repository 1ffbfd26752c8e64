"""Polygons of a map: no gaps, no overlaps, in the right place; and where a scene lies in degrees."""

import numpy as np
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
from crossearth_hf.raster import polygons as vectors  # noqa: E402 - needs the two packages
from crossearth_hf.raster.grid import Grid  # noqa: E402
from crossearth_hf.raster.polygons import footprint, outline, write_polygons  # noqa: E402
from crossearth_hf.raster.writing import write_geotiff  # noqa: E402

LABEL_SET = get_label_set("land-cover")
UTM = CRS.from_epsg(32632)
PLACE = Affine(2, 0, 499_000, 0, -2, 5_000_000)


def blobs(side=160, classes=4):
    rng = np.random.default_rng(0)
    fields = [gaussian_filter(rng.standard_normal((side, side)), 6) for _ in range(classes)]
    return np.argmax(fields, axis=0).astype(np.uint8)


def saved(folder, labels, crs=UTM, transform=PLACE):
    write_geotiff(folder / "map.tif", labels[None], crs=crs, transform=transform, nodata=255, label_set=LABEL_SET)
    return folder / "map.tif", Grid(labels.shape[1], labels.shape[0], crs, transform)


def read(path):
    """CRS, polygons and columns of a GeoPackage."""
    meta, _, geometry, columns = pyogrio.raw.read(path)
    return meta["crs"], shapely.from_wkb(geometry), dict(zip(meta["fields"], columns, strict=True))


def test_outlines_of_rectangles_are_exact():
    labels = np.zeros((40, 60), np.uint8)
    labels[20:, :25], labels[20:, 25:], labels[:10, 50:] = 1, 2, 255
    labels[5:7, 5:7] = 3  # a speck
    polygons, ids = outline(labels)
    areas = {int(index): float(shapely.area(polygon)) for polygon, index in zip(polygons, ids, strict=True)}
    assert areas == {0: 20 * 60 - 100, 1: 20 * 25, 2: 20 * 35}
    assert shapely.get_num_coordinates(polygons[list(ids).index(1)]) <= 6  # corners, and where three classes meet


def test_simplified_outlines_leave_no_gap():
    labels = blobs()
    polygons, ids = outline(labels)
    assert shapely.coverage_is_valid(polygons)
    assert shapely.is_valid(polygons).all()
    assert shapely.union_all(polygons).area == shapely.area(polygons).sum() == labels.size
    for index in range(4):
        np.testing.assert_allclose(shapely.area(polygons[ids == index]).sum(), (labels == index).sum(), rtol=0.05)
    drawn = rasterio.features.rasterize(zip(polygons, ids.tolist(), strict=True), labels.shape, fill=255)
    assert (drawn == labels).mean() > 0.97


def test_geopackage(tmp_path):
    labels = blobs()
    labels[:20] = 255
    path, grid = saved(tmp_path, labels)
    count = write_polygons(path, tmp_path / "p.gpkg", grid, LABEL_SET)
    crs, polygons, columns = read(tmp_path / "p.gpkg")
    assert crs == "EPSG:32632"
    assert count == len(polygons) == len(columns["class"])
    assert shapely.total_bounds(polygons).tolist() == [499_000, 5_000_000 - 320, 499_320, 5_000_000 - 40]
    names = np.array(LABEL_SET.classes)[columns["class_id"]]
    assert (columns["class"] == names).all()
    assert columns["color"][0] == "#{:02x}{:02x}{:02x}".format(*LABEL_SET.colors[columns["class_id"][0]])
    # UTM's scale is 0.9996 near the central meridian.
    np.testing.assert_allclose(columns["hectares"], shapely.area(polygons) / 0.9996**2 / 10_000, rtol=1e-5)
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


def test_large_maps_are_outlined_decimated(tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "_LARGEST_SIDE", 50)
    labels = np.kron(np.array([[0, 1], [2, 3]], np.uint8), np.ones((60, 50), np.uint8))
    path, grid = saved(tmp_path, labels)
    write_polygons(path, tmp_path / "p.gpkg", grid, LABEL_SET)
    _, polygons, columns = read(tmp_path / "p.gpkg")
    assert shapely.total_bounds(polygons).tolist() == [499_000, 5_000_000 - 240, 499_200, 5_000_000]
    np.testing.assert_allclose(shapely.area(polygons), 50 * 60 * 4, rtol=0.05)
    np.testing.assert_allclose(columns["hectares"], 1.2, rtol=0.05)


def test_an_old_file_stays(tmp_path):
    (tmp_path / "p.gpkg").write_text("old")
    path, grid = saved(tmp_path, blobs(64))
    with pytest.raises(InputError, match="exists already"):
        write_polygons(path, tmp_path / "p.gpkg", grid, LABEL_SET)
    with pytest.raises(InputError, match=r"must end in \.gpkg"):
        write_polygons(path, tmp_path / "p.shp", grid, LABEL_SET)
    assert (tmp_path / "p.gpkg").read_text() == "old"


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (2, 2), (3, 5), (4, 4), (1, 40), (32, 32)])
def test_tiny_maps_keep_their_area(height, width):
    labels = np.zeros((height, width), np.uint8)
    labels[:, width // 2 :] = 1
    polygons, ids = outline(labels)
    areas = {int(number): shapely.area(polygon) for number, polygon in zip(ids, polygons, strict=True)}
    assert areas == {number: area for number, area in enumerate(np.bincount(labels.ravel())) if area}


@pytest.mark.parametrize("known", [0, 3])
def test_maps_almost_without_data(known):
    labels = np.full((100, 100), 255, np.uint8)
    labels[50, 50 : 50 + known] = 1
    polygons, _ = outline(labels)
    assert shapely.area(polygons).sum() <= known


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
        GroundControlPoint(row=row, col=col, x=30 + col / 10, y=50 - row / 10) for row in (0, 20) for col in (0, 10)
    )
    found = footprint(Grid(10, 20, None, Affine.identity(), points, CRS.from_epsg(4326)))
    assert (found.longitude, found.latitude, found.west) == pytest.approx((30.5, 49, 30))
