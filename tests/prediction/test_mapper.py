"""`predict` from Python: what it takes for a scene and a model, what it tells, what it refuses."""

import numpy as np
import pytest
import rasterio
from rasters import write_raster

from crossearth_hf.errors import InputError
from crossearth_hf.inference.loading import load_model
from crossearth_hf.prediction import predict
from crossearth_hf.raster.scene import Scene


@pytest.fixture(scope="module")
def loaded(model_folder):
    return load_model(model_folder, device="cpu")


def labels(path):
    with rasterio.open(path) as source:
        return source.read(1)


def test_a_name_and_a_loaded_model_make_the_same_map(place, model_folder, loaded):
    named = predict("in.tif", "named.tif", model=model_folder, device="cpu")
    with Scene("in.tif") as scene:
        predict(
            scene, place / "opened.tif", model=loaded, confidence="sure.tif", preview="both.png"
        )
        assert scene.read(0, 0, 4, 4).valid.all(), "a scene that a person opened stays open"
    assert [path.name for path in named.files] == ["named.tif"]
    np.testing.assert_array_equal(labels("named.tif"), labels("opened.tif"))
    assert (place / "sure.tif").exists()
    assert (place / "both.png").exists()


def test_one_value_without_data(place, loaded):
    with rasterio.open("in.tif", "r+") as source:
        pixels = source.read()
        pixels[:, :10] = 7
        source.write(pixels)
    report = predict("in.tif", "map.tif", model=loaded, nodata=7)
    assert report.without_data == 10 * 80
    assert (labels("map.tif")[:10] == 255).all()


def test_what_is_told(place, loaded, capsys):
    told = []
    predict("in.tif", "map.tif", model=loaded, window=70, tell=told.append, progress=False)
    assert told[0].startswith("80 x 64 px")
    assert "window 70 is not a multiple of 16: 80 is used" in told
    assert capsys.readouterr().err == ""
    predict("in.tif", "silent.tif", model=loaded, window=70, tell=None, progress=False)
    assert capsys.readouterr().err == ""
    predict("in.tif", "told.tif", model=loaded, progress=False)
    assert "80 x 64 px" in capsys.readouterr().err


def test_options_that_do_not_fit_are_refused_before_anything_is_written(place, loaded):
    before = sorted(place.iterdir())
    mistakes = {
        "workers load the model themselves": {"workers": 2},
        "2 workers cannot be combined with the scheduler": {"workers": 2, "scheduler": "tcp://x:1"},
        "stride 8 cannot be combined with fast": {"stride": 8, "fast": True},
        "batch size 0 must be at least 1": {"batch_size": 0},
    }
    for sentence, options in mistakes.items():
        with pytest.raises(InputError, match=sentence):
            predict("in.tif", "map.tif", model=loaded, **options)
    with Scene("in.tif") as scene, pytest.raises(InputError, match="is already open"):
        predict(scene, "map.tif", model=loaded, bands=[3, 2, 1])
    assert sorted(place.iterdir()) == before


def test_an_open_scene_of_other_channels_is_refused(tmp_path, loaded):
    write_raster(tmp_path / "four.tif", np.full((4, 32, 32), 9, np.uint8))
    with (
        Scene(tmp_path / "four.tif", bands=[1, 2, 3, 4], num_channels=4) as scene,
        pytest.raises(InputError, match="opened with 4 channels, but the model takes 3"),
    ):
        predict(scene, tmp_path / "map.tif", model=loaded)


@pytest.mark.parametrize(
    "wrong",
    [
        {"map_path": None}, {"map_path": 3}, {"scene": 5}, {"scene": None}, {"overwrite": "no"}, {"fast": 1},
        {"palette_as_image": "no"}, {"window": 64.5}, {"window": "64"}, {"stride": True}, {"batch_size": 1.5},
        {"workers": "2"}, {"bands": 1}, {"bands": "1,2,3"}, {"bands": [1.5, 2, 3]}, {"bands": [True, 2, 3]},
        {"nodata": "black"}, {"nodata": [None]}, {"model": (1,)}, {"model": 5}, {"model": (1, 2)}, {"preview": 1},
    ],
    ids=str,
)  # fmt: skip
def test_an_argument_of_another_type_is_told_in_a_sentence(place, model_folder, wrong):
    arguments = {
        "scene": "in.tif",
        "map_path": "m.tif",
        "model": model_folder,
        "tell": None,
    } | wrong
    before = sorted(place.iterdir())
    with pytest.raises(TypeError, match=f"^{next(iter(wrong))} is .*; give "):
        predict(**arguments)
    assert sorted(place.iterdir()) == before


def test_bands_and_values_of_any_usual_form(place, model_folder):
    for bands, nodata in (
        (np.array([3, 2, 1]), "none"),
        ((3, 2, 1), np.float32(0)),
        ([3, 2, 1], [0, 255]),
    ):
        report = predict(
            "in.tif",
            "m.tif",
            model=model_folder,
            bands=bands,
            nodata=nodata,
            overwrite=True,
            progress=False,
            tell=None,
        )
        assert sum(report.pixels) > 0
