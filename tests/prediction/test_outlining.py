"""Maps as polygons beside them, from Python and from the command line."""

import shutil

import numpy as np
import pytest
import rasterio
import rasterio.features
from affine import Affine
from rasters import with_legend, write_raster
from small_jobs import predict, refused
from stub_model import CLASSES, ColorModel

import crossearth_hf as ce
from crossearth_hf.errors import InputError
from crossearth_hf.prediction import outlining
from crossearth_hf.raster.polygons import draw_polygons

pyogrio = pytest.importorskip("pyogrio")
shapely = pytest.importorskip("shapely")

PLACE = Affine(2, 0, 499_000, 0, -2, 5_000_000)


@pytest.fixture
def colors(tmp_path):
    """A scene of red, green and blue patches of 10 x 10 pixels of 2 m, with specks of 4 pixels."""
    ids = np.random.default_rng(0).integers(0, 3, (9, 12)).repeat(10, 0).repeat(10, 1)
    ids[25:27, 25:27] = (ids[25, 25] + 1) % 3
    pixels = np.where(np.arange(3)[:, None, None] == ids, 230, 20).astype(np.uint8)
    pixels[:, :10, :10] = 0
    return write_raster(tmp_path / "scene.tif", pixels, transform=PLACE, nodata=0)


def mapped(scene, folder, **options):
    model = ColorModel(), ce.CrossEarthImageProcessor()
    return ce.predict(scene, folder / "map.tif", model=model, tell=None, progress=False, **options)


def read(path):
    meta, _, geometry, columns = pyogrio.raw.read(path, layer="map")
    return shapely.from_wkb(geometry), dict(zip(meta["fields"], columns, strict=True))


def test_polygons_are_those_of_the_map(colors, tmp_path):
    report = mapped(colors, tmp_path, polygons=tmp_path / "map.gpkg")
    assert [path.name for path in report.files] == ["map.tif", "map.gpkg"]
    polygons, columns = read(tmp_path / "map.gpkg")
    with rasterio.open(tmp_path / "map.tif") as source:
        labels = source.read(1)
        shapes = rasterio.features.shapes(labels, mask=labels != 255, transform=source.transform)
    expected = sorted(
        (value, shapely.geometry.shape(shape).normalize().wkt) for shape, value in shapes
    )
    plain = shapely.normalize(shapely.simplify(polygons, 0))
    assert sorted(zip(columns["class_id"], (shape.wkt for shape in plain), strict=True)) == expected
    assert set(columns["class"]) == set(CLASSES)
    for index, name in enumerate(CLASSES):
        hectares = columns["hectares"][columns["class"] == name].sum()
        assert hectares == pytest.approx(report.hectares[index], rel=1e-9)


def test_square_meters_and_meters_become_pixels(colors, tmp_path):
    report = mapped(colors, tmp_path, polygons=tmp_path / "map.gpkg", min_area=100.0, simplify=3.0)
    grid, label_set = report.scene.native_grid, report.label_set
    count = draw_polygons(
        tmp_path / "map.tif", tmp_path / "e.gpkg", grid, label_set, min_pixels=25, tolerance=1.5
    )
    found, columns = read(tmp_path / "map.gpkg")
    expected, _ = read(tmp_path / "e.gpkg")
    assert len(found) == count
    np.testing.assert_allclose(shapely.area(found), shapely.area(expected), rtol=1e-3)
    assert columns["hectares"].min() > 0.01
    everything = mapped(colors, tmp_path, polygons=tmp_path / "all.gpkg", overwrite=True)
    assert (everything.pixels == report.pixels).all()  # the map keeps its specks
    assert len(read(tmp_path / "all.gpkg")[0]) > count


def test_mistakes_are_told_before_the_work(colors, tmp_path, monkeypatch):
    def refusal(scene=colors, **options):
        with pytest.raises(InputError) as caught:
            mapped(scene, tmp_path, **options)
        assert not (tmp_path / "map.tif").exists()
        return str(caught.value)

    gpkg = tmp_path / "map.gpkg"
    assert "name a file" in refusal(min_area=10.0)
    assert "must be above 0" in refusal(polygons=gpkg, simplify=0.0)
    assert "must end in .gpkg or .geojson or .parquet or .fgb" in refusal(
        polygons=tmp_path / "map.shp"
    )
    pixels = np.random.default_rng(0).integers(1, 255, (3, 40, 40), dtype=np.uint8)
    nowhere = write_raster(tmp_path / "nowhere.tif", pixels, crs=None)
    assert "no CRS" in refusal(nowhere, polygons=gpkg, min_area=10.0)
    assert "choose map.gpkg" in refusal(nowhere, polygons=tmp_path / "map.geojson")
    with pytest.raises(TypeError, match="min_area"):
        mapped(colors, tmp_path, polygons=gpkg, min_area="10")
    monkeypatch.setattr(outlining, "find_spec", lambda name: None)
    assert "pip install crossearth-hf[vectors]" in refusal(polygons=gpkg)
    gpkg.write_text("mine")
    monkeypatch.undo()
    assert "exists already" in refusal(polygons=gpkg)
    assert gpkg.read_text() == "mine"


def test_a_folder_of_polygons_from_the_command_line(place, model_folder, capsys):
    (place / "scenes").mkdir()
    shutil.copy("in.tif", "scenes/a.tif")
    shutil.copy("in.tif", "scenes/b.tif")
    command = ["scenes", "maps", "--polygons", "maps", "--min-area", "1"]
    assert predict(model_folder, *command) == 0
    expected = sorted(
        name for stem in "ab" for name in (*with_legend(f"{stem}.tif"), f"{stem}.gpkg")
    )
    assert sorted(path.name for path in (place / "maps").iterdir()) == expected
    (place / "maps/b.gpkg").unlink()
    assert predict(model_folder, *command, "--overwrite") == 0
    assert sorted(path.name for path in (place / "maps").iterdir()) == expected
    refused(capsys, predict(model_folder, "in.tif", "m.tif", "--simplify", "1"), "--polygons")
    refused(capsys, predict(model_folder, "scenes", "others", "--simplify", "1"), "--polygons")
