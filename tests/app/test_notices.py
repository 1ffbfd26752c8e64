"""What the page says of odd scenes, and that it advises only what can be done there."""

import numpy as np
import pytest
from affine import Affine
from PIL import Image

pytest.importorskip("pyogrio")
pytest.importorskip("shapely")

from app_parts import patches, read_map, stub_model
from rasters import write_raster

from crossearth_hf.app import pages, predict
from crossearth_hf.app.uploads import Limits, notices
from crossearth_hf.errors import InputError
from crossearth_hf.raster.scene import Scene

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def test_undeclared_fill_is_left_out_and_said(tmp_path, folder):
    pixels, ids = patches()
    filled = pixels.astype(np.uint16) * 8
    filled[:, :16] = 65535
    write_raster(tmp_path / "s.tif", filled)
    result = predict(tmp_path / "s.tif", stub_model(), folder)
    np.testing.assert_array_equal(read_map(result.report.files[0])[16:], ids[16:])
    assert result.report.without_data == 16 * 200
    (notice, *_) = result.notices
    assert "10.0% of the pixels of" in notice
    assert notice.endswith("; none in the field No data keeps it as data")
    html = pages.legend(result.report, result.notices)
    assert "<p class='ce-note'>10.0% of the pixels of" in html
    assert "undeclared fill 65535" in result.summary


def test_a_collar_is_said(tmp_path, folder):
    rng = np.random.default_rng(0)
    pixels = rng.integers(30, 220, (3, 160, 200), dtype=np.uint8)
    pixels[:, :, :40] = 0
    Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "s.png")
    result = predict(tmp_path / "s.png", stub_model(), folder)
    (notice, *_) = result.notices
    assert "black region at the border covers 20.0% of the scene" in notice
    assert notice.endswith("; 0 in the field No data leaves it out")
    with Scene(tmp_path / "s.png") as scene:  # the other tab has no such field
        assert notices(scene)[0].endswith("; with crossearth predict, --nodata=0 leaves it out")
    assert "A black region at the border" in pages.legend(result.report, result.notices)


def test_an_ordinary_scene_has_no_notice(tmp_path, folder):
    pixels = np.random.default_rng(0).integers(30, 220, (3, 160, 200), dtype=np.uint8)
    result = predict(write_raster(tmp_path / "s.tif", pixels), stub_model(), folder)
    assert result.notices == result.report.doubts, "noise is nothing that a model is sure of"
    assert "ce-note" not in pages.legend(result.report, ())
    assert "mean confidence" in pages.legend(result.report, result.notices)
    assert "bands 1,2,3 of 3 as RGB" in pages.place(
        result.place, result.summary, result.advice, 1.0
    )


def test_notices_are_escaped():
    assert pages.notes(["<b>"]) == "<p class='ce-note'>&lt;b&gt;.</p>"


def test_no_flag_of_another_command_is_advised(tmp_path, folder):
    """A map of classes with a color table: the page has no field that takes it for a picture."""
    classes = np.kron(
        np.random.default_rng(0).integers(0, 4, (8, 10)), np.ones((20, 20), int)
    ).astype(np.uint8)
    image = Image.fromarray(classes)
    image.putpalette([10, 20, 30, 200, 30, 30, 30, 200, 30, 30, 30, 200])
    image.save(tmp_path / "s.png")
    with pytest.raises(
        InputError, match="like a map of classes; if it is a picture, write its colors out"
    ) as caught:
        predict(tmp_path / "s.png", stub_model(), folder)
    assert "--" not in str(caught.value)


@pytest.mark.parametrize(
    ("pixel", "megapixels", "sentence"),
    [
        (2.0, 1, "reading it at the model's resolution"),
        (8.0, 1, "at that resolution it has too many pixels for this server; cut out a part of it"),
        (300.0, 1, "such scenes are too different"),
        (1.0, 1, None),
    ],
)
def test_advice_names_what_works(tmp_path, pixel, megapixels, sentence):
    pixels, _ = patches()
    write_raster(
        tmp_path / "s.tif", pixels, transform=Affine(pixel, 0, 500_000, 0, -pixel, 5_000_000)
    )
    limits = Limits(megapixels=megapixels)

    def run(name, **options):
        (tmp_path / name).mkdir()
        return predict(
            tmp_path / "s.tif",
            stub_model(trained_at=0.8),
            tmp_path / name,
            limits=limits,
            **options,
        )

    advice = run("plain").advice
    if sentence is None:
        assert advice is None
        return
    assert sentence in advice
    if "reading it" in sentence:
        assert run("at that", at_model_resolution=True).advice is None
    else:
        with pytest.raises(InputError):
            run("at that", at_model_resolution=True)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (16, 3), (31, 33)])
@pytest.mark.parametrize("ending", ["tif", "png", "jpg"])
def test_tiny_scenes(tmp_path, folder, height, width, ending):
    pixels = np.zeros((3, height, width), np.uint8)
    pixels[1] = 230
    if ending == "tif":
        write_raster(tmp_path / "s.tif", pixels)
    else:
        Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / f"s.{ending}")
    result = predict(tmp_path / f"s.{ending}", stub_model(), folder)
    assert (read_map(result.report.files[0]) == 1).all()
    assert result.layers.size == (width, height)
    assert pages.viewer(result.layers, result.report)
    assert pages.legend(result.report)
