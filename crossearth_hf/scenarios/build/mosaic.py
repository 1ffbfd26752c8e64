"""A picture of a data set: tiles of every domain with their labels in color, and what the colors mean."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...labels import IGNORE_INDEX, LabelSet
from ...legend import INK, MARGIN, Color, Legend

COLUMNS = 6
_TILE, _GAP = 192, 6
_FONT_SIZE, _TITLE_SIZE = 16, 20
_IGNORED = (200, 200, 200)
_WIDTH = COLUMNS * _TILE + (COLUMNS - 1) * _GAP + 2 * MARGIN
_BLOCK = 2 * _TILE + _GAP


@dataclass(frozen=True)
class DomainPicture:
    """The part of the picture for one domain.

    Attributes:
        title: Line above the tiles.
        label_set: Names and colors.
        tiles: Up to `COLUMNS` of (H, W, 3) uint8 RGB and (H, W) uint8 ids.
    """

    title: str
    label_set: LabelSet
    tiles: Sequence[tuple[np.ndarray, np.ndarray]]


def draw_mosaic(blocks: Sequence[DomainPicture]) -> Image.Image:
    """Draws blocks below one another: images, below them their labels, then the legend; RGB, 1,214 pixels wide."""
    legends = [Legend(_entries(block), _WIDTH, _FONT_SIZE) for block in blocks]
    heights = [_title_height() + _BLOCK + legend.height + 2 * MARGIN for legend in legends]
    page = Image.new("RGB", (_WIDTH, sum(heights) + MARGIN), "white")
    draw = ImageDraw.Draw(page)
    top = MARGIN
    for block, legend, height in zip(blocks, legends, heights, strict=True):
        draw.text((MARGIN, top), block.title, fill=INK, font=ImageFont.load_default(_TITLE_SIZE))
        for column, (image, labels) in enumerate(block.tiles[:COLUMNS]):
            left = MARGIN + column * (_TILE + _GAP)
            page.paste(_square(image, Image.Resampling.LANCZOS), (left, top + _title_height()))
            page.paste(
                _square(_painted(labels, block.label_set)),
                (left, top + _title_height() + _TILE + _GAP),
            )
        legend.draw(page, top + _title_height() + _BLOCK + MARGIN)
        top += height
    return page


def _title_height() -> int:
    return round(1.6 * _TITLE_SIZE)


def _square(
    pixels: np.ndarray, resampling: Image.Resampling = Image.Resampling.NEAREST
) -> Image.Image:
    """The middle square of (H, W, 3) pixels at the size of a tile."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    return Image.fromarray(square).resize((_TILE, _TILE), resampling)


def _painted(labels: np.ndarray, label_set: LabelSet) -> np.ndarray:
    painted = label_set.colorize(labels)
    painted[labels == IGNORE_INDEX] = _IGNORED
    return painted


def _entries(block: DomainPicture) -> list[tuple[Color, str]]:
    entries = [
        (color, name.replace("_", " "))
        for name, color in zip(block.label_set.classes, block.label_set.colors, strict=True)
    ]
    return [*entries, (_IGNORED, "ignored")]
