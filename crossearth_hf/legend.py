"""The legend of a picture: a swatch and a text for each class, set in lines."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]

MARGIN = 16
"""Margin around the parts of pictures, in pixels."""
INK: Color = (40, 40, 40)
_PALE: Color = (120, 120, 120)


_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "Arial.ttf",
)  # of the system, by the names of their files


def _font(texts: Sequence[str], size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, or where a text holds more than ASCII one that has these signs, if there is one."""
    if not all(text.isascii() for text in texts):
        for path in (*_matplotlib_fonts(), *_FONTS):
            with suppress(OSError):
                return ImageFont.truetype(path, size)
    return ImageFont.load_default(size)


def _matplotlib_fonts() -> list[str]:
    """DejaVu Sans of matplotlib, which need not be installed."""
    found = find_spec("matplotlib")
    if found is None or found.origin is None:
        return []
    return [str(Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf")]


class Legend:
    """Entries of a legend, set for a page.

    Args:
        entries: Color and text of each, at least one.
        width: Width of the page in pixels.
        font_size: Font size in pixels.

    Attributes:
        height: Height in pixels, with one empty line at the end.
    """

    def __init__(self, entries: Sequence[tuple[Color, str]], width: int, font_size: int) -> None:
        self._size, self._font = font_size, _font([text for _, text in entries], font_size)
        self._places = list(self._flow(entries, width))
        self.height = self._places[-1][1] + 2 * font_size

    def _flow(
        self, entries: Sequence[tuple[Color, str]], page: int
    ) -> Iterator[tuple[int, int, Color, str]]:
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
            draw.text(
                (x + round(1.5 * size), top + y + size // 2),
                text,
                fill=INK,
                font=self._font,
                anchor="lm",
            )
