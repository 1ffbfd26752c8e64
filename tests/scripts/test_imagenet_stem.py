"""The stem against EfficientNet-Lite0 written out with batch normalization, on random weights of the file's names."""

import pytest
import torch
from imagenet_stem import load_imagenet_stem
from safetensors.torch import load_file
from start_from_imagenet import main
from torch.nn import functional as F
from transformers import Dinov2Config, Dinov2Model

from crossearth_hf.errors import InputError
from crossearth_hf.inference.loading import BUNDLED_MODEL, load_model
from crossearth_hf.model.image_processing_crossearth import IMAGENET_MEAN, IMAGENET_STD

# (expansion, kernel, stride, width, blocks) as in the table of the paper, without its ninth stage
TABLE = [(1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
         (6, 3, 1, 320, 1)]  # fmt: skip


MEAN, STD = torch.tensor(IMAGENET_MEAN)[:, None, None], torch.tensor(IMAGENET_STD)[:, None, None]


def blocks():
    width = 32
    for expansion, kernel, stride, out, count in TABLE:
        for index in range(count):
            yield width, expansion, kernel, stride if index == 0 else 1, out
            width = out


def random_file(path):
    generator = torch.Generator().manual_seed(0)
    state = {}

    def layer(convolution, norm, *shape):
        fan_in = shape[1] * shape[2] * shape[3]
        state[f"{convolution}.weight"] = (
            torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        )
        for name in ("weight", "running_var"):
            state[f"{norm}.{name}"] = torch.rand(shape[0], generator=generator) + 0.5
        for name in ("bias", "running_mean"):
            state[f"{norm}.{name}"] = torch.randn(shape[0], generator=generator) * 0.1
        state[f"{norm}.num_batches_tracked"] = torch.tensor(1)

    layer("_conv_stem", "_bn0", 32, 3, 3, 3)
    for index, (inputs, expansion, kernel, _, width) in enumerate(blocks()):
        hidden = inputs * expansion
        if expansion > 1:
            layer(f"_blocks.{index}._expand_conv", f"_blocks.{index}._bn0", hidden, inputs, 1, 1)
        layer(
            f"_blocks.{index}._depthwise_conv", f"_blocks.{index}._bn1", hidden, 1, kernel, kernel
        )
        layer(f"_blocks.{index}._project_conv", f"_blocks.{index}._bn2", width, hidden, 1, 1)
    torch.save(state, path)
    return state


def reference(state, images):
    """All maps, with TensorFlow's padding for even sides and normalization in the open."""

    def layer(x, convolution, norm, kernel, stride=1, groups=1):
        total = kernel - stride if stride == 2 else kernel - 1
        x = F.pad(x, (total // 2, total - total // 2) * 2)
        x = F.conv2d(x, state[f"{convolution}.weight"], stride=stride, groups=groups)
        mean, var, weight, bias = (
            state[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias, eps=1e-3)

    # ours pads with the mean color
    border = torch.zeros_like(F.pad(images, (0, 1, 0, 1))) + (255 * MEAN - 127) / 128
    border[..., :-1, :-1] = images
    x = F.relu6(
        layer(border, "_conv_stem", "_bn0", 3, stride=2)[
            ..., : images.shape[-2] // 2, : images.shape[-1] // 2
        ]
    )
    maps = []
    for index, (inputs, expansion, kernel, stride, width) in enumerate(blocks()):
        old, y = f"_blocks.{index}", x
        if expansion > 1:
            y = F.relu6(layer(y, f"{old}._expand_conv", f"{old}._bn0", 1))
        y = F.relu6(
            layer(y, f"{old}._depthwise_conv", f"{old}._bn1", kernel, stride, inputs * expansion)
        )
        y = layer(y, f"{old}._project_conv", f"{old}._bn2", 1)
        x = x + y if stride == 1 and inputs == width else y
        maps.append(x)
    return [maps[index] for index in (2, 4, 10, 15)]  # the last blocks of strides 4, 8, 16, 32


def test_equals_the_network_with_batch_normalization(tmp_path):
    state = random_file(tmp_path / "lite0.pth")
    stem = load_imagenet_stem(tmp_path / "lite0.pth").eval()
    pixels = torch.randint(
        0, 256, (2, 3, 96, 128), generator=torch.Generator().manual_seed(1)
    ).float()
    wanted = reference(state, (pixels - 127) / 128)
    with torch.no_grad():
        found = stem((pixels / 255 - MEAN) / STD)
    assert [tuple(m.shape) for m in found] == [
        (2, 24, 24, 32),
        (2, 40, 12, 16),
        (2, 112, 6, 8),
        (2, 320, 3, 4),
    ]
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("content", [None, b"no checkpoint", "other"])
def test_a_file_that_is_no_efficientnet_is_refused(tmp_path, content):
    path = tmp_path / "weights.pth"
    if content == "other":
        torch.save({"fc.weight": torch.zeros(2, 2)}, path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.pth"):
        load_imagenet_stem(path)


@pytest.fixture
def vit(tmp_path):
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=48,
        num_hidden_layers=5,
        num_attention_heads=2,
        image_size=256,
        patch_size=16,
        mlp_ratio=1,
    )
    Dinov2Model(config).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


def test_backbone_stem_and_head_come_together(vit, tmp_path, monkeypatch, capsys):
    random_file(tmp_path / "stem.pth")
    out = tmp_path / "start"
    arguments = [
        str(out),
        "--backbone",
        str(vit),
        "--backbone_blocks",
        "4",
        "--weights",
        str(tmp_path / "stem.pth"),
    ]
    monkeypatch.setattr(
        "sys.argv", ["start_from_imagenet.py", *arguments, "--head", str(BUNDLED_MODEL)]
    )
    assert main() == 0
    assert f"tensors of the head come from {BUNDLED_MODEL}" in capsys.readouterr().out
    model, _ = load_model(out)
    assert model.config.backbone_config.num_hidden_layers == 4
    assert not model.config.stem_makes_patches
    weights, head, tokens = (
        load_file(folder / "model.safetensors") for folder in (out, BUNDLED_MODEL, vit)
    )
    name = "class_predictor.weight"
    assert weights[name].equal(head[name].to(weights[name].dtype))
    assert weights["model.backbone.layer.3.norm1.weight"].equal(
        tokens["encoder.layer.3.norm1.weight"]
    )
    assert "model.backbone.stem.first.weight" in weights
