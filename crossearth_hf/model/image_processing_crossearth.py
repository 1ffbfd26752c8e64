"""CrossEarth's image processor: resize, rescale, style on request, normalize, pad; labels; scores and label maps."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import ChannelDimension, ImageInput, PILImageResampling, SizeDict
from transformers.processing_utils import Unpack
from transformers.utils import cached_file

from .earth_style import STYLE_FILE, EarthStyle, StyleSettings, image_seed
from .image_inputs import (
    IGNORE_INDEX,
    check_channels,
    check_images,
    check_pixels,
    check_styleable,
    image_array,
    is_of_unit,
    label_ids,
    label_maps,
    padding_mask,
)
from .processor_settings import (
    CrossEarthImageProcessorKwargs,
    check_names,
    check_spelling,
    check_values,
)
from .semantic_scores import semantic_scores

IMAGENET_MEAN = [123.675 / 255, 116.28 / 255, 103.53 / 255]
IMAGENET_STD = [58.395 / 255, 57.12 / 255, 57.375 / 255]

_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


class CrossEarthImageProcessor(PilBackend):
    r"""Turns images and label maps into CrossEarth's inputs, and its outputs into label maps.

    Images are RGB; for a model of more channels they are arrays with as many as `image_mean` has entries.

    Images are not resized unless asked (`do_resize=True` with `size`); they are rescaled by `rescale_factor`,
    normalized with the ImageNet statistics of DINOv2 and padded right and bottom: with 0 after normalization, labels
    with 255. Images of different sizes in one batch are padded to the largest, and a mask says where.

    With `do_earth_style_injection=True` images are styled in [0, 1], before normalization and padding; labels never.
    Saved with it on, a processor takes its networks and style bank along; loaded, it finds them again when needed.
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
    do_reduce_labels = False
    ignore_index = None
    do_earth_style_injection = False
    style_probability = StyleSettings.probability
    style_alpha = StyleSettings.alpha
    style_mask_ratio = StyleSettings.mask_ratio
    style_block_size = StyleSettings.block_size
    style_residual = StyleSettings.residual
    style_low_pass = StyleSettings.low_pass
    style_seed = None
    return_clean_pixel_values = False

    def __init__(self, **kwargs: Unpack[CrossEarthImageProcessorKwargs]) -> None:
        self._earth_style: EarthStyle | None = None
        self._style_source: tuple[str, dict[str, Any]] | None = None
        check_names(kwargs, self.valid_kwargs.__annotations__, type(self).__name__)
        check_values(kwargs)
        super().__init__(**kwargs)
        if self.do_resize and self.size is None:
            raise ValueError(
                "do_resize=True without a size; give size={'height': ..., 'width': ...}"
            )
        StyleSettings(
            self.style_probability, self.style_alpha, self.style_mask_ratio, self.style_block_size
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; the processor also remembers the folder of its style networks and bank.

        Raises `TypeError` for a misspelled setting, unless `return_unused_kwargs` returns it.
        """
        if not kwargs.get("return_unused_kwargs"):
            check_spelling(kwargs, cls.valid_kwargs.__annotations__, cls.__name__)
        loaded = processor = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        if isinstance(loaded, tuple):
            processor = loaded[0]
        source = pretrained_model_name_or_path
        if Path(source).is_file():
            source = Path(source).parent
        processor._style_source = (
            str(source),
            {name: kwargs[name] for name in _HUB_OPTIONS if name in kwargs},
        )
        return loaded

    @property
    def earth_style(self) -> EarthStyle:
        """Networks and style bank, loaded on first use from the processor's folder, else the package's own."""
        if self._earth_style is None:
            path = None
            if self._style_source is not None:
                name, options = self._style_source
                path = cached_file(
                    name, STYLE_FILE, _raise_exceptions_for_missing_entries=False, **options
                )
            self._earth_style = EarthStyle.from_file(path)
        return self._earth_style

    def to_dict(self) -> dict[str, Any]:
        """The settings without loaded networks."""
        settings = super().to_dict()
        return {
            name: value
            for name, value in settings.items()
            if name not in ("_earth_style", "_style_source")
        }

    def to_json_file(self, json_file_path: Any) -> None:
        """Writes the settings and, if injection is on, the style networks and bank beside them."""
        # Here and not in `save_pretrained`, which uploads only what is written after it has begun.
        if self.do_earth_style_injection:
            self.earth_style.save(Path(json_file_path).with_name(STYLE_FILE))
        super().to_json_file(json_file_path)

    def preprocess(
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None = None,
        **kwargs: Unpack[CrossEarthImageProcessorKwargs],
    ) -> BatchFeature:
        """Prepares a batch.

        Args:
            images: one or several RGB images: PIL, or arrays (H, W, C) or (C, H, W); in 0..255 for the default factor.
            segmentation_maps: one (H, W) map of class ids per image, 255 ignored; also (1, H, W) or (H, W, 1).

        Returns:
            `pixel_values` (B, C, H', W') float32 and, with maps, `labels` (B, H', W') int64; H' and W' are multiples
            of `size_divisor`. Where images are padded to the size of a larger one, `pixel_mask` (B, H', W') int64 is 0:
            with it the model treats them as if they came alone. With injection `pixel_values` holds the styled mix;
            with `return_clean_pixel_values` there are also `clean_pixel_values` (B, C, H', W') and `styled` (B,) bool.

        Raises:
            TypeError: A keyword is not a setting.
            ValueError: The numbers of images and maps differ, or the sizes of a pair; an image has other channels than
                the processor; a pixel is out of range, see `image_inputs.check_pixels`; a map holds colors, fractions
                or numbers that are not ids; or injection has a setting out of range, a block larger than an image,
                pixels outside [0, 1], or more channels than RGB.
        """
        check_names(kwargs, self.valid_kwargs.__annotations__, type(self).__name__)
        check_values(kwargs)
        check_images(images)
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
        if kwargs["do_normalize"]:
            check_channels(prepared, kwargs["image_mean"])
        factor = kwargs["rescale_factor"]
        if not kwargs["do_rescale"]:
            factor = None
        plain = kwargs["do_normalize"] and not kwargs["do_earth_style_injection"]
        check_pixels(prepared, factor, unit=plain and is_of_unit(kwargs["image_mean"]))
        clean = self._scaled(prepared, **kwargs)
        data: dict[str, Any] = {}
        if kwargs["do_earth_style_injection"]:
            mixed, styled = self._inject(clean, **kwargs)
            data["pixel_values"] = self._normalized(mixed, **kwargs)
            if kwargs["return_clean_pixel_values"]:
                data |= {"clean_pixel_values": self._normalized(clean, **kwargs), "styled": styled}
        else:
            data["pixel_values"] = self._normalized(clean, **kwargs)
        mask = padding_mask([(i.shape[1], i.shape[2]) for i in clean], kwargs["size_divisor"])
        if kwargs["do_pad"] and mask is not None:
            data["pixel_mask"] = mask
        if segmentation_maps is not None:
            maps = label_maps(
                segmentation_maps, [(image.shape[1], image.shape[2]) for image in prepared]
            )
            data["labels"] = self._preprocess_labels(maps, **kwargs)
        return BatchFeature(data=data, tensor_type=return_tensors)

    def extend_channels(self, num_channels: int) -> None:
        """Gives more channels a mean and a deviation, as `training.adaptation.extend_channels` gives the model kernels.

        Our choice: the means of those that are there.
        """
        for name in ("image_mean", "image_std"):
            values = list(getattr(self, name))
            further = num_channels - len(values)
            if further > 0:
                setattr(self, name, values + [sum(values) / len(values)] * further)

    def process_image(
        self,
        image: ImageInput,
        do_convert_rgb: bool | None = None,
        input_data_format: str | ChannelDimension | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """An image as (C, H, W), see `image_inputs.image_array`."""
        return image_array(image, np.size(self.image_mean), do_convert_rgb, input_data_format)

    def resize(
        self, image: np.ndarray, size: SizeDict, resample: Any = None, **kwargs: Any
    ) -> np.ndarray:
        """(C, H, W) resized; more than three channels one by one: Pillow would take the fourth for transparency."""
        resize = super().resize
        if len(image) <= 3:
            return resize(image, size, resample, **kwargs)
        return np.concatenate([resize(band[None], size, resample, **kwargs) for band in image])

    def _scaled(
        self,
        images: list[np.ndarray],
        do_resize: bool,
        size: SizeDict | None,
        resample: PILImageResampling,
        do_rescale: bool,
        rescale_factor: float,
        **_: Any,
    ) -> list[np.ndarray]:
        """Images resized and rescaled on request, float32."""
        if do_resize:
            images = [self.resize(image, size, resample) for image in images]
        images = [image.astype(np.float32) for image in images]
        if do_rescale:
            images = [self.rescale(image, rescale_factor).astype(np.float32) for image in images]
        return images

    def _inject(
        self,
        images: list[np.ndarray],
        style_probability: float,
        style_alpha: float,
        style_mask_ratio: float,
        style_block_size: int,
        style_residual: bool,
        style_low_pass: float,
        style_seed: int | None,
        **_: Any,
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Images of any sizes, some of them styled, and (B,) bool: which; images of one size share a batch."""
        settings = StyleSettings(
            style_probability,
            style_alpha,
            style_mask_ratio,
            style_block_size,
            style_residual,
            style_low_pass,
        )
        if len(images[0]) != 3:
            raise ValueError(
                f"an image of {len(images[0])} channels cannot be styled: Earth styles are those of RGB"
            )
        check_styleable(images)
        seeds = _style_seeds(style_seed, len(images))
        mixed, styled = list(images), np.zeros(len(images), dtype=bool)
        for shape in dict.fromkeys(image.shape for image in images):
            rows = [i for i, image in enumerate(images) if image.shape == shape]
            batch = torch.from_numpy(np.stack([images[i] for i in rows]))
            results, styled[rows] = self.earth_style.inject(
                batch, settings, [seeds[i] for i in rows]
            )
            for i, result in zip(rows, results, strict=True):
                mixed[i] = result.numpy()
        return mixed, styled

    def _normalized(
        self,
        images: list[np.ndarray],
        do_normalize: bool,
        image_mean: list[float],
        image_std: list[float],
        do_pad: bool,
        size_divisor: int,
        **_: Any,
    ) -> list[np.ndarray]:
        """Images normalized and padded on request, float32."""
        if do_normalize:
            images = [
                self.normalize(image, image_mean, image_std).astype(np.float32) for image in images
            ]
        if do_pad:
            return self._pad_batch(images, size_divisor, fill_value=0)
        return images

    def _preprocess_labels(
        self,
        maps: list[np.ndarray],
        do_resize: bool,
        size: SizeDict | None,
        do_pad: bool,
        size_divisor: int,
        do_reduce_labels: bool,
        ignore_index: int | None,
        **_: Any,
    ) -> list[np.ndarray]:
        maps = [label_ids(each, do_reduce_labels, ignore_index)[None] for each in maps]
        if do_resize:
            maps = [self.resize(each, size, PILImageResampling.NEAREST) for each in maps]
        if do_pad:
            maps = self._pad_batch(maps, size_divisor, fill_value=IGNORE_INDEX)
        return [m[0].astype(np.int64) for m in maps]

    def _pad_batch(
        self, images: list[np.ndarray], size_divisor: int, fill_value: int
    ) -> list[np.ndarray]:
        height, width = (
            math.ceil(max(image.shape[axis] for image in images) / size_divisor) * size_divisor
            for axis in (-2, -1)
        )
        return list(self.pad(images, SizeDict(height=height, width=width), fill_value=fill_value))

    def post_process_semantic_segmentation(
        self,
        outputs: Any,
        target_sizes: list[tuple[int, int]] | None = None,
        return_segmentation_scores: bool = False,
    ) -> list[Tensor] | list[BatchFeature]:
        """Label maps from the model's outputs.

        Args:
            outputs: output of `CrossEarthForSemanticSegmentation` for a batch that this processor prepared.
            target_sizes: (height, width) in pixels of each image before preparation; padding is cut off. Without
                it the maps keep the padded size.
            return_segmentation_scores: also return what the maps were decided by.

        Returns:
            One (H, W) int64 map of class ids per image; with scores a `segmentation` (H, W) and its
            `segmentation_scores` (K, H, W), sums over queries as `semantic_scores` gives them.

        Raises:
            ValueError: The number of sizes differs from that of the images, a size exceeds that of the prepared image
                and this processor's own setting did not resize it, or scores are not numbers.
        """
        masks = outputs.masks_queries_logits
        padded = (
            4 * masks.shape[-2],
            4 * masks.shape[-1],
        )  # masks have a quarter of the crop's resolution
        scores = semantic_scores(outputs.class_queries_logits, masks, padded)  # (B, K, H', W')
        if not bool(torch.isfinite(scores.sum())):
            raise ValueError(
                "the model's scores are not numbers (NaN); load it in float32, or convert it again"
            )
        sized = list(scores)
        if target_sizes is not None:
            if len(target_sizes) != len(scores):
                raise ValueError(
                    f"{len(target_sizes)} target_sizes for {len(scores)} images; give one for each"
                )
            sized = [
                self._to_size(score, *size)
                for score, size in zip(scores, target_sizes, strict=True)
            ]
        maps = [score.argmax(dim=0) for score in sized]
        if not return_segmentation_scores:
            return maps
        pairs = zip(maps, sized, strict=True)
        return [
            BatchFeature({"segmentation": ids, "segmentation_scores": score})
            for ids, score in pairs
        ]

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
        resized = self.resize(
            np.zeros((1, height, width), np.uint8), self.size, self.resample
        ).shape
        cropped = scores[None, :, : resized[-2], : resized[-1]]
        return F.interpolate(cropped, size=(height, width), mode="bilinear", align_corners=False)[0]


def _style_seeds(style_seed: int | None, count: int) -> list[int]:
    """One seed for each of `count` images; without `style_seed` torch's global generator gives the first number."""
    if style_seed is None:
        style_seed = int(torch.randint(2**62, ()))
    if style_seed < 0:
        raise ValueError(f"style_seed {style_seed} is negative; choose 0 or more")
    return [image_seed(style_seed, i) for i in range(count)]


__all__ = ["CrossEarthImageProcessor"]
