"""CrossEarth's image processor: resize, rescale, normalise, pad; labels; scores and label maps."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import ChannelDimension, ImageInput, PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs, Unpack

IMAGENET_MEAN = [123.675 / 255, 116.28 / 255, 103.53 / 255]
IMAGENET_STD = [58.395 / 255, 57.12 / 255, 57.375 / 255]
IGNORE_INDEX = 255


def semantic_scores(class_queries_logits: Tensor, masks_queries_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Scores of every class at every pixel: the one way from query logits to scores in this package.

    Masks are resized bilinearly first and pass the sigmoid afterwards; classes pass a softmax whose last entry, "no
    object", is dropped; queries are summed (Mask2Former, Cheng et al., CVPR 2022).

    Args:
        class_queries_logits: (B, Q, K+1).
        masks_queries_logits: (B, Q, h, w).
        size: Height and width (H, W) of the crop in pixels.

    Returns:
        (B, K, H, W) float32 in [0, Q]: sums over queries, neither log-odds nor probabilities.
    """
    with torch.autocast(class_queries_logits.device.type, enabled=False):
        classes = class_queries_logits.float().softmax(dim=-1)[..., :-1]  # (B, Q, K)
        masks = F.interpolate(masks_queries_logits.float(), size=size, mode="bilinear", align_corners=False)
        return torch.einsum("bqk,bqhw->bkhw", classes, masks.sigmoid())


class CrossEarthImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    r"""
    size_divisor (`int`, *optional*, defaults to `self.size_divisor`):
        Height and width are padded, right and bottom, to multiples of it.
    """

    size_divisor: int


class CrossEarthImageProcessor(PilBackend):
    r"""Turns RGB images and label maps into CrossEarth's inputs, and its outputs into label maps.

    Images are not resized unless asked (`do_resize=True` with `size`); they are rescaled by `rescale_factor`,
    normalised with the ImageNet statistics of DINOv2 and padded right and bottom: with 0 after normalisation, labels
    with 255. Images of different sizes in one batch are padded to the largest.
    """

    valid_kwargs = CrossEarthImageProcessorKwargs
    model_input_names = ["pixel_values"]
    resample = PILImageResampling.BILINEAR
    image_mean = IMAGENET_MEAN
    image_std = IMAGENET_STD
    size = None
    do_resize = False
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    do_convert_rgb = True
    do_pad = True
    size_divisor = 16

    def __init__(self, **kwargs: Unpack[CrossEarthImageProcessorKwargs]) -> None:
        super().__init__(**kwargs)
        if self.do_resize and self.size is None:
            raise ValueError("do_resize=True without a size; give size={'height': ..., 'width': ...}")

    def preprocess(
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None = None,
        **kwargs: Unpack[CrossEarthImageProcessorKwargs],
    ) -> BatchFeature:
        """Prepares a batch.

        Args:
            images: one or several RGB images: PIL, or arrays (H, W, 3) or (3, H, W) in 0..255.
            segmentation_maps: one (H, W) map of class ids per image, 255 ignored.

        Returns:
            `pixel_values` (B, 3, H', W') float32 and, with maps, `labels` (B, H', W') int64; H' and W' are multiples
            of `size_divisor`.

        Raises:
            ValueError: numbers of images and maps differ, or the sizes of a pair do.
        """
        return super().preprocess(images, segmentation_maps, **kwargs)

    def _preprocess_image_like_inputs(
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None = None,
        *,
        do_convert_rgb: bool,
        input_data_format: ChannelDimension | None,
        return_tensors: str | None,
        **kwargs: Any,
    ) -> BatchFeature:
        prepared = self._prepare_image_like_inputs(
            images=images, do_convert_rgb=do_convert_rgb, input_data_format=input_data_format
        )
        data = {"pixel_values": self._preprocess(prepared, **kwargs)}
        if segmentation_maps is not None:
            maps = self._prepare_image_like_inputs(
                images=segmentation_maps,
                expected_ndims=2,
                do_convert_rgb=False,
                input_data_format=ChannelDimension.FIRST,
            )
            _check_pairs(prepared, maps)
            data["labels"] = self._preprocess_labels(maps, **kwargs)
        return BatchFeature(data=data, tensor_type=return_tensors)

    def _preprocess(
        self,
        images: list[np.ndarray],
        do_resize: bool,
        size: SizeDict | None,
        resample: PILImageResampling,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: list[float],
        image_std: list[float],
        do_pad: bool,
        size_divisor: int,
        **kwargs: Any,
    ) -> list[np.ndarray]:
        processed = []
        for image in images:
            image = self.resize(image, size, resample) if do_resize else image
            image = image.astype(np.float32)
            image = self.rescale(image, rescale_factor) if do_rescale else image
            image = self.normalize(image, image_mean, image_std) if do_normalize else image
            processed.append(image.astype(np.float32))
        return self._pad_batch(processed, size_divisor, fill_value=0) if do_pad else processed

    def _preprocess_labels(
        self, maps: list[np.ndarray], do_resize: bool, size: SizeDict | None, do_pad: bool, size_divisor: int, **_: Any
    ) -> list[np.ndarray]:
        maps = [self.resize(m, size, PILImageResampling.NEAREST) if do_resize else m for m in maps]
        maps = self._pad_batch(maps, size_divisor, fill_value=IGNORE_INDEX) if do_pad else maps
        return [m[0].astype(np.int64) for m in maps]

    def _pad_batch(self, images: list[np.ndarray], size_divisor: int, fill_value: int) -> list[np.ndarray]:
        height, width = (
            math.ceil(max(image.shape[axis] for image in images) / size_divisor) * size_divisor for axis in (-2, -1)
        )
        return list(self.pad(images, SizeDict(height=height, width=width), fill_value=fill_value))

    def post_process_semantic_segmentation(
        self, outputs: Any, target_sizes: list[tuple[int, int]] | None = None
    ) -> list[Tensor]:
        """Label maps from the model's outputs.

        Args:
            outputs: output of `CrossEarthForSemanticSegmentation` for a batch that this processor prepared.
            target_sizes: (height, width) in pixels of each image before preparation; padding is cut off. Without
                it the maps keep the padded size.

        Returns:
            One (H, W) int64 map of class ids per image.

        Raises:
            ValueError: as many sizes as images are needed, and none larger than the prepared image unless it was
                resized by this processor's own setting.
        """
        masks = outputs.masks_queries_logits
        padded = (4 * masks.shape[-2], 4 * masks.shape[-1])  # masks have a quarter of the crop's resolution
        scores = semantic_scores(outputs.class_queries_logits, masks, padded)  # (B, K, H', W')
        if target_sizes is None:
            return list(scores.argmax(dim=1))
        if len(target_sizes) != len(scores):
            raise ValueError(f"{len(target_sizes)} target_sizes for {len(scores)} images; give one for each")
        return [self._to_size(score, *size).argmax(dim=0) for score, size in zip(scores, target_sizes, strict=True)]

    def _to_size(self, scores: Tensor, height: int, width: int) -> Tensor:
        """(K, H', W') scores of a prepared image brought to its original size (H, W)."""
        if not self.do_resize:
            rows, columns = scores.shape[1:]
            if height > rows or width > columns:
                raise ValueError(
                    f"target size {height} x {width} exceeds the prepared {rows} x {columns} pixels; set do_resize in "
                    "the processor itself, not in one call"
                )
            return scores[:, :height, :width]
        resized = self.resize(np.zeros((1, height, width), np.uint8), self.size, self.resample).shape
        cropped = scores[None, :, : resized[-2], : resized[-1]]
        return F.interpolate(cropped, size=(height, width), mode="bilinear", align_corners=False)[0]


def _check_pairs(images: list[np.ndarray], maps: list[np.ndarray]) -> None:
    if len(images) != len(maps):
        raise ValueError(f"{len(images)} images but {len(maps)} segmentation maps; give one map for each image")
    for image, label in zip(images, maps, strict=True):
        if image.shape[-2:] != label.shape[-2:]:
            raise ValueError(
                f"an image of {image.shape[-2]} x {image.shape[-1]} pixels has a segmentation map of "
                f"{label.shape[-2]} x {label.shape[-1]}; make them the same size"
            )


__all__ = ["CrossEarthImageProcessor", "semantic_scores"]
