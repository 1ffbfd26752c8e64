"""Settings of the image processor, and the checks of their names and values."""

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import torch  # noqa: F401  (an annotation of ImagesKwargs names it)
from transformers.image_utils import (
    ChannelDimension,
    PILImageResampling,  # noqa: F401  (the same)
)
from transformers.processing_utils import ImagesKwargs


class CrossEarthImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    r"""
    size_divisor (`int`, *optional*, defaults to `self.size_divisor`):
        Height and width are padded, right and bottom, to multiples of it.
    do_reduce_labels (`bool`, *optional*, defaults to `self.do_reduce_labels`):
        Whether id 0 of the maps becomes 255 and every other one less, but for 255, as in SegFormer and BEiT.
    ignore_index (`int`, *optional*, defaults to `self.ignore_index`):
        An id, of the reduced maps where they are reduced, that means ignored beside 255; it becomes 255 in the labels.
    do_earth_style_injection (`bool`, *optional*, defaults to `self.do_earth_style_injection`):
        Whether images are styled in training: see `StyleSettings` for what the four numbers mean.
    style_probability (`float`, *optional*, defaults to `self.style_probability`):
        Share of the images that are styled.
    style_alpha (`float`, *optional*, defaults to `self.style_alpha`):
        Weight of the Earth style against the image's own.
    style_mask_ratio (`float`, *optional*, defaults to `self.style_mask_ratio`):
        Share of the blocks that show the styled image.
    style_block_size (`int`, *optional*, defaults to `self.style_block_size`):
        Side of a block in pixels.
    style_residual (`bool`, *optional*, defaults to `self.style_residual`):
        Whether what the style changes is added to the image, which keeps its finest detail.
    style_low_pass (`float`, *optional*, defaults to `self.style_low_pass`):
        Deviation in pixels of the Gaussian that the change passes; 0 for the whole change.
    style_seed (`int`, *optional*, defaults to `self.style_seed`):
        Makes a call repeatable: image i draws from (style_seed, i). Without it torch's global generator decides.
    return_clean_pixel_values (`bool`, *optional*, defaults to `self.return_clean_pixel_values`):
        Whether injection also returns the images without style and which of them were styled.
    """

    size_divisor: int
    do_reduce_labels: bool
    ignore_index: int | None
    do_earth_style_injection: bool
    style_probability: float
    style_alpha: float
    style_mask_ratio: float
    style_block_size: int
    style_residual: bool
    style_low_pass: float
    style_seed: int | None
    return_clean_pixel_values: bool


_SERVICE_NAMES = ("auto_map", "feature_extractor_type", "image_processor_type", "processor_class")

_NEAR = 0.8  # of `difflib`: a typing error, not another word

_UNSUPPORTED = {
    "do_center_crop": "crop the images first",
    "crop_size": "crop the images first",
    "pad_size": "images are padded to multiples of size_divisor",
    "image_seq_length": "leave it out",
}


def check_names(given: Iterable[str], known: Collection[str], owner: str) -> None:
    """Raises `TypeError` for a setting that is neither known nor written by transformers beside the settings."""
    for name in given:
        if name in known or name in _SERVICE_NAMES or name.startswith("_"):
            continue
        near = difflib.get_close_matches(name, known, n=1)
        if near:
            hint = f"did you mean '{near[0]}'?"
        else:
            hint = f"the known ones are {', '.join(sorted(known))}"
        raise TypeError(f"{owner} has no setting '{name}'; {hint}")


def check_spelling(given: Iterable[str], known: Collection[str], owner: str) -> None:
    """Raises `TypeError` for a name that is all but a setting; others may be meant for whoever else loads."""
    for name in given:
        near = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
        if near and name not in known:
            raise TypeError(f"{owner} has no setting '{name}'; did you mean '{near[0]}'?")


def check_values(settings: Mapping[str, Any]) -> None:
    """Raises `ValueError` for settings that transformers knows and this processor does not honor, or that are none."""
    for name, remedy in _UNSUPPORTED.items():
        if settings.get(name):
            raise ValueError(f"{name}={settings[name]} is not supported; {remedy}")
    if settings.get("data_format") not in (
        None,
        ChannelDimension.FIRST,
        ChannelDimension.FIRST.value,
    ):
        raise ValueError(
            f"data_format={settings['data_format']} is not supported; images come out channels first"
        )
    if settings.get("size_divisor") is not None and settings["size_divisor"] < 1:
        raise ValueError(
            f"size_divisor {settings['size_divisor']} is not 1 or more; 1 pads to the largest image alone"
        )
    deviation = settings.get("image_std")
    if deviation is not None and not np.all(np.asarray(deviation) > 0):
        raise ValueError(f"image_std {deviation} is not above 0; 1 leaves the deviation as it is")


__all__ = ["CrossEarthImageProcessorKwargs", "check_names", "check_spelling", "check_values"]
