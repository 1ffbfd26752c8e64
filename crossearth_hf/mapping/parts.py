"""Parts: rectangles of a scene that any process can map, in any order, with the same result to the last bit.

The windows that touch a part, their order and their batches follow from the scene's size, the window, the stride and
the batch size alone. Consecutive parts of one column, swept as one, have the same batches but for those across their
common borders, which are computed once then.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..geotiff_writing import TILE
from ..grid import Grid
from ..inference import window_sides, window_starts

# Sizes of parts, in windows. At a stride of two thirds of the window the windows across borders of columns, computed
# twice, are one in sixteen; those across borders of bands, where parts are not swept together, one in twelve.
_COLUMN_WINDOWS = 16
_BAND_WINDOWS = 12
_STRIP_BYTES = 384 * 2**20  # of the sums of scores that are held at a time
_NARROWEST_COLUMN = 3


@dataclass(frozen=True)
class Part:
    """A rectangle of a scene's grid, in pixels; borders inside the scene are multiples of 256."""

    top: int
    bottom: int
    left: int
    right: int


def scene_parts(grid: Grid, window: int, classes: int) -> list[Part]:
    """The parts of a scene: columns sixteen windows wide from left to right, in each of them bands of twelve windows.

    Args:
        grid: `Scene.grid`.
        window: As `resolve_window` gives it.
        classes: K, which narrows the columns where the sums of scores would take more than 384 MB.
    """
    side_y, _ = window_sides(grid.height, grid.width, window)
    affordable = _STRIP_BYTES // (4 * classes * (side_y + 2 * TILE))
    widest = min(_COLUMN_WINDOWS * window, max(_NARROWEST_COLUMN * window, affordable))
    return [
        Part(top, bottom, left, right)
        for left, right in _cuts(grid.width, widest)
        for top, bottom in _cuts(grid.height, _BAND_WINDOWS * window)
    ]


def joined(parts: Iterable[Part]) -> list[list[Part]]:
    """Runs of parts that follow one another in a column, to be swept together: see `whole`."""
    runs: list[list[Part]] = []
    for part in parts:
        last = runs[-1][-1] if runs else None
        if last is not None and (last.left, last.right, last.bottom) == (part.left, part.right, part.top):
            runs[-1].append(part)
        else:
            runs.append([part])
    return runs


def whole(run: Sequence[Part]) -> Part:
    """The rectangle that a run of parts fills; swept as one part it gives the same result to the last bit."""
    return Part(run[0].top, run[-1].bottom, run[0].left, run[0].right)


def count_windows(grid: Grid, part: Part, window: int, stride: int) -> int:
    """Windows that touch a part."""
    rows, cols = _touching(grid, part, window, stride)
    return len(rows) * len(cols)


@dataclass(frozen=True)
class Batch:
    """Windows of one row that pass the model together.

    Attributes:
        row: Their first row.
        cols: Their first columns, ascending.
        complete: No later batch reaches the rows above this one.
    """

    row: int
    cols: list[int]
    complete: int


def part_batches(grid: Grid, part: Part, window: int, stride: int, batch_size: int) -> list[Batch]:
    """The windows that touch a part, row by row."""
    rows, cols = _touching(grid, part, window, stride)
    batches = []
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        complete = part.bottom if following is None else min(part.bottom, following // TILE * TILE)
        for first in range(0, len(cols), batch_size):
            is_last = first + batch_size >= len(cols)
            batches.append(Batch(row, cols[first : first + batch_size], complete if is_last else part.top))
    return batches


def _touching(grid: Grid, part: Part, window: int, stride: int) -> tuple[list[int], list[int]]:
    """First rows and first columns of the windows that touch a part."""
    side_y, side_x = window_sides(grid.height, grid.width, window)
    rows = [start for start in window_starts(grid.height, side_y, stride) if part.top - side_y < start < part.bottom]
    cols = [start for start in window_starts(grid.width, side_x, stride) if part.left - side_x < start < part.right]
    return rows, cols


def _cuts(size: int, longest: int) -> list[tuple[int, int]]:
    """(start, end) of the fewest pieces of an axis that are about `longest` pixels; borders are multiples of 256."""
    count = math.ceil(size / longest)
    step = math.ceil(size / count / TILE) * TILE
    return [(start, min(start + step, size)) for start in range(0, size, step)]
