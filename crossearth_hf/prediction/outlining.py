"""Maps as polygons on request: what a person asks for, checked, and in the pixels of a scene."""

import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..errors import InputError
from ..labels import LabelSet
from ..raster.grid import Grid

SUFFIXES = (".gpkg", ".geojson", ".parquet", ".fgb")
"""Endings of files of polygons."""

_EXTRA = "vectors"
_PACKAGES = {"pyogrio": SUFFIXES, "shapely": SUFFIXES, "pyarrow": (".parquet",)}


@dataclass(frozen=True)
class Outlining:
    """How maps become polygons.

    Attributes:
        min_area: Square meters; smaller regions join their largest neighbor. None to keep all.
        simplify: Meters by which outlines are simplified; neighbors keep a common border. None for the pixels' edges.

    Raises:
        InputError: A number is not positive.
    """

    min_area: float | None = None
    simplify: float | None = None

    def __post_init__(self) -> None:
        numbers = {"--min-area": self.min_area, "--simplify": self.simplify}
        for flag, number in numbers.items():
            if number is not None and not (math.isfinite(number) and number > 0):
                raise InputError(
                    f"{flag} {number} must be above 0; leave it out to keep every pixel"
                )

    def check_asked(self, path: object) -> None:
        """Raises `InputError` for settings without polygons to write, or polygons without the packages for them."""
        if path is None:
            flags = ["--min-area"] * (self.min_area is not None) + ["--simplify"] * (
                self.simplify is not None
            )
            if flags:
                raise InputError(
                    f"{flags[0]} concerns polygons; name a file for them with --polygons"
                )
            return
        missing = [
            package
            for package, endings in _PACKAGES.items()
            if str(path).lower().endswith(endings) and find_spec(package) is None
        ]
        if missing:
            raise InputError(
                f"polygons need the package '{missing[0]}'; run: pip install crossearth-hf[{_EXTRA}]"
            )

    def check_place(self, path: Path | None, grid: Grid, scene: str) -> None:
        """Raises `InputError` if a scene's grid does not say what the settings or the format of `path` need."""
        if path is None:
            return
        self.in_pixels(grid, scene)
        if path.suffix.lower() == ".geojson" and grid.crs is None and grid.gcps_crs is None:
            raise InputError(
                f"{scene} has no CRS, but GeoJSON holds degrees; choose {path.with_suffix('.gpkg').name}"
            )

    def in_pixels(self, grid: Grid, scene: str) -> tuple[int, float]:
        """The least number of pixels of a region, and the tolerance in pixels, by the pixel in the scene's middle.

        Raises:
            InputError: The grid does not define meters.
        """
        if self.min_area is None and self.simplify is None:
            return 0, 0.0
        size = grid.pixel_size()
        if size is None:
            raise InputError(
                f"--min-area and --simplify are in meters, but {scene} has no CRS that defines them; leave them out"
            )
        area = size[0] * size[1]
        return math.ceil((self.min_area or 0) / area), (self.simplify or 0) / math.sqrt(area)

    def draw(
        self, map_file: Path, stage: Path, grid: Grid, label_set: LabelSet, scene: str
    ) -> None:
        """Writes the polygons of a finished map; raises as `draw_polygons`."""
        from ..raster.polygons import draw_polygons  # noqa: PLC0415 - needs an extra

        min_pixels, tolerance = self.in_pixels(grid, scene)
        draw_polygons(map_file, stage, grid, label_set, min_pixels=min_pixels, tolerance=tolerance)


AS_THEY_ARE = Outlining()
"""Polygons with all regions, along the edges of pixels."""
