"""What training says of its labels before the work, and that it writes no model where it learned nothing."""

import json

import numpy as np
import pytest
from PIL import Image
from rasters import write_raster
from train import main
from training_runs import (
    load_sources_unkept,
    log_lines,
    make_workplace,
    settings,
    write_unseen_labels,
)

from crossearth_hf.errors import InputError
from crossearth_hf.training import parse_train_config
from crossearth_hf.training.trainer import Trainer, train


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return make_workplace(tmp_path_factory.mktemp("labels"))


def binary_data(root, values=(0, 255)):
    """Two pairs of 80x80 whose right half is the second value."""
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for index in range(2):
        mask = np.kron([values], np.ones((80, 40))).astype(np.uint8)
        Image.fromarray(np.dstack([mask] * 3)).save(root / "images" / f"{index}.png")
        Image.fromarray(mask).save(root / "masks" / f"{index}.png")
    return root


def test_the_labels_of_training_and_validation_are_shown_once(workplace, tmp_path, capsys):
    train(
        settings(
            workplace,
            tmp_path / "run",
            max_steps=1,
            warmup_steps=0,
            eval_data=f"{workplace / 'data'}:5",
        )
    )
    lines = capsys.readouterr().err.splitlines()
    assert lines.count("labels of train_data, in 5 images:") == 1
    start = lines.index("labels of eval_data, in 1 image:")
    mask = np.asarray(Image.open(workplace / "data" / "masks" / "5.png"))
    for index, name in enumerate(("land", "building", "road", "water", "vegetation")):
        share = (mask == index).mean()
        found = lines[start + 2 + index].split()
        assert found[:2] == [str(index), name]
        assert found[2] == (f"{100 * share:.2f}" if share else "-")


def test_black_and_white_masks_end_with_a_sentence_and_train_with_its_remedy(
    workplace, tmp_path, capsys
):
    data = binary_data(tmp_path / "data")
    run = [
        "--model",
        workplace / "tiny.json",
        "--output_dir",
        tmp_path / "run",
        "--train_data",
        data,
    ]
    run = [
        *map(str, run),
        "--classes",
        "building",
        "--max_steps",
        "1",
        "--per_device_train_batch_size",
        "1",
        "--adaptation",
        "full+rein",
    ]
    assert main(run) == 2
    assert "add --mask-values 0,255" in capsys.readouterr().err
    assert not (tmp_path / "run" / "config.json").exists()
    assert main([*run, "--mask-values", "0,255"]) == 0
    assert "1  building     50.00 %       2" in capsys.readouterr().err
    assert "mask_values:\n- 0\n- 255\n" in (tmp_path / "run" / "train.yaml").read_text()


def test_values_are_named_with_commas_or_blanks_and_checked_at_once(workplace, tmp_path):
    base = ["--model", "m", "--output_dir", "o", "--train_data", "d", "--classes", "road"]
    for given in (
        ["--mask-values", "0,255"],
        ["--mask_values", "0", "255"],
        ["--mask-values=0,255"],
    ):
        assert parse_train_config([*base, *given]).mask_values == [0, 255]
    assert parse_train_config([*base, "--bands", "4,3,2"]).bands == [4, 3, 2]
    assert parse_train_config([*base, "--no-rotate"]).rotate is False
    with pytest.raises(InputError, match="names 3 values and the label set 'road' has 2 classes"):
        parse_train_config([*base, "--mask-values", "0,1,255"])


@pytest.mark.parametrize("part", ["train_data", "eval_data"])
def test_data_without_a_label_are_refused_before_the_work(workplace, tmp_path, part):
    data = binary_data(tmp_path / "data", values=(255, 255))
    with pytest.raises(InputError, match=r"every pixel of the masks .* is 255, which is ignored"):
        train(settings(workplace, tmp_path / "run", **{part: str(data)}))


def test_labels_under_pixels_without_data_are_none(workplace, tmp_path):
    data = tmp_path / "data"
    write_unseen_labels(data, 0)
    with pytest.raises(
        InputError, match=r"train_data holds no pixel with data of land, .* in 1 image"
    ):
        train(settings(workplace, tmp_path / "run", train_data=str(data)))


@pytest.fixture
def leaving_out(workplace, tmp_path, monkeypatch):
    """Settings of a model whose loss leaves out pixels without labels, on images that are not kept in memory."""
    monkeypatch.setattr("crossearth_hf.training.run_data.load_sources", load_sources_unkept)
    config = json.loads((workplace / "tiny.json").read_text()) | {"ignore_unlabelled_pixels": True}
    (tmp_path / "model.json").write_text(json.dumps(config))
    return {"model": str(tmp_path / "model.json")}


def test_a_run_that_skipped_every_step_writes_no_model(workplace, tmp_path, leaving_out):
    data = tmp_path / "data"
    write_unseen_labels(data, 0)
    run = tmp_path / "run"
    with pytest.raises(
        InputError, match="all 2 steps were skipped, as no crop of train_data held a labeled pixel"
    ):
        train(settings(workplace, run, train_data=str(data), max_steps=2, **leaving_out))
    assert not (run / "config.json").exists()
    assert not (run / "checkpoint").exists()
    assert [line["skipped"] for line in log_lines(run)] == [1, 2]


def test_a_run_that_skipped_some_steps_ends_well(workplace, tmp_path, leaving_out):
    data = tmp_path / "data"
    write_unseen_labels(data, 0)
    both = [str(data), f"{workplace / 'data'}:0"]
    train(
        settings(
            workplace,
            tmp_path / "run",
            train_data=both,
            per_device_train_batch_size=1,
            max_steps=6,
            **leaving_out,
        )
    )
    assert 0 < log_lines(tmp_path / "run")[-1]["skipped"] < 6
    assert (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("source", "changes", "expected", "line"),
    [
        ("complete", {}, False, ""),
        ("complete", {"ignore_unlabelled_pixels": True}, True, ""),
        ("with 255", {}, True, "are left out of the mask losses"),
        ("with 255", {"ignore_unlabelled_pixels": False}, False, "are background of every class"),
        ("partly labeled", {}, True, "are left out of the mask losses"),
    ],
)
def test_pixels_without_a_label_are_left_out_where_the_data_have_some(
    workplace, tmp_path, capsys, source, changes, expected, line
):
    data = tmp_path / "data"
    for part in ("images", "masks"):
        (data / part).mkdir(parents=True)
    ids = np.repeat(np.arange(5, dtype=np.uint8), 16)[:, None] * np.ones((1, 80), np.uint8)
    text = "images: images\nmasks: masks\n"
    if source == "with 255":
        ids[:8] = 255
    elif source == "partly labeled":
        ids[:] = 1
        text += "labeled: [building]\ncomplete: true\n"
    Image.fromarray(np.zeros((80, 80, 3), np.uint8)).save(data / "images" / "0.png")
    Image.fromarray(ids).save(data / "masks" / "0.png")
    (data / "mine.yaml").write_text(text)
    trainer = Trainer(
        settings(workplace, tmp_path / "run", train_data=str(data / "mine.yaml"), **changes)
    )
    assert trainer.segmentation.config.ignore_unlabelled_pixels is expected
    assert trainer.segmentation.criterion.config.ignore_unlabelled_pixels is expected
    told = capsys.readouterr().out
    assert ("pixels without a label (255)" in told) == bool(line)
    assert line in told


def test_undeclared_fill_is_told_once_unless_a_person_has_decided(workplace, tmp_path, capsys):
    data = tmp_path / "data"
    image = np.random.default_rng(0).normal(1000, 90, (3, 80, 80)).astype(np.float32)
    image[:, :20] = -9999
    for part, values in (("images", image), ("masks", np.ones((1, 80, 80), np.uint8))):
        (data / part).mkdir(parents=True)
        write_raster(data / part / "0.tif", values)
    sources = {
        "train_data": [str(data), f"{workplace / 'data'}:0"],
        "eval_data": [f"{workplace / 'data'}:5"],
    }
    for name, extra in (("found", {}), ("kept", {"nodata": "none"})):
        train(settings(workplace, tmp_path / name, max_steps=1, warmup_steps=0, **sources, **extra))
        lines = [line for line in capsys.readouterr().err.splitlines() if "-9999" in line]
        assert len(lines) == (name == "found")
    assert "nodata: none" in (tmp_path / "kept" / "train.yaml").read_text()
