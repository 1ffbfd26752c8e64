"""From a scene to its map files: the job behind `crossearth predict`."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL.PngImagePlugin import PngInfo

from ..errors import InputError
from ..files.outputs import check_distinct, check_output, check_outside, staged
from ..inference.model_digest import model_digest
from ..inference.windows import Network, WindowCounter
from ..labels import IGNORE_INDEX, LabelSet, label_set_of
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..raster.cog import (
    BlockFile,
    Layer,
    Piece,
    crs_remark,
    map_layers,
    raster_reader,
    write_cog,
    write_mosaic,
)
from ..raster.gis_legend import write_attribute_table, write_qgis_style
from ..raster.grid import Grid
from ..raster.raw_bands import EmptyScene
from ..raster.scene import Scene, bounded_cache, files_behind
from ..raster.writing import OUTPUT_TAG, Block
from .job_identity import job_identity, map_job
from .kept_parts import discard, is_of_killed_run, kept_parts, unfinished_parts
from .map_report import MapReport
from .outlining import AS_THEY_ARE, Outlining
from .outlining import SUFFIXES as POLYGON_SUFFIXES
from .part_jobs import PartJob, PartJobs, PartSettings
from .part_writing import compute_run
from .parts import Part, SceneParts, count_windows, joined, scene_parts, whole
from .preview import scene_beside_map
from .sweep import counted_windows
from .tally import Tally
from .trust import doubts

SUFFIXES = {
    "labels": (".tif", ".tiff"),
    "confidence": (".tif", ".tiff"),
    "probabilities": (".tif", ".tiff"),
    "polygons": POLYGON_SUFFIXES,
    "preview": (".png",),
}
"""Endings of the files of a map, by their content."""

_BRING_BACK_SIDE = 1024
_LEAST_SIDE_TO_RESAMPLE = 64  # pixels: of fewer, a model sees little; our choice

PartRunner = Callable[[Sequence[PartJob]], Iterable[PartJob]]
"""Computes parts with `part_writing.compute_part`, in any order and process; yields each part once it is finished.
The number of parts may be large."""


@dataclass(frozen=True)
class MapOutputs:
    """Files to write, checked.

    Attributes:
        paths: Files by their content: "labels" (the map) and, on request, "confidence", "probabilities", "polygons" and
            "preview".
    """

    paths: dict[str, Path]

    @property
    def map(self) -> Path:
        """The map."""
        return self.paths["labels"]

    @property
    def files(self) -> list[Path]:
        """All files, the GeoTIFFs first."""
        return list(self.paths.values())

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers of the GeoTIFFs among `files`, in their order."""
        return tuple(name for name in self.paths if name not in ("polygons", "preview"))

    @classmethod
    def checked(
        cls,
        scene: str | os.PathLike[str],
        map_path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        **extras: str | os.PathLike[str] | None,
    ) -> "MapOutputs":
        """Checks the paths against the scene, each other and the disk.

        Args:
            scene: The input, which no output may be.
            map_path: Ends in .tif or .tiff.
            overwrite: Whether existing files may be replaced. Files of an interrupted run on this scene, whose parts
                still exist, are always replaced.
            extras: `confidence` and `probabilities` end in .tif or .tiff, `polygons` in .gpkg, .geojson, .parquet or
                .fgb, `preview` in .png.

        Raises:
            InputError: A path cannot or must not be written.
        """
        named = asked_for(map_path, extras)
        targets = [Path(os.path.realpath(path)) for path in named.values()]
        parts, read = unfinished_parts(targets[0]), files_behind(scene)
        check_distinct(read, targets)
        check_outside(read, parts.folder)
        parts.check()
        paths = {}
        for name, path in named.items():
            may_replace = overwrite or is_of_killed_run(parts, scene, path)
            paths[name] = check_output(path, SUFFIXES[name], overwrite=may_replace)
        return cls(paths)


def asked_for(
    map_path: str | os.PathLike[str], extras: Mapping[str, str | os.PathLike[str] | None]
) -> dict[str, str | os.PathLike[str]]:
    """The paths that a person named, by their content, in the order of `SUFFIXES`."""
    named = {"labels": map_path, **extras}
    return {name: path for name in SUFFIXES if (path := named.get(name)) is not None}


def predict_map(
    scene: Scene,
    outputs: MapOutputs,
    model: Network,
    processor: CrossEarthImageProcessor,
    *,
    window: int,
    stride: int,
    batch_size: int = 4,
    tta: bool = False,
    float_shares: bool = False,
    outlining: Outlining = AS_THEY_ARE,
    progress: bool = True,
    on_windows: WindowCounter | None = None,
    run_parts: PartRunner | None = None,
    device_type: str | None = None,
    engine: str | None = None,
) -> MapReport:
    """Maps a scene to Cloud-Optimized GeoTIFFs on the scene's own grid, CRS and transform.

    The map has uint8 class ids and 255 for no data, with color table, class names and overviews of the most frequent
    class. The confidence is the top score divided by the sum of scores. The probabilities have a band per class, with
    its name: its score divided by that sum. Both are bytes with the scale 0.004 in their metadata, 255 for no data; or
    float32 (probabilities to the nearest 1/4096), NaN for no data. Maps of a scene read at another resolution are
    brought back to its own grid by nearest neighbors.
    All files appear together at the end, or none. If a job is killed or fails, finished parts stay in a hidden folder
    beside the map, and the same job continues from there.

    Args:
        scene: An open scene; predicted at `scene.grid`, written at `scene.native_grid`.
        outputs: Checked paths.
        model: In eval mode, or an engine in its place; at most 255 classes.
        processor: Defines the normalization.
        window, stride: As `resolve_window` returns them.
        batch_size: Windows per forward pass.
        tta: Whether to average scores over flipped windows, at four times the work.
        float_shares: Whether confidence and probabilities are float32 rather than bytes.
        outlining: How polygons are drawn, if they are asked for.
        progress: Whether to show a progress bar.
        on_windows: Called with the number of finished windows and their total; an exception in it ends the job without
            files.
        run_parts: Computes the parts elsewhere, with the same result; None for this process.
        device_type: The type of device on which the parts are computed; None for the model's.
        engine: What computes the model in PyTorch's place; None for PyTorch.

    Raises:
        EmptyScene: The scene has no valid pixel.
        InputError: There are more than 255 classes, the scene is damaged or changes, the disk is full, or memory is too
            small.
    """
    start = time.perf_counter()
    label_set = label_set_of(model.config)
    if len(label_set.classes) > IGNORE_INDEX:
        raise InputError(
            f"the model has {len(label_set.classes)} classes, but a map holds at most {IGNORE_INDEX}, as 255 marks "
            "pixels without data; choose a model with fewer classes"
        )
    layers, device_type = outputs.layers, device_type or model.device.type
    digest = model_digest(model, processor)
    settings = PartSettings(
        window, stride, batch_size, tta, layers, digest, device_type, float_shares, engine
    )
    identity = job_identity(scene, model, settings)
    decided_by = map_job(
        scene.asked, model, digest, window=window, stride=stride, tta=tta, engine=engine
    )
    check_distinct(scene.stamps, outputs.files)
    outlining.check_place(outputs.paths.get("polygons"), scene.native_grid, scene.path)
    with bounded_cache(), kept_parts(outputs.files, identity) as folder:
        parts = scene_parts(scene.grid, window, len(label_set.classes))
        jobs = PartJobs(
            scene.grid, folder, parts, settings, _numbers(parts, scene), scene.placed_area
        )
        todo = jobs.unfinished()
        if run_parts is None:
            area = scene.placed_area
            total = sum(
                count_windows(scene.grid, _whole(run), window, stride, area) for run in _runs(todo)
            )
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
        confidence = _mean_confidence(jobs)
        possible = map_layers(label_set, float_shares=float_shares)
        rasters = [replace(possible[name], job=decided_by) for name in layers]
        tally, remarks = _write_map(scene, outputs, jobs, rasters, label_set, outlining)
    return MapReport(
        label_set,
        tally.pixels,
        tally.hectares,
        tally.without_data,
        seconds=time.perf_counter() - start,
        files=tuple(outputs.files),
        remarks=remarks,
        scene=scene,
        confidence=confidence,
        doubts=doubts(
            scene.grid,
            len(scene.bands),
            label_set.classes,
            confidence,
            model.config.ground_sampling_distance,
        ),
    )


def _numbers(parts: SceneParts, scene: Scene) -> Sequence[int]:
    """Numbers of the parts that the scene's area touches."""
    if scene.placed_area is None:
        return range(len(parts))
    all_parts = [parts[number] for number in range(len(parts))]
    boxes = [
        (part.top, part.left, part.bottom - part.top, part.right - part.left) for part in all_parts
    ]
    return np.flatnonzero(scene.placed_area.touches(boxes)).tolist()


def _mean_confidence(jobs: PartJobs) -> float | None:
    """Mean confidence of all pixels with data; None if there is none."""
    sums = [job.confidence() for job in jobs]
    pixels = sum(count for _, count in sums)
    if not pixels:
        return None
    return sum(total for total, _ in sums) / pixels


def _runs(jobs: PartJobs) -> Iterator[list[PartJob]]:
    """Runs of jobs whose parts follow one another in a column and can be swept together."""
    return joined(jobs, lambda job: job.part)


def _whole(run: Sequence[PartJob]) -> Part:
    return whole([job.part for job in run])


def _write_map(
    scene: Scene,
    outputs: MapOutputs,
    jobs: PartJobs,
    layers: Sequence[Layer],
    label_set: LabelSet,
    outlining: Outlining,
) -> tuple[Tally, tuple[str, ...]]:
    """Joins the finished parts, counts their pixels and writes all files; returns counts and remarks."""
    tally = Tally(scene.native_grid, len(label_set.classes), scene.native_area)
    pieces: list[Iterable[Piece]] = [_Pieces(jobs, layer.name) for layer in layers]
    with staged(outputs.files) as stages:
        stage_of = dict(zip(outputs.paths, stages, strict=True))
        working = stages[0].parent / "working"
        working.mkdir()
        mosaics = [working / f"{layer.name}.vrt" for layer in layers]
        for mosaic, layer, parts, output in zip(
            mosaics, layers, pieces, outputs.files, strict=False
        ):
            write_mosaic(mosaic, scene.grid, layer, parts, output)
        if scene.is_resampled:
            found = _bring_back(scene, mosaics, layers, tally, outputs.files)
            pieces, mosaics = [[piece] for piece in found], [piece.path for piece in found]
        else:
            for piece in pieces[0]:
                _count_piece(piece, tally)
        if not tally.pixels.any():
            discard(jobs)
            raise EmptyScene(_no_data(scene))
        for stage, mosaic, layer, parts, output in zip(
            stages, mosaics, layers, pieces, outputs.files, strict=False
        ):
            blocks = (_placed(block, piece) for piece in parts for block in piece.blocks)
            write_cog(stage, mosaic, layer, blocks, output)
        if "polygons" in outputs.paths:
            outlining.draw(
                stages[0], stage_of["polygons"], scene.native_grid, label_set, scene.path
            )
        if "preview" in outputs.paths:
            _save_preview(scene, stages[0], label_set, tally, stage_of["preview"])
        remark = crs_remark(stages[0], scene.native_grid, outputs.map)
        write_attribute_table(stages[0], label_set, tally.pixels.tolist())
        if not _same_name(scene.path, outputs.map):
            write_qgis_style(stages[0], label_set)
    remarks = []
    if remark:
        remarks.append(remark)
    if scene.native_grid.rpcs is not None:
        remarks.append("The scene is georeferenced only by RPCs, and so are the files")
    return tally, tuple(remarks)


def _same_name(scene: str, output: Path) -> bool:
    """Whether QGIS would show the scene by the map's style, which it finds by the name without ending."""
    return Path(os.path.realpath(scene)).with_suffix("") == output.with_suffix("")


def _no_data(scene: Scene) -> str:
    """Why a map is empty."""
    if scene.area is not None:
        return f"{scene.path} has no pixel with data in the {scene.area.name}; choose another area"
    return f"{scene.path} has no pixel with data; check its nodata value, mask or alpha band"


@dataclass(frozen=True)
class _Pieces:
    """The finished parts of a layer, which can be read several times."""

    jobs: PartJobs
    layer: str

    def __iter__(self) -> Iterator[Piece]:
        return (job.piece(self.layer) for job in self.jobs)


def _placed(block: Block, piece: Piece) -> Block:
    """A block of a piece in pixels of the whole."""
    return replace(block, row=block.row + piece.top, col=block.col + piece.left)


def _count_piece(piece: Piece, tally: Tally) -> None:
    """Counts the labels of a piece, block by block."""
    with raster_reader(piece.path) as read:
        for block in piece.blocks:
            size = (block.height, block.width)
            (labels,) = read((block.row, block.col, *size), size)
            tally.count(block.row + piece.top, block.col + piece.left, labels)


def _bring_back(
    scene: Scene,
    mosaics: Sequence[Path],
    layers: Sequence[Layer],
    tally: Tally,
    outputs: Sequence[Path],
) -> list[Piece]:
    """Brings mosaics on `scene.grid` back to the scene's own grid, by nearest neighbors and its validity."""
    native, (down, across), area = scene.native_grid, scene.scale, scene.native_area
    with ExitStack() as stack:
        readers = [stack.enter_context(raster_reader(mosaic)) for mosaic in mosaics]
        files = [
            stack.enter_context(BlockFile(mosaic.with_suffix(".tif"), native, layer, output))
            for mosaic, layer, output in zip(mosaics, layers, outputs, strict=False)
        ]
        for row in range(0, native.height, _BRING_BACK_SIDE):
            for col in range(0, native.width, _BRING_BACK_SIDE):
                height, width = (
                    min(_BRING_BACK_SIDE, native.height - row),
                    min(_BRING_BACK_SIDE, native.width - col),
                )
                if area is not None and not area.touches([(row, col, height, width)])[0]:
                    continue
                valid = scene.read_valid(row, col, height, width)
                if area is not None:
                    valid &= area.mask(row, col, height, width)
                window = (row / down, col / across, height / down, width / across)
                for read, file, layer in zip(readers, files, layers, strict=True):
                    values = read(window, (height, width))  # (bands, height, width)
                    values[:, ~valid] = layer.nodata
                    file.write(row, col, values)
                    if layer.label_set is not None:
                        tally.count(row, col, values[0])
    return [
        Piece(file.path, 0, 0, native.height, native.width, tuple(file.blocks)) for file in files
    ]


def _save_preview(
    scene: Scene, map_file: Path, label_set: LabelSet, tally: Tally, path: Path
) -> None:
    """Draws scene and map, decimated, into a PNG."""
    picture = scene_beside_map(scene, map_file, label_set, tally.pixels / tally.pixels.sum())
    mark = PngInfo()
    mark.add_text(OUTPUT_TAG, "preview")
    picture.save(path, pnginfo=mark)


def resolution_advice(
    grid: Grid,
    trained_at: float | None,
    remedy: str = "--resolution {meters:g} may give a better map",
) -> str | None:
    """A sentence for a scene whose pixels are more than twice or less than half the size that the model was trained at.

    Args:
        grid: The scene's own grid.
        trained_at: `ground_sampling_distance` of the model, in meters per pixel.
        remedy: What to do if the scene can be read at that resolution.

    Returns:
        The sentence; None if the pixels suit the model or a size is unknown.
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
        remedy = "such scenes are too different; use imagery of about {meters:g} m"
    elif (
        min(grid.rescaled(trained_at).height, grid.rescaled(trained_at).width)
        < _LEAST_SIDE_TO_RESAMPLE
    ):
        remedy = "at {meters:g} m this scene is too small to be mapped well; use a larger one"
    finding = f"the scene has pixels of {sides} m, but the model was trained at {trained_at:.3g} m"
    return f"{finding}: {remedy.format(meters=trained_at)}"
