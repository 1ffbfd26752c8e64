"""DINOv2 with random weights in the layouts that people have."""

import torch
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
)


def dinov2(registers=False, **fields):
    """transformers' own DINOv2 with every number drawn at random."""
    torch.manual_seed(1)
    config_class, model_class = (
        (Dinov2WithRegistersConfig, Dinov2WithRegistersModel)
        if registers
        else (Dinov2Config, Dinov2Model)
    )
    sizes = {
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 16,
    }
    extra = {"num_register_tokens": 3} if registers else {}
    model = model_class(config_class(**(sizes | extra | fields))).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def original_layout(model):
    """A transformers DINOv2 under the names of Meta's release, written down by hand."""
    state, result = model.state_dict(), {}
    plain = {
        "embeddings.cls_token": "cls_token",
        "embeddings.mask_token": "mask_token",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.register_tokens": "register_tokens",
        "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
        "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
        "layernorm.weight": "norm.weight",
        "layernorm.bias": "norm.bias",
    }
    result = {theirs: state[name] for name, theirs in plain.items() if name in state}
    for index in range(model.config.num_hidden_layers):
        source, block = f"encoder.layer.{index}", f"blocks.{index}"
        result[f"{block}.ls1.gamma"] = state[f"{source}.layer_scale1.lambda1"]
        result[f"{block}.ls2.gamma"] = state[f"{source}.layer_scale2.lambda1"]
        for p in ("weight", "bias"):
            parts = [state[f"{source}.attention.{part}_proj.{p}"] for part in "qkv"]
            result[f"{block}.attn.qkv.{p}"] = torch.cat(parts)
            result[f"{block}.attn.proj.{p}"] = state[f"{source}.attention.o_proj.{p}"]
            for name in ("norm1", "norm2"):
                result[f"{block}.{name}.{p}"] = state[f"{source}.{name}.{p}"]
            if model.config.to_dict().get("use_swiglu_ffn"):
                gate, up = state[f"{source}.mlp.gate_proj.{p}"], state[f"{source}.mlp.up_proj.{p}"]
                result[f"{block}.mlp.w12.{p}"] = torch.cat([gate, up])
                result[f"{block}.mlp.w3.{p}"] = state[f"{source}.mlp.down_proj.{p}"]
            else:
                for name in ("fc1", "fc2"):
                    result[f"{block}.mlp.{name}.{p}"] = state[f"{source}.mlp.{name}.{p}"]
    return result


def save_backbone(model, folder, layout):
    """Writes the model in a layout that people have, and gives the path."""
    if layout == "folder":
        model.save_pretrained(folder / "dinov2")
        return folder / "dinov2"
    if layout == "file":
        model.save_pretrained(folder / "dinov2")
        return folder / "dinov2" / "model.safetensors"
    if layout == "in memory":
        state = {f"dinov2.{name}": tensor for name, tensor in model.state_dict().items()}
        torch.save(state | {"classifier.weight": torch.zeros(2, 64)}, folder / "classifier.bin")
        return folder / "classifier.bin"
    prefix = "backbone." if layout == "prefixed" else ""
    torch.save(
        {prefix + name: tensor for name, tensor in original_layout(model).items()},
        folder / "vit.pth",
    )
    return folder / "vit.pth"
