"""transformers' common tests of models, run on a tiny configuration of each family."""

import os
import unittest
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest.mock import patch

import pytest
import torch
from tiny_model import DINOV3, REGISTERS, tiny_config
from transformers.testing_utils import torch_device
from transformers_release_tests.test_configuration_common import ConfigTester
from transformers_release_tests.test_modeling_common import ModelTesterMixin
from transformers_skips import FOR_EVERY_FAMILY, MODEL, MULTITASK, STEM, skipping

from crossearth_hf import CrossEarthConfig, CrossEarthForSemanticSegmentation, CrossEarthModel
from crossearth_hf.model.modeling_multitask import CrossEarthForMultiTaskTraining

pytestmark = pytest.mark.transformers

assert os.environ.get("HF_HUB_OFFLINE") == "1", (
    "run `make test-transformers`: some of these tests ask the Hub"
)


class ModelTester:
    """What the mixin asks for: a configuration, inputs, and a few sizes."""

    is_training = True
    attention: str | None = None

    def __init__(self, parent: unittest.TestCase, **fields: Any) -> None:
        self.parent, self.fields = parent, fields
        self.batch_size, self.image_size, self.patch_size = 2, 64, 16
        vit = self.get_config().backbone_config
        self.hidden_size = vit.hidden_size
        self.num_hidden_layers, self.num_attention_heads = (
            vit.num_hidden_layers,
            vit.num_attention_heads,
        )
        prefix = 1 + getattr(vit, "num_register_tokens", 0)
        self.seq_length = self.encoder_seq_length = (
            prefix + (self.image_size // self.patch_size) ** 2
        )

    def get_config(self) -> CrossEarthConfig:
        config = tiny_config(**self.fields)
        if self.attention is not None:
            config._attn_implementation = self.attention
        return config

    def prepare_config_and_inputs_for_common(
        self,
    ) -> tuple[CrossEarthConfig, dict[str, torch.Tensor]]:
        pixels = torch.randn(self.batch_size, 3, self.image_size, self.image_size)
        return self.get_config(), {"pixel_values": pixels.to(torch_device)}


class Common(ModelTesterMixin):
    """Common to the families."""

    fields: dict[str, Any] = {}
    test_resize_embeddings = False
    has_attentions = True
    is_encoder_decoder = False
    _is_composite = True  # the ViT's configuration is one of its own

    def setUp(self) -> None:
        self.model_tester = ModelTester(self, **self.fields)
        self.config_tester = ConfigTester(
            self, config_class=CrossEarthConfig, has_text_modality=False
        )

    def _prepare_for_class(
        self, inputs_dict: dict[str, Any], model_class: type, return_labels: bool = False
    ) -> dict[str, Any]:
        inputs = dict(inputs_dict)
        batch, _, height, width = inputs["pixel_values"].shape
        if return_labels and model_class is not CrossEarthModel:
            ids = torch.arange(batch * height * width, device=torch_device) // 100 % 6
            inputs["labels"] = ids.view(batch, height, width)
            inputs["seeds"] = torch.arange(batch)  # else every loss is that of other points
        if model_class is CrossEarthForMultiTaskTraining:
            inputs["seeds"] = torch.arange(batch)  # else every call hides other blocks
            inputs["clean_pixel_values"] = inputs["pixel_values"] + 0.1
            inputs["styled"] = torch.ones(batch, dtype=torch.bool, device=torch_device)
        return inputs

    def _prepare_config_and_inputs_for_retain_grad_hidden_states_attentions(self) -> Any:
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        config.freeze_backbone = False  # a frozen ViT has no gradients to retain
        return config, inputs

    def subTest(self, *_: Any, **__: Any) -> AbstractContextManager[None]:
        # one report for each of thousands of tensors takes longer than the tests
        return nullcontext()

    def test_config(self) -> None:
        self.config_tester.run_common_tests()

    def test_model_outputs_equivalence(self) -> None:
        self.model_tester.attention = "eager"  # the only kind that has weights to compare
        super().test_model_outputs_equivalence()

    # Only models of transformers itself are known to these two as those without a loss.
    def test_training(self) -> None:
        with self.models_with_loss():
            super().test_training()

    def check_training_gradient_checkpointing(self, *arguments: Any, **options: Any) -> None:
        with self.models_with_loss():
            super().check_training_gradient_checkpointing(*arguments, **options)

    def models_with_loss(self) -> Any:
        classes = tuple(each for each in self.all_model_classes if each is not CrossEarthModel)
        return patch.object(type(self), "all_model_classes", classes)


class SegmentationTests(Common):
    all_model_classes = (CrossEarthModel, CrossEarthForSemanticSegmentation)


@skipping(MODEL)
class Dinov2Test(SegmentationTests, unittest.TestCase):
    pass


@skipping(MODEL, FOR_EVERY_FAMILY)
class RegistersTest(SegmentationTests, unittest.TestCase):
    fields = {"backbone_config": REGISTERS}


@skipping(MODEL, FOR_EVERY_FAMILY)
class Dinov3Test(SegmentationTests, unittest.TestCase):
    fields = {"backbone_config": DINOV3}


@skipping(STEM, FOR_EVERY_FAMILY)
class StemTest(SegmentationTests, unittest.TestCase):
    fields = {"convolutional_stem": True}


@skipping(STEM, FOR_EVERY_FAMILY)
class StemBesideTest(SegmentationTests, unittest.TestCase):
    fields = {"convolutional_stem": True, "stem_makes_patches": False}


@skipping(MULTITASK, FOR_EVERY_FAMILY)
class MultiTaskTest(Common, unittest.TestCase):
    all_model_classes = (CrossEarthForMultiTaskTraining,)
