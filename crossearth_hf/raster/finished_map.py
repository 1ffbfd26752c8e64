"""Maps that this package has written, read again block by block."""

import os
from collections.abc import Iterator

import numpy as np
import rasterio
from rasterio.windows import Window

from ..errors import InputError
from .gdal import GDAL_ERRORS, ignore_missing_georeference, read_errors
from .grid import Grid
from .writing import JOB_TAG

_BLOCK = 1024  # pixels


class FinishedMap:
    """A map of classes, to be closed like a file.

    Args:
        path: The map.

    Attributes:
        grid: Size and location.
        classes: Names of the classes.
        job: What decided its values, as `job_identity.map_job` has it; None in maps of earlier releases.

    Raises:
        InputError: The file cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        ignore_missing_georeference()
        self.path = os.fspath(path)
        try:
            self._source = rasterio.open(path)
        except GDAL_ERRORS as error:
            raise InputError(
                f"the map {path} cannot be read again; delete it and run again"
            ) from error
        self.grid = Grid.of(self._source)
        self.job = self._source.tags().get(JOB_TAG)
        tags = self._source.tags(1)
        count = sum(name.startswith("CLASS_") for name in tags)
        self.classes = tuple(tags.get(f"CLASS_{index}", "") for index in range(count))

    def __enter__(self) -> "FinishedMap":
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()

    def windows(self) -> Iterator[tuple[int, int, int, int]]:
        """Row, column, height and width of blocks that cover the map."""
        for row in range(0, self.grid.height, _BLOCK):
            for col in range(0, self.grid.width, _BLOCK):
                yield (
                    row,
                    col,
                    min(_BLOCK, self.grid.height - row),
                    min(_BLOCK, self.grid.width - col),
                )

    def read(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """(height, width) uint8 labels of a window, 255 for no data."""
        with read_errors(self.path):
            labels: np.ndarray = self._source.read(1, window=Window(col, row, width, height))
        return labels
