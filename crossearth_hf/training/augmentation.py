"""Training crops of the published recipe: scale, crop, flip, photometric distortion.

A crop depends only on (seed, index), so workers, processes and resumed runs see the same crops.
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
from ..data.hub_stream import HubStream
from ..data.image_files import Window, resize_bands
from ..data.labeled_images import LabeledImage, Windows, scale_to
from ..errors import InputError
from ..inference.normalization import normalize_pixels
from ..labels import IGNORE_INDEX

CROP_TRIES = 10
MAX_SHARE_OF_ONE_CLASS = 0.75
SHRUNK = 2
"""Crops that shrink rasters with polygons by at least this factor cause a notice; our choice."""
LARGEST_WINDOW = 2**26
"""Most pixels of a raster that one crop may read."""


@dataclass(frozen=True)
class CropSettings:
    """How a training crop is cut.

    Attributes:
        size: Side of the crop in pixels.
        scale_range: Bounds of the random scale.
        relative_to_crop: True, as published: the image's longer side becomes scale x `size`. False: the image is
            resized by scale, which keeps the details of images that are much larger than the crop.
        ground_sampling_distance: Meters per pixel at scale 1, without `relative_to_crop`: images of known pixel size
            are first resampled to it. None resamples no image.
        rotate: Also turns the crop by a random multiple of 90 degrees: imagery from above has no upright.
        rotation_degrees: Bound of another random angle, in either direction; 0 for none.
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
    """Random crops of several data sources, addressed by a running index.

    Item `index` is {"pixel_values": (C, size, size) float32 normalized, "labels": (size, size) int64, 255 ignored,
    "valid": (size, size) bool, "index": () int64}. Pixels without data and pixels beyond the image are not valid: they
    are 0 after normalization, and their labels are 255. With partly labeled or unlabeled images, an item also has
    "unlabeled_classes" (K,) bool, the possible classes of its pixels without a label.

    Args:
        sources: Labeled images of each data source, or a stream of them.
        weights: Share of each data source in the crops, any positive numbers; by default each image weighs the same.
            One pass over a stream uses every record once on average.
        settings: How a crop is cut.
        seed: Seed of the whole run.
        length: Number of crops of the run.
        num_classes: K, needed with partly labeled and unlabeled images.
        unlabeled: Further data sources, whose pixels may have any class.

    Raises:
        InputError: A stream stands beside other data sources without weights, or a crop would read more than
            `LARGEST_WINDOW` pixels of a raster.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        weights: Sequence[float] | None,
        settings: CropSettings,
        seed: int,
        length: int,
        num_classes: int = 0,
        unlabeled: Sequence[Source] = (),
    ) -> None:
        self.settings, self.labeled_sources = settings, len(sources)
        self.sources = sources = [*sources, *unlabeled]
        self.seed, self.length, self.num_classes = seed, length, num_classes
        shares = np.asarray(weights or _image_counts(sources), dtype=np.float64)
        self.shares = shares / shares.sum()
        images = _images(sources)
        self.is_partly_labeled = is_partly_labeled(sources) or bool(unlabeled)
        for image in images:
            if image.has_windows:
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
        item = to_tensors(crop, self.settings) | {"index": torch.tensor(index)}
        if self.is_partly_labeled:
            item["unlabeled_classes"] = self._unlabeled_classes(image, number)
        return item

    def _unlabeled_classes(self, image: Windows, source: int) -> torch.Tensor:
        """The possible classes of the pixels without a label in an image of the data source number `source`."""
        if source >= self.labeled_sources:
            return torch.ones(self.num_classes, dtype=torch.bool)
        if image.partial is None:
            return torch.zeros(self.num_classes, dtype=torch.bool)
        return torch.tensor(image.partial.unlabeled_classes(self.num_classes))


def is_partly_labeled(sources: Sequence[Source]) -> bool:
    """Whether an image of the data sources labels only some classes."""
    return any(image.partial is not None for image in _images(sources))


def shrink_notice(sources: Sequence[Source], settings: CropSettings) -> str | None:
    """A line for a person if crops show polygons on large rasters much smaller than maps will; else None."""
    if not settings.relative_to_crop:
        return None
    sides = [max(image.size) for image in _images(sources) if image.places is not None]
    largest = max(sides, default=0)
    if largest < SHRUNK * settings.size:
        return None
    return (
        f"crops show rasters of {largest} pixels at 1/{largest / settings.size:.0f} of their size, unlike `crossearth "
        "predict`; set relative_to_crop to false (--no-relative_to_crop) to train on their own pixels"
    )


def random_crop(image: Windows, settings: CropSettings, rng: np.random.Generator) -> Crop:
    """Resizes by a random scale and cuts a random crop; up to ten tries look for one without a class above 75 %.

    With `settings.rotation_degrees` the crop is turned (our choice: published recipes mirror at most). The share of a
    class is then measured in the larger piece around the turned crop.

    If the image knows the places of its labels (`places`), the crop holds one of them, anywhere (our choice; a turned
    crop may miss one near the image's border).

    Only the pixels under the crop are read and resized: pixels bilinearly with antialiasing (the original has none),
    labels and validity to the nearest.

    Returns:
        Sides h, w <= `settings.size`; smaller only if the resized image is smaller and the crop is not turned. Labels
        are 255 where there is no data.
    """
    angle = 0.0
    height, width = image.size
    scale = rng.uniform(*settings.scale_range) * _unit_scale(image, settings)
    if settings.rotation_degrees:
        angle = math.radians(rng.uniform(-1, 1) * settings.rotation_degrees)
    side = math.ceil(settings.size * (abs(math.cos(angle)) + abs(math.sin(angle))))
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    h, w = min(side, new_height), min(side, new_width)
    y, x = height / new_height, width / new_width  # pixels of the image per resized pixel
    for _ in range(CROP_TRIES):
        top, left = _corner(image, (new_height, new_width), (h, w), settings.size, angle, rng)
        box = (left * x, top * y, min((left + w) * x, width), min((top + h) * y, height))
        window = _around(box)
        rows = ((top + np.arange(h) + 0.5) * height / new_height).astype(np.intp) - window[0]
        columns = ((left + np.arange(w) + 0.5) * width / new_width).astype(np.intp) - window[1]
        labels = image.read_labels(*window)[rows[:, None], columns]
        if image.partial is not None:
            labels = image.partial.for_training(labels)
        if largest_share(labels) < MAX_SHARE_OF_ONE_CLASS:
            break
    pixels, has_data = image.read_pixels(*window)
    valid = np.ones((h, w), dtype=bool)
    if has_data is not None:
        valid = has_data[rows[:, None], columns]
    window_top, window_left = window[:2]
    inside = (
        box[0] - window_left,
        box[1] - window_top,
        box[2] - window_left,
        box[3] - window_top,
    )
    crop = Crop(
        resize_bands(pixels, (w, h), inside),
        np.where(valid, labels, np.uint8(IGNORE_INDEX)),
        valid,
    )
    if angle:
        return turned(crop, angle, settings.size)
    return crop


def _corner(
    image: Windows,
    lengths: tuple[int, int],
    sides: tuple[int, int],
    size: int,
    angle: float,
    rng: np.random.Generator,
) -> tuple[int, int]:
    """Random top and left of a crop of `sides` in an image resized to `lengths`; holds a place of a label if known."""
    place = None
    if image.places is not None:
        place = image.places.place(rng)
    if place is None:
        top, left = (
            int(rng.integers(length - side + 1))
            for length, side in zip(lengths, sides, strict=True)
        )
        return top, left
    reach = math.inf
    if angle:
        reach = size / math.sqrt(2)  # a turned crop surely holds this much of its middle
    top = _start(place[0] / (image.size[0] / lengths[0]), sides[0], lengths[0], reach, rng)
    left = _start(place[1] / (image.size[1] / lengths[1]), sides[1], lengths[1], reach, rng)
    return top, left


def _start(place: float, side: int, length: int, reach: float, rng: np.random.Generator) -> int:
    """Random first pixel of a crop of `side` out of `length` pixels; `place` lies within its middle `reach` pixels."""
    margin = max(0.0, (side - reach) / 2)
    last = length - side
    low = min(max(math.ceil(place - side + margin), 0), last)
    high = min(max(math.floor(place - margin), 0), last)
    return int(rng.integers(low, high + 1))


def turned(crop: Crop, angle: float, size: int) -> Crop:
    """The (size, size) center of a crop turned counter-clockwise by `angle` in radians; not valid beyond the crop.

    Pixels are interpolated bilinearly; labels and validity come from the nearest pixel.
    """
    height, width = crop.labels.shape
    cos, sin = math.cos(angle), math.sin(angle)
    # The affine map from a pixel of the result to its place in the crop; it keeps the center.
    x = (cos, -sin, (width - size * (cos - sin)) / 2)
    y = (sin, cos, (height - size * (cos + sin)) / 2)

    def turn(band: np.ndarray, resample: Image.Resampling, fill: int = 0) -> np.ndarray:
        picture = Image.fromarray(np.ascontiguousarray(band))
        return np.asarray(
            picture.transform((size, size), Image.Transform.AFFINE, x + y, resample, fillcolor=fill)
        )

    bands = [turn(band, Image.Resampling.BILINEAR) for band in np.moveaxis(crop.image, 2, 0)]
    labels = turn(crop.labels, Image.Resampling.NEAREST, IGNORE_INDEX)
    valid = turn(crop.valid.astype(np.uint8), Image.Resampling.NEAREST).astype(bool)
    return Crop(np.stack(bands, axis=2), labels, valid)


def largest_share(labels: np.ndarray) -> float:
    """Share of the most frequent class among the labeled pixels; 1 if there is none."""
    counts = np.bincount(labels.ravel(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    if counts.any():
        return float(counts.max() / counts.sum())
    return 1.0


def random_orientation(crop: Crop, rotate: bool, rng: np.random.Generator) -> Crop:
    """Mirrors left-right with probability 0.5 and, with `rotate`, turns by a random multiple of 90 degrees."""
    parts: Sequence[np.ndarray] = crop
    if rng.random() < 0.5:
        parts = [part[:, ::-1] for part in parts]
    if rotate:
        quarter_turns = int(rng.integers(4))
        parts = [np.rot90(part, quarter_turns) for part in parts]
    return Crop(*parts)


def photometric_distortion(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random brightness (+-32), contrast and saturation (0.5 to 1.5) and hue (+-36 degrees), each with probability 0.5.

    This is the distortion of SSD (Liu et al., ECCV 2016) as in Mask2Former's recipe: contrast comes before or after the
    color changes, at random. With more channels than RGB, brightness and contrast change all of them alike, as light
    does; saturation and hue change the first three (our choice).

    Args:
        image: (H, W, C) uint8, RGB first.

    Returns:
        (H, W, C) uint8.
    """
    shift, contrast, saturation, hue = 0.0, 1.0, 1.0, 0.0
    if rng.random() < 0.5:
        shift = rng.uniform(-32, 32)
    if rng.random() < 0.5:
        contrast = rng.uniform(0.5, 1.5)
    if rng.random() < 0.5:
        saturation = rng.uniform(0.5, 1.5)
    if rng.random() < 0.5:
        hue = rng.uniform(-0.1, 0.1)
    values = np.arange(256, dtype=np.float64)
    before, after = np.clip(values + shift, 0, 255), values
    if rng.random() < 0.5:
        before = before * contrast
    else:
        after = values * contrast
    brightened = _table(before)[image]
    distorted = Image.fromarray(brightened[..., :3])
    if saturation != 1.0 or hue != 0.0:
        tables = [_table((values + 256 * hue) % 256), _table(values * saturation), _table(values)]
        distorted = distorted.convert("HSV").point(np.concatenate(tables).tolist()).convert("RGB")
    return _table(after)[np.concatenate([np.asarray(distorted), brightened[..., 3:]], axis=-1)]


def to_tensors(crop: Crop, settings: CropSettings) -> dict[str, torch.Tensor]:
    """Normalizes a crop and pads it right and bottom to `settings.size`: pixels with 0, labels with 255, not valid."""
    size = settings.size
    h, w = crop.labels.shape
    has_data = torch.from_numpy(crop.valid.copy())
    normalized = normalize_pixels(
        torch.from_numpy(crop.image.transpose(2, 0, 1).copy()),
        has_data,
        mean=settings.mean,
        std=settings.std,
        rescale_factor=settings.rescale_factor,
    )
    pixel_values = torch.zeros(len(normalized), size, size)
    pixel_values[:, :h, :w] = normalized
    labels = torch.full((size, size), IGNORE_INDEX)
    labels[:h, :w] = torch.from_numpy(crop.labels.astype(np.int64, order="C"))
    valid = torch.zeros(size, size, dtype=torch.bool)
    valid[:h, :w] = has_data
    return {"pixel_values": pixel_values, "labels": labels, "valid": valid}


def _images(sources: Sequence[Source]) -> list[LabeledImage]:
    """The images of all data sources except streams."""
    return [image for source in sources if not isinstance(source, HubStream) for image in source]


def _image_counts(sources: Sequence[Source]) -> list[int]:
    """Images of each data source, as weights; 1 for a lone stream."""
    if len(sources) == 1:
        return [1]
    for source in sources:
        if isinstance(source, HubStream):
            raise InputError(
                f"the length of {source.name} is not known; give train_weights, one number for each source"
            )
    return [len(source) for source in sources if not isinstance(source, HubStream)]


def _around(box: tuple[float, float, float, float]) -> Window:
    """The whole pixels under (left, top, right, bottom)."""
    left, top, right, bottom = box
    row, col = int(top), int(left)
    return row, col, math.ceil(bottom) - row, math.ceil(right) - col


def _unit_scale(image: LabeledImage | Windows, settings: CropSettings) -> float:
    """Factor of the image's pixels at scale 1."""
    if settings.relative_to_crop:
        return settings.size / max(image.size)
    return scale_to(image, settings.ground_sampling_distance)


def _check_window(image: LabeledImage, settings: CropSettings) -> None:
    """Raises `InputError` if one crop at the smallest scale would read more than `LARGEST_WINDOW` pixels."""
    scale = settings.scale_range[0] * _unit_scale(image, settings)
    largest: float = settings.size
    if settings.rotation_degrees:
        largest *= math.sqrt(2)
    height, width = (min(side, math.ceil(largest / scale)) for side in image.size)
    if height * width > LARGEST_WINDOW:
        raise InputError(
            f"a crop of {image.name} would shrink {width}x{height} pixels to {settings.size}; set relative_to_crop to "
            "false, raise scale_range, or cut the raster into tiles"
        )


def _table(values: np.ndarray) -> np.ndarray:
    """256 numbers, clipped, as a look-up table of uint8."""
    return np.clip(values, 0, 255).astype(np.uint8)
