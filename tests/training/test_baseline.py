"""The convolutional peer speaks the model's language: scores are probabilities, the loss a plain cross-entropy."""

import pytest
import torch
from torch.nn import functional as F

from crossearth_hf.errors import InputError
from crossearth_hf.labels import get_label_set
from crossearth_hf.model.semantic_scores import semantic_scores
from crossearth_hf.training import build_train_config
from crossearth_hf.training.baseline import FeaturePyramidSegmenter
from crossearth_hf.training.optimization import param_groups
from crossearth_hf.training.starting_model import build_model


def test_scores_are_the_probabilities_and_the_loss_their_cross_entropy(config):
    torch.manual_seed(0)
    model = FeaturePyramidSegmenter(config).eval()
    images = torch.randn(2, 3, 64, 96)
    labels = torch.randint(0, config.num_labels, (2, 64, 96))
    labels[0, :10] = 255
    output = model(images, labels=labels)
    scores = semantic_scores(output.class_queries_logits, output.masks_queries_logits, (16, 24))
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(2, 16, 24), atol=1e-4, rtol=0)
    logits = F.interpolate(scores.log(), size=(64, 96), mode="bilinear", align_corners=False)
    # A resized logarithm differs from resized logits by a number per pixel, which the softmax takes out.
    torch.testing.assert_close(
        output.loss, F.cross_entropy(logits, labels, ignore_index=255), atol=1e-3, rtol=0
    )
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_batch_without_labels_costs_nothing(config):
    model = FeaturePyramidSegmenter(config)
    assert model(torch.randn(1, 3, 64, 64), labels=torch.full((1, 64, 64), 255)).loss == 0


def test_a_run_trains_the_peer_that_its_folder_holds(config, tmp_path):
    FeaturePyramidSegmenter(config).save_pretrained(tmp_path)
    labels = get_label_set("land-cover")
    values = {
        "model": str(tmp_path),
        "output_dir": str(tmp_path / "run"),
        "train_data": ["synth:desert-city:2"],
    }
    values |= {"ground_sampling_distance": 0.5, "relative_to_crop": False}
    model = build_model(build_train_config(values | {"adaptation": "full"}), labels)
    assert model.config.ground_sampling_distance == 0.5
    assert isinstance(model, FeaturePyramidSegmenter)
    assert model.classifier.out_channels == len(labels.classes)
    slow = param_groups(model, 0.05, 0.1)[2:]
    assert [group["lr_multiplier"] for group in slow] == [0.1, 0.1]
    assert sum(len(group["params"]) for group in slow) == len(list(model.backbone.parameters()))
    with pytest.raises(InputError, match="adaptation 'full'"):
        build_model(build_train_config(values), labels)
    with pytest.raises(InputError, match="leave gradient_checkpointing out"):
        build_model(
            build_train_config(values | {"adaptation": "full", "gradient_checkpointing": True}),
            labels,
        )
