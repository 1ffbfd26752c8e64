"""A model on two devices, which PyTorch's fake tensors stand in for: they compute shapes and refuse to mix devices."""

import pytest
import torch
from accelerate.utils import send_to_device
from tiny_model import FAMILIES, tiny_config
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.models.mask2former.modeling_mask2former import multi_scale_deformable_attention

from crossearth_hf import CrossEarthForSemanticSegmentation
from crossearth_hf.model import modeling_head
from crossearth_hf.model.modeling_multitask import CrossEarthForMultiTaskTraining

DEVICES = (torch.device("cpu:0"), torch.device("cpu:1"))


def parts(name, module, whole):
    """Names of the pieces into which accelerate may cut a model that asks for some classes to stay whole."""
    if type(module).__name__ in whole or not list(module.children()):
        return [name] if module.state_dict() or list(module.buffers()) else []
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    children = (
        parts(f"{name}.{child}".lstrip("."), part, whole) for child, part in module.named_children()
    )
    return [f"{name}.{key}" for key, _ in own] + [each for found in children for each in found]


def spread(model, first):
    """Moves every other part to the second device; a part's inputs follow it, as accelerate's hooks do it."""
    for index, name in enumerate(parts("", model, model._no_split_modules)):
        device = DEVICES[(index + first) % 2]
        for module in model.get_submodule(name).modules():
            for tensors in (module._parameters, module._buffers):
                for key, tensor in tensors.items():
                    if tensor is not None:
                        moved = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
                        tensors[key] = (
                            nn.Parameter(moved) if tensors is module._parameters else moved
                        )
            module.register_forward_pre_hook(
                lambda module, *inputs, device=device: send_to_device(inputs, device),
                with_kwargs=True,
            )


@pytest.mark.parametrize("fields", FAMILIES)
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(
    "model_class", [CrossEarthForSemanticSegmentation, CrossEarthForMultiTaskTraining]
)
def test_any_cut_between_whole_parts(fields, first, model_class, monkeypatch):
    model = model_class(tiny_config(encoder_layers=1, decoder_layers=2, **fields)).eval()
    # The CPU's own kernel, and numbers that join a tensor, name their device without its index.
    monkeypatch.setattr(modeling_head, "sample_levels", multi_scale_deformable_attention)
    monkeypatch.setattr(
        torch.Tensor,
        "new_tensor",
        lambda self, data: torch.tensor(data, dtype=self.dtype).to(self.device),
    )
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        spread(model, first)
        assert {parameter.device for parameter in model.parameters()} == set(DEVICES)
        images = torch.empty(2, 3, 64, 64, device=DEVICES[0])
        # whose forward picks styled images, by unknown numbers
        if model_class is CrossEarthForMultiTaskTraining:
            visible = torch.ones(2, 64, 64, dtype=torch.bool, device=DEVICES[0])
            masked = model.multitask(images, visible).to(images.device)
            assert model._rebuild(torch.cat([masked, images])).shape == (4, 3, 64, 64)
            return
        outputs = model(images, output_hidden_states=True)
    assert outputs.logits.shape == (2, 6, 16, 16)
    assert len(outputs.hidden_states) == 5
