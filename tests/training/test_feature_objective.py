"""The warm start without labels: what it compares, what it trains, what it leaves alone."""

import copy

import pytest
import torch
from tiny_model import tiny_config
from torch.nn import functional as F

from crossearth_hf.errors import InputError
from crossearth_hf.model.modeling_crossearth import CrossEarthForSemanticSegmentation
from crossearth_hf.training.feature_objective import MaskedFeaturePrediction


@pytest.fixture
def objective():
    torch.manual_seed(0)
    config = tiny_config(convolutional_stem=True, freeze_backbone=False)
    return MaskedFeaturePrediction(CrossEarthForSemanticSegmentation(config))


def test_a_perfect_prediction_costs_nothing_and_its_opposite_two(objective, monkeypatch):
    images = torch.randn(2, 3, 64, 64)
    maps = objective.teacher(images)
    coarse = F.interpolate(maps[3], size=(4, 4), mode="bilinear", align_corners=False)
    target = torch.cat([maps[2], coarse], dim=1)
    target = (target - target.mean((0, 2, 3), keepdim=True)) / target.std((0, 2, 3), keepdim=True)
    tokens = target.flatten(2).transpose(1, 2)
    for sign, cost in ((1, 0.0), (-1, 2.0)):
        monkeypatch.setattr(objective.head, "forward", lambda _, sign=sign: sign * tokens)
        assert float(objective(images).loss.detach()) == pytest.approx(cost, abs=1e-5)


def test_blocks_are_masked_by_the_seeds_of_the_images(objective):
    images, seen = torch.randn(2, 3, 128, 80), []
    objective.model.backbone.stem.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    for seeds in ([1, 2], [1, 3]):
        objective(images, torch.tensor(seeds))
    objective(images[:1], torch.tensor([1]))
    assert torch.equal(seen[0][0], seen[1][0])
    assert torch.equal(seen[0][0], seen[2][0])
    assert not torch.equal(seen[0][1], seen[1][1])
    images, seen[0] = images[..., :64], seen[0][..., :64]
    blocks = [
        value.unfold(2, 32, 32).unfold(3, 32, 32) for value in (images, seen[0])
    ]  # (B, 3, 4, 2, 32, 32)
    masked = (blocks[1] == 0).all(-1).all(-1).all(1)  # (B, 4, 2)
    assert 0 < masked.sum() < masked.numel()
    kept = ~masked[:, None, :, :, None, None].expand_as(blocks[0])
    assert torch.equal(blocks[1][kept], blocks[0][kept])


def test_trains_the_vit_and_neither_stem_nor_teacher(objective):
    before = copy.deepcopy(objective.state_dict())
    trained = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    objective(torch.randn(2, 3, 64, 64)).loss.backward()
    assert all(p.grad is not None for p in trained)
    optimizer.step()
    changed = {
        name
        for name, value in objective.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert not [name for name in changed if ".stem." in name or name.startswith("teacher.")]
    assert "model.backbone.layer.0.attention.q_proj.weight" in changed


def test_a_model_without_a_stem_is_refused():
    with pytest.raises(InputError, match="convolutional stem"):
        MaskedFeaturePrediction(CrossEarthForSemanticSegmentation(tiny_config()))
