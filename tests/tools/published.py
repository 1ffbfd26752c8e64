"""Random published checkpoints of the tiny architecture, and their conversion."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import tiny_config
from torch import Tensor

from crossearth_hf import CrossEarthConfig, CrossEarthForSemanticSegmentation
from crossearth_hf.conversion.published import ConversionReport, convert, to_published
from crossearth_hf.errors import InputError

ORACLE_CONFIG = """\
num_attention_heads: 4
out_indices: [0, 1, 2, 3]
group_norm_groups: 8
window_stride: 43
"""
UNUSED = {"backbone.mask_token", "backbone.norm.weight", "backbone.norm.bias"}


def meta_model(config: CrossEarthConfig) -> CrossEarthForSemanticSegmentation:
    with torch.device("meta"):
        return CrossEarthForSemanticSegmentation(config)


def random_tensors(config: CrossEarthConfig) -> dict[str, Tensor]:
    """A published state dict with every number drawn at random, the unused tensors included."""
    generator = torch.Generator().manual_seed(0)
    width = config.backbone_config.hidden_size
    shapes: dict[str, Any] = {
        name: t.shape for name, t in to_published(meta_model(config).state_dict()).items()
    }
    shapes |= {
        "backbone.mask_token": (1, width),
        "backbone.norm.weight": (width,),
        "backbone.norm.bias": (width,),
    }
    return {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}


@cache
def tiny_tensors() -> dict[str, Tensor]:
    return random_tensors(tiny_config())


def is_vit(name: str) -> bool:
    return name.startswith("backbone.") and not name.startswith("backbone.reins.")


def write_config(folder: Path, text: str = ORACLE_CONFIG) -> Path:
    """A `--config` file in `folder`."""
    path = folder / "given.yaml"
    path.write_text(text)
    return path


def convert_tensors(
    folder: Path, tensors: dict[str, Tensor], config: str = ORACLE_CONFIG, **options: Any
) -> tuple[ConversionReport, CrossEarthForSemanticSegmentation]:
    """Saves `tensors` as source.pth, converts that into out/ and loads the result."""
    torch.save({"state_dict": tensors}, folder / "source.pth")
    report = convert(
        folder / "source.pth", folder / "out", config=write_config(folder, config), **options
    )
    return report, CrossEarthForSemanticSegmentation.from_pretrained(folder / "out").eval()


def refusal(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """The sentence with which `call` refuses."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message
