"""A picture of a scene beside its map, with a legend."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..labels import IGNORE_INDEX, LabelSet
from ..legend import MARGIN, Legend
from ..raster.scene import Scene, read_band

_PANEL = (768, 900)  # largest width and height of the scene and of the map, in pixels
_LARGEST_ZOOM = 8
_FONT_SIZE = 20
_NO_DATA = (225, 225, 225)


def panel_size(height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels at which a scene of `height` x `width` pixels is drawn."""
    zoom = min(_PANEL[0] / width, _PANEL[1] / height, _LARGEST_ZOOM)
    return max(1, round(height * zoom)), max(1, round(width * zoom))


def scene_beside_map(
    scene: Scene, map_file: Path, label_set: LabelSet, shares: Sequence[float]
) -> Image.Image:
    """Draws an open scene and its map, both decimated, as `draw_preview` does."""
    grid = scene.native_grid
    shape = panel_size(grid.height, grid.width)
    raster = scene.thumbnail(max(shape))
    labels = read_band(map_file, (0, 0, grid.height, grid.width), shape)
    return draw_preview(raster.pixels, raster.valid, labels, label_set, shares)


def draw_preview(
    pixels: np.ndarray,
    valid: np.ndarray,
    labels: np.ndarray,
    label_set: LabelSet,
    shares: Sequence[float],
) -> Image.Image:
    """Draws scene and map side by side, at most 1600 pixels wide.

    Args:
        pixels: (3, h, w) uint8 RGB of the whole scene, decimated or not.
        valid: (h, w) bool, False where the scene has no data; drawn light gray.
        labels: (H, W) uint8 map at the size of the panel, 255 without data.
        label_set: Names and colors of the classes.
        shares: Share of each class in the whole map, 0..1.

    Returns:
        RGB picture.
    """
    height, width = labels.shape
    shown = np.where(valid[..., None], pixels.transpose(1, 2, 0), np.uint8(_NO_DATA[0]))
    scene = Image.fromarray(shown).resize((width, height), Image.Resampling.BICUBIC)
    no_data = labels == IGNORE_INDEX
    painted = np.where(no_data[..., None], np.array(_NO_DATA, np.uint8), label_set.colorize(labels))
    entries = [
        (color, f"{name.replace('_', ' ')}  {_percent(share)}")
        for color, name, share in zip(label_set.colors, label_set.classes, shares, strict=True)
    ]
    entries += [(_NO_DATA, "no data")] if no_data.any() else []
    page_width = max(2 * width + 3 * MARGIN, 640)
    legend = Legend(entries, page_width, _FONT_SIZE)
    left = (page_width - 2 * width - MARGIN) // 2
    page = Image.new("RGB", (page_width, height + 2 * MARGIN + legend.height), "white")
    page.paste(scene, (left, MARGIN))
    page.paste(Image.fromarray(painted), (left + width + MARGIN, MARGIN))
    legend.draw(page, height + 2 * MARGIN)
    return page


def _percent(share: float) -> str:
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"
