"""A fourth band from training to map, through the commands: a model of RGB learns near infrared and maps with it."""

import json

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.enums import ColorInterp
from rasters import write_raster
from safetensors.torch import load_file
from tiny_model import tiny_config
from training_runs import log_lines, losses, settings

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor
from crossearth_hf.cli import main
from crossearth_hf.data import load_source
from crossearth_hf.errors import InputError
from crossearth_hf.inference.loading import load_model
from crossearth_hf.labels import get_label_set
from crossearth_hf.raster.scene import Reading
from crossearth_hf.training import trainer as training

SIZES = {"num_labels": 5, "decoder_layers": 2, "encoder_layers": 1, "mim_block_size": 16}
MARKS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined)
KERNEL = "model.backbone.embeddings.patch_embeddings.projection.weight"
BANDS = [1, 2, 3, 4]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Four pairs of 80x80 pixels of which the fourth band alone tells the class, and models of 3 channels."""
    root, rng = tmp_path_factory.mktemp("channels"), np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / "data" / part).mkdir(parents=True)
    for index in range(4):
        labels = np.kron(rng.integers(0, 5, (4, 4)), np.ones((20, 20))).astype(np.uint8)
        pixels = np.concatenate([rng.integers(100, 120, (3, 80, 80)), 50 * labels[None]]).astype(
            np.uint8
        )
        write_raster(root / "data" / "images" / f"{index}.tif", pixels, roles=MARKS)
        Image.fromarray(labels).save(root / "data" / "masks" / f"{index}.png")
    (root / "tiny.json").write_text(tiny_config(**SIZES).to_json_string())
    torch.manual_seed(0)
    CrossEarthForSemanticSegmentation(tiny_config(**SIZES)).save_pretrained(root / "rgb")
    CrossEarthImageProcessor().save_pretrained(root / "rgb")
    return root


def run(workplace, output, **changes):
    values = {
        "model": str(workplace / "rgb"), "max_steps": 2, "warmup_steps": 0, "bands": BANDS, "adaptation": "rein",
        "train_data": f"{workplace / 'data'}:[0-2]",
    }  # fmt: skip
    return training.train(settings(workplace, output, **values | changes))


@pytest.fixture(scope="module")
def trained(workplace):
    """An RGB model after two steps on four bands, scored on another image."""
    return run(workplace, workplace / "trained", eval_data=f"{workplace / 'data'}:3", eval_steps=2)


def test_training_extends_the_model_and_learns_from_the_new_band(workplace, trained):
    model, processor = load_model(trained, device="cpu")
    assert model.config.num_channels == 4
    assert len(processor.image_mean) == len(processor.image_std) == 4
    assert processor.image_mean[3] == pytest.approx(sum(processor.image_mean[:3]) / 3)
    before = load_file(workplace / "rgb" / "model.safetensors")[KERNEL] * 0.75
    start = torch.cat([before, before.mean(dim=1, keepdim=True)], dim=1)
    after = load_file(trained / "model.safetensors")[KERNEL]
    changes = (after - start).abs().amax(dim=(0, 2, 3))
    assert (changes > 1e-4).all()  # Rein on a frozen ViT: the kernels are trained none the less
    assert (changes < 1e-2).all()
    scores = [line["eval"] for line in log_lines(trained) if "eval" in line]
    assert [score["pixels"] for score in scores] == [6400]


def test_the_extension_is_told(workplace, tmp_path, capsys):
    run(workplace, tmp_path / "a", max_steps=1)
    assert f"'{workplace / 'rgb'}' is extended from 3 to 4 channels" in capsys.readouterr().out
    run(workplace, tmp_path / "b", max_steps=1, model=str(tmp_path / "a"))
    assert "is extended" not in capsys.readouterr().out


def test_a_resumed_run_repeats_the_uninterrupted_one(workplace, trained, tmp_path, monkeypatch):
    original = training.Trainer._forward_backward

    def interrupted(self, batch, forward_pass):
        if forward_pass == 1:
            raise KeyboardInterrupt
        return original(self, batch, forward_pass)

    monkeypatch.setattr(training.Trainer, "_forward_backward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(workplace, tmp_path, save_steps=1)
    monkeypatch.setattr(training.Trainer, "_forward_backward", original)
    run(workplace, tmp_path, save_steps=1, resume_from_checkpoint=True)
    assert losses(tmp_path) == losses(trained)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path, trained))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "multitask", "fourier_probability": 1.0},
        {"objective": "reconstruct", "adaptation": "full"},
        {"adaptation": "lora"},
        {"model": "tiny.json"},
    ],
    ids=lambda changes: next(iter(changes.values())),
)
def test_every_way_of_training_takes_four_bands(workplace, tmp_path, changes):
    if "model" in changes:
        changes = changes | {"model": str(workplace / changes["model"])}
    elif changes["adaptation" if "adaptation" in changes else "objective"] == "lora":
        pytest.importorskip("peft")
    folder = run(workplace, tmp_path / "run", max_steps=1, **changes)
    assert CrossEarthForSemanticSegmentation.from_pretrained(folder).config.num_channels == 4
    assert load_file(folder / "model.safetensors")[KERNEL].shape == (64, 4, 16, 16)
    assert np.isfinite(losses(folder)[0][1])


def test_what_does_not_fit_is_refused(workplace, trained, tmp_path):
    for bands in ([], [3, 2, 1]):
        with pytest.raises(
            InputError, match=r"trained' takes 4 channels; give bands as many numbers.* such as 1 2"
        ):
            run(workplace, tmp_path, model=str(trained), bands=bands)
    with pytest.raises(
        InputError, match=r"bands 1,2,3,4,5 do not fit .*0.tif, which has 4 bands, and a model of 5"
    ):
        run(workplace, tmp_path, bands=[1, 2, 3, 4, 5])
    with pytest.raises(
        InputError, match="'synth:desert-city:1' is drawn in three bands, not 4; leave it out"
    ):
        load_source(
            "synth:desert-city:1", get_label_set("land-cover"), reading=Reading(num_channels=4)
        )


def test_a_processor_that_was_forgotten_is_named(trained, tmp_path):
    model, _ = load_model(trained, device="cpu")
    model.save_pretrained(tmp_path)
    CrossEarthImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=r"takes 4 channels, but its image processor has 3; extend the processor"
    ):
        load_model(tmp_path, device="cpu")


@pytest.fixture
def scene(tmp_path):
    pixels = np.random.default_rng(1).integers(1, 256, (4, 70, 90), dtype=np.uint8)
    return write_raster(tmp_path / "scene.tif", pixels, roles=MARKS), pixels


def predict(scene, output, model, *options):
    status = main(
        ["predict", str(scene), str(output), "--model", str(model), "--device", "cpu", *options]
    )
    assert status == 0
    with rasterio.open(output) as result:
        return result.read(1)


def test_a_map_of_four_bands(trained, scene, tmp_path, capsys):
    path, pixels = scene
    extras = ["--preview", str(tmp_path / "p.png"), "--confidence", str(tmp_path / "c.tif")]
    labels = predict(path, tmp_path / "map.tif", trained, *extras)
    assert "bands 1,2,3,4 of 4 as 4 channels" in capsys.readouterr().err
    assert labels.shape == (70, 90)
    assert Image.open(tmp_path / "p.png").mode == "RGB"
    with rasterio.open(tmp_path / "c.tif") as confidence:
        values = confidence.read(1)
    # The bands in another order, in the file and by the flag, come to the same.
    turned = write_raster(
        tmp_path / "turned.tif", pixels[[3, 0, 1, 2]], roles=(ColorInterp.undefined,) * 4
    )
    again = ["--bands", "2,3,4,1", "--confidence", str(tmp_path / "d.tif")]
    np.testing.assert_array_equal(predict(turned, tmp_path / "again.tif", trained, *again), labels)
    with rasterio.open(tmp_path / "d.tif") as confidence:
        np.testing.assert_array_equal(confidence.read(1), values)
    wrong = ["--bands", "1,2,3,4", "--confidence", str(tmp_path / "e.tif")]
    predict(turned, tmp_path / "wrong.tif", trained, *wrong)
    with rasterio.open(tmp_path / "e.tif") as confidence:
        assert np.abs(confidence.read(1) - values).max() > 1e-3


def test_a_folder_of_scenes_of_four_bands(trained, scene, tmp_path):
    (tmp_path / "scenes").mkdir()
    scene[0].rename(tmp_path / "scenes" / "a.tif")
    assert (
        main(["predict", str(tmp_path / "scenes"), str(tmp_path / "maps"), "--model", str(trained)])
        == 0
    )
    with rasterio.open(tmp_path / "maps" / "a.tif") as result:
        assert result.shape == (70, 90)


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (
            3,
            [],
            "scene.tif has 3 bands of data, but the model takes 4 channels; give a raster with 4 bands",
        ),
        (1, [], "scene.tif has 1 bands of data, but the model takes 4 channels"),
        (4, ["--bands", "3,2,1"], "bands 3,2,1 do not fit"),
        (4, ["--bands", "1,2,3,5"], "and a model of 4 channels; give 4 numbers from 1 to 4"),
    ],
)
def test_scenes_that_lack_bands_are_refused(trained, tmp_path, capsys, count, options, message):
    path = write_raster(
        tmp_path / "scene.tif", np.ones((count, 70, 90), np.uint8), roles=MARKS[-count:]
    )
    status = main(
        ["predict", str(path), str(tmp_path / "map.tif"), "--model", str(trained), *options]
    )
    assert status == 2
    assert message in capsys.readouterr().err
    assert [item.name for item in tmp_path.iterdir()] == ["scene.tif"]


def test_the_saved_configuration_names_the_channels_once(trained):
    values = json.loads((trained / "config.json").read_text())
    assert values["backbone_config"]["num_channels"] == 4
    assert "num_channels" not in values
