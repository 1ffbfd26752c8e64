"""The legend of a picture: a swatch and a text for each class, set in lines."""

from collections.abc import Iterator, Sequence

from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]

MARGIN = 16
"""Pixels that pictures leave free around their parts."""
INK: Color = (40, 40, 40)
_PALE: Color = (120, 120, 120)


class Legend:
    """Entries of a legend, set for a page.

    Args:
        entries: Color and text of each, at least one.
        width: Of the page, in pixels.
        font_size: In pixels.

    Attributes:
        height: In pixels, from the first swatch to a line below the last one.
    """

    def __init__(self, entries: Sequence[tuple[Color, str]], width: int, font_size: int) -> None:
        self._size, self._font = font_size, ImageFont.load_default(font_size)
        self._places = list(self._flow(entries, width))
        self.height = self._places[-1][1] + 2 * font_size

    def _flow(self, entries: Sequence[tuple[Color, str]], page: int) -> Iterator[tuple[int, int, Color, str]]:
        """(x, y, color, text), y from the top of the legend."""
        x, y = MARGIN, 0
        for color, text in entries:
            width = int(self._font.getlength(text)) + 2 * self._size + MARGIN
            if x > MARGIN and x + width > page:
                x, y = MARGIN, y + round(1.6 * self._size)
            yield x, y, color, text
            x += width

    def draw(self, page: Image.Image, top: int) -> None:
        """Draws the legend onto a page, `top` pixels below its upper edge."""
        draw, size = ImageDraw.Draw(page), self._size
        for x, y, color, text in self._places:
            draw.rectangle((x, top + y, x + size, top + y + size), fill=color, outline=_PALE)
            draw.text((x + round(1.5 * size), top + y + size // 2), text, fill=INK, font=self._font, anchor="lm")
