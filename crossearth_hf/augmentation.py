"""Training crops of the published recipe: scale, crop, flip, photometric distortion.

A crop is a pure function of (seed, index): neither workers nor processes nor a resumed run change it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from .data import LabelledImage
from .labels import IGNORE_INDEX

CROP_TRIES = 10
MAX_SHARE_OF_ONE_CLASS = 0.75


@dataclass(frozen=True)
class CropSettings:
    """How a training crop is cut.

    Attributes:
        size: Side of the crop in pixels.
        scale_range: Bounds of the random scale.
        relative_to_crop: True, as published: the image's longer side becomes scale x `size`. False: the image is
            resized by scale, which keeps the details of images that are much larger than the crop.
        rotate: Also turns the crop by a random multiple of 90 degrees: imagery from above has no upright.
        mean, std: Normalisation of the pixels in [0, 1], per channel.
    """

    size: int
    scale_range: tuple[float, float] = (0.5, 2.0)
    relative_to_crop: bool = True
    rotate: bool = False
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


class TrainingCrops(Dataset):
    """Endless random crops of several sources, addressed by a running index.

    Item `index` is {"pixel_values": (3, size, size) float32 normalised, "labels": (size, size) int64, 255 ignored}.

    Args:
        sources: Labelled images per source.
        weights: Share of each source in the crops, any positive numbers; by default each image weighs the same.
        settings: How a crop is cut.
        seed: Seed of the whole run.
        length: Number of crops that the run uses.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[LabelledImage]],
        weights: Sequence[float] | None,
        settings: CropSettings,
        seed: int,
        length: int,
    ) -> None:
        shares = np.asarray(weights or [len(source) for source in sources], dtype=np.float64)
        self.sources, self.settings, self.seed, self.length = sources, settings, seed, length
        self.shares = shares / shares.sum()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, index))
        source = self.sources[int(rng.choice(len(self.sources), p=self.shares))]
        image, labels = source[int(rng.integers(len(source)))].read()
        image, labels = random_crop(image, labels, self.settings, rng)
        image, labels = random_orientation(image, labels, self.settings.rotate, rng)
        return to_tensors(photometric_distortion(image, rng), labels, self.settings)


def random_crop(
    image: np.ndarray, labels: np.ndarray, settings: CropSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Resizes by a random scale and cuts a random crop, of which one class fills at most 75 % if ten tries find one.

    Only the pixels under the crop are resized: bilinear with antialiasing (the original's has none), labels nearest.

    Args:
        image: (H, W, 3) uint8.
        labels: (H, W) uint8.

    Returns:
        (h, w, 3) and (h, w) with h, w <= `settings.size`; smaller where the resized image is.
    """
    height, width = labels.shape
    scale = rng.uniform(*settings.scale_range)
    if settings.relative_to_crop:
        scale *= settings.size / max(height, width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    h, w = min(settings.size, new_height), min(settings.size, new_width)
    for _ in range(CROP_TRIES):
        top, left = rng.integers(new_height - h + 1), rng.integers(new_width - w + 1)
        rows = ((top + np.arange(h) + 0.5) * height / new_height).astype(np.intp)
        columns = ((left + np.arange(w) + 0.5) * width / new_width).astype(np.intp)
        crop = labels[rows[:, None], columns]
        if largest_share(crop) < MAX_SHARE_OF_ONE_CLASS:
            break
    y, x = height / new_height, width / new_width
    box = (left * x, top * y, min((left + w) * x, width), min((top + h) * y, height))
    return resize_region(image, box, (h, w)), crop


def resize_region(image: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """The part `box` (left, top, right, bottom) of (H, W, 3) uint8 `image` resized to `size` (height, width)."""
    left, top = int(box[0]), int(box[1])
    part = image[top : int(np.ceil(box[3])), left : int(np.ceil(box[2]))]
    inner = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    return np.asarray(Image.fromarray(part).resize(size[::-1], Image.Resampling.BILINEAR, box=inner))


def largest_share(labels: np.ndarray) -> float:
    """Share of the most frequent class among the labelled pixels; 1 where nothing is labelled."""
    counts = np.bincount(labels.ravel(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    return float(counts.max() / counts.sum()) if counts.any() else 1.0


def random_orientation(
    image: np.ndarray, labels: np.ndarray, rotate: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mirrors left-right with probability 0.5 and, with `rotate`, turns by a random multiple of 90 degrees."""
    if rng.random() < 0.5:
        image, labels = image[:, ::-1], labels[:, ::-1]
    quarter_turns = int(rng.integers(4)) if rotate else 0
    return np.rot90(image, quarter_turns), np.rot90(labels, quarter_turns)


def photometric_distortion(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random brightness (+-32), contrast and saturation (0.5 to 1.5) and hue (+-36 degrees), each with probability 0.5.

    The distortion of SSD (Liu et al., ECCV 2016), as Mask2Former's recipe uses it: contrast comes before or after the
    colour changes, at random.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    values = np.arange(256, dtype=np.float64)
    shift = rng.uniform(-32, 32) if rng.random() < 0.5 else 0.0
    contrast = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
    saturation = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
    hue = rng.uniform(-0.1, 0.1) if rng.random() < 0.5 else 0.0
    contrast_first = rng.random() < 0.5
    before = np.clip(values + shift, 0, 255) * (contrast if contrast_first else 1.0)
    distorted = Image.fromarray(_table(before)[image])
    if saturation != 1.0 or hue != 0.0:
        tables = [_table((values + 256 * hue) % 256), _table(values * saturation), _table(values)]
        distorted = distorted.convert("HSV").point(np.concatenate(tables).tolist()).convert("RGB")
    after = _table(values if contrast_first else values * contrast)
    return after[np.asarray(distorted)]


def to_tensors(image: np.ndarray, labels: np.ndarray, settings: CropSettings) -> dict[str, torch.Tensor]:
    """Normalises (h, w, 3) uint8 pixels and pads right and bottom to the crop: pixels with 0, labels with 255."""
    h, w = labels.shape
    mean, std = np.asarray(settings.mean, dtype=np.float32), np.asarray(settings.std, dtype=np.float32)
    pixel_values = np.zeros((3, settings.size, settings.size), dtype=np.float32)
    pixel_values[:, :h, :w] = ((image / np.float32(255) - mean) / std).transpose(2, 0, 1)
    padded = np.full((settings.size, settings.size), IGNORE_INDEX, dtype=np.int64)
    padded[:h, :w] = labels
    return {"pixel_values": torch.from_numpy(pixel_values), "labels": torch.from_numpy(padded)}


def _table(values: np.ndarray) -> np.ndarray:
    """256 numbers as a look-up table of uint8, clipped."""
    return np.clip(values, 0, 255).astype(np.uint8)
