"""Polygons as labels: label maps are burned window by window and never written to disk.

A pixel has the class of the polygon around its center. If polygons overlap, the later feature of the layer lies on top,
as in GIS programs (our choice).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import shapely
from affine import Affine

from ..labels import IGNORE_INDEX
from ..raster.burning import burn
from ..raster.fill import Fill
from ..raster.scene import DEFAULT_READING, Reading
from .image_files import Picture, Window, histogram, occurring, read_image_window, undeclared_fills
from .labeled_images import ArrayPair, PartialLabels, part_name

TILE = 2048
"""Side in pixels of the parts for counting labels and for scoring a large raster; our choice."""
MANY_CORNERS = 200
"""A polygon with more corners is cut to the window before it is burned; our choice, only for speed."""
POINT_TRIES = 32
"""Number of random points to find one within a polygon."""
PAIRS_AT_A_TIME = 20_000


@dataclass(frozen=True, eq=False)
class PolygonLabels:
    """The labels of one raster as polygons in its (column, row) coordinates.

    Attributes:
        size: (height, width) of the raster in pixels.
        polygons: (N,) shapely polygons and multi-polygons; where they overlap, the last one is on top.
        ids: (N,) uint8 class ids of the polygons, 255 for ignored.
        unlabeled: Id of pixels without a polygon: 255, a class, or `UNLABELED_INDEX` if they certainly have none of the
            polygons' classes.
        area: (M,) polygons of the labeled area; pixels outside it and without a polygon are ignored. None for the whole
            raster.
    """

    size: tuple[int, int]
    polygons: np.ndarray
    ids: np.ndarray
    unlabeled: int = IGNORE_INDEX
    area: np.ndarray | None = None

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.polygons)

    @cached_property
    def _area_tree(self) -> shapely.STRtree:
        if self.area is None:
            return shapely.STRtree([])
        return shapely.STRtree(self.area)

    @property
    def _elsewhere(self) -> int:
        """Id of pixels without any polygon near."""
        if self.area is None:
            return self.unlabeled
        return IGNORE_INDEX

    def read(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """(height, width) uint8 ids of a window, 255 ignored; only polygons at the window are burned."""
        window, transform = (row, col, height, width), Affine.translation(col, row)
        canvas = np.full((height, width), self._elsewhere, dtype=np.uint8)
        if self.area is not None:
            inside = self.area[self._area_tree.query(_frame(window))]
            burn(_cut(inside, [self.unlabeled] * len(inside), window), canvas, transform)
        found = np.sort(self._tree.query(_frame(window)))  # in the order of the file
        return burn(_cut(self.polygons[found], self.ids[found].tolist(), window), canvas, transform)

    def counts(self) -> dict[int, int]:
        """Pixels of every id, counted in tiles; only tiles with a polygon are burned."""
        pixels = np.zeros(IGNORE_INDEX + 1, dtype=np.int64)
        for window in filter(self._is_touched, _tiles(self.size)):
            pixels += histogram(self.read(*window))
        height, width = self.size
        pixels[self._elsewhere] += height * width - pixels.sum()
        return occurring(pixels)

    def windows(self) -> list[Window]:
        """Parts of at most `TILE` pixels a side that together hold all labels."""
        if self._elsewhere != IGNORE_INDEX:
            return list(_tiles(self.size))
        touched = filter(self._is_touched, _tiles(self.size))
        return [window for window in touched if (self.read(*window) != IGNORE_INDEX).any()]

    def part(self, window: Window) -> "PolygonLabels":
        """The labels of a window."""
        near, (row, col, height, width) = _frame(window), window

        def moved(polygons: np.ndarray, tree: shapely.STRtree) -> np.ndarray:
            return shapely.transform(
                polygons[np.sort(tree.query(near))], lambda points: points - (col, row)
            )

        ids = self.ids[np.sort(self._tree.query(near))]
        area = self.area
        if area is not None:
            area = moved(area, self._area_tree)
        return PolygonLabels(
            (height, width), moved(self.polygons, self._tree), ids, self.unlabeled, area
        )

    def _is_touched(self, window: Window) -> bool:
        """Whether a polygon may lie in a window."""
        return bool(
            len(self._tree.query(_frame(window))) or len(self._area_tree.query(_frame(window)))
        )

    def overlap(self) -> float:
        """Pixels in which polygons of different classes overlap, counted for each pair of polygons."""
        total = 0.0
        first, second = self._tree.query(self.polygons, predicate="intersects")
        chosen = (first < second) & (self.ids[first] != self.ids[second])
        first, second = first[chosen], second[chosen]
        for start in range(0, len(first), PAIRS_AT_A_TIME):
            part = slice(start, start + PAIRS_AT_A_TIME)
            common = shapely.intersection(self.polygons[first[part]], self.polygons[second[part]])
            total += float(shapely.area(common).sum())
        return total

    def place(self, rng: np.random.Generator) -> tuple[float, float] | None:
        """The (row, col) of the center of a random pixel with labels around it; None if every place has labels.

        Our choice: each class of the raster is equally likely, then each of its polygons, then each pixel of the
        polygon. The class of pixels without a polygon is one of the classes.
        """
        shapes = self._by_class[int(rng.integers(len(self._by_class)))]
        if shapes is None:
            return None
        return _pixel_within(shapes[int(rng.integers(len(shapes)))], self.size, rng)

    @cached_property
    def _by_class(self) -> list[np.ndarray | None]:
        """The polygons of every class; None for the whole raster, and if nothing is labeled."""
        labeled = np.unique(self.ids[self.ids != IGNORE_INDEX])
        classes: list[np.ndarray | None] = [self.polygons[self.ids == index] for index in labeled]
        if self.unlabeled != IGNORE_INDEX and (self.area is None or len(self.area)):
            classes.append(self.area)
        return classes or [None]


@dataclass(frozen=True, eq=False)
class PolygonImage:
    """A raster with polygons as labels, already checked (`polygon_sources.load_polygons`).

    Attributes:
        name: Name of the file without its ending.
        image: Path of the raster.
        labels: The polygons in pixel coordinates.
        reading: Bands of the image and no-data values.
        pixel_size: Meters on the ground per pixel; None if the CRS does not tell.
        start: First row and column in the raster, if the image is a part of it.
        partial: The labeled classes; None for all.
    """

    name: str
    image: Path
    labels: PolygonLabels
    reading: Reading = DEFAULT_READING
    pixel_size: float | None = None
    start: tuple[int, int] = (0, 0)
    partial: PartialLabels | None = None
    has_windows: ClassVar[bool] = True
    group: ClassVar[None] = None
    _counts: dict[int, int] = field(default_factory=dict, repr=False)

    @property
    def file(self) -> Path:
        """The raster."""
        return self.image

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.labels.size

    @property
    def places(self) -> PolygonLabels:
        """Places of labels."""
        return self.labels

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, C) uint8 and (H, W) uint8 ids, see `LabeledImage`; raises `InputError` for a damaged raster."""
        return self.decode().read()

    def decode(self) -> ArrayPair:
        """Image and label map in memory; raises `InputError` for a damaged raster."""
        pixels, valid = self.read_pixels(0, 0, *self.size)
        labels = self.read_labels(0, 0, *self.size)
        return ArrayPair(
            self.name, pixels, labels, valid, self.pixel_size, self.labels, self.partial
        )

    def parts(self) -> Sequence["PolygonImage"]:
        """Parts of at most `TILE` pixels a side that hold labels, see `LabeledImage`."""
        return [self._part(window) for window in self.labels.windows()]

    def _part(self, window: Window) -> "PolygonImage":
        """A window as a separate image."""
        name, labels = part_name(self.name, window, self.size), self.labels.part(window)
        start = (window[0], window[1])
        return PolygonImage(
            name, self.image, labels, self.reading, self.pixel_size, start, self.partial
        )

    def open(self) -> "PolygonImage":
        """Itself, since it is read by windows."""
        return self

    def undeclared_fills(self) -> tuple[Fill, ...]:
        """Undeclared fill of the raster, see `LabeledImage`; raises `InputError` for a damaged raster."""
        return undeclared_fills(self.image, str(self.image), self.reading)

    def label_counts(self) -> Mapping[int, int]:
        """Pixels of every id, including pixels where the raster has no data."""
        if not self._counts:
            self._counts.update(self.labels.counts())
        return self._counts

    def read_pixels(self, row: int, col: int, height: int, width: int) -> Picture:
        """A window of image and validity, see `Windows`."""
        first_row, first_col = self.start
        return read_image_window(
            self.image, self.reading, (first_row + row, first_col + col, height, width)
        )

    def read_labels(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """A window of the labels, see `Windows`."""
        return self.labels.read(row, col, height, width)


def _cut(
    polygons: np.ndarray, values: Sequence[int], window: Window
) -> Iterator[tuple[shapely.Geometry, int]]:
    """Polygons and their values; polygons with many corners are cut to the window."""
    near = _frame(window, 2)
    for polygon, value, corners in zip(
        polygons, values, shapely.get_num_coordinates(polygons), strict=True
    ):
        if corners > MANY_CORNERS:
            polygon = shapely.intersection(polygon, near)
        for part in shapely.get_parts(polygon):
            if part.geom_type in ("Polygon", "MultiPolygon") and not part.is_empty:
                yield part, value


def _frame(window: Window, margin: int = 0) -> shapely.Polygon:
    """The outline of a window, `margin` pixels larger on every side."""
    row, col, height, width = window
    return shapely.box(col - margin, row - margin, col + width + margin, row + height + margin)


def _tiles(size: tuple[int, int]) -> Iterator[Window]:
    """Windows that cover a raster once."""
    height, width = size
    for row in range(0, height, TILE):
        for col in range(0, width, TILE):
            yield row, col, min(TILE, height - row), min(TILE, width - col)


def _pixel_within(
    polygon: shapely.Geometry, size: tuple[int, int], rng: np.random.Generator
) -> tuple[float, float]:
    """(row, col) of a pixel's center within a polygon and a raster of (height, width) `size`, or a point near it."""
    height, width = size
    left, top, right, bottom = shapely.bounds(polygon)
    low = np.clip((left, top), 0, (width, height))
    high = np.clip((right, bottom), 0, (width, height))
    centers = np.floor(rng.uniform(low, high, (POINT_TRIES, 2))) + 0.5  # columns and rows
    centers = np.minimum(centers, (width - 0.5, height - 0.5))
    within = np.flatnonzero(shapely.contains_xy(polygon, centers[:, 0], centers[:, 1]))
    if len(within):
        col, row = centers[within[0]]
        return float(row), float(col)
    point = shapely.point_on_surface(
        shapely.intersection(polygon, shapely.box(0, 0, width, height))
    )
    return float(shapely.get_y(point)), float(shapely.get_x(point))
