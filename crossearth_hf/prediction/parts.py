"""Parts: rectangles of a scene that any process can map, in any order, with the same result to the last bit.

The windows that touch a part, their order and their batches depend only on the scene's size, the window, the stride and
the batch size. Consecutive parts of one column in one sweep have the same batches, except that batches across their
common borders are computed only once.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..inference.windows import window_count, window_sides, window_start
from ..raster.area import PlacedArea
from ..raster.grid import Grid
from ..raster.writing import TILE

# Sizes of parts, in windows. With a stride of two thirds of the window, one window in sixteen lies across a border of
# columns and is computed twice; so is one in twelve across borders of bands, if parts are not swept together.
_COLUMN_WINDOWS = 16
_BAND_WINDOWS = 12
_STRIP_BYTES = 384 * 2**20  # of the sums of scores held at a time
_NARROWEST_COLUMN = 3
_LONGEST_RUN = 64  # parts, which limits the memory for a run

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Part:
    """A rectangle of a scene's grid, in pixels; borders inside the scene are multiples of 256."""

    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True)
class SceneParts:
    """The parts of a scene: columns from left to right, and bands from top to bottom in each of them.

    Attributes:
        width, height: Size of the scene in pixels.
        lefts, tops: First columns and first rows of the parts.
    """

    width: int
    height: int
    lefts: range
    tops: range

    def __len__(self) -> int:
        return len(self.lefts) * len(self.tops)

    def __getitem__(self, number: int) -> Part:
        column, band = divmod(number, len(self.tops))
        left, top = self.lefts[column], self.tops[band]
        return Part(
            top,
            min(top + self.tops.step, self.height),
            left,
            min(left + self.lefts.step, self.width),
        )


def scene_parts(grid: Grid, window: int, classes: int) -> SceneParts:
    """The parts of a scene: columns of sixteen windows, and bands of twelve windows in each of them.

    Args:
        grid: `Scene.grid`.
        window: As `resolve_window` returns it.
        classes: K; columns are narrower if the sums of scores would take more than 384 MB.
    """
    side_y, _ = window_sides(grid.height, grid.width, window)
    affordable = _STRIP_BYTES // (4 * classes * (side_y + 2 * TILE))
    widest = min(_COLUMN_WINDOWS * window, max(_NARROWEST_COLUMN * window, affordable))
    tops = _starts(grid.height, _BAND_WINDOWS * window)
    return SceneParts(grid.width, grid.height, _starts(grid.width, widest), tops)


def joined(items: Iterable[_Item], part_of: Callable[[_Item], Part]) -> Iterator[list[_Item]]:
    """Runs of items whose parts follow one another in a column and can be swept together, see `whole`."""
    run: list[_Item] = []
    for item in items:
        part, last = part_of(item), part_of(run[-1]) if run else None
        follows = last is not None and (last.left, last.right, last.bottom) == (
            part.left,
            part.right,
            part.top,
        )
        if run and not (follows and len(run) < _LONGEST_RUN):
            yield run
            run = []
        run.append(item)
    if run:
        yield run


def whole(run: Sequence[Part]) -> Part:
    """The rectangle of a run of parts; one sweep over it gives the same result to the last bit."""
    return Part(run[0].top, run[-1].bottom, run[0].left, run[0].right)


def count_windows(
    grid: Grid, part: Part, window: int, stride: int, area: PlacedArea | None = None
) -> int:
    """Number of windows that touch a part, and the area if there is one."""
    rows, cols = _touching(grid, part, window, stride)
    if area is None:
        return len(rows) * len(cols)
    return sum(
        len(batch.cols) for batch in part_batches(grid, part, window, stride, len(cols), area)
    )


@dataclass(frozen=True)
class Batch:
    """Windows of one row in one forward pass.

    Attributes:
        row: Their first row.
        cols: Their first columns, ascending.
        complete: The first row that later batches still reach.
    """

    row: int
    cols: list[int]
    complete: int


def part_batches(
    grid: Grid,
    part: Part,
    window: int,
    stride: int,
    batch_size: int,
    area: PlacedArea | None = None,
) -> list[Batch]:
    """The windows that touch a part, row by row; of these only those that touch the area if there is one.

    A batch may be empty, because its rows become complete all the same.
    """
    side_y, side_x = window_sides(grid.height, grid.width, window)
    numbers = _touching(grid, part, window, stride)
    rows = [window_start(number, grid.height, side_y, stride) for number in numbers[0]]
    cols = [window_start(number, grid.width, side_x, stride) for number in numbers[1]]
    batches = []
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        if following is None:
            complete = part.bottom
        else:
            complete = min(part.bottom, following // TILE * TILE)
        for first in range(0, len(cols), batch_size):
            is_last = first + batch_size >= len(cols)
            chosen = cols[first : first + batch_size]
            if area is not None:
                touched = area.touches([(row, col, side_y, side_x) for col in chosen])
                chosen = [
                    col for col, is_touched in zip(chosen, touched, strict=True) if is_touched
                ]
            if chosen or is_last:
                batches.append(Batch(row, chosen, complete if is_last else part.top))
    return batches


def _touching(grid: Grid, part: Part, window: int, stride: int) -> tuple[range, range]:
    """Numbers of the rows and of the columns of windows that touch a part."""
    side_y, side_x = window_sides(grid.height, grid.width, window)
    return (
        _overlapping(grid.height, side_y, stride, part.top, part.bottom),
        _overlapping(grid.width, side_x, stride, part.left, part.right),
    )


def _overlapping(size: int, side: int, stride: int, first: int, end: int) -> range:
    """Numbers of the windows along an axis that reach into [first, end)."""
    # shifted back inside, it may also start before `end`
    last = window_count(size, side, stride) - 1
    if window_start(last, size, side, stride) < end:
        stop = last + 1
    else:
        stop = min(last, math.ceil(end / stride))
    return range(min(max(0, (first - side) // stride + 1), last), stop)


def _starts(size: int, longest: int) -> range:
    """First pixels of the fewest pieces of about `longest` pixels along an axis; borders are multiples of 256."""
    count = math.ceil(size / longest)
    step = math.ceil(size / count / TILE) * TILE
    return range(0, size, step)
