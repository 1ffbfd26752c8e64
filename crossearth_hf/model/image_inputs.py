"""Inputs of the image processor: converts pictures and tensors to arrays and label maps to ids."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, bfloat16
from transformers.image_utils import ChannelDimension

IGNORE_INDEX = 255
EIGHT_BITS = 1 / 255
"""The rescale factor of pixels in 0..255."""
OVERSHOOT = 25.5
"""By how much fractional pixels may leave 0..255, as resampling makes them. Our choice."""
LARGEST_UNIT = 10
"""Rescaled pixels beyond it are none, whatever the sensor: reflectances of clouds are below 3. Our choice."""

_WIDE_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def image_array(
    image: Any,
    channels: int,
    do_convert_rgb: bool | None,
    input_data_format: str | ChannelDimension | None,
) -> np.ndarray:
    """An image as (C, H, W) in its own number type.

    Args:
        image: A PIL image, or an array or tensor (H, W, C) or (C, H, W).
        channels: That the model takes. Of more than three, arrays are left as they are: the fourth is not transparency.
        do_convert_rgb: Whether it becomes RGB: gray is repeated, transparency is laid on white.
        input_data_format: Where an array has its channels; by default where their number tells.

    Raises:
        ValueError: The value is not an image, its numbers of rows and channels could be exchanged, or the fourth
            channel of an array is not a mask.
    """
    if isinstance(image, Image.Image):
        return _picture_array(image, bool(do_convert_rgb))
    values = plain_array(image)
    axis = _channel_axis(values.shape, max(channels, 3), input_data_format)
    values = np.moveaxis(values, axis, 0)
    if do_convert_rgb and channels <= 3:
        return _rgb(values)
    return values


def check_images(images: Any) -> None:
    """Raises `ValueError` for what holds no image, or images of other than three axes outside of PIL."""
    if isinstance(images, list | tuple):
        if not images:
            raise ValueError("no image is given; give one or more")
        for each in images:
            check_images(each)
    elif hasattr(images, "ndim") and images.ndim not in (3, 4):
        raise ValueError(
            f"an array of shape {tuple(images.shape)} is not an image; give (H, W, C) or (C, H, W), of which gray has "
            "one channel"
        )


def plain_array(value: Any) -> np.ndarray:
    """An array, also of a tensor of any device, with a gradient or in bfloat16."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        if value.dtype == bfloat16:
            value = value.float()
        return value.numpy()
    return np.asarray(value)


def check_pixels(images: Sequence[np.ndarray], rescale_factor: float | None, unit: bool) -> None:
    """Raises `ValueError` for pixels whose normalization would be meaningless.

    Args:
        images: Of any shapes, before they are rescaled.
        rescale_factor: What they are multiplied with; None where they are not.
        unit: Whether pixels must lie in about 0..1 afterwards, as mean and deviation are those of such pixels.

    Raises:
        ValueError: Pixels are not numbers, or NaN or infinite. With the factor 1/255: pixels have 16 bits, lie outside
            of 0..255 or already in 0..1. With another factor: pixels are far from 0..1 after it.
    """
    for image in images:
        if not image.size or image.dtype.kind not in "biuf":
            raise ValueError(
                f"an array of shape {image.shape} and type {image.dtype} is not an image; give numbers"
            )
        low, high = float(image.min()), float(image.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(
                "an image holds NaN or infinity; fill such pixels, and label them 255 in training"
            )
        if rescale_factor is None:
            factor = 1.0
        else:
            factor = rescale_factor
        if math.isclose(factor, EIGHT_BITS):
            _check_eight_bits(image.dtype, low, high)
        elif unit and max(-low, high) * factor > LARGEST_UNIT:
            raise ValueError(
                f"pixels from {low:g} to {high:g} times {factor:g} are far from the 0..1 that image_mean is of; set "
                "rescale_factor to 1 over the largest value, with do_rescale=True"
            )


def check_styleable(images: Sequence[np.ndarray]) -> None:
    """Raises `ValueError` for images, after rescaling, with pixels outside [0, 1]: no style is known for those."""
    for image in images:
        low, high = float(image.min()), float(image.max())
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"pixels from {low:g} to {high:g} cannot be styled; they must lie in [0, 1] after rescaling: leave "
                "do_rescale=True for pixels in 0..255, or set rescale_factor"
            )


def label_maps(maps: Any, sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """The segmentation maps of images as (H, W) arrays of their own number type.

    Args:
        maps: One, several or a batch of PIL images, arrays or tensors: (H, W), also (1, H, W) or (H, W, 1).
        sizes: (height, width) of every image.

    Raises:
        ValueError: The number of maps or a size differs from that of the images, or a map is in color.
    """
    listed = _listed(maps, sizes)
    if len(listed) != len(sizes):
        raise ValueError(
            f"{len(sizes)} images but {len(listed)} segmentation maps; give one map for each image"
        )
    return [_label_map(each, size) for each, size in zip(listed, sizes, strict=True)]


def label_ids(values: np.ndarray, do_reduce_labels: bool, ignore_index: int | None) -> np.ndarray:
    """(H, W) uint8 ids of a map, 255 ignored.

    Args:
        values: (H, W) whole numbers.
        do_reduce_labels: Whether 0 becomes 255 and the others one less, but for 255 (SegFormer, BEiT).
        ignore_index: Number, after that, that means ignored too (Mask2Former).

    Raises:
        ValueError: The map holds fractions, or numbers outside 0..255 that are not `ignore_index`.
    """
    if values.dtype.kind == "f" and not (
        np.isfinite(values).all() and np.array_equal(values, np.round(values))
    ):
        raise ValueError(
            "a segmentation map holds fractions; give whole class ids, resized without interpolation"
        )
    if values.dtype.kind not in "biuf":
        raise ValueError(
            f"a segmentation map of type {values.dtype} holds no class ids; give whole numbers"
        )
    ids = values.astype(np.float64)  # which holds every id, and other numbers
    if do_reduce_labels:
        ids = np.where(
            ids == 0, IGNORE_INDEX, np.where((ids > 0) & (ids < IGNORE_INDEX), ids - 1, ids)
        )
    if ignore_index is not None:
        ids = np.where(ids == ignore_index, IGNORE_INDEX, ids)
    wrong = np.unique(values[(ids < 0) | (ids > IGNORE_INDEX)])
    if len(wrong):
        if len(wrong) == 1:
            remedy = f"set ignore_index={wrong[0]}"
        else:
            remedy = f"write {IGNORE_INDEX}"
        raise ValueError(
            f"a segmentation map holds {', '.join(map(str, wrong[:8]))}; ids are 0 to 254: {remedy} if that marks "
            "pixels without label"
        )
    return ids.astype(np.uint8)


def _check_eight_bits(dtype: "np.dtype[Any]", low: float, high: float) -> None:
    """Raises `ValueError` for pixels that a factor of 1/255 does not scale to 0..1."""
    if dtype.kind in "iu" and dtype.itemsize == 2:
        raise ValueError(
            f"pixels of 16 bits, from {low:g} to {high:g}, are not the 0..255 that rescale_factor is for; stretch them "
            "to uint8, as `crossearth predict` does, or set rescale_factor to 1 over the largest value"
        )
    if dtype.kind == "f":
        margin = OVERSHOOT
    else:
        margin = 0
    if low < -margin or high > 255 + margin:
        raise ValueError(
            f"pixels from {low:g} to {high:g} are not the 0..255 that rescale_factor is for; stretch them to uint8, or "
            "set rescale_factor to 1 over the largest value"
        )
    if dtype.kind in "bf" and (0 < high <= 1 or (low < 0 and high <= LARGEST_UNIT)):
        raise ValueError(
            f"pixels from {low:g} to {high:g} are rescaled or normalized already; set do_rescale=False for pixels in "
            "0..1, and do_normalize=False too for normalized ones"
        )


def _picture_array(image: Image.Image, do_convert_rgb: bool) -> np.ndarray:
    """(C, H, W) of a PIL image; modes of more than 8 bits keep their numbers, which Pillow would cut to 0..255."""
    if image.mode in _WIDE_MODES:
        values = np.asarray(image)[None]
        if do_convert_rgb:
            return np.repeat(values, 3, axis=0)
        return values
    if do_convert_rgb:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image)
        image = image.convert("RGB")
    values = np.array(image)
    if values.ndim == 2:
        return values[None]
    return np.moveaxis(values, -1, 0)


def _channel_axis(
    shape: tuple[int, ...], channels: int, input_data_format: str | ChannelDimension | None
) -> int:
    """0 or -1: the axis that is said to hold the channels, else the one of the model's number, else of 1 or 4."""
    if input_data_format is not None:
        if ChannelDimension(input_data_format) == ChannelDimension.FIRST:
            return 0
        return -1
    for wanted in ((channels,), (1, 3, 4)):
        found = [axis for axis in (0, -1) if shape[axis] in wanted]
        if len(found) == 1:
            return found[0]
        if found and shape[1] * shape[0] != 1:
            raise ValueError(
                f"an array of shape {shape} may have its channels first or last; say which with input_data_format="
                "'channels_first' or 'channels_last'"
            )
        if found:
            return 0
    # Neither fits: whoever knows the model's channels says so.
    if shape[0] < shape[-1]:
        return 0
    return -1


def _rgb(values: np.ndarray) -> np.ndarray:
    """(3, H, W) of one, three or four channels; other numbers of channels as they are."""
    if len(values) == 1:
        return np.repeat(values, 3, axis=0)
    if len(values) != 4:
        return values
    color, alpha = values[:3], values[3]
    opaque = 255
    if alpha.dtype.kind == "f" and alpha.max(initial=0) == 1:
        opaque = 1
    if not alpha.any() or not np.isin(alpha, (0, opaque)).all():
        raise ValueError(
            "the fourth channel of an array is not a mask of 0 and 255 and may be a band; give the first three "
            "channels, or a PIL image of mode RGBA where it is transparency"
        )
    return np.where(alpha == 0, np.array(opaque, values.dtype), color)


def _listed(maps: Any, sizes: Sequence[tuple[int, int]]) -> list[Any]:
    """Maps one by one."""
    if isinstance(maps, list | tuple):
        flat: list[Any] = []
        for part in maps:
            if isinstance(part, list | tuple):
                flat += part
            else:
                flat.append(part)
        if len(flat) != 1 or len(sizes) == 1:
            return flat
        maps = flat[0]
    if isinstance(maps, Image.Image | str):
        return [maps]
    values = plain_array(maps)
    single = values.ndim <= 2 or (len(sizes) == 1 and values.ndim == 3)
    if single:
        return [values]
    return list(values)


def is_of_unit(mean: float | Sequence[float]) -> bool:
    """Whether a mean belongs to pixels in 0..1."""
    return bool(np.min(mean) >= 0 and np.max(mean) <= 1)


def padding_mask(sizes: Sequence[tuple[int, int]], divisor: int) -> np.ndarray | None:
    """(B, H, W) int64, 0 where images are padded to the size of a larger one; None without padding.

    Args:
        sizes: (height, width) of each image.
        divisor: To multiples of which an image alone is padded.
    """
    own = [tuple(math.ceil(side / divisor) * divisor for side in size) for size in sizes]
    if len(set(own)) == 1:
        return None
    mask = np.zeros((len(own), *np.max(own, axis=0)), dtype=np.int64)
    for image, (height, width) in zip(mask, own, strict=True):
        image[:height, :width] = 1
    return mask


def _label_map(given: Any, size: tuple[int, int]) -> np.ndarray:
    """(H, W) of a map that belongs to an image of `size`."""
    if isinstance(given, str) or (isinstance(given, Image.Image) and len(given.getbands()) > 1):
        what = "a path or address"
        if isinstance(given, Image.Image):
            what = f"mode {given.mode}"
        raise ValueError(
            f"a segmentation map of {what} is read as color; give one (H, W) map of class ids per image"
        )
    values = plain_array(given)
    if values.ndim == 3:
        flat = []
        if len(values) == 1:
            flat.append(values[0])
        if values.shape[-1] == 1:
            flat.append(values[..., 0])
        if not flat:
            raise ValueError(
                f"a segmentation map of shape {values.shape} holds colors or scores; give one (H, W) map of class ids "
                "per image"
            )
        values = next((each for each in flat if each.shape == size), flat[0])
    if values.ndim != 2:
        raise ValueError(
            f"a segmentation map of shape {values.shape} is none; give one (H, W) map of class ids"
        )
    if values.shape != size:
        raise ValueError(
            f"an image of {size[0]} x {size[1]} pixels has a segmentation map of "
            f"{values.shape[0]} x {values.shape[1]}; make them the same size"
        )
    return values


def check_channels(images: Sequence[np.ndarray], mean: float | Sequence[float]) -> None:
    """Raises `ValueError` for images (C, H, W) of another number of channels than a mean's."""
    for image in images:
        if np.ndim(mean) and len(image) != np.size(mean):
            raise ValueError(
                f"an image of shape {image.shape} and an image_mean of {np.size(mean)} channels do not fit together; "
                "give arrays of as many channels (pictures are read as RGB)"
            )


__all__ = [
    "check_channels",
    "check_images",
    "check_pixels",
    "image_array",
    "label_ids",
    "label_maps",
    "padding_mask",
    "plain_array",
]
