"""What of a model is trained: nothing of the ViT, Rein, LoRA, the whole ViT, or two of these.

| adaptation | ViT | Rein refines the features |
|---|---|---|
| `frozen` | frozen | no |
| `rein` | frozen | yes (CrossEarth, section III) |
| `lora` | frozen, with LoRA (Hu et al., ICLR 2022) | no |
| `full` | trained | no |
| `rein+lora` | frozen, with LoRA | yes |
| `full+rein` | trained | yes |

The head is trained in every row, and with it Rein's tokens wherever the queries are computed from them: `frozen` means
features of the frozen ViT under the same head, not a head of another design. With more than three channels the kernels
that read the pixels are trained in every row too, see `CrossEarthPreTrainedModel.freeze_backbone`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import InputError
from ..model.modeling_crossearth import CrossEarthPreTrainedModel
from ..model.modeling_multitask import CrossEarthForMultiTaskTraining
from ..model.modeling_rein import CrossEarthRein
from .config import ADAPTATIONS

_NAME_IN_PEFT = "default"


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank updates W + (alpha / rank) B A of the ViT's linear layers.

    Attributes:
        rank: Rank of the update.
        alpha: Its weight times the rank.
        dropout: Probability with which an input of the update is dropped in training.
        targets: Names of the linear layers, in every block; the default is that of the LoRA paper.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "v_proj")

    @property
    def scaling(self) -> float:
        """Factor in front of B A."""
        return self.alpha / self.rank


@torch.no_grad()
def extend_channels(model: CrossEarthPreTrainedModel, num_channels: int) -> None:
    """Makes a trained model take further input channels, in place; the processor has a method of the same name.

    Our choice: the kernel of a further channel is the mean of those that are there, and all are scaled by the old
    number of channels over the new one, 3/4 for a fourth band. An image whose further bands equal the mean of the first
    ones gives the activations that it gave before: exactly in gray, nearly so in color. What Multi-Task Training
    rebuilds of a further channel is likewise the mean of the others. The new kernels know nothing of their bands yet:
    they are trained whatever the adaptation, see `CrossEarthPreTrainedModel.freeze_backbone`.

    Args:
        model: A CrossEarth model or a peer, before `adapt`.
        num_channels: As many as it has, or more; the old ones come first.

    Raises:
        InputError: fewer channels than the model has.
    """
    old = model.config.num_channels
    if num_channels < old:
        raise InputError(f"the model takes {old} channels and cannot do with {num_channels}; give {old} or more")
    if num_channels == old:
        return
    kernels: list[Any] = [model.input_convolution]
    if isinstance(model, CrossEarthForMultiTaskTraining):
        kernels.append(model.multitask.extractor.layers[0])
        pixels = model.multitask.reconstruction.pixels
        for module, name in ((model.multitask, "mask_token"), (pixels, "weight"), (pixels, "bias")):
            _append_means(module, name, 0, num_channels)
        pixels.out_channels = num_channels
    for kernel in kernels:
        _append_means(kernel, "weight", 1, num_channels)
        kernel.weight.mul_(old / num_channels)
        kernel.in_channels = num_channels
    for module in model.modules():
        if getattr(module, "projection", None) is model.input_convolution:
            module.num_channels = num_channels  # DINOv2 checks its images by it
    model.config.num_channels = num_channels
    model.input_convolution.requires_grad_(True)


def adapt(model: CrossEarthPreTrainedModel, adaptation: str, lora: LoraSettings | None = None) -> None:
    """Prepares `model`, with its head, for training: sets what needs gradients, adds LoRA, and the config's fields.

    Weights do not change: LoRA starts at zero, but Rein's refinement is switched on or off. Start the variants without
    Rein from weights that were trained without it.

    Args:
        model: A CrossEarth model, in place; without LoRA layers.
        adaptation: One of the table above.
        lora: Settings of the variants with LoRA.

    Raises:
        InputError: an unknown adaptation, LoRA targets that match nothing, peft not installed.
    """
    if adaptation not in ADAPTATIONS:
        raise InputError(f"adaptation is {adaptation!r}; it must be one of {', '.join(ADAPTATIONS)}")
    parts = adaptation.split("+")
    model.requires_grad_(True)
    model.config.freeze_backbone = False
    if "full" not in parts:
        model.freeze_backbone()
    model.config.rein_refines_features = "rein" in parts
    _freeze_unused(model.base_model.adapter, refines="rein" in parts, links=model.config.link_queries)
    if "lora" in parts:
        _add_lora(model, lora or LoraSettings())


def train_features_alone(model: CrossEarthForMultiTaskTraining) -> None:
    """Stops gradients of all that reconstruction does not use, after `adapt`."""
    model.freeze_head()
    if not model.config.rein_refines_features:
        model.model.adapter.requires_grad_(False)


def describe_trainable(network: nn.Module, adaptation: str) -> str:
    """One line: how many of the parameters are trained."""
    total = sum(parameter.numel() for parameter in network.parameters())
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    return f"adaptation '{adaptation}' trains {trained:,} of {total:,} parameters ({trained / total:.2%})"


def merged(state: Mapping[str, Tensor], lora: LoraSettings) -> dict[str, Tensor]:
    """Weights of the plain model: LoRA's updates added to the layers that they belong to, and gone by name.

    Args:
        state: Full state of a model with LoRA layers (or without any: it is returned as it is).
        lora: The settings that it was trained with.
    """
    plain = {}
    for name, value in state.items():
        if ".lora_" in name:
            continue
        if name.endswith(".base_layer.weight"):
            layer = name.removesuffix(".base_layer.weight")
            down, up = (state[f"{layer}.lora_{part}.{_NAME_IN_PEFT}.weight"] for part in "AB")
            value = value + (up @ down) * lora.scaling
        plain[name.replace(".base_layer.", ".")] = value
    return plain


def save_adapter(
    folder: Path, model: CrossEarthPreTrainedModel, state: Mapping[str, Tensor], lora: LoraSettings, base: str
) -> None:
    """Writes what was trained, LoRA, adapters and head, for `PeftModel.from_pretrained(base_model, folder)`.

    The model's own configuration lies beside it, since the base model must be built with these classes:
    `CrossEarthForSemanticSegmentation.from_pretrained(base, config=CrossEarthConfig.from_pretrained(folder),
    ignore_mismatched_sizes=True)`.

    Args:
        folder: Existing folder for `adapter_model.safetensors`, `adapter_config.json` and `config.json`.
        model: The model as `adapt` left it; only names and configuration are read.
        state: Its full state.
        lora: Its settings.
        base: Folder or Hub id of the weights that training started from.
    """
    trained = _trained_modules(model)
    kept = {
        f"base_model.model.{name.replace(f'.{_NAME_IN_PEFT}.', '.')}": value.contiguous()
        for name, value in state.items()
        if ".lora_" in name or name.startswith(tuple(f"{module}." for module in trained))
    }
    save_file(kept, folder / "adapter_model.safetensors", {"format": "pt"})
    config = _lora_config(lora)
    config.modules_to_save, config.base_model_name_or_path, config.inference_mode = trained, base, True
    config.save_pretrained(str(folder))
    model.config.save_pretrained(folder)


def _append_means(module: nn.Module, name: str, axis: int, length: int) -> None:
    """Makes a parameter `length` long along `axis`, with the mean of what is there."""
    old = module.get_parameter(name)
    further = old.mean(axis, keepdim=True).repeat_interleave(length - old.shape[axis], axis)
    setattr(module, name, nn.Parameter(torch.cat([old, further], axis), old.requires_grad))


def _freeze_unused(adapter: CrossEarthRein, *, refines: bool, links: bool) -> None:
    """Stops gradients of what takes no part: distributed training waits for the gradient of every other parameter."""
    for name, parameter in adapter.named_parameters():
        root = name.split(".")[0]
        if root in ("transform", "merge"):
            parameter.requires_grad_(links)
        elif root in ("token2feat", "delta_f", "scale"):
            parameter.requires_grad_(refines)
        else:  # the tokens
            parameter.requires_grad_(refines or links)


def _trained_modules(model: CrossEarthPreTrainedModel) -> list[str]:
    """Names of the modules beside the frozen ViT, without those that only training needs."""
    base = [f"{model.base_model_prefix}.{name}" for name, _ in model.base_model.named_children() if name != "backbone"]
    head = [name for name, _ in model.named_children() if name not in (model.base_model_prefix, "multitask")]
    kernel = [name for name, module in model.named_modules() if module is model.input_convolution]
    if not (model.config.num_channels > 3):
        kernel = []
    return [name for name in base + head + kernel if any(True for _ in model.get_submodule(name).parameters())]


def _add_lora(model: CrossEarthPreTrainedModel, lora: LoraSettings) -> None:
    """Puts LoRA layers into the ViT; what else is trained stays so."""
    try:
        import peft  # noqa: PLC0415
    except ImportError as error:
        raise InputError('LoRA needs the package peft; install it with pip install "crossearth-hf[train]"') from error
    linear = [
        name for name, module in model.base_model.backbone.layer[0].named_modules() if isinstance(module, nn.Linear)
    ]
    unknown = [target for target in lora.targets if target not in {name.split(".")[-1] for name in linear}]
    if unknown or not lora.targets:
        raise InputError(
            f"lora_targets {unknown or list(lora.targets)} match no linear layer of the ViT; its blocks have "
            f"{', '.join(sorted({name.split('.')[-1] for name in linear}))}: choose among these"
        )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    peft.inject_adapter_in_model(_lora_config(lora), model, _NAME_IN_PEFT)
    for parameter in trained:  # peft froze everything but its own
        parameter.requires_grad_(True)


def _lora_config(lora: LoraSettings) -> Any:
    import peft  # noqa: PLC0415

    names = "|".join(re.escape(target) for target in lora.targets)
    return peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        # A name alone would also match the head's attention.
        target_modules=rf"(.*\.)?backbone\.layer\.\d+\.(.*\.)?({names})",
    )
