"""Reports on maps: areas by class, as a table, as a picture and for notebooks."""

import html
import io
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import InputError
from ..labels import LabelSet
from ..raster.scene import Scene
from .preview import scene_beside_map

_NOTEBOOK_WIDTH = 640  # pixels: a notebook keeps the picture in its file


@dataclass(frozen=True, repr=False)
class MapReport:
    """A report on a map and its files. A notebook shows it as a table with a small picture.

    Attributes:
        label_set: K classes.
        pixels: (K,) pixels of each class.
        hectares: (K,) ground area of each class; None if the scene's CRS does not define it.
        without_data: Number of pixels without data.
        seconds: Wall-clock time.
        files: Written files.
        remarks: Sentences about the georeference, if the GeoTIFFs do not contain it as usual.
        scene: The scene as it was read, open or closed; None if unknown.
        confidence: Mean share of the top score in all scores over the pixels with data; None if unknown.
        doubts: Why the map may not be trusted, one sentence each.
    """

    label_set: LabelSet
    pixels: np.ndarray
    hectares: np.ndarray | None
    without_data: int
    seconds: float
    files: tuple[Path, ...]
    remarks: tuple[str, ...] = ()
    scene: Scene | None = None
    confidence: float | None = None
    doubts: tuple[str, ...] = ()

    @property
    def shares(self) -> np.ndarray:
        """(K,) share of each class in the pixels with data."""
        return self.pixels / self.pixels.sum()

    @property
    def areas(self) -> dict[str, dict[str, float | None]]:
        """For each class its `pixels`, its `share` of the pixels with data (0..1), and its `hectares`.

        `pandas.DataFrame.from_dict(report.areas, orient="index")` makes a table of it. Hectares are None if
        the scene's CRS does not define them.
        """
        if self.hectares is None:
            hectares = [None] * len(self.pixels)
        else:
            hectares = self.hectares.tolist()
        columns = zip(
            self.label_set.classes,
            self.pixels.tolist(),
            self.shares.tolist(),
            hectares,
            strict=True,
        )
        return {
            name: {"pixels": count, "share": share, "hectares": area}
            for name, count, share, area in columns
        }

    def table(self) -> str:
        """The report as a table for a terminal."""
        rows = [("class", "pixels", "share", "hectares"), *self._rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = []
        for name, *cells in rows:
            aligned = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
            lines.append("  ".join([name.ljust(widths[0]), *aligned]))
        lines.insert(1, "-" * len(lines[0]))
        written = [f"{path}  ({path.stat().st_size / 1e6:,.1f} MB)" for path in self.files]
        return "\n".join(
            [*lines, "", f"{self.seconds:.1f} s; written:", *written, *self.remarks, *self.doubts]
        )

    def line(self) -> str:
        """The report in one line: the map, the shares of its classes, the seconds."""
        pairs = zip(self.label_set.classes, self.shares, strict=True)
        shares = ", ".join(f"{name} {share:.1%}" for name, share in pairs if share)
        remarks = "".join(f"; {remark}" for remark in self.remarks)
        return f"{self.files[0]}  {shares}  ({self.seconds:.1f} s){remarks}"

    def show(self) -> Image.Image:
        """The scene beside its map, with a legend: an RGB picture, at most 1600 pixels wide. Reads both files again.

        Raises:
            InputError: The scene or the map no longer exists.
        """
        if self.scene is None or not self.files[0].exists():
            raise InputError("the scene or its map no longer exists; predict again to see them")
        with self.scene.reopened() as scene:
            return scene_beside_map(scene, self.files[0], self.label_set, self.shares.tolist())

    def __repr__(self) -> str:
        return f"MapReport({self.line()})"

    def _repr_html_(self) -> str:
        """For notebooks: the table, and the picture while scene and map exist."""
        head = "".join(
            f"<th>{title}</th>" for title in ("", "class", "pixels", "share", "hectares")
        )
        swatches = [f"rgb{color}" for color in self.label_set.colors] + ["none"]
        rows = "".join(
            f"<tr><td style='background: {swatch}; width: 1em'></td>"
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
            + "</tr>"
            for swatch, row in zip(swatches, self._rows(), strict=False)
        )
        files = "".join(f"<div>{html.escape(str(path))}</div>" for path in self.files)
        doubts = "".join(f"<div>{html.escape(doubt)}</div>" for doubt in self.doubts)
        return f"<table><tr>{head}</tr>{rows}</table>{doubts}{files}{self._small_picture()}"

    def _small_picture(self) -> str:
        """The picture as HTML, or "" if it cannot be drawn."""
        try:
            picture = self.show()
        except InputError:
            return ""
        picture.thumbnail((_NOTEBOOK_WIDTH, _NOTEBOOK_WIDTH))
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        return f"<img alt='scene and map' src='data:image/png;base64,{b64encode(stream.getvalue()).decode()}'>"

    def _rows(self) -> list[tuple[str, str, str, str]]:
        """Name, pixels, share and hectares of each class as text, then the pixels without data."""
        if self.hectares is None:
            hectares = ["-"] * len(self.pixels)
        else:
            hectares = list(map(_digits, self.hectares))
        columns = zip(self.label_set.classes, self.pixels, self.shares, hectares, strict=True)
        rows = [(name, f"{count:,}", f"{share:.1%}", area) for name, count, share, area in columns]
        if self.without_data:
            rows.append(("(no data)", f"{self.without_data:,}", "-", "-"))
        return rows


def _digits(hectares: float) -> str:
    """An area to the square decameter, small ones to three digits."""
    if hectares == 0 or hectares >= 1:
        return f"{hectares:,.2f}"
    return f"{hectares:.3g}"
