"""Conversion against the reference data; what is refused; what is written."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
import torch
from paths import ROOT
from published import (
    ORACLE_CONFIG,
    UNUSED,
    convert_tensors,
    is_vit,
    meta_model,
    refusal,
    tiny_tensors,
    write_config,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_model import tiny_config

from crossearth_hf import (
    CrossEarthConfig,
    CrossEarthForSemanticSegmentation,
    CrossEarthImageProcessor,
)
from crossearth_hf.cli import main
from crossearth_hf.conversion.published import (
    convert,
    describe,
    from_published,
    infer_config,
    to_published,
)
from crossearth_hf.errors import InputError
from crossearth_hf.model.semantic_scores import semantic_scores

PUBLISHED = tiny_tensors()
FOREIGN = {
    "__builtin__.getattr",
    "_codecs.encode",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy._core.multiarray._reconstruct",
    "numpy.dtype",
    "numpy.ndarray",
}
INVENTED = {
    "auxiliary_head.cls_embed.weight",
    "auxiliary_head.mask_embed.0.weight",
    "backbone.reins.image_convs.0.bias",
    "backbone.reins.image_convs.0.weight",
    "backbone.reins.image_convs.1.running_mean",
    "backbone.reins.image_convs.2.weight",
    "style_augmentor.encoder.0.weight",
    "style_augmentor.mu",
}


def relative_error(value, reference):
    return ((value - reference).abs().max() / reference.abs().max()).item()


@pytest.mark.parametrize(
    ("name", "training_only", "inert"),
    [
        ("full", set(), set()),
        ("full_plus_unknown_modules", INVENTED, FOREIGN),
        ("reins_head_mmengine_pickle", set(), FOREIGN),
    ],
)
def test_reference_files_convert_to_the_reference_scores(
    shared, tmp_path, name, training_only, inert
):
    folder = shared / "oracle" / "tiny"
    backbone = None
    if name.startswith("reins"):
        full = torch.load(folder / "full.pth", weights_only=True)["state_dict"]
        backbone = tmp_path / "vit.pth"
        torch.save({key: value for key, value in full.items() if is_vit(key)}, backbone)
    report = convert(
        folder / f"{name}.pth", tmp_path / "out", backbone=backbone, config=write_config(tmp_path)
    )
    assert set(report.training_only) == training_only
    assert set(report.unused) == UNUSED
    assert set(report.inert_objects) == inert
    model = CrossEarthForSemanticSegmentation.from_pretrained(tmp_path / "out").eval()
    reference = torch.load(folder / "outputs.pt", weights_only=True)
    with torch.no_grad():
        output = model(reference["inputs"])
    scores = semantic_scores(output.class_queries_logits, output.masks_queries_logits, (64, 64))
    assert relative_error(scores, reference["seg_logits"]) < 1e-5
    if inert:  # the class names of mmengine's metadata
        assert model.config.id2label[4] == "car"


@pytest.mark.parametrize(("manifest", "preset"), [("L512", "large-512"), ("L1024", "large-1024")])
def test_published_manifests_are_consumed_whole(shared, manifest, preset):
    content = json.loads(
        (shared / "oracle" / "manifests" / f"manifest_{manifest}.json").read_text()
    )
    shapes = {
        name: entry["shape"] for group in content["keys"].values() for name, entry in group.items()
    }
    config = infer_config(shapes, {})
    assert config.to_dict() == CrossEarthConfig.from_preset(preset).to_dict()
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    ours = from_published(tensors, config)
    wanted = {name: tensor.shape for name, tensor in meta_model(config).state_dict().items()}
    assert {name: tensor.shape for name, tensor in ours.items()} == wanted
    assert tensors.keys() - to_published(ours).keys() == UNUSED
    consumed = sum(tensor.numel() for name, tensor in tensors.items() if name not in UNUSED)
    assert sum(tensor.numel() for tensor in ours.values()) == consumed


def test_round_trip_of_reference_parameters_and_gradients(shared):
    folder = shared / "oracle" / "tiny"
    full = torch.load(folder / "full.pth", weights_only=True)["state_dict"]
    gradients = torch.load(folder / "train.pt", weights_only=True)["grads"]
    for tensors in (full, gradients):
        again = to_published(from_published(tensors, tiny_config()))
        assert again.keys() == tensors.keys() - UNUSED
        assert all(torch.equal(again[name], tensors[name]) for name in again)


def without(name):
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def renamed(old, new):
    return lambda tensors: {key.replace(old, new): value for key, value in tensors.items()}


def changed(name, tensor):
    return lambda tensors: tensors | {name: tensor}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            changed("backbone.blocks.1.norm3.bias", torch.zeros(1)),
            r"not part of .*: backbone\.blocks\.1\.norm3\.bias;",
        ),
        (changed("neck.conv.weight", torch.zeros(1)), r"not part of .*: neck\.conv\.weight;"),
        (changed("extra", torch.zeros(1)), r"not part of .*: extra;"),
        (
            changed("decode_head.query_embed.weight", torch.zeros(10, 32)),
            r"not part of .*query_embed\.weight",
        ),
        (
            changed("backbone.reins.learnable_tokens_c", torch.zeros(1)),
            r"not part of .*learnable_tokens_c",
        ),
        (
            renamed(
                "decode_head.pixel_decoder.mask_feature", "decode_head.pixel_decoder.mask_features"
            ),
            "mask_feature",
        ),
        (
            renamed("blocks.2.mlp.fc1", "blocks.2.mlp.fc_1"),
            r"not part of .*blocks\.2\.mlp\.fc_1\.bias",
        ),
        (
            renamed("mlp_delta_f", "mlp_delta"),
            r"lacks backbone\.reins\.mlp_delta_f\.bias.*unknown .*mlp_delta\.bias",
        ),
        (renamed("decode_head.", "decode_heads."), r"no segmentation head .* published CrossEarth"),
        (
            without("backbone.blocks.3.ls2.gamma"),
            r"lacks backbone\.blocks\.3\.ls2\.gamma; give a complete file",
        ),
        (without("backbone.pos_embed"), r"lacks 'backbone\.pos_embed'"),
        (renamed("backbone.blocks.1.", "backbone.blocks.7."), r"lacks 'backbone\.blocks\.1'"),
        (changed("backbone.pos_embed", torch.zeros(1, 16, 64)), "15 positions, no square"),
        (
            changed("decode_head.cls_embed.bias", torch.zeros(8)),
            r"'decode_head\.cls_embed\.bias' .*\(8,\).*\(7,\)",
        ),
        (changed("backbone.norm", torch.zeros(1)), r"not part of .*: backbone\.norm;"),
        (
            changed("backbone.cls_token", torch.zeros(1, 1, 64, dtype=torch.int64)),
            "'backbone.cls_token' holds torch.int64",
        ),
        (
            changed("decode_head.cls_embed.weight", torch.tensor(1.0)),
            r"'decode_head\.cls_embed\.weight' .*too few axes",
        ),
        (
            changed("backbone.cls_token", "text"),
            "'backbone.cls_token' is a builtins.str, not a tensor",
        ),
        (
            changed("backbone.cls_token", torch.eye(64).to_sparse()),
            "'backbone.cls_token' is sparse",
        ),
        (lambda tensors: {}, "holds no tensors by name"),
        (lambda tensors: [1, 2], "holds no tensors by name"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path, change, sentence):
    torch.save({"state_dict": change(PUBLISHED)}, tmp_path / "source.pth")
    before = (tmp_path / "source.pth").read_bytes()
    with pytest.raises(InputError, match=sentence):
        convert(tmp_path / "source.pth", tmp_path / "out", config=write_config(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"source.pth", "given.yaml"}
    assert (tmp_path / "source.pth").read_bytes() == before


def test_whole_modules_of_training_code_are_dropped_and_listed(tmp_path):
    extra = (
        "reconstruction_head.net.0.weight",
        "backbone.reins.high_extractor.stem.0.weight",
        "style_augmentor.mu",
    )
    report, _ = convert_tensors(tmp_path, PUBLISHED | {name: torch.zeros(2) for name in extra})
    assert report.training_only == sorted(extra)
    card = (tmp_path / "out" / "README.md").read_text()
    assert all(name in card for name in extra)
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["training_only"]) == sorted(extra)


def test_modules_inside_the_network_are_dropped_only_where_declared(tmp_path):
    tensors = PUBLISHED | {"decode_head.reconstruction.weight": torch.zeros(2)}
    with pytest.raises(InputError, match=r"decode_head\.reconstruction\.weight; .*training_only"):
        convert_tensors(tmp_path, tensors)
    report, _ = convert_tensors(
        tmp_path, tensors, ORACLE_CONFIG + "training_only: [decode_head.reconstruction]"
    )
    assert report.training_only == ["decode_head.reconstruction.weight"]


def test_label_sets_name_the_classes_or_contradict(tmp_path):
    _, model = convert_tensors(tmp_path, PUBLISHED, label_set="isprs")
    assert model.config.id2label[5] == "clutter"
    assert model.config.label2id["car"] == 4
    message = refusal(convert_tensors, tmp_path, PUBLISHED, label_set="loveda", overwrite=True)
    assert "6 classes, the label set 'loveda' has 7; choose 'isprs' or none" in message
    message = refusal(convert_tensors, tmp_path, PUBLISHED, label_set="mars", overwrite=True)
    assert "'mars' is not a label set" in message


def test_written_folder(tmp_path):
    report, model = convert_tensors(tmp_path, PUBLISHED)
    out = tmp_path / "out"
    code = {path.name for path in (ROOT / "hub_cards" / "crossearth-small").glob("*.py")}
    files = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert {path.name for path in out.iterdir()} == code | files
    digest = hashlib.sha256((tmp_path / "source.pth").read_bytes()).hexdigest()
    assert report.sources == (("source.pth", digest),)
    card = (out / "README.md").read_text()
    assert digest in card
    assert "num_attention_heads 4" in card
    assert "backbone.mask_token" in card
    assert digest in describe(report)
    assert model.config.window_stride == 43
    assert model.config.architectures == ["CrossEarthForSemanticSegmentation"]
    assert CrossEarthImageProcessor.from_pretrained(out).size_divisor == 16
    written = json.loads((out / "config.json").read_text())
    model.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    assert written | {"backbone_config": 0} == again | {"backbone_config": 0}
    assert (out / "model.safetensors").stat().st_mode == (out / "config.json").stat().st_mode


def test_precision_is_kept(tmp_path):
    _, model = convert_tensors(
        tmp_path, {name: tensor.bfloat16() for name, tensor in PUBLISHED.items()}
    )
    assert model.config.dtype == torch.bfloat16
    assert torch.equal(
        model.class_predictor.weight, PUBLISHED["decode_head.cls_embed.weight"].bfloat16()
    )


def test_safetensors_checkpoint(tmp_path):
    save_file(PUBLISHED, tmp_path / "source.safetensors")
    convert(tmp_path / "source.safetensors", tmp_path / "out", config=write_config(tmp_path))
    ours = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(
        ours["model.adapter.tokens_a"], PUBLISHED["backbone.reins.learnable_tokens_a"]
    )


def test_existing_folders_are_kept_unless_they_are_models(tmp_path):
    source, out, config = tmp_path / "source.pth", tmp_path / "out", write_config(tmp_path)
    torch.save(PUBLISHED, source)
    convert(source, out, config=config)
    (out / "notes.txt").write_text("old")
    assert "exists already; add --overwrite" in refusal(convert, source, out, config=config)
    # A conversion that fails leaves the old folder as it was.
    assert "'mars'" in refusal(
        convert, source, out, config=config, overwrite=True, label_set="mars"
    )
    assert (out / "notes.txt").exists()
    # What a conversion has not written would be lost.
    assert "notes.txt would be lost" in refusal(convert, source, out, config=config, overwrite=True)
    (out / "notes.txt").unlink()
    convert(source, out, config=config, overwrite=True)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"model_type": "bert"}')
    for other in (tmp_path, config, foreign):
        assert "not a model folder" in refusal(
            convert, source, other, config=config, overwrite=True
        )
    assert "does not exist; create it" in refusal(
        convert, source, tmp_path / "a" / "b", config=config
    )
    os.replace(source, out / "source.pth")
    assert "lies inside" in refusal(convert, out / "source.pth", out, config=config, overwrite=True)
    assert (out / "source.pth").exists()


def test_command_line(tmp_path, capsys):
    torch.save(PUBLISHED, tmp_path / "source.pth")
    arguments = [
        "convert",
        str(tmp_path / "source.pth"),
        str(tmp_path / "out"),
        "--label-set",
        "isprs",
    ]
    assert main(arguments) == 2
    assert "num_attention_heads cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--config", str(write_config(tmp_path))]) == 0
    written = capsys.readouterr().out
    assert "clutter" in written
    assert str(tmp_path / "out") in written


@pytest.mark.parametrize(
    "broken", ["conversion.published.save_file", "files.outputs.move_into_place"]
)
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, broken):
    torch.save(PUBLISHED, tmp_path / "source.pth")
    convert(tmp_path / "source.pth", tmp_path / "out", config=write_config(tmp_path))
    before = (tmp_path / "out" / "model.safetensors").read_bytes()

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"crossearth_hf.{broken}", fail)
    message = refusal(
        convert,
        tmp_path / "source.pth",
        tmp_path / "out",
        config=write_config(tmp_path),
        overwrite=True,
    )
    assert "No space left on device" in message
    assert {path.name for path in tmp_path.iterdir()} == {"source.pth", "given.yaml", "out"}
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before


@pytest.mark.slow
def test_peak_memory_of_a_full_vit_large_is_below_twice_the_file(tmp_path):
    shapes = {
        name: t.shape
        for name, t in to_published(meta_model(CrossEarthConfig()).state_dict()).items()
    }
    torch.save({name: torch.randn(shape) for name, shape in shapes.items()}, tmp_path / "large.pth")
    code = (
        "import resource, sys; from crossearth_hf.conversion.published import convert; convert(*sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "large.pth"), str(tmp_path / "out")]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert peak < 2 * (tmp_path / "large.pth").stat().st_size
