"""From a scene to its map files: the job behind `crossearth predict`."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from .errors import InputError
from .geotiff import BlockFile, Scene, bounded_cache, read_band
from .grid import Grid
from .image_processing_crossearth import CrossEarthImageProcessor
from .inference import BlockWriter, WindowCounter, predict_scene
from .labels import IGNORE_INDEX, LabelSet, label_set_for
from .modeling_crossearth import CrossEarthForSemanticSegmentation
from .outputs import check_distinct, check_output, staged
from .preview import draw_preview, panel_size

_TIFF = (".tif", ".tiff")
_BRING_BACK_SIDE = 1024
_SQUARE_METRES_PER_HECTARE = 10_000


@dataclass(frozen=True)
class MapOutputs:
    """Files to write, checked: the map, and on request the confidence raster and the preview."""

    map: Path
    confidence: Path | None = None
    preview: Path | None = None

    @property
    def files(self) -> list[Path]:
        """The files asked for."""
        return [path for path in (self.map, self.confidence, self.preview) if path is not None]

    @classmethod
    def checked(
        cls,
        scene: str | os.PathLike[str],
        map_path: str | os.PathLike[str],
        *,
        confidence: str | os.PathLike[str] | None = None,
        preview: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
    ) -> "MapOutputs":
        """Checks the paths against the scene, each other and the disk.

        Args:
            scene: The input, which no output may be.
            map_path: Ends in .tif or .tiff.
            confidence: Ends in .tif or .tiff.
            preview: Ends in .png.
            overwrite: Whether existing files may be replaced.

        Raises:
            InputError: for a path that cannot or must not be written.
        """
        named = [path for path in (map_path, confidence, preview) if path is not None]
        check_distinct([scene], [Path(os.path.realpath(path)) for path in named])
        return cls(
            check_output(map_path, _TIFF, overwrite=overwrite),
            None if confidence is None else check_output(confidence, _TIFF, overwrite=overwrite),
            None if preview is None else check_output(preview, (".png",), overwrite=overwrite),
        )


@dataclass(frozen=True)
class MapReport:
    """What a map holds and where it was written.

    Attributes:
        label_set: K classes.
        pixels: (K,) pixels of each class.
        hectares: (K,) ground area of each class, or None where the scene's CRS does not tell.
        without_data: Pixels without data.
        seconds: Wall-clock time.
        files: What was written.
    """

    label_set: LabelSet
    pixels: np.ndarray
    hectares: np.ndarray | None
    without_data: int
    seconds: float
    files: tuple[Path, ...]

    @property
    def shares(self) -> np.ndarray:
        """(K,) share of each class in the pixels with data."""
        return self.pixels / self.pixels.sum()

    def table(self) -> str:
        """The report as a table for a terminal."""
        hectares = ["-"] * len(self.pixels) if self.hectares is None else [f"{area:,.2f}" for area in self.hectares]
        rows = [("class", "pixels", "share", "hectares")]
        rows += [
            (name, f"{count:,}", f"{share:.1%}", area)
            for name, count, share, area in zip(self.label_set.classes, self.pixels, self.shares, hectares, strict=True)
        ]
        if self.without_data:
            rows.append(("(no data)", f"{self.without_data:,}", "-", "-"))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
        lines.insert(1, "-" * len(lines[0]))
        written = [f"{path}  ({path.stat().st_size / 1e6:,.1f} MB)" for path in self.files]
        return "\n".join([*lines, "", f"{self.seconds:.1f} s; written:", *written])


def predict_map(
    scene: Scene,
    outputs: MapOutputs,
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    *,
    window: int,
    stride: int,
    batch_size: int = 4,
    progress: bool = True,
    on_windows: WindowCounter | None = None,
) -> MapReport:
    """Maps a scene to Cloud-Optimised GeoTIFFs on the scene's own grid, CRS and transform.

    The map holds uint8 class ids, 255 without data, with colour table, class names and overviews of the most frequent
    class; the confidence raster float32, NaN without data. A scene read at another resolution is brought back to its
    own grid by nearest neighbours. All files appear at the end together, or none.

    Args:
        scene: An open scene; predicted at `scene.grid`, written at `scene.native_grid`.
        outputs: Checked paths.
        model: In eval mode, at most 255 classes.
        processor: Gives the normalisation.
        window, stride, batch_size: As `resolve_window` gives them; windows per forward pass.
        progress: Whether to show a progress bar.
        on_windows: Told the windows done and their total; what it raises ends the job and leaves no file.

    Raises:
        InputError: for a scene without a valid pixel, a damaged scene, a full disk.
    """
    start = time.perf_counter()
    label_set = label_set_for(model.config.id2label)
    tally = _Tally(scene.native_grid, len(label_set.classes))
    predict = partial(
        predict_scene,
        scene,
        model,
        processor,
        window=window,
        stride=stride,
        batch_size=batch_size,
        progress=progress,
        on_windows=on_windows,
    )
    with bounded_cache(), staged(outputs.files) as stages:
        cogs = stages[: 1 if outputs.confidence is None else 2]
        files = _predict_files(scene, predict, cogs, label_set, tally)
        if not tally.pixels.any():
            raise InputError(f"{scene.path} holds no pixel with data; check its nodata value, mask or alpha band")
        for file, cog in zip(files, cogs, strict=True):
            file.copy_to_cog(cog)
        if outputs.preview is not None:
            _save_preview(scene, cogs[0], label_set, tally, stages[-1])
    seconds = time.perf_counter() - start
    return MapReport(label_set, tally.pixels, tally.hectares, tally.without_data, seconds, tuple(outputs.files))


class _Tally:
    """Counts pixels and ground area per class while blocks pass by."""

    def __init__(self, grid: Grid, classes: int) -> None:
        self._grid = grid
        self._counts = np.zeros(256, dtype=np.int64)
        self._areas: np.ndarray | None = np.zeros(256)  # square metres
        self._classes = classes

    def counting(self, write: BlockWriter) -> BlockWriter:
        """`write` that also counts."""

        def count_and_write(row: int, col: int, labels: np.ndarray, confidence: np.ndarray) -> None:
            self._count(row, col, labels)
            write(row, col, labels, confidence)

        return count_and_write

    @property
    def pixels(self) -> np.ndarray:
        """(K,) pixels of each class."""
        return self._counts[: self._classes]

    @property
    def without_data(self) -> int:
        """Pixels without data."""
        return int(self._counts[IGNORE_INDEX])

    @property
    def hectares(self) -> np.ndarray | None:
        """(K,) ground area of each class, or None where the grid does not tell."""
        return None if self._areas is None else self._areas[: self._classes] / _SQUARE_METRES_PER_HECTARE

    def _count(self, row: int, col: int, labels: np.ndarray) -> None:
        height, width = labels.shape
        cells = labels + 256 * np.arange(height)[:, None]
        per_row = np.bincount(cells.ravel(), minlength=256 * height).reshape(height, 256)
        self._counts += per_row.sum(axis=0)
        areas = self._grid.row_areas(row, col, height, width)  # (height,)
        self._areas = None if areas is None or self._areas is None else self._areas + areas @ per_row


def _predict_files(
    scene: Scene, predict: Callable[[BlockWriter], None], cogs: list[Path], label_set: LabelSet, tally: _Tally
) -> list[BlockFile]:
    """Predicts the scene into working files, closed, beside the map and, where there are two paths, the confidence."""
    if not scene.is_resampled:
        with _block_files(cogs, "blocks", scene.native_grid, label_set) as (files, write):
            predict(tally.counting(write))
        return files
    with _block_files(cogs, "resampled", scene.grid, label_set) as (resampled, write):
        predict(write)
    with _block_files(cogs, "blocks", scene.native_grid, label_set) as (files, write):
        _bring_back(scene, [file.path for file in resampled], tally.counting(write))
    return files


@contextmanager
def _block_files(
    cogs: list[Path], prefix: str, grid: Grid, label_set: LabelSet
) -> Iterator[tuple[list[BlockFile], BlockWriter]]:
    """Working files for the map and, where there are two paths, the confidence; and the function that fills both."""
    paths = [cog.with_name(f"{prefix}-{cog.name}") for cog in cogs]
    with ExitStack() as stack:
        labels = BlockFile(paths[0], grid, dtype="uint8", nodata=IGNORE_INDEX, label_set=label_set)
        files = [stack.enter_context(labels)]
        for path in paths[1:]:
            files.append(stack.enter_context(BlockFile(path, grid, dtype="float32", nodata=float("nan"))))

        def write(row: int, col: int, *bands: np.ndarray) -> None:
            for file, band in zip(files, bands, strict=False):  # confidence has nowhere to go unless asked for
                file.write(row, col, band)

        yield files, write


def _bring_back(scene: Scene, files: list[Path], write: BlockWriter) -> None:
    """Nearest neighbours of maps on `scene.grid` at the pixels of the scene's own grid; its validity decides."""
    native, (down, across) = scene.native_grid, scene.scale
    for row in range(0, native.height, _BRING_BACK_SIDE):
        for col in range(0, native.width, _BRING_BACK_SIDE):
            height, width = min(_BRING_BACK_SIDE, native.height - row), min(_BRING_BACK_SIDE, native.width - col)
            valid = scene.read_valid(row, col, height, width)
            window = (row / down, col / across, height / down, width / across)
            labels, *confidence = (read_band(file, window, (height, width)) for file in files)
            labels[~valid] = IGNORE_INDEX
            shown = confidence[0] if confidence else np.zeros(labels.shape, np.float32)
            shown[~valid] = np.nan
            write(row, col, labels, shown)


def _save_preview(scene: Scene, map_file: Path, label_set: LabelSet, tally: _Tally, path: Path) -> None:
    """Draws scene and map, decimated, into a PNG."""
    grid = scene.native_grid
    shape = panel_size(grid.height, grid.width)
    raster = scene.thumbnail(max(shape))
    labels = read_band(map_file, (0, 0, grid.height, grid.width), shape)
    draw_preview(raster.pixels, raster.valid, labels, label_set, tally.pixels / tally.pixels.sum()).save(path)
