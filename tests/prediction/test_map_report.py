"""What a report says of a map: areas, a line, a picture, what a notebook shows."""

import numpy as np
import pytest
from rasters import write_raster

from crossearth_hf.errors import InputError
from crossearth_hf.labels import LabelSet
from crossearth_hf.prediction import MapReport
from crossearth_hf.raster.scene import Scene

CLASSES = LabelSet("custom", ("sand", "<b>sea</b>"), ((200, 180, 0), (0, 0, 255)))


@pytest.fixture
def report(tmp_path):
    """A scene of 40 x 20 pixels, closed, and its map: a quarter is sea; 0.5 m per pixel."""
    write_raster(tmp_path / "scene.tif", np.full((3, 20, 40), 90, np.uint8))
    labels = np.zeros((1, 20, 40), np.uint8)
    labels[:, :, :10] = 1
    write_raster(tmp_path / "map.tif", labels)
    with Scene(tmp_path / "scene.tif") as scene:
        pass
    pixels = np.array([600, 200])
    return MapReport(
        CLASSES, pixels, pixels * 0.25 / 1e4, 0, 1.5, (tmp_path / "map.tif",), scene=scene
    )


def test_areas_by_class(report):
    assert report.areas == {
        "sand": {"pixels": 600, "share": 0.75, "hectares": pytest.approx(0.015)},
        "<b>sea</b>": {"pixels": 200, "share": 0.25, "hectares": pytest.approx(0.005)},
    }
    assert {type(value) for row in report.areas.values() for value in row.values()} == {int, float}


def test_areas_where_nobody_knows_them(report):
    unknown = MapReport(CLASSES, report.pixels, None, 0, 1.5, report.files)
    assert [row["hectares"] for row in unknown.areas.values()] == [None, None]


def test_a_line_for_the_prompt(report):
    assert "map.tif  sand 75.0%, <b>sea</b> 25.0%  (1.5 s)" in repr(report)


def test_scene_beside_map(report):
    picture = np.asarray(report.show())
    assert picture.shape[1] <= 1600
    colors = {tuple(color) for color in picture.reshape(-1, 3)}
    assert {(90, 90, 90), (200, 180, 0), (0, 0, 255)} <= colors


def test_a_notebook_shows_a_table_and_a_small_picture(report):
    shown = report._repr_html_()
    assert "&lt;b&gt;sea" in shown, "names of classes come from strangers' models"
    assert "data:image/png;base64," in shown
    assert len(shown) < 200_000


@pytest.mark.parametrize("gone", ["scene.tif", "map.tif"])
def test_a_table_remains_where_files_are_gone(report, tmp_path, gone):
    (tmp_path / gone).unlink()
    with pytest.raises(InputError):
        report.show()
    shown = report._repr_html_()
    assert "sand" in shown
    assert "<img" not in shown
