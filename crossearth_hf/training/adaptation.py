"""The part of a model that a run trains: Rein, LoRA, the whole ViT, a combination of two, or the head alone.

| adaptation | ViT | Rein refines the features |
|---|---|---|
| `frozen` | frozen | no |
| `rein` | frozen | yes (CrossEarth, section III) |
| `lora` | frozen, with LoRA (Hu et al., ICLR 2022) | no |
| `full` | trained | no |
| `rein+lora` | frozen, with LoRA | yes |
| `full+rein` | trained | yes |

`lora_init` names the start of LoRA. `default` is zero with a random A (Hu et al.). `mica` uses the minor singular
directions of each weight and trains A alone (arXiv 2604.01694). `pissa` uses the principal directions (Meng et al.,
NeurIPS 2024), `olora` an orthonormal basis (arXiv 2406.01775); both subtract their start from the weight. Merging is
exact.

Every row trains the head. It also trains Rein's tokens if the queries are computed from them: `frozen` means features
of the frozen ViT under the same head, not a head of another design. With more than three channels every row also trains
the kernels that read the pixels, see `CrossEarthPreTrainedModel.freeze_backbone`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import InputError
from ..model.modeling_multitask import CrossEarthForMultiTaskTraining
from ..model.modeling_pretrained import CrossEarthPreTrainedModel
from ..model.modeling_rein import CrossEarthRein
from .config import ADAPTATIONS

_NAME_IN_PEFT = "default"
_INITS_FROM_WEIGHTS = ("pissa", "olora")  # LoRA's start is subtracted from the ViT's weights


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank updates W + (alpha / rank) B A of the ViT's linear layers.

    Attributes:
        rank: Rank of the update.
        alpha: Weight of the update times the rank.
        dropout: Probability of dropping an input of the update in training.
        targets: Names of the linear layers, in every block; the default is the LoRA paper's.
        init: One of `LORA_INITS`.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    init: str = "default"

    @property
    def scaling(self) -> float:
        """Factor in front of B A."""
        return self.alpha / self.rank


@torch.no_grad()
def extend_channels(model: CrossEarthPreTrainedModel, num_channels: int) -> None:
    """Adds input channels to a trained model, in place; the processor has a method of the same name.

    Our choice: the kernel of a new channel is the mean of the existing kernels, and all are scaled by the old number of
    channels over the new one, 3/4 for a fourth band. If the new bands of an image equal the mean of the old ones, its
    activations stay the same: exactly in gray, nearly in color. Multi-Task Training likewise reconstructs a new channel
    as the mean of the others. The new kernels know nothing of their bands yet, so every adaptation trains them, see
    `CrossEarthPreTrainedModel.freeze_backbone`.

    Args:
        model: A CrossEarth model or a peer, before `adapt`.
        num_channels: New number of channels, not below the old one; the old channels come first.

    Raises:
        InputError: The model has more channels.
    """
    old = model.config.num_channels
    if num_channels < old:
        raise InputError(
            f"the model takes {old} channels and cannot do with {num_channels}; give {old} or more"
        )
    if num_channels == old:
        return
    kernels: list[Any] = [*model.input_convolutions]
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
        if any(
            getattr(module, "projection", None) is kernel for kernel in model.input_convolutions
        ):
            module.num_channels = num_channels  # DINOv2 checks its images by it
    model.config.num_channels = num_channels
    for kernel in model.input_convolutions:
        kernel.requires_grad_(True)


def adapt(
    model: CrossEarthPreTrainedModel, adaptation: str, lora: LoraSettings | None = None
) -> None:
    """Prepares `model`, with its head, for training: sets which parameters need gradients, adds LoRA, sets the config.

    LoRA does not change the model's output, because it starts at zero or its start is subtracted from the ViT's
    weights. Rein's refinement is switched on or off, which does change it: start the variants without Rein from weights
    that were trained without it.

    Args:
        model: A CrossEarth model without LoRA layers, changed in place.
        adaptation: A name of the table above.
        lora: Settings of the variants with LoRA.

    Raises:
        InputError: The adaptation is unknown, the LoRA targets match nothing, or peft is not installed.
    """
    if adaptation not in ADAPTATIONS:
        raise InputError(
            f"adaptation is {adaptation!r}; it must be one of {', '.join(ADAPTATIONS)}"
        )
    parts = adaptation.split("+")
    refines = "rein" in parts
    model.requires_grad_(True)
    model.config.freeze_backbone = False
    if "full" not in parts:
        model.freeze_backbone()
    model.config.rein_refines_features = refines
    _freeze_unused(model.base_model.adapter, refines=refines, links=model.config.link_queries)
    if "lora" in parts:
        _add_lora(model, lora or LoraSettings())


def train_features_alone(model: CrossEarthForMultiTaskTraining) -> None:
    """Freezes, after `adapt`, every parameter that reconstruction does not use."""
    model.freeze_head()
    if not model.config.rein_refines_features:
        model.model.adapter.requires_grad_(False)


def describe_trainable(network: nn.Module, adaptation: str) -> str:
    """A line with the number of trained parameters."""
    total = sum(weight.numel() for weight in network.parameters())
    trained = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    return f"adaptation '{adaptation}' trains {trained:,} of {total:,} parameters ({trained / total:.2%})"


def merged(state: Mapping[str, Tensor], lora: LoraSettings) -> dict[str, Tensor]:
    """Weights of the plain model: LoRA's updates are added to the weights of their layers.

    Args:
        state: Full state of a model; without LoRA layers it is returned unchanged.
        lora: The settings of its training.
    """
    plain = {}
    for name, value in state.items():
        if ".lora_" in name:
            continue
        if name.endswith(".base_layer.weight"):
            layer = name.removesuffix(".base_layer.weight")
            down = state[f"{layer}.lora_A.{_NAME_IN_PEFT}.weight"]
            up = state[f"{layer}.lora_B.{_NAME_IN_PEFT}.weight"]
            value = value + (up @ down) * lora.scaling
        plain[name.replace(".base_layer.", ".")] = value
    return plain


def lora_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of LoRA's factors in a state."""
    return {name: value.detach().clone() for name, value in state.items() if ".lora_" in name}


def save_adapter(
    folder: Path,
    model: CrossEarthPreTrainedModel,
    state: Mapping[str, Tensor],
    lora: LoraSettings,
    base: str,
    start: Mapping[str, Tensor],
) -> None:
    """Writes LoRA, adapters and head for `PeftModel.from_pretrained(base_model, folder)`.

    The folder also holds the model's configuration, because the base model must be built with the same classes:
    `CrossEarthForSemanticSegmentation.from_pretrained(base, config=CrossEarthConfig.from_pretrained(folder),
    ignore_mismatched_sizes=True)`.

    If LoRA started from a part of the ViT's weights (PiSSA, OLoRA), the file holds the change made in training: factors
    of twice the rank, on top of the base model's weights.

    Args:
        folder: Existing folder for `adapter_model.safetensors`, `adapter_config.json` and `config.json`.
        model: The model after `adapt`; only names and configuration are read.
        state: Full state of the model.
        lora: Settings of its LoRA layers.
        base: Folder or Hub id of the weights at the start of training.
        start: LoRA's factors right after `adapt`, see `lora_tensors`.
    """
    trained = _trained_modules(model)
    factors = lora_tensors(state)
    if lora.init in _INITS_FROM_WEIGHTS:
        factors = {name: _with_start(name, value, start[name]) for name, value in factors.items()}
        lora = replace(lora, rank=2 * lora.rank, alpha=2 * lora.alpha)
    modules = tuple(f"{module}." for module in trained)
    others = {
        name: value
        for name, value in state.items()
        if name.startswith(modules) and ".lora_" not in name
    }
    kept = {}
    for name, value in (factors | others).items():
        name_in_file = name.replace(f".{_NAME_IN_PEFT}.", ".")
        kept[f"base_model.model.{name_in_file}"] = value.contiguous()
    save_file(kept, folder / "adapter_model.safetensors", {"format": "pt"})
    config = _lora_config(replace(lora, init="default"))
    config.modules_to_save = trained
    config.base_model_name_or_path = base
    config.inference_mode = True
    config.save_pretrained(str(folder))
    model.config.save_pretrained(folder)


def _with_start(name: str, value: Tensor, start: Tensor) -> Tensor:
    """A factor of B A - B0 A0, which equals [B, -B0] times A stacked on A0."""
    if ".lora_A." in name:
        return torch.cat([value, start.to(value)], dim=0)
    return torch.cat([value, -start.to(value)], dim=1)


def _append_means(module: nn.Module, name: str, axis: int, length: int) -> None:
    """Extends a parameter to `length` entries along `axis`; each new entry is the mean of the old ones."""
    old = module.get_parameter(name)
    new = old.mean(axis, keepdim=True).repeat_interleave(length - old.shape[axis], axis)
    setattr(module, name, nn.Parameter(torch.cat([old, new], axis), old.requires_grad))


def _freeze_unused(adapter: CrossEarthRein, *, refines: bool, links: bool) -> None:
    """Freezes unused parameters, because distributed training waits for the gradient of every other one."""
    for name, parameter in adapter.named_parameters():
        root = name.split(".")[0]
        if root in ("transform", "merge"):
            parameter.requires_grad_(links)
        elif root in ("token2feat", "delta_f", "scale"):
            parameter.requires_grad_(refines)
        else:  # the tokens
            parameter.requires_grad_(refines or links)


def _trained_modules(model: CrossEarthPreTrainedModel) -> list[str]:
    """Names of the modules beside the frozen ViT, except those that only training needs."""
    prefix = model.base_model_prefix
    base = [
        f"{prefix}.{name}" for name, _ in model.base_model.named_children() if name != "backbone"
    ]
    head = [name for name, _ in model.named_children() if name not in (prefix, "multitask")]
    in_backbone = [
        name for name, module in model.named_modules() if _is_trained_in_backbone(model, module)
    ]
    return [
        name for name in base + head + in_backbone if list(model.get_submodule(name).parameters())
    ]


def _is_trained_in_backbone(model: CrossEarthPreTrainedModel, module: nn.Module) -> bool:
    """Whether `module` of a frozen ViT still needs gradients, see `CrossEarthPreTrainedModel.freeze_backbone`."""
    if module is getattr(model.base_model.backbone, "stem", None):
        return not model.config.stem_makes_patches
    return model.config.num_channels > 3 and any(
        module is kernel for kernel in model.input_convolutions
    )


def _add_lora(model: CrossEarthPreTrainedModel, lora: LoraSettings) -> None:
    """Adds LoRA layers to the ViT; other trained parameters stay trained."""
    try:
        import peft  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            'LoRA needs the package peft; install it with pip install "crossearth-hf[train]"'
        ) from error
    block = model.base_model.backbone.layer[0]
    linear = {
        name.split(".")[-1]
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
    }
    unknown = [target for target in lora.targets if target not in linear]
    if unknown or not lora.targets:
        raise InputError(
            f"lora_targets {unknown or list(lora.targets)} match no linear layer of the ViT; its blocks have "
            f"{', '.join(sorted(linear))}: choose among these"
        )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    peft.inject_adapter_in_model(_lora_config(lora), model, _NAME_IN_PEFT)
    for parameter in trained:  # peft has frozen everything except its own layers
        parameter.requires_grad_(True)


def _lora_config(lora: LoraSettings) -> Any:
    import peft  # noqa: PLC0415

    names = "|".join(map(re.escape, lora.targets))
    start: Any = lora.init
    if start == "default":
        start = True
    return peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        init_lora_weights=start,
        # A name alone would also match the head's attention.
        target_modules=rf"(.*\.)?backbone\.layer\.\d+\.(.*\.)?({names})",
    )
