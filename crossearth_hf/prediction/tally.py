"""Counts of a map's pixels and ground areas by class, block by block."""

import numpy as np

from ..labels import IGNORE_INDEX
from ..raster.area import PlacedArea
from ..raster.finished_map import FinishedMap
from ..raster.grid import Grid

SQUARE_METERS_PER_HECTARE = 10_000


class Tally:
    """Counts pixels and ground area per class while blocks pass by.

    Args:
        grid: Of the map.
        classes: K.
        area: What of the scene becomes a map; pixels outside it are not counted. None for all of it.
    """

    def __init__(self, grid: Grid, classes: int, area: PlacedArea | None = None) -> None:
        self._grid = grid
        self._counts = np.zeros(256, dtype=np.int64)
        self._areas: np.ndarray | None = np.zeros(256)  # square meters
        self._classes = classes
        self._area, self._outside = area, 0

    @property
    def pixels(self) -> np.ndarray:
        """(K,) pixels of each class."""
        return self._counts[: self._classes]

    @property
    def without_data(self) -> int:
        """Pixels without data."""
        return int(self._counts[IGNORE_INDEX]) - self._outside

    @property
    def hectares(self) -> np.ndarray | None:
        """(K,) ground area of each class; None if the grid does not define it."""
        if self._areas is None:
            return None
        return self._areas[: self._classes] / SQUARE_METERS_PER_HECTARE

    def count(self, row: int, col: int, labels: np.ndarray) -> None:
        """Counts (H, W) labels that lie at (row, col)."""
        self._counts += np.bincount(labels.ravel(), minlength=256)
        if self._area is not None:
            self._outside += labels.size - int(self._area.mask(row, col, *labels.shape).sum())
        if self._areas is None:
            return
        areas = self._grid.pixel_areas(row, col, labels != IGNORE_INDEX)  # (H, W)
        if areas is None:
            self._areas = None
        else:
            self._areas += np.bincount(labels.ravel(), areas.ravel(), minlength=256)


def counted(finished: FinishedMap) -> Tally:
    """The counts of a finished map; `InputError` if it cannot be read."""
    tally = Tally(finished.grid, len(finished.classes))
    for row, col, height, width in finished.windows():
        tally.count(row, col, finished.read(row, col, height, width))
    return tally
