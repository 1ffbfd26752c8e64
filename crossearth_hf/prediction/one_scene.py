"""From a scene to its map files: the job behind `crossearth predict`."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL.PngImagePlugin import PngInfo

from ..errors import InputError
from ..files.outputs import check_distinct, check_output, check_outside, staged
from ..inference.windows import WindowCounter
from ..labels import IGNORE_INDEX, LabelSet, label_set_for
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..raster.cog import BlockFile, Layer, Piece, crs_remark, map_layers, raster_reader, write_cog, write_mosaic
from ..raster.grid import Grid
from ..raster.raw_bands import EmptyScene
from ..raster.scene import Scene, bounded_cache, files_behind
from ..raster.writing import OUTPUT_TAG, Block
from .kept_parts import (
    PartJob,
    PartJobs,
    PartSettings,
    check_parts,
    compute_run,
    discard,
    is_of_killed_run,
    job_identity,
    kept_parts,
    model_digest,
    parts_folder,
)
from .map_report import MapReport
from .parts import Part, count_windows, joined, scene_parts, whole
from .preview import scene_beside_map
from .sweep import counted_windows

_TIFF = (".tif", ".tiff")
_BRING_BACK_SIDE = 1024
_LEAST_SIDE_TO_RESAMPLE = 64  # pixels: of fewer, a model sees little; our choice
_SQUARE_METERS_PER_HECTARE = 10_000

PartRunner = Callable[[Sequence[PartJob]], Iterable[PartJob]]
"""Computes parts, with `part_jobs.compute_part`, in any order and place; yields each one once it is finished. There may
be more of them than are worth holding at a time."""


@dataclass(frozen=True)
class MapOutputs:
    """Files to write, checked: the map; on request the confidence raster, the probabilities and the preview."""

    map: Path
    confidence: Path | None = None
    probabilities: Path | None = None
    preview: Path | None = None

    @property
    def files(self) -> list[Path]:
        """The files asked for; the preview comes last."""
        return [path for path in (self.map, self.confidence, self.probabilities, self.preview) if path is not None]

    @property
    def layers(self) -> list[str]:
        """Names of the layers of the GeoTIFFs among `files`, in their order."""
        paths = {"labels": self.map, "confidence": self.confidence, "probabilities": self.probabilities}
        return [name for name, path in paths.items() if path is not None]

    @classmethod
    def checked(
        cls,
        scene: str | os.PathLike[str],
        map_path: str | os.PathLike[str],
        *,
        confidence: str | os.PathLike[str] | None = None,
        probabilities: str | os.PathLike[str] | None = None,
        preview: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
    ) -> "MapOutputs":
        """Checks the paths against the scene, each other and the disk.

        Args:
            scene: The input, which no output may be.
            map_path: Ends in .tif or .tiff.
            confidence: Ends in .tif or .tiff.
            probabilities: Ends in .tif or .tiff.
            preview: Ends in .png.
            overwrite: Whether existing files may be replaced. Those of a killed run on this scene, whose parts are
                there still, may be in any case.

        Raises:
            InputError: for a path that cannot or must not be written.
        """
        named = [path for path in (map_path, confidence, probabilities, preview) if path is not None]
        targets = [Path(os.path.realpath(path)) for path in named]
        parts, read = parts_folder(targets[0]), files_behind(scene)
        check_distinct(read, targets)
        check_outside(read, parts)
        check_parts(parts)

        def checked(path: str | os.PathLike[str], suffixes: tuple[str, ...]) -> Path:
            return check_output(path, suffixes, overwrite=overwrite or is_of_killed_run(parts, scene, path))

        return cls(
            checked(map_path, _TIFF),
            None if confidence is None else checked(confidence, _TIFF),
            None if probabilities is None else checked(probabilities, _TIFF),
            None if preview is None else checked(preview, (".png",)),
        )


def predict_map(
    scene: Scene,
    outputs: MapOutputs,
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    *,
    window: int,
    stride: int,
    batch_size: int = 4,
    tta: bool = False,
    progress: bool = True,
    on_windows: WindowCounter | None = None,
    run_parts: PartRunner | None = None,
    device_type: str | None = None,
) -> MapReport:
    """Maps a scene to Cloud-Optimized GeoTIFFs on the scene's own grid, CRS and transform.

    The map holds uint8 class ids, 255 without data, with color table, class names and overviews of the most frequent
    class; the confidence raster float32, the top score over the sum of scores; the probabilities a float32 band per
    class, named by it, its score over that sum, to the nearest 1/4096; both NaN without data. A scene read at another
    resolution is brought back to its own grid by nearest neighbors. All files appear at the end together, or none.
    Finished parts of a job that is killed or fails stay in a hidden folder beside the map; the same job goes on from
    there.

    Args:
        scene: An open scene; predicted at `scene.grid`, written at `scene.native_grid`.
        outputs: Checked paths.
        model: In eval mode, at most 255 classes.
        processor: Gives the normalization.
        window, stride, batch_size: As `resolve_window` gives them; windows per forward pass.
        tta: Whether to average scores over flips, at four times the work.
        progress: Whether to show a progress bar.
        on_windows: Told the windows done and their total; what it raises ends the job and leaves no file.
        run_parts: Computes the parts elsewhere, with the result of this process; None to do it here.
        device_type: The type of device on which the parts are computed; None for the model's.

    Raises:
        EmptyScene: for a scene without a valid pixel.
        InputError: for more than 255 classes, a scene that is damaged or changes, a full disk, too little memory.
    """
    start = time.perf_counter()
    label_set = label_set_for(model.config.id2label)
    if len(label_set.classes) > IGNORE_INDEX:
        raise InputError(
            f"the model has {len(label_set.classes)} classes and a map holds at most {IGNORE_INDEX}, as 255 marks "
            "pixels without data; choose a model of fewer classes"
        )
    layers, device_type = tuple(outputs.layers), device_type or model.device.type
    settings = PartSettings(window, stride, batch_size, tta, layers, model_digest(model, processor), device_type)
    identity = job_identity(scene, model, settings)
    check_distinct(scene.stamps, outputs.files)
    with bounded_cache(), kept_parts(outputs.files, identity) as folder:
        parts = scene_parts(scene.grid, window, len(label_set.classes))
        jobs = PartJobs(scene.grid, folder, parts, settings, range(len(parts)))
        todo = jobs.unfinished()
        if run_parts is None:
            total = sum(count_windows(scene.grid, _whole(run), window, stride) for run in _runs(todo))
        else:
            total = sum(job.windows for job in todo)
        with counted_windows(total, shown=progress, tell=on_windows) as count:
            if run_parts is None:
                for run in _runs(todo):
                    compute_run(run, scene, model, processor, count)
            else:
                for job in run_parts(todo):
                    count(job.windows)
        scene.check_unchanged()
        tally, remarks = _write_map(scene, outputs, jobs, [map_layers(label_set)[name] for name in layers], label_set)
    return MapReport(
        label_set,
        tally.pixels,
        tally.hectares,
        tally.without_data,
        seconds=time.perf_counter() - start,
        files=tuple(outputs.files),
        remarks=remarks,
        scene=scene,
    )


def _runs(jobs: PartJobs) -> Iterator[list[PartJob]]:
    """Jobs whose parts follow one another in a column, to be swept together."""
    return joined(jobs, lambda job: job.part)


def _whole(run: Sequence[PartJob]) -> Part:
    return whole([job.part for job in run])


class _Tally:
    """Counts pixels and ground area per class while blocks pass by."""

    def __init__(self, grid: Grid, classes: int) -> None:
        self._grid = grid
        self._counts = np.zeros(256, dtype=np.int64)
        self._areas: np.ndarray | None = np.zeros(256)  # square meters
        self._classes = classes

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
        if self._areas is None:
            return None
        return self._areas[: self._classes] / _SQUARE_METERS_PER_HECTARE

    def count(self, row: int, col: int, labels: np.ndarray) -> None:
        """Counts (H, W) labels that lie at (row, col)."""
        self._counts += np.bincount(labels.ravel(), minlength=256)
        if self._areas is None:
            return
        areas = self._grid.pixel_areas(row, col, labels != IGNORE_INDEX)  # (H, W)
        if areas is None:
            sums = None
        else:
            sums = np.bincount(labels.ravel(), areas.ravel(), minlength=256)
        if sums is None:
            self._areas = None
        else:
            self._areas = self._areas + sums


def _write_map(
    scene: Scene, outputs: MapOutputs, jobs: PartJobs, layers: Sequence[Layer], label_set: LabelSet
) -> tuple[_Tally, tuple[str, ...]]:
    """Puts finished parts together, counts their pixels and writes all files; the counts, and remarks on the files."""
    tally = _Tally(scene.native_grid, len(label_set.classes))
    pieces: list[Iterable[Piece]] = [_Pieces(jobs, layer.name) for layer in layers]
    with staged(outputs.files) as stages:
        working = stages[0].parent / "working"
        working.mkdir()
        mosaics = [working / f"{layer.name}.vrt" for layer in layers]
        for mosaic, layer, parts, output in zip(mosaics, layers, pieces, outputs.files, strict=False):
            write_mosaic(mosaic, scene.grid, layer, parts, output)
        if scene.is_resampled:
            found = _bring_back(scene, mosaics, layers, tally, outputs.files)
            pieces, mosaics = [[piece] for piece in found], [piece.path for piece in found]
        else:
            for piece in pieces[0]:
                _count_piece(piece, tally)
        if not tally.pixels.any():
            discard(jobs)
            raise EmptyScene(f"{scene.path} holds no pixel with data; check its nodata value, mask or alpha band")
        for stage, mosaic, layer, parts, output in zip(stages, mosaics, layers, pieces, outputs.files, strict=False):
            blocks = (_placed(block, piece) for piece in parts for block in piece.blocks)
            write_cog(stage, mosaic, layer, blocks, output)
        if outputs.preview is not None:
            _save_preview(scene, stages[0], label_set, tally, stages[-1])
        remark = crs_remark(stages[0], scene.native_grid, outputs.map)
    if remark:
        remarks = [remark]
    else:
        remarks = []
    if scene.native_grid.rpcs is not None:
        remarks.append("The scene is georeferenced by RPCs alone, and so are the files")
    return tally, tuple(remarks)


@dataclass(frozen=True)
class _Pieces:
    """The finished parts of a layer, read one by one, as often as wanted."""

    jobs: PartJobs
    layer: str

    def __iter__(self) -> Iterator[Piece]:
        return (job.piece(self.layer) for job in self.jobs)


def _placed(block: Block, piece: Piece) -> Block:
    """A block of a piece in pixels of the whole."""
    return replace(block, row=block.row + piece.top, col=block.col + piece.left)


def _count_piece(piece: Piece, tally: _Tally) -> None:
    """Counts the labels of a piece, block by block."""
    with raster_reader(piece.path) as read:
        for block in piece.blocks:
            size = (block.height, block.width)
            (labels,) = read((block.row, block.col, *size), size)
            tally.count(block.row + piece.top, block.col + piece.left, labels)


def _bring_back(
    scene: Scene, mosaics: Sequence[Path], layers: Sequence[Layer], tally: _Tally, outputs: Sequence[Path]
) -> list[Piece]:
    """Nearest neighbors of mosaics on `scene.grid` at the pixels of the scene's own grid; its validity decides."""
    native, (down, across) = scene.native_grid, scene.scale
    with ExitStack() as stack:
        readers = [stack.enter_context(raster_reader(mosaic)) for mosaic in mosaics]
        files = [
            stack.enter_context(BlockFile(mosaic.with_suffix(".tif"), native, layer, output))
            for mosaic, layer, output in zip(mosaics, layers, outputs, strict=False)
        ]
        for row in range(0, native.height, _BRING_BACK_SIDE):
            for col in range(0, native.width, _BRING_BACK_SIDE):
                height, width = min(_BRING_BACK_SIDE, native.height - row), min(_BRING_BACK_SIDE, native.width - col)
                valid = scene.read_valid(row, col, height, width)
                window = (row / down, col / across, height / down, width / across)
                for read, file, layer in zip(readers, files, layers, strict=True):
                    values = read(window, (height, width))  # (bands, height, width)
                    values[:, ~valid] = layer.nodata
                    file.write(row, col, values)
                    if layer.label_set is not None:
                        tally.count(row, col, values[0])
    return [Piece(file.path, 0, 0, native.height, native.width, tuple(file.blocks)) for file in files]


def _save_preview(scene: Scene, map_file: Path, label_set: LabelSet, tally: _Tally, path: Path) -> None:
    """Draws scene and map, decimated, into a PNG."""
    picture = scene_beside_map(scene, map_file, label_set, tally.pixels / tally.pixels.sum())
    mark = PngInfo()
    mark.add_text(OUTPUT_TAG, "preview")
    picture.save(path, pnginfo=mark)


def resolution_advice(
    grid: Grid, trained_at: float | None, remedy: str = "--resolution {meters:g} may give a better map"
) -> str | None:
    """A sentence for a scene whose pixels are beyond twice or half what the model learned at.

    Args:
        grid: The scene's own.
        trained_at: Meters per pixel, `ground_sampling_distance` of the model.
        remedy: What to do where the scene can be read at that resolution.

    Returns:
        The sentence; None where the pixels suit the model or nobody knows.
    """
    size = grid.pixel_size()
    if size is None or trained_at is None:
        return None
    fits = min(size) >= trained_at / 2 and max(size) <= trained_at * 2
    if fits:
        return None
    if max(size) < 1.01 * min(size):
        sides = f"{size[0]:.3g}"
    else:
        sides = f"{size[0]:.3g} x {size[1]:.3g}"
    if not grid.can_be_rescaled(trained_at):
        remedy = "such scenes are outside what it knows; give it imagery of about {meters:g} m"
    elif min(grid.rescaled(trained_at).height, grid.rescaled(trained_at).width) < _LEAST_SIDE_TO_RESAMPLE:
        remedy = "at {meters:g} m this one is too small to be mapped well; give it a larger scene"
    finding = f"the scene has pixels of {sides} m, the model learned at {trained_at:.3g} m"
    return f"{finding}: {remedy.format(meters=trained_at)}"
