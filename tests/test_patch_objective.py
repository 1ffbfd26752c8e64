"""The warm start's objective: its cells, its cross-entropy, and what it leaves alone."""

import torch
from conftest import tiny_config
from torch.nn import functional as F

from crossearth_hf import CrossEarthForSemanticSegmentation
from crossearth_hf.patch_objective import PatchClassifier


def build():
    torch.manual_seed(0)
    model = CrossEarthForSemanticSegmentation(tiny_config(freeze_backbone=False))
    return model, PatchClassifier(model)


def test_cells_lie_where_their_pixels_are():
    model, classifier = build()
    image = torch.randn(1, 3, 32, 48)
    labels = torch.randint(0, 6, (1, 32, 48))
    found = classifier(image, labels).loss
    states = model.model(image, output_hidden_states=True).hidden_states
    tokens = torch.cat([states[block + 1][0, 1:] for block in range(4)], dim=-1)  # (6, 4D)
    logits = classifier.head(tokens).view(6, 6, 4, 4)  # patch, class, row and column of the cell
    total = 0.0
    for patch in range(6):
        for row in range(4):
            for column in range(4):
                y, x = 16 * (patch // 3) + 4 * row + 2, 16 * (patch % 3) + 4 * column + 2
                total += F.cross_entropy(logits[patch, :, row, column][None], labels[:, y, x])
    torch.testing.assert_close(found, total / 96, rtol=1e-5, atol=1e-5)


def test_ignored_cells_do_not_count_and_none_at_all_is_no_error():
    _, classifier = build()
    image = torch.randn(1, 3, 32, 32)
    half = torch.zeros(1, 32, 32, dtype=torch.long)
    half[:, 16:] = 255
    assert classifier(image, half).loss > 0
    nothing = classifier(image, torch.full((1, 32, 32), 255)).loss
    assert nothing == 0
    nothing.backward()


def test_backbone_and_adapters_learn_and_the_head_does_not():
    model, classifier = build()
    classifier(torch.randn(1, 3, 32, 32), torch.zeros(1, 32, 32, dtype=torch.long)).loss.backward()
    assert all(parameter.grad is not None for parameter in classifier.parameters())
    assert model.class_predictor.weight.grad is None
    assert model.model.adapter.tokens_a.grad.abs().sum() > 0
