"""A picture of a scene beside its map, with a legend."""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..labels import IGNORE_INDEX, LabelSet

_PANEL = (768, 900)  # largest width and height of the scene and of the map, in pixels
_LARGEST_ZOOM = 8
_MARGIN = 16
_FONT_SIZE = 20
_Entry = tuple[tuple[int, int, int], str]
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_INK, _PALE, _NO_DATA = (40, 40, 40), (120, 120, 120), (225, 225, 225)


def panel_size(height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels at which a scene of `height` x `width` pixels is drawn."""
    zoom = min(_PANEL[0] / width, _PANEL[1] / height, _LARGEST_ZOOM)
    return max(1, round(height * zoom)), max(1, round(width * zoom))


def draw_preview(
    pixels: np.ndarray, valid: np.ndarray, labels: np.ndarray, label_set: LabelSet, shares: Sequence[float]
) -> Image.Image:
    """Draws scene and map side by side, at most 1600 pixels wide.

    Args:
        pixels: (3, h, w) uint8 RGB of the whole scene, decimated or not.
        valid: (h, w) bool, False where the scene has no data; drawn light grey.
        labels: (H, W) uint8 map at the size of the panel, 255 without data.
        label_set: Names and colours of the classes.
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
    page_width = max(2 * width + 3 * _MARGIN, 640)
    font = ImageFont.load_default(_FONT_SIZE)
    places = list(_flow(entries, font, page_width))
    left = (page_width - 2 * width - _MARGIN) // 2
    page = Image.new("RGB", (page_width, height + 2 * _MARGIN + places[-1][1] + 2 * _FONT_SIZE), "white")
    page.paste(scene, (left, _MARGIN))
    page.paste(Image.fromarray(painted), (left + width + _MARGIN, _MARGIN))
    _draw_legend(page, places, height + 2 * _MARGIN, font)
    return page


def _percent(share: float) -> str:
    return "< 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def _flow(entries: list[_Entry], font: _Font, page_width: int) -> Iterator[tuple[int, int, _Entry]]:
    """(x, y, entry) of legend entries set in lines of a page, y from the top of the legend."""
    x, y = _MARGIN, 0
    for entry in entries:
        width = int(font.getlength(entry[1])) + 2 * _FONT_SIZE + _MARGIN
        if x > _MARGIN and x + width > page_width:
            x, y = _MARGIN, y + round(1.6 * _FONT_SIZE)
        yield x, y, entry
        x += width


def _draw_legend(page: Image.Image, places: list[tuple[int, int, _Entry]], top: int, font: _Font) -> None:
    draw = ImageDraw.Draw(page)
    for x, y, (color, text) in places:
        swatch = (x, top + y, x + _FONT_SIZE, top + y + _FONT_SIZE)
        draw.rectangle(swatch, fill=color, outline=_PALE)
        draw.text((x + round(1.5 * _FONT_SIZE), top + y + _FONT_SIZE // 2), text, fill=_INK, font=font, anchor="lm")
