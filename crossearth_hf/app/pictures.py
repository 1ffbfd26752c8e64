"""Pictures of a scene and its map for the page, decimated. The page colors the gray ones, see static/viewer.js."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..labels import IGNORE_INDEX, LabelSet
from ..raster.cog import read_share
from ..raster.scene import Raster, Scene, read_band

LONGEST = 3072
"""Longer side in pixels of the layers of a result, so that the page shows most scenes in full; a phone holds three."""

THUMBNAIL = 1024
"""Longer side in pixels of an upload's picture."""

UNCERTAIN = 0.5
"""A pixel is uncertain where its best class has less than this share of its scores: less than all others together."""

_STEPS = 254  # gray level of a confidence of 1; 255 means no data
_NO_DATA = 225  # gray level in a picture of a scene


@dataclass(frozen=True)
class Layers:
    """Picture files of one size.

    Attributes:
        scene: JPEG.
        labels: Gray PNG of class ids, 255 without data.
        confidence: Gray PNG, 254 for a confidence of 1, 255 without data.
        size: Width and height in pixels.
        uncertain: Share of uncertain pixels among those with data, 0 to 1, estimated on the decimated picture.
    """

    scene: Path
    labels: Path
    confidence: Path
    size: tuple[int, int]
    uncertain: float


def save_layers(scene: Scene, map_file: Path, confidence_file: Path, folder: Path) -> Layers:
    """Draws the layers of a finished map into `folder`."""
    files = folder / "scene.jpg", folder / "labels.png", folder / "confidence.png"
    height, width = save_scene(scene, LONGEST, files[0])
    grid = scene.native_grid
    whole = (0.0, 0.0, grid.height, grid.width)
    Image.fromarray(read_band(map_file, whole, (height, width))).save(files[1])
    confidence = read_share(confidence_file, whole, (height, width))
    Image.fromarray(gray_levels(confidence)).save(files[2])
    known = confidence[~np.isnan(confidence)]
    if known.size:
        uncertain = float((known < UNCERTAIN).mean())
    else:
        uncertain = 0.0
    return Layers(*files, (width, height), uncertain)


def save_scene(scene: Scene, longest: int, path: Path) -> tuple[int, int]:
    """Draws a scene into a JPEG of at most `longest` pixels on its longer side; returns its height and width."""
    raster = scene.thumbnail(longest)
    rgb_image(raster.pixels, raster.valid).save(path, quality=90)
    height, width = raster.valid.shape
    return height, width


def gray_levels(confidence: np.ndarray) -> np.ndarray:
    """(H, W) confidence, NaN without data -> (H, W) uint8 as the page reads it."""
    levels = np.rint(np.nan_to_num(confidence) * _STEPS).astype(np.uint8)
    levels[np.isnan(confidence)] = IGNORE_INDEX
    return levels


def save_version(
    raster: Raster,
    labels: np.ndarray,
    original: np.ndarray,
    label_set: LabelSet,
    folder: Path,
    index: int,
) -> list[Path]:
    """Draws a version of a scene, its map, and the map pale where (H, W) `original` has the same class."""
    files = [folder / f"version-{index}.{ending}" for ending in ("jpg", "map.png", "changes.png")]
    colors, shown = label_set.colorize(labels), labels != IGNORE_INDEX
    pale = (0.15 * colors + 0.85 * 255).astype(np.uint8)
    rgb_image(raster.pixels, raster.valid).save(files[0], quality=90)
    with_alpha(colors, shown).save(files[1])
    with_alpha(np.where((labels != original)[..., None], colors, pale), shown).save(files[2])
    return files


def rgb_image(pixels: np.ndarray, valid: np.ndarray) -> Image.Image:
    """(3, H, W) uint8 as a picture, light gray where (H, W) `valid` is False; one channel is shown as gray."""
    colors = np.broadcast_to(pixels, (3, *valid.shape))
    return Image.fromarray(
        np.where(valid[..., None], colors.transpose(1, 2, 0), np.uint8(_NO_DATA))
    )


def with_alpha(colors: np.ndarray, shown: np.ndarray) -> Image.Image:
    """(H, W, 3) uint8 as a picture, transparent where (H, W) `shown` is False."""
    return Image.fromarray(np.dstack([colors, np.where(shown, np.uint8(255), np.uint8(0))]))
