"""Tables of areas: a row for each scene and class, and a row for each scene and zone."""

import csv
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..files.outputs import check_distinct, check_output, staged
from ..raster.area import layer_of, vector_tools
from ..raster.finished_map import FinishedMap
from ..raster.grid import Grid
from .map_report import MapReport
from .tally import SQUARE_METERS_PER_HECTARE, counted

SUFFIXES = (".csv", ".json")

_AREA_COLUMNS = ("scene", "class", "pixels", "share", "hectares")
_ZONE_COLUMNS = ("scene", "feature")
_SHARE_DIGITS = 6
_ROUNDING = 0.01  # in powers of ten: pixels of 9.95 m are as fine as those of 10 m


@dataclass(frozen=True)
class AreaTables:
    """The tables that a person asks for, checked.

    Attributes:
        areas: Table to write, with a row for each scene and class; None for none.
        zones: Layer of polygons, an opened `VectorLayer`; None for none.
        zone_areas: Table to write, with a row for each scene and zone; None without zones.
    """

    areas: Path | None = None
    zones: Any = None
    zone_areas: Path | None = None

    @classmethod
    def checked(
        cls,
        areas: str | os.PathLike[str] | None,
        zones: Sequence[str | os.PathLike[str]] | None,
        *,
        others: Iterable[str | os.PathLike[str]],
        overwrite: bool,
        replaces_own: bool = False,
    ) -> "AreaTables":
        """Checks the paths.

        Args:
            areas: Table of areas, .csv or .json.
            zones: Polygons, in any format and CRS, and the table of their areas.
            others: Inputs and other outputs, which no table may be.
            overwrite: Whether existing files may be replaced.
            replaces_own: Whether existing tables of areas may be replaced, as repeated jobs do.

        Raises:
            InputError: A table cannot or must not be written, or the polygons cannot be read.
        """
        layer, tables = None, [areas]
        if zones is not None:
            polygons, zone_table = zones
            layer = vector_tools("a table of zones").open_layer(
                *layer_of(polygons), any_format=True
            )
            others = [*others, layer_of(polygons)[0]]
            tables.append(zone_table)
        else:
            tables.append(None)
        paths = [_checked(table, overwrite, replaces_own) for table in tables]
        check_distinct(others, [path for path in paths if path is not None])
        return cls(paths[0], layer, paths[1])

    @property
    def files(self) -> list[Path]:
        """The tables to write."""
        return [path for path in (self.areas, self.zone_areas) if path is not None]

    def check_place(self, grid: Grid, name: str) -> None:
        """Raises `InputError` if zones have no place on the grid of the scene `name`."""
        if self.zones is not None:
            from ..raster.placement import Placement  # noqa: PLC0415 - needs optional dependencies

            Placement(grid, name, self.zones.crs)


class AreaRows:
    """The rows of tables, gathered map by map and written at once.

    Args:
        tables: The tables.
    """

    def __init__(self, tables: AreaTables) -> None:
        self._tables = tables
        self._areas: list[dict[str, Any]] = []
        self._zones: list[dict[str, Any]] = []

    def add(self, scene: str, map_path: Path, report: MapReport | None = None) -> None:
        """Adds the rows of a finished map.

        Args:
            scene: Its name in the tables.
            map_path: The map.
            report: That on the map; None to count its pixels again.

        Raises:
            InputError: The map cannot be read, or zones have no place on it.
        """
        if self._tables.areas is not None:
            self._areas += _area_rows(scene, map_path, report)
        if self._tables.zones is not None:
            self._zones += _zone_rows(scene, map_path, self._tables.zones)

    def write(self) -> None:
        """Writes the tables; raises `InputError` if they cannot be written."""
        tables: list[tuple[list[dict[str, Any]], Sequence[str]]] = []
        if self._tables.areas is not None:
            tables.append((self._areas, _AREA_COLUMNS))
        if self._tables.zone_areas is not None:
            tables.append((self._zones, _ZONE_COLUMNS))
        with staged(self._tables.files) as stages:
            for stage, (rows, columns) in zip(stages, tables, strict=True):
                _write(stage, rows, columns)


def hectare_digits(grid: Grid) -> int:
    """Decimals of hectares that the area of a pixel allows: 2 for pixels of 10 m, 4 for pixels of 1 m."""
    size = grid.pixel_size()
    if size is None:
        return 2
    pixel = size[0] * size[1] / SQUARE_METERS_PER_HECTARE
    return max(0, math.ceil(-math.log10(pixel) - _ROUNDING))


def _area_rows(scene: str, map_path: Path, report: MapReport | None) -> list[dict[str, Any]]:
    """The rows of a map in the table of areas."""
    with FinishedMap(map_path) as finished:
        classes, grid = finished.classes, finished.grid
        counts = report or counted(finished)
    hectares: Sequence[float | None] = [None] * len(classes)
    if counts.hectares is not None:
        hectares = _rounded(counts.hectares, grid)
    shares = counts.pixels / max(1, counts.pixels.sum())
    return [
        {
            "scene": scene,
            "class": name,
            "pixels": count,
            "share": round(share, _SHARE_DIGITS),
            "hectares": area,
        }
        for name, count, share, area in zip(
            classes, counts.pixels.tolist(), shares.tolist(), hectares, strict=True
        )
    ]


def _zone_rows(scene: str, map_path: Path, layer: Any) -> list[dict[str, Any]]:
    """The rows of a map in the table of zones: scene, feature, attributes, pixels with data, hectares of each class."""
    from ..raster.zones import read_zones, zone_sums  # noqa: PLC0415 - needs optional dependencies

    with FinishedMap(map_path) as finished:
        zones = read_zones(layer, finished.grid, str(map_path))
        pixels, areas = zone_sums(finished, zones)
        grid, classes = finished.grid, finished.classes
    own = [*_ZONE_COLUMNS, "pixels", *(f"hectares_{name}" for name in classes)]
    fields = {field: f"{field}_" if field in own else field for field in zones.attributes}
    rows = []
    for index, number in enumerate(zones.numbers.tolist()):
        row: dict[str, Any] = {"scene": scene, "feature": number}
        for field, column in fields.items():
            row[column] = _plain(zones.attributes[field][index])
        row["pixels"] = int(pixels[index].sum())
        hectares: Sequence[float | None] = [None] * len(classes)
        if areas is not None:
            hectares = _rounded(areas[index] / SQUARE_METERS_PER_HECTARE, grid)
        row |= {f"hectares_{name}": area for name, area in zip(classes, hectares, strict=True)}
        rows.append(row)
    return rows


def _rounded(hectares: np.ndarray, grid: Grid) -> list[float]:
    """Hectares, rounded as the grid's pixels allow."""
    digits = hectare_digits(grid)
    return [round(area, digits) for area in hectares.tolist()]


def _plain(value: Any) -> Any:
    """An attribute as JSON has it; None for a missing one."""
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and math.isnan(value):
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, date | datetime):
        return value.isoformat()
    return str(value)


def _write(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Writes a table; the columns are those of its rows, or the given ones if there is no row."""
    names = list(dict.fromkeys([*(name for row in rows for name in row)])) or list(columns)
    if path.suffix.lower() == ".json":
        path.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _checked(
    table: str | os.PathLike[str] | None, overwrite: bool, replaces_own: bool
) -> Path | None:
    """The checked path of a table."""
    if table is None:
        return None
    may_replace = overwrite or (replaces_own and _is_own(Path(table)))
    return check_output(table, SUFFIXES, overwrite=may_replace)


def _is_own(table: Path) -> bool:
    """Whether a file is a table of areas or zones."""
    try:
        with table.open(encoding="utf-8") as file:
            start = file.read(200)
    except (OSError, UnicodeDecodeError):
        return False
    is_csv = start.startswith((",".join(_AREA_COLUMNS), ",".join(_ZONE_COLUMNS)))
    return is_csv or start.startswith("[]") or start.startswith('[\n {\n  "scene": ')
