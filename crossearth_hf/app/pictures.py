"""Pictures of a result for the page, decimated: the scene, the map and the confidence that lie over it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..labels import IGNORE_INDEX, LabelSet
from ..raster.scene import Raster, Scene, read_band

LONGEST = 1280
"""Longer side in pixels of what the page shows."""

UNCERTAIN = 0.5
"""A pixel is uncertain where the best class holds less than this share of its scores: less than all others together."""

ORANGE = (230, 159, 0)
"""Marks uncertain pixels over shades of gray; from the palette of Okabe and Ito (2008)."""

_NO_DATA = 225  # gray level
_DARKEST, _LIGHTEST = 40, 245  # gray levels of the least and the most certain


@dataclass(frozen=True)
class Layers:
    """Picture files of one size.

    Attributes:
        scene: JPEG.
        map, confidence: PNG, transparent without data.
        size: Width and height in pixels.
        uncertain: Share of uncertain pixels among those with data, 0 to 1, as far as the decimated picture tells.
    """

    scene: Path
    map: Path
    confidence: Path
    size: tuple[int, int]
    uncertain: float


def save_layers(scene: Scene, map_file: Path, confidence_file: Path, label_set: LabelSet, folder: Path) -> Layers:
    """Draws the layers of a finished map into `folder`."""
    raster, grid = scene.thumbnail(LONGEST), scene.native_grid
    shape = raster.valid.shape
    whole = (0.0, 0.0, grid.height, grid.width)
    labels, confidence = read_band(map_file, whole, shape), read_band(confidence_file, whole, shape)
    files = folder / "scene.jpg", folder / "layer-map.png", folder / "layer-confidence.png"
    rgb_image(raster.pixels, raster.valid).save(files[0], quality=90)
    with_alpha(label_set.colorize(labels), labels != IGNORE_INDEX).save(files[1])
    with_alpha(paint_confidence(confidence), ~np.isnan(confidence)).save(files[2])
    known = confidence[~np.isnan(confidence)]
    if known.size:
        uncertain = float((known < UNCERTAIN).mean())
    else:
        uncertain = 0.0
    return Layers(*files, (shape[1], shape[0]), uncertain)


def save_version(
    raster: Raster, labels: np.ndarray, original: np.ndarray, label_set: LabelSet, folder: Path, index: int
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
    """(3, H, W) uint8 as a picture, light gray where (H, W) `valid` is False."""
    return Image.fromarray(np.where(valid[..., None], pixels.transpose(1, 2, 0), np.uint8(_NO_DATA)))


def with_alpha(colors: np.ndarray, shown: np.ndarray) -> Image.Image:
    """(H, W, 3) uint8 as a picture, transparent where (H, W) `shown` is False."""
    return Image.fromarray(np.dstack([colors, np.where(shown, np.uint8(255), np.uint8(0))]))


def paint_confidence(confidence: np.ndarray) -> np.ndarray:
    """(H, W) share of the best class's score -> (H, W, 3) uint8: the lighter the surer, orange where uncertain."""
    share = np.nan_to_num(confidence).clip(UNCERTAIN, 1)
    gray = _DARKEST + (_LIGHTEST - _DARKEST) * (share - UNCERTAIN) / (1 - UNCERTAIN)
    painted = np.repeat(np.rint(gray).astype(np.uint8)[..., None], 3, axis=2)
    painted[np.nan_to_num(confidence, nan=1.0) < UNCERTAIN] = ORANGE
    return painted
