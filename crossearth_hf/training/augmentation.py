"""Training crops of the published recipe: scale, crop, flip, photometric distortion.

A crop is a pure function of (seed, index): neither workers nor processes nor a resumed run change it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from ..data import Source
from ..data.hub import HubStream
from ..data.image_files import Window, resize_bands
from ..data.labeled_images import FilePair, Windows, scale_to
from ..errors import InputError
from ..inference.normalization import normalize_pixels
from ..labels import IGNORE_INDEX

CROP_TRIES = 10
MAX_SHARE_OF_ONE_CLASS = 0.75
LARGEST_WINDOW = 2**26
"""Pixels of a raster that one crop may read."""


@dataclass(frozen=True)
class CropSettings:
    """How a training crop is cut.

    Attributes:
        size: Side of the crop in pixels.
        scale_range: Bounds of the random scale.
        relative_to_crop: True, as published: the image's longer side becomes scale x `size`. False: the image is
            resized by scale, which keeps the details of images that are much larger than the crop.
        ground_sampling_distance: Meters per pixel at scale 1, where not `relative_to_crop`: images that know their own
            are first brought to it. None: no image is.
        rotate: Also turns the crop by a random multiple of 90 degrees: imagery from above has no upright.
        rotation_degrees: Bound of a further random angle, either way; 0 for none.
        mean, std, rescale_factor: Normalization of the pixels, see `normalize_pixels`.
    """

    size: int
    scale_range: tuple[float, float] = (0.5, 2.0)
    relative_to_crop: bool = True
    ground_sampling_distance: float | None = None
    rotate: bool = False
    rotation_degrees: float = 0.0
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    rescale_factor: float = 1 / 255


class Crop(NamedTuple):
    """A piece of an image: (h, w, C) uint8, (h, w) uint8 ids, (h, w) bool validity."""

    image: np.ndarray
    labels: np.ndarray
    valid: np.ndarray


class TrainingCrops(Dataset):
    """Endless random crops of several sources, addressed by a running index.

    Item `index` is {"pixel_values": (C, size, size) float32 normalized, "labels": (size, size) int64, 255 ignored,
    "valid": (size, size) bool, "index": () int64}. Pixels without data, those beyond the image among them, are not
    valid: 0 after normalization, their labels 255.

    Args:
        sources: Labeled images per source, or a stream of them.
        weights: Share of each source in the crops, any positive numbers; by default each image weighs the same. Of a
            stream each pass uses every record once on average.
        settings: How a crop is cut.
        seed: Seed of the whole run.
        length: Number of crops that the run uses.

    Raises:
        InputError: a stream beside other sources and no weights; a raster of which a crop would read more than
            `LARGEST_WINDOW` pixels.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        weights: Sequence[float] | None,
        settings: CropSettings,
        seed: int,
        length: int,
    ) -> None:
        shares = np.asarray(weights or _image_counts(sources), dtype=np.float64)
        self.sources, self.settings, self.seed, self.length = sources, settings, seed, length
        self.shares = shares / shares.sum()
        for source in sources:
            for image in () if isinstance(source, HubStream) else source:
                if isinstance(image, FilePair) and image.has_windows:
                    _check_window(image, settings)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, index))
        number = int(rng.choice(len(self.sources), p=self.shares))
        source = self.sources[number]
        if isinstance(source, HubStream):
            image: Windows = source.image(math.floor(index * self.shares[number]), self.seed)
        else:
            image = source[int(rng.integers(len(source)))].open()
        crop = random_orientation(random_crop(image, self.settings, rng), self.settings.rotate, rng)
        crop = crop._replace(image=photometric_distortion(crop.image, rng))
        return to_tensors(crop, self.settings) | {"index": torch.tensor(index)}


def random_crop(image: Windows, settings: CropSettings, rng: np.random.Generator) -> Crop:
    """Resizes by a random scale and cuts a random crop, of which one class fills at most 75 % if ten tries find one.

    With `settings.rotation_degrees` the crop is turned (our choice: published recipes mirror at most), and the share of
    a class is that in the larger piece from which the turned crop is taken.

    Only the pixels under the crop are read and resized: bilinear with antialiasing (the original's has none), labels
    and validity nearest.

    Returns:
        Sides h, w <= `settings.size`; smaller where the resized image is and not turned. Labels are 255 where there
        is no data.
    """
    height, width = image.size
    scale = rng.uniform(*settings.scale_range) * _unit_scale(image, settings)
    if settings.rotation_degrees:
        angle = math.radians(rng.uniform(-1, 1) * settings.rotation_degrees)
    else:
        angle = 0.0
    side = math.ceil(settings.size * (abs(math.cos(angle)) + abs(math.sin(angle))))
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    h, w = min(side, new_height), min(side, new_width)
    y, x = height / new_height, width / new_width
    for _ in range(CROP_TRIES):
        top, left = rng.integers(new_height - h + 1), rng.integers(new_width - w + 1)
        box = (left * x, top * y, min((left + w) * x, width), min((top + h) * y, height))
        window = _around(box)
        rows = ((top + np.arange(h) + 0.5) * height / new_height).astype(np.intp) - window[0]
        columns = ((left + np.arange(w) + 0.5) * width / new_width).astype(np.intp) - window[1]
        labels = image.read_labels(*window)[rows[:, None], columns]
        if largest_share(labels) < MAX_SHARE_OF_ONE_CLASS:
            break
    pixels, has_data = image.read_pixels(*window)
    if has_data is None:
        valid = np.ones((h, w), dtype=bool)
    else:
        valid = has_data[rows[:, None], columns]
    inner = (box[0] - window[1], box[1] - window[0], box[2] - window[1], box[3] - window[0])
    crop = Crop(resize_bands(pixels, (w, h), inner), np.where(valid, labels, np.uint8(IGNORE_INDEX)), valid)
    if angle:
        return turned(crop, angle, settings.size)
    return crop


def turned(crop: Crop, angle: float, size: int) -> Crop:
    """The (size, size) center of a crop turned counter-clockwise by `angle` in radians; without data beyond it.

    Pixels are interpolated bilinearly, labels and validity taken from the nearest.
    """
    height, width = crop.labels.shape
    cos, sin = math.cos(angle), math.sin(angle)
    # Where in the crop a pixel of the result comes from: both turn about their centers.
    x = (cos, -sin, (width - size * (cos - sin)) / 2)
    y = (sin, cos, (height - size * (cos + sin)) / 2)

    def turn(band: np.ndarray, resample: Image.Resampling, fill: int = 0) -> np.ndarray:
        source = Image.fromarray(np.ascontiguousarray(band))
        return np.asarray(source.transform((size, size), Image.Transform.AFFINE, x + y, resample, fillcolor=fill))

    bands = [turn(band, Image.Resampling.BILINEAR) for band in np.moveaxis(crop.image, 2, 0)]
    labels = turn(crop.labels, Image.Resampling.NEAREST, IGNORE_INDEX)
    valid = turn(crop.valid.astype(np.uint8), Image.Resampling.NEAREST).astype(bool)
    return Crop(np.stack(bands, axis=2), labels, valid)


def largest_share(labels: np.ndarray) -> float:
    """Share of the most frequent class among the labeled pixels; 1 where nothing is labeled."""
    counts = np.bincount(labels.ravel(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    if counts.any():
        return float(counts.max() / counts.sum())
    return 1.0


def random_orientation(crop: Crop, rotate: bool, rng: np.random.Generator) -> Crop:
    """Mirrors left-right with probability 0.5 and, with `rotate`, turns by a random multiple of 90 degrees."""
    mirrored = rng.random() < 0.5
    if rotate:
        quarter_turns = int(rng.integers(4))
    else:
        quarter_turns = 0
    return Crop(*(np.rot90(part[:, ::-1] if mirrored else part, quarter_turns) for part in crop))


def photometric_distortion(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random brightness (+-32), contrast and saturation (0.5 to 1.5) and hue (+-36 degrees), each with probability 0.5.

    The distortion of SSD (Liu et al., ECCV 2016), as Mask2Former's recipe uses it: contrast comes before or after the
    color changes, at random. Of more channels than RGB brightness and contrast change all alike, as light does;
    saturation and hue are those of the first three (our choice).

    Args:
        image: (H, W, C) uint8, RGB first.

    Returns:
        (H, W, C) uint8.
    """
    values = np.arange(256, dtype=np.float64)
    if rng.random() < 0.5:
        shift = rng.uniform(-32, 32)
    else:
        shift = 0.0
    if rng.random() < 0.5:
        contrast = rng.uniform(0.5, 1.5)
    else:
        contrast = 1.0
    if rng.random() < 0.5:
        saturation = rng.uniform(0.5, 1.5)
    else:
        saturation = 1.0
    if rng.random() < 0.5:
        hue = rng.uniform(-0.1, 0.1)
    else:
        hue = 0.0
    contrast_first = rng.random() < 0.5
    before = np.clip(values + shift, 0, 255) * (contrast if contrast_first else 1.0)
    brightened = _table(before)[image]
    distorted = Image.fromarray(brightened[..., :3])
    if saturation != 1.0 or hue != 0.0:
        tables = [_table((values + 256 * hue) % 256), _table(values * saturation), _table(values)]
        distorted = distorted.convert("HSV").point(np.concatenate(tables).tolist()).convert("RGB")
    after = _table(values if contrast_first else values * contrast)
    return after[np.concatenate([np.asarray(distorted), brightened[..., 3:]], axis=-1)]


def to_tensors(crop: Crop, settings: CropSettings) -> dict[str, torch.Tensor]:
    """Normalizes a crop and pads it right and bottom to `settings.size`: pixels with 0, labels with 255, not valid."""
    h, w = crop.labels.shape
    normalized = normalize_pixels(
        torch.from_numpy(crop.image.transpose(2, 0, 1).copy()),
        torch.from_numpy(crop.valid.copy()),
        mean=settings.mean,
        std=settings.std,
        rescale_factor=settings.rescale_factor,
    )
    pixel_values = torch.zeros(len(normalized), settings.size, settings.size)
    pixel_values[:, :h, :w] = normalized
    labels = torch.full((settings.size, settings.size), IGNORE_INDEX)
    labels[:h, :w] = torch.from_numpy(crop.labels.astype(np.int64, order="C"))
    valid = torch.zeros(settings.size, settings.size, dtype=torch.bool)
    valid[:h, :w] = torch.from_numpy(crop.valid.copy())
    return {"pixel_values": pixel_values, "labels": labels, "valid": valid}


def _image_counts(sources: Sequence[Source]) -> list[int]:
    """Images per source, as weights; 1 for a lone stream."""
    if len(sources) == 1:
        return [1]
    streams = [source.name for source in sources if isinstance(source, HubStream)]
    if streams:
        raise InputError(f"the length of {streams[0]} is not known; give train_weights, one number for each source")
    return [len(source) for source in sources if not isinstance(source, HubStream)]


def _around(box: tuple[float, float, float, float]) -> Window:
    """The whole pixels under (left, top, right, bottom)."""
    row, col = int(box[1]), int(box[0])
    return row, col, math.ceil(box[3]) - row, math.ceil(box[2]) - col


def _unit_scale(image: Windows | FilePair, settings: CropSettings) -> float:
    """Factor of the image's pixels at scale 1."""
    if settings.relative_to_crop:
        return settings.size / max(image.size)
    return scale_to(image, settings.ground_sampling_distance)


def _check_window(image: FilePair, settings: CropSettings) -> None:
    """Refuses a raster that the smallest scale would shrink from more than `LARGEST_WINDOW` pixels into one crop."""
    scale = settings.scale_range[0] * _unit_scale(image, settings)
    largest = settings.size * (math.sqrt(2) if settings.rotation_degrees else 1)
    height, width = (min(side, math.ceil(largest / scale)) for side in image.size)
    if height * width > LARGEST_WINDOW:
        raise InputError(
            f"a crop of {image.image} would shrink {width}x{height} pixels to {settings.size}; set relative_to_crop to "
            "false, raise scale_range, or cut the raster into tiles"
        )


def _table(values: np.ndarray) -> np.ndarray:
    """256 numbers as a look-up table of uint8, clipped."""
    return np.clip(values, 0, 255).astype(np.uint8)
