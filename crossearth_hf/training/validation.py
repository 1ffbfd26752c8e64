"""Scores validation images during a run, on all of its processes."""

from collections.abc import Sequence

import numpy as np
import torch
from accelerate import Accelerator

from ..data.labeled_images import LabeledImage
from ..evaluation.image_scores import predict_confusion
from ..labels import LabelSet
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation


def confusion_of_all(
    network: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    images: Sequence[LabeledImage],
    label_set: LabelSet,
    accelerator: Accelerator,
    *,
    sharded: bool,
    window: int,
    stride: int,
    scale: float,
) -> np.ndarray:
    """Confusion matrix (K, K) over all validation images.

    Args:
        network: The model for inference.
        processor: Its image processor.
        images: Validation images.
        label_set: Classes of the run.
        accelerator: Processes, which share the images.
        sharded: Whether each process holds a part of the weights; then all must make the same passes.
        window, stride: Side of the sliding window and its step, in pixels.
        scale: Factor by which images are enlarged.
    """
    if not sharded:
        images = images[accelerator.process_index :: accelerator.num_processes]
    confusion = predict_confusion(
        network,
        processor,
        images,
        label_set,
        window=window,
        stride=stride,
        scale=scale,
        progress=accelerator.is_local_main_process,
    )
    if sharded:
        return confusion
    counts = torch.from_numpy(confusion).to(accelerator.device)
    return accelerator.reduce(counts, "sum").cpu().numpy()
