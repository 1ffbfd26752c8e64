"""Features of class regions, for a figure that compares the classes of source and target.

A vector is the mean of the mask features (the map at a quarter of the resolution that the head compares with its
queries) over the labeled pixels of one class in the middle window of an image. The pooling is our choice; the
paper shows such a figure without stating its own.
"""

from collections.abc import Sequence

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ..data.labeled_images import LabeledImage, scale_to
from ..inference.windows import PATCH
from ..labels import IGNORE_INDEX
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from .image_scores import resize_pixels
from .target_scores import example_indices
from .targets import Task

LARGEST_SAMPLE = 256
"""Number of images of a domain that are pooled, evenly spread."""
SMALLEST_REGION = 16
"""Cells of the feature map that a class must cover in an image, 4 x 4 pixels each."""


def domain_features(
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    task: Task,
    images: Sequence[LabeledImage],
) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) float16 features and (N,) uint8 class ids of a domain, the same on every process, in a fixed order.

    Args:
        model, processor: In eval mode.
        task: Only its labeled classes are pooled.
        images: Of the task's target or of its source, labeled in the task's set.
    """
    state, sample = PartialState(), example_indices(len(images), LARGEST_SAMPLE)
    pooled = [
        (place, *image_features(model, processor, task, images[index]))
        for place, index in enumerate(sample)
        if place % state.num_processes == state.process_index
    ]
    ordered = sorted(gather_object(pooled), key=lambda each: each[0])
    features = [vectors for _, vectors, _ in ordered]
    classes = [ids for _, _, ids in ordered]
    return np.concatenate(features), np.concatenate(classes)


@torch.inference_mode()
def image_features(
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    task: Task,
    image: LabeledImage,
) -> tuple[np.ndarray, np.ndarray]:
    """(n, C) float16 features and (n,) uint8 ids of the labeled classes in the middle window of an image."""
    pixels, labels = image.read()
    pixels = resize_pixels(
        pixels, task.scale_of(image) * scale_to(image, model.config.ground_sampling_distance)
    )
    height, width = pixels.shape[:2]
    labels = np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
    top, left = (max(0, side - task.window) // 2 for side in (height, width))
    part = slice(top, top + task.window), slice(left, left + task.window)
    # Padded to multiples of 16.
    options = {
        "do_earth_style_injection": False,
        "input_data_format": "channels_last",
        "return_tensors": "pt",
    }
    pixel_values = processor(images=[pixels[part]], **options)["pixel_values"]
    padding = [-side % PATCH for side in pixels[part].shape[:2]]
    ids = np.pad(labels[part], [(0, each) for each in padding], constant_values=IGNORE_INDEX)
    scored = [task.label_set.label2id[name] for name in task.scored]
    return _pool(mask_features(model, pixel_values.to(model.device, model.dtype)), ids, scored)


def mask_features(model: CrossEarthForSemanticSegmentation, pixel_values: Tensor) -> Tensor:
    """(B, C, H/4, W/4) float32 mask features of (B, 3, H, W) normalized images, H and W multiples of 16."""
    return model.pixel_decoder(model.model(pixel_values).feature_maps).mask_features.float()


def _pool(
    features: Tensor, labels: np.ndarray, classes: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Means of (1, C, h, w) features over the pixels of each class that (H, W) labels show often enough."""
    # (n, H, W)
    masks = torch.from_numpy(np.stack([labels == each for each in classes])).to(features)
    shares = functional.avg_pool2d(masks, 4).flatten(1)  # (n, h * w) share of each cell
    large = shares.sum(1) >= SMALLEST_REGION
    weights = shares[large] / shares[large].sum(1, keepdim=True)
    vectors = weights @ features[0].flatten(1).T  # (n, C)
    return vectors.half().cpu().numpy(), np.array(classes, dtype=np.uint8)[large.cpu().numpy()]
