"""Style of all figures: sizes for papers, colors that are distinct for color-blind readers and in gray, fixed bytes."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure

WIDTH = 7.16
"""Inches of a page of two columns, as IEEE journals set it."""

COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
"""Colors of Okabe and Ito (2008), without yellow, which is too pale for lines."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)))
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "----", "++++")

_RC = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture everywhere
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.linewidth": 0.5,
    "grid.color": "#D0D0D0",
    "hatch.linewidth": 0.6,
    "hatch.color": "white",
    "legend.frameon": False,
    "text.parse_math": False,  # names may hold dollar signs
    "pdf.fonttype": 42,  # text stays text
    "image.interpolation": "none",
}
_DPI = 300
_MARGIN = 0.03  # inches


@contextmanager
def paper_style() -> Iterator[None]:
    """Context in which figures are drawn and saved in this style; matplotlib's own settings return afterwards."""
    with style.context(_RC, after_reset=True):
        yield


def save(figure: Figure, path: Path) -> list[Path]:
    """Writes PATH.png and PATH.pdf, the same bytes for the same figure; returns both."""
    written = [Path(f"{path}.png"), Path(f"{path}.pdf")]
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, not for every file
    box = figure.get_tightbbox().padded(_MARGIN)
    figure.savefig(written[0], dpi=_DPI, metadata={"Software": None}, bbox_inches=box)
    figure.savefig(written[1], dpi=_DPI, metadata={"CreationDate": None}, bbox_inches=box)
    return written


def shortened(text: str, width: int, lines: int = 1) -> str:
    """`text` broken into at most `lines` lines of `width` characters, the rest cut off with an ellipsis."""
    pieces = textwrap.wrap(text, width, break_on_hyphens=False) or [""]
    if len(pieces) > lines:
        pieces = [*pieces[: lines - 1], " ".join(pieces[lines - 1 :])[: width - 1] + "…"]
    return "\n".join(pieces)


def line_styles(count: int) -> list[dict[str, Any]]:
    """Color, marker and dashes for each of `count` lines: no two alike below 168."""
    styles = zip(cycle(COLORS), cycle(MARKERS), cycle(DASHES), strict=False)
    return [{"color": c, "marker": m, "linestyle": d} for c, m, d in islice(styles, count)]


def bar_styles(count: int) -> list[dict[str, Any]]:
    """Color and hatch for each of `count` bars."""
    return [{"facecolor": COLORS[i % 7], "hatch": HATCHES[(i + i // 7) % 7]} for i in range(count)]
