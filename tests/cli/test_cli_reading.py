"""What the command says of odd scenes, and the flags by which a person says otherwise."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasters import with_legend
from tiny_model import tiny_config

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor
from crossearth_hf.cli import main
from crossearth_hf.raster.writing import write_geotiff

PLACE = {"crs": "EPSG:32632", "transform": Affine(1, 0, 5e5, 0, -1, 5e6)}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reading")
    CrossEarthForSemanticSegmentation(tiny_config()).save_pretrained(folder / "model")
    CrossEarthImageProcessor().save_pretrained(folder / "model")
    pixels = np.random.default_rng(0).integers(1, 256, (3, 90, 115), dtype=np.uint8)
    write_geotiff(folder / "scene.tif", pixels, **PLACE)
    return folder


def predict(folder, *arguments, scene="scene.tif", target="map.tif"):
    return main(
        [
            "predict",
            str(folder / scene),
            str(folder / target),
            "--model",
            str(folder / "model"),
            *arguments,
        ]
    )


def labels_of(path):
    with rasterio.open(path) as source:
        return source.read(1)


def test_undeclared_fill_is_told_and_a_person_may_say_otherwise(workplace, tmp_path, capsys):
    values = np.random.default_rng(0).integers(500, 3000, (3, 90, 115)).astype(np.float32)
    values[:, 20:50, 30:70] = -9999
    write_geotiff(tmp_path / "found.tif", values, **PLACE)
    write_geotiff(tmp_path / "declared.tif", values, **PLACE, nodata=-9999)
    maps = {}
    for name, scene, extra in (
        ("found", "found", []),
        ("declared", "declared", []),
        ("asked", "found", ["--nodata", "-9.999e3"]),
        ("kept", "found", ["--nodata", "none"]),
    ):
        target = tmp_path / f"map-{name}.tif"
        assert predict(workplace, *extra, scene=tmp_path / f"{scene}.tif", target=target) == 0
        maps[name], errors = labels_of(target), capsys.readouterr().err
        assert ("11.6% of the pixels of bands 1, 2, 3 have the value -9999" in errors) == (
            name == "found"
        )
        assert "stretched from " in errors
        assert "validity from" in errors or name == "kept"
    np.testing.assert_array_equal(maps["found"], maps["declared"])
    np.testing.assert_array_equal(maps["asked"], maps["declared"])
    assert (maps["declared"][20:50, 30:70] == 255).all()
    assert (maps["kept"] != 255).all()


def test_classes_and_own_results_among_the_scenes(workplace, tmp_path, capsys):
    """Our own results are skipped, whatever else is not imagery fails with what to do."""
    scenes = tmp_path / "in"
    scenes.mkdir()
    extra = ["--preview", str(scenes / "view.png"), "--confidence", str(scenes / "sure.tif")]
    extra += ["--probabilities", str(scenes / "shares.tif")]
    assert predict(workplace, *extra, target=scenes / "map.tif") == 0
    (scenes / "scene.tif").symlink_to(workplace / "scene.tif")
    capsys.readouterr()
    assert predict(workplace, scene=scenes, target=tmp_path / "maps") == 0
    errors = capsys.readouterr().err
    results = {
        "map.tif": "a map",
        "sure.tif": "confidences",
        "shares.tif": "probabilities",
        "view.png": "a preview",
    }
    for name, content in results.items():
        assert f"{name}: skipped, holds {content} of this package, not imagery" in errors
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == with_legend("scene.tif")
    assert predict(workplace, scene=scenes / "map.tif", target=tmp_path / "again.tif") == 2
    assert "map.tif holds a map of this package, not imagery" in capsys.readouterr().err

    fields = np.kron(np.arange(6).reshape(2, 3), np.ones((40, 40))).astype(np.uint8)
    picture = Image.fromarray(fields, "P")
    picture.putpalette(range(0, 180))
    picture.save(scenes / "cover.png")
    assert predict(workplace, scene=scenes, target=tmp_path / "maps") == 2
    assert "cover.png uses 6 colors of its color table in flat regions" in capsys.readouterr().err
    assert (
        predict(
            workplace,
            "--palette-as-image",
            scene=scenes / "cover.png",
            target=tmp_path / "cover.tif",
        )
        == 0
    )


def test_a_result_that_bears_the_name_of_a_scene_is_skipped(workplace, tmp_path, capsys):
    scenes = tmp_path / "in"
    scenes.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(
        scenes / "a.png"
    )
    assert predict(workplace, scene=scenes / "a.png", target=scenes / "a.tif") == 0
    assert predict(workplace, scene=scenes, target=tmp_path / "maps") == 0
    assert "a.tif: skipped, holds a map of this package, not imagery" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == with_legend("a.tif")


def test_a_wrong_nodata_value(workplace, tmp_path, capsys):
    assert predict(workplace, "--nodata", "-9999,0", target=tmp_path / "map.tif") == 2
    assert "no-data value -9999 does not fit" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        predict(workplace, "--nodata", "black", target=tmp_path / "map.tif")
    assert "'black' is neither a value such as 0 or -9999 nor 'none'" in capsys.readouterr().err
