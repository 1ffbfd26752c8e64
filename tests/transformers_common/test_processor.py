"""transformers' common tests of image processors, and counterparts of its tests of the pipeline.

The release's source distribution lacks the tests of pipelines; ours go by its documentation.
"""

import unittest
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tiny_model import tiny_config
from transformers_release_tests.test_image_processing_common import (
    ImageProcessingTester,
    ImageProcessingTestMixin,
    PostProcessSemanticSegmentationTestMixin,
)
from transformers_skips import PROCESSOR, skipping

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor

pytestmark = pytest.mark.transformers


class ProcessorTester(ImageProcessingTester):
    """What the mixin asks for: settings, images and the model's outputs."""

    def __init__(self, parent: unittest.TestCase) -> None:
        settings = {
            "do_resize": True,
            "size": {"height": 32, "width": 48},
            "image_mean": [0.4, 0.5, 0.6],
        }
        super().__init__(parent, batch_size=3, max_resolution=80, num_labels=6, **settings)

    def _get_image_processing_classes(self) -> dict[str, type]:
        return {"pil": CrossEarthImageProcessor}

    def prepare_post_process_semantic_segmentation_inputs(
        self,
    ) -> tuple[dict[str, Any], dict[str, int]]:
        height, width = self.size["height"], self.size["width"]
        outputs = SimpleNamespace(
            class_queries_logits=torch.randn(self.batch_size, 10, self.num_labels + 1),
            masks_queries_logits=torch.randn(self.batch_size, 10, height // 4, width // 4),
        )
        return {"outputs": outputs}, {
            "num_labels": self.num_labels,
            "height": height,
            "width": width,
        }


@skipping(PROCESSOR)
class ProcessorTest(
    ImageProcessingTestMixin, PostProcessSemanticSegmentationTestMixin, unittest.TestCase
):
    image_processor_tester_class = ProcessorTester


@pytest.fixture(scope="module")
def pipe() -> Any:
    torch.manual_seed(0)
    model = CrossEarthForSemanticSegmentation(tiny_config()).eval()
    return transformers.pipeline(
        "image-segmentation", model=model, image_processor=CrossEarthImageProcessor()
    )


def picture(seed: int, width: int = 60, height: int = 50) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


def assert_segments(segments: list[dict[str, Any]], image: Image.Image, pipe: Any) -> None:
    """Every pixel belongs to one segment, and the segments are the processor's own map."""
    masks = np.stack([np.asarray(segment["mask"]) for segment in segments])
    assert {segment["mask"].size for segment in segments} == {image.size}
    assert set(np.unique(masks)) <= {0, 255}
    assert (masks.astype(int).sum(axis=0) == 255).all()
    with torch.no_grad():
        outputs = pipe.model(**pipe.image_processor(image, return_tensors="pt"))
    (ids,) = pipe.image_processor.post_process_semantic_segmentation(outputs, [image.size[::-1]])
    for segment, mask in zip(segments, masks, strict=True):
        assert np.array_equal(
            mask == 255, ids.numpy() == pipe.model.config.label2id[segment["label"]]
        )


def test_the_pipeline_on_one_image(pipe: Any, tmp_path: Path) -> None:
    assert_segments(pipe(picture(1)), picture(1), pipe)
    picture(1).save(tmp_path / "image.png")
    named = pipe(str(tmp_path / "image.png"))
    assert [segment["label"] for segment in named] == [
        segment["label"] for segment in pipe(picture(1))
    ]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_pipeline_on_a_list(pipe: Any, batch_size: int) -> None:
    images = [picture(1), picture(2), picture(3)]
    results = pipe(images, batch_size=batch_size)
    assert len(results) == 3
    for segments, image in zip(results, images, strict=True):
        assert_segments(segments, image, pipe)


def test_the_pipelines_thresholds_are_those_of_instances(pipe: Any) -> None:
    """They are taken, as for every semantic model, and change no map."""
    plain = pipe(picture(1), subtask="semantic")
    assert_segments(plain, picture(1), pipe)
    given = pipe(picture(1), threshold=0.9, mask_threshold=0.9, overlap_mask_area_threshold=0.1)
    assert [segment["mask"].tobytes() for segment in given] == [
        segment["mask"].tobytes() for segment in plain
    ]
    with pytest.raises(ValueError, match="instance"):
        pipe(picture(1), subtask="instance")
