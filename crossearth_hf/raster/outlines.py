"""Polygons of label maps of any size: outlined part by part, and merged along the borders of parts.

A part knows the pixels around it, so both sides of a border have the same vertices there. Pieces of a region are put
together as soon as no further part can continue it; only regions that are still open, and one part, are in memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import shapely
from rasterio import features

from ..labels import IGNORE_INDEX

SIDE = 2048
"""Side of the parts in pixels; our choice: a part takes some ten MB."""

_OUTSIDE = -1  # label beyond the map's edges

ReadLabels = Callable[[int, int, int, int], np.ndarray]
"""`read(row, col, height, width)`: (height, width) uint8 ids."""

MeasurePixels = Callable[[int, int, np.ndarray], np.ndarray | None]
"""`measure(row, col, counted)`: as `Grid.pixel_areas`."""


@dataclass(frozen=True)
class Outlined:
    """Some polygons of a map.

    Attributes:
        polygons: (N,) shapely polygons in (column, row) coordinates; one for each region of pixels that share an edge.
        ids: (N,) their classes.
        areas: (N,) square meters on the ground; NaN if the grid does not define them.
    """

    polygons: np.ndarray
    ids: np.ndarray
    areas: np.ndarray


def outlines(
    read: ReadLabels,
    height: int,
    width: int,
    measure: MeasurePixels,
    *,
    tolerance: float = 0.0,
    side: int = SIDE,
) -> Iterator[Outlined]:
    """Polygons of a map that neither overlap nor leave gaps, in batches.

    Args:
        read: Reads the map; 255 is left out.
        height, width: Its size.
        measure: Ground areas of pixels.
        tolerance: Square root of the area, in pixels, of corners that simplification removes (Visvalingam-Whyatt);
            neighbors keep a common border. 0 keeps the edges of pixels. Outlines are not simplified on the map's edges
            and keep their points on the borders of parts.
        side: Side of the parts in pixels.
    """
    regions = _OpenRegions()
    above = _Edge.empty(width)  # the last row of pixels of the parts above
    for top in range(0, height, side):
        below, before = [], _Edge.empty(0)
        for left in range(0, width, side):
            size = min(side, height - top), min(side, width - left)
            part = _outline_part(
                _with_rim(read, top, left, size, (height, width)), tolerance, regions.numbers
            )
            regions.numbers += len(part.ids)
            part_areas = _areas(part, measure(top, left, part.labels != IGNORE_INDEX))
            continues = _continues(
                part, top > 0, left > 0, top + size[0] < height, left + size[1] < width
            )
            polygons = shapely.transform(
                part.polygons, lambda points, shift=(left, top): points + shift
            )
            regions.add(part.first + np.flatnonzero(continues), polygons[continues], part.ids[continues],
                        part_areas[continues])  # fmt: skip
            done = ~continues & (part.ids != IGNORE_INDEX)
            if done.any():
                yield Outlined(polygons[done], part.ids[done], part_areas[done])
            regions.join(above.cut(left, left + size[1]), part.edge(0, axis=0))
            regions.join(before, part.edge(0, axis=1))
            before = part.edge(-1, axis=1)
            below.append(part.edge(-1, axis=0))
        above = _Edge.joined(below)
        if top + side < height:
            finished = regions.close(above.numbers)
        else:
            finished = regions.close(np.zeros(0, np.int64))
        if finished is not None:
            yield finished


@dataclass(frozen=True)
class _Edge:
    """Pixels along a border of parts: (N,) labels and (N,) numbers of their pieces."""

    labels: np.ndarray
    numbers: np.ndarray

    @classmethod
    def empty(cls, length: int) -> "_Edge":
        return cls(np.full(length, IGNORE_INDEX, np.uint8), np.zeros(length, np.int64))

    @classmethod
    def joined(cls, edges: list["_Edge"]) -> "_Edge":
        return cls(
            np.concatenate([edge.labels for edge in edges]),
            np.concatenate([edge.numbers for edge in edges]),
        )

    def cut(self, start: int, stop: int) -> "_Edge":
        return _Edge(self.labels[start:stop], self.numbers[start:stop])


@dataclass(frozen=True)
class _Part:
    """Outlines of a part.

    Attributes:
        labels: (h, w) uint8.
        owners: (h, w) index of the piece that each pixel belongs to.
        polygons, ids: (N,) pieces, those without data too.
        first: Number of the first piece.
    """

    labels: np.ndarray
    owners: np.ndarray
    polygons: np.ndarray
    ids: np.ndarray
    first: int

    def edge(self, index: int, axis: int) -> _Edge:
        """The first (0) or last (-1) row (axis 0) or column (axis 1) of pixels."""
        return _Edge(self.labels.take(index, axis), self.owners.take(index, axis) + self.first)


def _with_rim(
    read: ReadLabels, top: int, left: int, size: tuple[int, int], whole: tuple[int, int]
) -> np.ndarray:
    """(h + 2, w + 2) int16 labels of a part and the pixels around it, -1 beyond the map."""
    height, width = size
    first_row, first_col = top - 1, left - 1
    rim = np.full((height + 2, width + 2), _OUTSIDE, np.int16)
    row, end_row = max(first_row, 0), min(top + height + 1, whole[0])
    col, end_col = max(first_col, 0), min(left + width + 1, whole[1])
    rows = slice(row - first_row, end_row - first_row)
    cols = slice(col - first_col, end_col - first_col)
    rim[rows, cols] = read(row, col, end_row - row, end_col - col)
    return rim


def _outline_part(rim: np.ndarray, tolerance: float, first: int) -> _Part:
    """Outlines a part with its rim, as `_with_rim` reads it."""
    labels = rim[1:-1, 1:-1].astype(np.uint8)
    rings, values = zip(
        *((shape["coordinates"], value) for shape, value in features.shapes(labels)), strict=True
    )
    ids = np.array(values, np.int64)
    stairs = np.array([shapely.Polygon(outer, holes) for outer, *holes in rings], dtype=object)
    owners = features.rasterize(
        zip(stairs, range(len(ids)), strict=True), labels.shape, dtype="int32"
    )
    polygons = _with_common_vertices(stairs, _corners(rim))
    if tolerance:
        polygons = shapely.coverage_simplify(polygons, tolerance, simplify_boundary=False)
    return _Part(labels, owners, polygons, ids, first)


def _corners(rim: np.ndarray) -> np.ndarray:
    """(h + 1, w + 1) whether some outline turns or meets another one at a corner of pixels.

    On the borders of the part an outline turns where the labels of either side change.
    """
    upper_left, upper_right, lower_left, lower_right = (
        rim[:-1, :-1],
        rim[:-1, 1:],
        rim[1:, :-1],
        rim[1:, 1:],
    )
    same_across = (upper_left == upper_right) & (lower_left == lower_right)
    same_down = (upper_left == lower_left) & (upper_right == lower_right)
    turns = ~(same_across | same_down)
    for border in (0, -1):
        turns[:, border] = ~same_down[:, border]
        turns[border] = ~same_across[border]
    turns[:: max(1, len(turns) - 1), :: max(1, turns.shape[1] - 1)] = True  # where four parts meet
    return turns


def _with_common_vertices(polygons: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Polygons with exactly the vertices at `corners`, so that neighbors have the same ones on a common border."""
    dense = shapely.segmentize(polygons, 1.0)
    kind, points, (rings, parts) = shapely.to_ragged_array(dense)
    points = np.rint(points)
    columns, rows = points.astype(np.int64).T
    kept = corners[rows, columns]
    counts = np.concatenate([[0], np.cumsum(kept)])
    return shapely.from_ragged_array(kind, points[kept], (counts[rings], parts))


def _areas(part: _Part, pixel_areas: np.ndarray | None) -> np.ndarray:
    """(N,) square meters of the pieces: their simplified size times the mean area of their pixels."""
    if pixel_areas is None:
        return np.full(len(part.ids), np.nan)
    owners = part.owners.ravel()
    pixels = np.bincount(owners, minlength=len(part.ids))
    sums = np.bincount(owners, pixel_areas.ravel(), len(part.ids))
    return shapely.area(part.polygons) * sums / pixels


def _continues(part: _Part, *sides: bool) -> np.ndarray:
    """(N,) whether pieces may continue beyond the upper, left, lower or right border, where that side has a part."""
    found = np.zeros(len(part.ids), bool)
    edges = [(0, 0), (0, 1), (-1, 0), (-1, 1)]
    for (index, axis), has_neighbor in zip(edges, sides, strict=True):
        if has_neighbor:
            found[part.owners.take(index, axis)] = True
    return found & (part.ids != IGNORE_INDEX)


@dataclass
class _OpenRegions:
    """Regions that further parts may continue, and which of their pieces belong together.

    Attributes:
        numbers: How many pieces were seen, which numbers the next one.
    """

    numbers: int = 0
    _pieces: dict[int, tuple[shapely.Polygon, int, float]] = field(default_factory=dict)
    _parents: dict[int, int] = field(default_factory=dict)

    def add(
        self, numbers: np.ndarray, polygons: np.ndarray, ids: np.ndarray, areas: np.ndarray
    ) -> None:
        """Takes pieces, each a region of its own."""
        for number, *piece in zip(
            numbers.tolist(), polygons, ids.tolist(), areas.tolist(), strict=True
        ):
            self._pieces[number] = tuple(piece)
            self._parents[number] = number

    def join(self, one: _Edge, other: _Edge) -> None:
        """Joins the regions on both sides of a border where they have the same class."""
        length = min(len(one.labels), len(other.labels))
        same = (one.labels[:length] == other.labels[:length]) & (
            other.labels[:length] != IGNORE_INDEX
        )
        pairs = np.stack([one.numbers[:length][same], other.numbers[:length][same]], axis=1)
        for first, second in np.unique(pairs, axis=0).tolist():
            self._parents[self._root(first)] = self._root(second)

    def close(self, still_open: np.ndarray) -> Outlined | None:
        """Gives out the regions without a piece among the numbers `still_open`."""
        kept = {
            self._root(number)
            for number in np.unique(still_open).tolist()
            if number in self._parents
        }
        members: dict[int, list[int]] = {}
        for number in self._pieces:
            root = self._root(number)
            if root not in kept:
                members.setdefault(root, []).append(number)
        if not members:
            return None
        polygons, ids, areas = [], [], []
        for numbers in members.values():
            pieces = [self._pieces.pop(number) for number in numbers]
            for number in numbers:
                del self._parents[number]
            polygons.append(_merged([polygon for polygon, _, _ in pieces]))
            ids.append(pieces[0][1])
            areas.append(sum(area for _, _, area in pieces))
        return Outlined(np.array(polygons, dtype=object), np.array(ids, np.int64), np.array(areas))

    def _root(self, number: int) -> int:
        parents = self._parents
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number


def _merged(pieces: list[shapely.Polygon]) -> shapely.Polygon:
    """One polygon of pieces that share borders."""
    if len(pieces) == 1:
        return pieces[0]
    return shapely.coverage_union_all(pieces)
