"""The table of published files, and miniatures of each."""

import zipfile

import pytest
import torch
from published import convert_tensors, is_vit, refusal, write_config
from published_miniatures import LISTED, SIZES, TRAINING_ONLY, miniature_tensors, write_miniature

from crossearth_hf import CrossEarthForSemanticSegmentation
from crossearth_hf.conversion.classes import in_order
from crossearth_hf.conversion.published import convert, describe
from crossearth_hf.conversion.published_files import (
    ANNOUNCED,
    BACKBONES,
    PUBLISHED_FILES,
    published_file,
)
from crossearth_hf.labels import get_label_set
from crossearth_hf.scenarios.domains import DOMAINS
from crossearth_hf.scenarios.scenarios import RECIPES, SCENARIOS

FILES = {file.name: file for file in PUBLISHED_FILES}


@pytest.mark.parametrize("name", FILES)
def test_the_table_agrees_with_the_benchmark(name):
    file = FILES[name]
    domain = DOMAINS[file.source]
    assert file.label_set == domain.label_set
    assert file.ground_sampling_distance == domain.ground_sampling_distance
    recipe = RECIPES[file.crop]
    assert {
        scenario.recipe for scenario in SCENARIOS.values() if scenario.source == domain.name
    } == {file.crop}
    assert (file.crop, file.stride) == (recipe.window, recipe.stride)
    assert BACKBONES[file.backbone] == file.crop


def test_all_documented_scenarios_have_a_file_or_an_announcement():
    documented = {scenario.source for scenario in SCENARIOS.values() if not scenario.ours}
    assert documented == {file.source for file in PUBLISHED_FILES} | set(ANNOUNCED)


@pytest.mark.parametrize("name", FILES)
def test_miniatures_convert_by_their_name(tmp_path, name):
    file = FILES[name]
    tensors = write_miniature(tmp_path / name, file.label_set, file.crop)
    report = convert(tmp_path / name, tmp_path / "out", config=write_config(tmp_path, SIZES))
    config = CrossEarthForSemanticSegmentation.config_class.from_pretrained(tmp_path / "out")
    assert tuple(config.id2label.values()) == get_label_set(file.label_set).classes
    assert (config.image_size, config.window_stride) == (file.crop, round(2 * file.crop / 3))
    assert config.ground_sampling_distance == DOMAINS[file.source].ground_sampling_distance
    assert report.training_only == sorted(TRAINING_ONLY)
    assert "mmengine.logging.history_buffer.HistoryBuffer" in report.inert_objects
    assert "torch.Tensor" not in report.inert_objects
    assert file.describe() in describe(report)
    assert ("are the reverse" in describe(report)) == (file.label_set in ("building", "road"))
    model = CrossEarthForSemanticSegmentation.from_pretrained(tmp_path / "out")
    assert torch.equal(model.class_predictor.bias, tensors["decode_head.cls_embed.bias"]), (
        "weights keep their order"
    )


def test_miniatures_hold_what_the_authors_reader_allows(tmp_path):
    write_miniature(tmp_path / "x.pth", "isprs", 512)
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        program = archive.read("x/data.pkl")
    for name in (
        b"_rebuild_from_type_v2",
        b"_rebuild_parameter_with_state",
        b"torch\nTensor",
        b"HistoryBuffer",
    ):
        assert name in program


def test_flags_win_over_the_table(tmp_path):
    path = tmp_path / "WHU-Building-A2S.pth"
    write_miniature(path, "building", 512)
    config = write_config(tmp_path, SIZES + "window_stride: 256\nground_sampling_distance: 0.1\n")
    report = convert(path, tmp_path / "out", config=config, label_set="road")
    assert report.config.id2label == {0: "background", 1: "road"}
    assert (report.config.window_stride, report.config.ground_sampling_distance) == (256, 0.1)


def test_shapes_win_over_the_table(tmp_path):
    path = tmp_path / "Potsdam(i)-source.pth"
    torch.save({"state_dict": miniature_tensors("casid", 1024)}, path)
    report = convert(path, tmp_path / "out", config=write_config(tmp_path, SIZES))
    assert (report.config.image_size, report.config.window_stride) == (1024, 683)
    assert report.config.ground_sampling_distance is None
    assert "crop of 1024 px" in describe(report)
    assert "5 classes, label set isprs another number" in describe(report)


def test_dinov2_is_resampled_to_the_crop_of_the_table(tmp_path):
    tensors = miniature_tensors("casid", 512)
    path = tmp_path / "casid-sub-source.pth"
    torch.save(
        {"state_dict": {name: tensor for name, tensor in tensors.items() if not is_vit(name)}}, path
    )
    config = write_config(tmp_path, SIZES)
    message = refusal(convert, path, tmp_path / "out", config=config)
    assert "--backbone with Cusyoung/CrossEarth:dinov2_converted_1024x1024.pth" in message
    torch.save(
        {name: tensor for name, tensor in tensors.items() if is_vit(name)}, tmp_path / "vit.pth"
    )
    report = convert(path, tmp_path / "out", config=config, backbone=tmp_path / "vit.pth")
    assert report.config.image_size == 1024
    assert report.resampling == "positions 32 x 32 -> 64 x 64"


def test_other_networks_are_refused_before_a_download(tmp_path):
    for name in ("Cusyoung/CrossEarth:D2M-MTP.pth", str(tmp_path / "d2m-mtp.pth")):
        message = refusal(convert, name, tmp_path / "out")
        assert "rotated varied-size attention" in message
        assert "D2M-Rein.pth" in message
    for name in BACKBONES:
        assert published_file(f"Cusyoung/CrossEarth/{name}") is None
    assert published_file("Cusyoung/CrossEarth:D2M-Rein.pth") is FILES["D2M-Rein.pth"]
    assert published_file("mine.pth") is None


@pytest.mark.parametrize(
    ("listed", "expected", "is_reverse"),
    [
        (("Building", "Background"), ("background", "building"), True),
        (("Road", "Background"), ("background", "road"), True),
        (("background", "road"), ("background", "road"), False),
        (("Background", "Building"), ("background", "building"), False),
        (("Impervious surface", *LISTED["isprs"][1:]), LISTED["isprs"], False),
        (("Palm", "Background"), ("Palm", "Background"), False),
        ((), (), False),
    ],
)
def test_names_in_the_order_of_the_masks(listed, expected, is_reverse):
    assert in_order(listed) == (expected, is_reverse)


@pytest.mark.parametrize("kind", ["building", "road"])
def test_class_0_of_two_is_background_under_any_file_name(tmp_path, kind):
    write_miniature(tmp_path / "renamed.pth", kind, 512)
    report = convert(
        tmp_path / "renamed.pth", tmp_path / "out", config=write_config(tmp_path, SIZES)
    )
    assert report.config.id2label == {0: "background", 1: kind}
    assert report.config.label2id == {"background": 0, kind: 1}
    assert f"lists the classes as {', '.join(LISTED[kind])}" in describe(report)


def test_only_what_the_network_needs_must_be_a_tensor(tmp_path):
    tensors = miniature_tensors("isprs", 512)
    report, _ = convert_tensors(
        tmp_path, tensors | {"style_augmentor.x": torch.tensor([float("nan")])}, SIZES
    )
    assert report.training_only == ["style_augmentor.x"]
    tensors["backbone.blocks.1.norm1.bias"] = torch.full((64,), float("nan"))
    assert "backbone" in refusal(convert_tensors, tmp_path, tensors, SIZES, overwrite=True)
