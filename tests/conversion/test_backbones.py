"""ViTs without a head become new models: layouts, what is said, what training makes of them, what is refused."""

import json

import pytest
import torch
from dinov2_layouts import dinov2, original_layout, save_backbone
from published import refusal, tiny_tensors, write_config
from safetensors.torch import load_file, save_file
from tiny_model import tiny_config
from training_runs import log_lines, make_workplace, settings
from transformers import DINOv3ViTConfig, DINOv3ViTModel, ViTConfig

from crossearth_hf import CrossEarthForSemanticSegmentation
from crossearth_hf.cli import main
from crossearth_hf.conversion import convert, describe, read_backbone
from crossearth_hf.inference.loading import load_model
from crossearth_hf.training.trainer import train

SATELLITE = {"image_mean": (0.43, 0.411, 0.296), "image_std": (0.213, 0.156, 0.143)}
IMAGENET = (0.485, 0.456, 0.406)
HEADS = "num_attention_heads: 4\nimage_size: 64\n"
KINDS = ({}, {"use_swiglu_ffn": True}, {"registers": True})


def dinov3(folder, depth=5, statistics=True):
    """A random DINOv3 in its folder, with the files that come with weights for satellite images."""
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "num_hidden_layers": depth,
    }
    vit = DINOv3ViTModel(DINOv3ViTConfig(**sizes, num_register_tokens=4)).eval()
    vit.save_pretrained(folder)
    if statistics:
        values = {
            **SATELLITE,
            "image_processor_type": "DINOv3ViTImageProcessorFast",
            "size": {"height": 224},
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(values))
        (folder / "LICENSE.md").write_text("DINOv3 License\n")
    return vit


def new_model(checkpoint, folder, **options):
    report = convert(checkpoint, folder, preset="small", **options)
    model, processor = load_model(folder)
    return report, model, processor


def assert_same_tokens(model, vit):
    """The adapters start at a thousandth: without them the tokens are those of transformers."""
    model.config.rein_refines_features = False
    pixels = torch.randn(2, 3, model.config.image_size, model.config.image_size)
    with torch.no_grad():
        expected = vit(pixels, output_hidden_states=True).hidden_states
        found = model.model(pixels, output_hidden_states=True).hidden_states
    for ours, theirs in zip(found, expected, strict=False):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("layout", "kind"),
    [(layout, kind) for layout in ("folder", "original") for kind in KINDS]
    + [("prefixed", {}), ("in memory", {})],
)
def test_layouts_of_dinov2_become_models(tmp_path, layout, kind):
    vit = dinov2(**kind)
    path = save_backbone(vit, tmp_path, layout)
    report, model, processor = new_model(
        path, tmp_path / "out", config=write_config(tmp_path, HEADS)
    )
    assert report.resampling is None
    assert report.training_only == (["classifier.weight"] if layout == "in memory" else [])
    assert set(report.unused) <= {"layernorm.weight", "layernorm.bias", "embeddings.mask_token"}
    assert model.config.pretrained_backbone == path.name
    assert processor.image_mean == IMAGENET
    assert_same_tokens(model, vit)


def test_patches_of_14_pixels_are_resampled_as_for_checkpoints(tmp_path):
    torch.save(original_layout(dinov2(patch_size=14, image_size=70)), tmp_path / "vit.pth")
    report, model, _ = new_model(
        tmp_path / "vit.pth", tmp_path / "out", config=write_config(tmp_path, HEADS)
    )
    assert report.resampling == "patch kernel 14 -> 16 and positions 5 x 5 -> 4 x 4"
    assert model.model.backbone.embeddings.position_embeddings.shape == (1, 17, 64)


def test_a_new_model_says_so_and_is_the_same_each_time(tmp_path, capsys):
    dinov3(tmp_path / "vit")
    arguments = [
        "convert",
        str(tmp_path / "vit"),
        str(tmp_path / "one"),
        "--preset",
        "small",
        "--label-set",
        "road",
    ]
    before = torch.random.get_rng_state()
    assert main([*arguments, "--backbone-blocks", "4"]) == 0
    assert torch.random.get_rng_state().equal(before)
    printed = capsys.readouterr().out
    assert "adapters, stem and head are random (seed 0)" in printed
    assert "crossearth train with this folder as --model" in printed
    assert "pretrained DINOv3 of vit, license dinov3-license" in printed
    assert "Built with DINOv3" in printed
    assert "Of its 5 blocks the first 4 are used" in printed
    card = (tmp_path / "one" / "README.md").read_text()
    assert "**This model is not trained**" in card
    assert (
        "license: other\nlicense_name: dinov3-license\nlicense_link: https://ai.meta.com/" in card
    )
    assert str(tmp_path) not in card + (tmp_path / "one" / "config.json").read_text()
    again = convert(
        tmp_path / "vit", tmp_path / "two", preset="small", num_blocks=4, label_set="road"
    )
    assert "pretrained DINOv3 of vit" in describe(again)
    one, two = (load_model(tmp_path / name)[0] for name in ("one", "two"))
    assert all(tensor.equal(two.state_dict()[name]) for name, tensor in one.state_dict().items())
    assert one.config.id2label == {0: "background", 1: "road"}
    assert len(one.model.backbone.layer) == 4


def test_a_satellite_backbone_brings_its_statistics_and_license(tmp_path):
    vit = dinov3(tmp_path / "sat")
    _, model, processor = new_model(tmp_path / "sat", tmp_path / "out")
    assert (processor.image_mean, processor.image_std) == tuple(SATELLITE.values())
    assert not processor.do_resize
    assert (tmp_path / "out" / "LICENSE.md").read_text() == "DINOv3 License\n"
    assert_same_tokens(model, vit)


def test_a_cut_backbone_trains_saves_converts_and_loads(tmp_path):
    workplace = make_workplace(tmp_path)
    dinov3(tmp_path / "vit")
    convert(
        tmp_path / "vit",
        tmp_path / "start",
        preset="small",
        num_blocks=4,
        config=write_config(tmp_path, HEADS),
    )
    changes = {"adaptation": "rein", "max_steps": 2, "bands": [1, 2, 3]}
    train(settings(workplace, tmp_path / "run", model=str(tmp_path / "start"), **changes))
    trained, processor = load_model(tmp_path / "run")
    assert len(trained.model.backbone.layer) == 4
    assert (trained.config.pretrained_backbone, trained.config.num_labels) == ("vit", 5)
    assert processor.image_mean == SATELLITE["image_mean"]
    start = load_model(tmp_path / "start")[0].state_dict()
    frozen = {
        name: tensor for name, tensor in trained.state_dict().items() if "backbone.layer" in name
    }
    assert all(tensor.equal(start[name]) for name, tensor in frozen.items())
    assert not trained.pixel_decoder.mask_projection.weight.equal(
        start["pixel_decoder.mask_projection.weight"]
    )


@pytest.mark.parametrize("kind", ["file", "dinov3"])
def test_training_starts_on_a_backbone(tmp_path, kind):
    workplace = make_workplace(tmp_path)
    if kind == "file":
        torch.manual_seed(0)
        torch.save(
            original_layout(dinov2(hidden_size=384, num_attention_heads=6)), tmp_path / "vit"
        )
        (tmp_path / "vit").rename(backbone := tmp_path / "dinov2_vits14.pth")
    else:
        dinov3(backbone := tmp_path / "dinov3")
    changes = {
        "backbone": str(backbone),
        "backbone_blocks": 4,
        "adaptation": "rein+lora",
        "max_steps": 2,
    }
    train(settings(workplace, tmp_path / "run", **changes))
    model, processor = load_model(tmp_path / "run")
    assert model.config.pretrained_backbone == backbone.name
    assert processor.image_mean == (SATELLITE["image_mean"] if kind == "dinov3" else IMAGENET)
    assert log_lines(tmp_path / "run")


def test_what_is_no_backbone_is_refused(tmp_path, capsys):
    out = tmp_path / "out"
    ViTConfig().save_pretrained(tmp_path / "vit")
    assert (
        "model of type 'vit'; a backbone is one of dinov2, dinov2_with_registers, dinov3_vit"
        in refusal(convert, tmp_path / "vit", out)
    )
    dinov3(tmp_path / "dinov3", statistics=False)
    convert(tmp_path / "dinov3", tmp_path / "whole", preset="small")
    assert "whole CrossEarth model" in refusal(convert, tmp_path / "whole", out)
    assert "stem that makes the patches" in refusal(
        convert, tmp_path / "dinov3", out, preset="tiny"
    )
    assert "'huge' is not a preset" in refusal(convert, tmp_path / "dinov3", out, preset="huge")
    for number in (6, 3, 0):
        assert f"{number} blocks are not 4 to 5" in refusal(
            convert, tmp_path / "dinov3", out, num_blocks=number
        )
    unfit = write_config(tmp_path, "group_norm_groups: 8\n")
    assert "a new model has no group_norm_groups" in refusal(
        convert, tmp_path / "dinov3", out, config=unfit
    )
    torch.save(tiny_tensors(), tmp_path / "published.pth")
    assert "leave out preset" in refusal(convert, tmp_path / "published.pth", out, preset="small")
    sizes = json.loads((tmp_path / "dinov3" / "config.json").read_text())
    for changes, reason in (
        ({"num_hidden_layers": 10**9}, "num_hidden_layers 1000000000 must be a whole number"),
        ({"intermediate_size": 60_000}, "describes a network of 19"),
    ):
        (tmp_path / "dinov3" / "config.json").write_text(json.dumps(sizes | changes))
        assert reason in refusal(convert, tmp_path / "dinov3", out)
    (tmp_path / "dinov3" / "config.json").write_text(json.dumps(sizes))
    weights = tmp_path / "dinov3" / "model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if name.endswith("o_proj.weight"))
    save_file(tensors | {name: tensors[name][1:].clone()}, weights, {"format": "pt"})
    said = refusal(convert, tmp_path / "dinov3", out)
    assert "does not fit its own configuration" in said
    assert name.removeprefix("model.") in said
    weights.write_bytes(b"no weights")
    assert main(["convert", str(tmp_path / "dinov3"), str(out)]) == 2
    assert "is not a weight file" in capsys.readouterr().err
    assert not out.exists()


def test_damaged_statistics_are_refused(tmp_path):
    dinov3(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").write_text(
        json.dumps({"image_std": [1.0, 0.0, 1.0]})
    )
    assert "image_std" in refusal(read_backbone, tmp_path / "vit")


def test_files_that_are_incomplete_are_refused(tmp_path):
    tensors = original_layout(dinov2(hidden_size=384, num_attention_heads=6))
    cases = {
        "lacks encoder.layer.2.norm1.bias": {"blocks.2.norm1.bias": None},
        "has the unknown backbone.blocks.1.gate": {"blocks.1.gate": torch.ones(3)},
        "NaN": {"norm.bias": torch.full((384,), torch.nan)},
        "must be (384,)": {"blocks.0.ls1.gamma": torch.ones(3)},
        "DINOv3 in its authors' layout": {"storage_tokens": torch.ones(1, 4, 384)},
    }
    for reason, changes in cases.items():
        state = {name: tensor for name, tensor in (tensors | changes).items() if tensor is not None}
        torch.save(state, tmp_path / "vit.pth")
        assert reason in refusal(read_backbone, tmp_path / "vit.pth")


class Hostile:
    """Would leave a file behind if its pickle were loaded freely."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_runs_nothing(tmp_path):
    torch.save({"cls_token": Hostile(str(tmp_path / "proof"))}, tmp_path / "vit.pth")
    refusal(read_backbone, tmp_path / "vit.pth")
    assert not (tmp_path / "proof").exists()


def test_from_python(tmp_path):
    torch.save(
        original_layout(dinov2(hidden_size=384, num_attention_heads=6)), tmp_path / "vit.pth"
    )
    backbone = read_backbone(tmp_path / "vit.pth")
    from_file = CrossEarthForSemanticSegmentation.from_backbone(backbone.vit, tiny_config())
    assert from_file.config.pretrained_backbone == "vit.pth"
    backbone.vit.save_pretrained(tmp_path / "folder")
    from_folder = CrossEarthForSemanticSegmentation.from_backbone(
        tmp_path / "folder", tiny_config()
    )
    assert from_folder.config.pretrained_backbone == "folder"
    ours, theirs = (model.model.backbone.state_dict() for model in (from_file, from_folder))
    assert all(tensor.equal(theirs[name]) for name, tensor in ours.items())
