"""`predict`, from a scene and a model to a map, and the settings that the scenes of a job share."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ..arguments import (
    as_keywords,
    band_numbers,
    check_flags,
    check_model,
    check_numbers,
    check_pair,
    check_paths,
    check_whole_numbers,
    coordinates,
    nodata_values,
)
from ..errors import InputError
from ..export.engines import check_engine, engine_network
from ..inference.loading import load_config, load_model
from ..inference.model_digest import model_digest
from ..inference.windows import Network, WindowCounter, resolve_window
from ..labels import label_set_of
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..raster.area import Area, box_area, read_area
from ..raster.remote import url_path
from ..raster.scene import DEFAULT_READING, Reading, Scene
from .area_tables import AreaRows, AreaTables
from .job_identity import map_job
from .map_report import MapReport
from .mosaics import scene_or_mosaic
from .one_scene import MapOutputs, predict_map, resolution_advice
from .outlining import AS_THEY_ARE, Outlining
from .stac_item import check_item, item_path, write_item
from .workers import SceneSource, Workers, shared_workers

Model = tuple[CrossEarthForSemanticSegmentation, CrossEarthImageProcessor]
"""A model and its processor, as `inference.load_model` returns them."""

Teller = Callable[[str], None]
"""Receives sentences for the person who waits for the map."""


def on_stderr(sentence: str) -> None:
    """Prints a sentence to stderr, with keyword arguments in place of flags."""
    print(as_keywords(sentence), file=sys.stderr)


def predict(
    scene: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Scene,
    map_path: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | Model | None = None,
    confidence: str | os.PathLike[str] | None = None,
    probabilities: str | os.PathLike[str] | None = None,
    float_shares: bool = False,
    polygons: str | os.PathLike[str] | None = None,
    min_area: float | None = None,
    simplify: float | None = None,
    preview: str | os.PathLike[str] | None = None,
    aoi: str | os.PathLike[str] | None = None,
    bbox: Sequence[float] | None = None,
    areas: str | os.PathLike[str] | None = None,
    zones: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
    remote: bool = False,
    stac: bool = False,
    bands: Sequence[int] | None = None,
    nodata: Sequence[float] | float | str | None = None,
    palette_as_image: bool = False,
    resolution: float | None = None,
    window: int | None = None,
    stride: int | None = None,
    fast: bool = False,
    tta: bool = False,
    batch_size: int = 4,
    device: str = "auto",
    dtype: str = "float32",
    engine: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
    tell: Teller | None = on_stderr,
    on_windows: WindowCounter | None = None,
) -> MapReport:
    """Maps a scene of any size, as `crossearth predict` does, to a GeoTIFF of class ids on the scene's own grid.

    The map needs a path, because labels of a whole scene may not fit into memory. For small images in memory, see
    `predict_array`.

    Args:
        scene: A raster that GDAL reads; a list of rasters, the tiles of one mosaic, of which the later one with data
            is on top where they overlap; or an open `Scene`, which stays open and has its own bands, nodata,
            palette_as_image, resolution and area.
        map_path: GeoTIFF to write, with uint8 class ids and 255 for no data; ends in .tif or .tiff.
        model: Folder or Hub id; or model and processor as `load_model` returns them. By default the bundled model.
        confidence: Another GeoTIFF to write, with the share of the top score in all scores, in steps of 0.004: bytes
            from 0 to 250 with that scale in their metadata, 255 for no data.
        probabilities: Another GeoTIFF to write, with the share of each class in all scores, one band per class, in the
            same steps.
        float_shares: Whether these two are float32 from 0 to 1, with NaN for no data.
        polygons: File to write with the map as polygons that touch without gaps, each with its class, and its
            hectares; .gpkg (with a style for QGIS), .geojson, .parquet or .fgb.
        min_area: Square meters; smaller regions join their largest neighbor, in the polygons only.
        simplify: Meters by which the polygons are simplified; neighbors keep a common border.
        preview: PNG to write, with the scene beside its map.
        aoi: File of polygons, of any format and CRS: only windows that touch them are computed, and the map has no data
            outside. Within them it is the map of the whole scene. `|layername=NAME` behind it names one of several
            layers.
        bbox: The same for a box: west, south, east and north in degrees on WGS84, whatever the scene's CRS.
        areas: Table to write, .csv or .json, with pixels, share and hectares of each class.
        zones: File of polygons, of any format and CRS, and a table to write, .csv or .json, with a row for each polygon
            that touches the scene: its attributes and hectares of each class.
        remote: Whether the scene may be a URL (https, http, s3, gs, az), which GDAL reads in pieces; credentials come
            from GDAL's environment. Nothing is fetched otherwise.
        stac: Whether to write a STAC item beside the map, which ends in .json.
        bands: Band numbers from 1, as many as the model has channels; by default chosen by names and colors.
        nodata: Value or values that mean no data, in addition to those that the file declares; "none" for no more. By
            default undeclared fill is searched for.
        palette_as_image: Whether a palette of few flat colors is a picture, not a map of classes.
        resolution: Meters per pixel at which the model reads the scene; by default the scene's own.
        window, stride: Side of the sliding window and step between windows, in pixels; by default the model's.
        fast: Whether windows overlap less, which is faster but may show seams.
        tta: Whether to average over flipped windows, which is slower but steadier.
        batch_size: Windows per forward pass.
        device, dtype: As in `load_model`; not for a loaded model.
        engine: "onnxruntime" or "openvino" to compute in PyTorch's place, on the processor, in float32.
        workers: Number of processes on this machine that share the work; not for a loaded model.
        scheduler: Address of a Dask cluster to use instead.
        overwrite: Whether existing files are replaced.
        progress: Whether to show a progress bar on a terminal or in a notebook, and lines on stderr elsewhere.
        tell: Receives sentences on how the scene is read, its oddities, and what would give a better map; None for
            silence.
        on_windows: Called with the number of finished windows and their total; an exception in it ends the job without
            files.

    Raises:
        TypeError: An argument has another type; the message is one sentence.
        InputError: The scene, the model, a path or an option is invalid, the disk is full, or memory is too small; the
            message is one sentence.
    """
    extras = {
        "confidence": confidence,
        "probabilities": probabilities,
        "polygons": polygons,
        "preview": preview,
    }
    asked = {name: file for name, file in extras.items() if file is not None}
    vectors = {"aoi": aoi, "areas": areas}
    if zones is not None:
        check_pair(zones=zones)
        vectors |= {"zones": zones[0], "zones[1]": zones[1]}
    named = {name: file for name, file in vectors.items() if file is not None}
    check_paths(map_path=map_path, **asked, **named)
    check_flags(float_shares=float_shares, fast=fast, tta=tta, palette_as_image=palette_as_image)
    check_flags(overwrite=overwrite, progress=progress, remote=remote, stac=stac)
    check_whole_numbers(window=window, stride=stride, batch_size=batch_size, workers=workers)
    sizes = {"min_area": min_area, "simplify": simplify}
    check_numbers(**{name: size for name, size in sizes.items() if size is not None})
    check_model(model)
    outlining = Outlining(min_area, simplify)
    outlining.check_asked(polygons)
    reading = reading_of(
        bands=bands,
        resolution=resolution,
        nodata=nodata,
        palette_as_image=palette_as_image,
        aoi=aoi,
        bbox=bbox,
        remote=remote,
    )
    with ExitStack() as stack:
        source = stack.enter_context(scene_or_mosaic(scene, map_path, reading.nodata))
        path = source.path if isinstance(source, Scene) else source
        outputs = MapOutputs.checked(path, map_path, overwrite=overwrite, **asked)
        others = [file for file in (path, aoi) if file is not None] + outputs.files
        if stac:
            others.append(item_path(outputs.map))
        tables = AreaTables.checked(areas, zones, others=others, overwrite=overwrite)
        config = model[0].config if isinstance(model, tuple) else load_config(model)
        opened = stack.enter_context(_opened(source, reading, config.num_channels))
        outlining.check_place(outputs.paths.get("polygons"), opened.native_grid, opened.path)
        tables.check_place(opened.native_grid, opened.path)
        _tell_of(opened, tell)
        with scene_mapper(
            model,
            reading,
            window=window,
            stride=stride,
            fast=fast,
            tta=tta,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            engine=engine,
            workers=workers,
            scheduler=scheduler,
            float_shares=float_shares,
            outlining=outlining,
            stac=stac,
            tell=tell,
        ) as mapper:
            advice = mapper.advice(opened)
            if advice is not None and tell is not None:
                tell(advice)
            report = mapper.map(opened, outputs, progress=progress, on_windows=on_windows)
    if tables.files:
        name = outputs.map.stem if source is not scene else Path(url_path(os.fspath(path))).stem
        rows = AreaRows(tables)
        rows.add(name, outputs.map, report)
        rows.write()
    return replace(report, files=(*report.files, *tables.files))


def _tell_of(scene: Scene, tell: Teller | None) -> None:
    """Tells how a scene is read, and its oddities; raises `EmptyScene` if no pixel has data."""
    if tell is not None:
        tell(scene.summary())
    scene.check_has_data()
    if tell is not None:
        for notice in scene.notices():
            tell(str(notice))


def reading_of(
    *,
    bands: Sequence[int] | None = None,
    resolution: float | None = None,
    nodata: Sequence[float] | float | str | None = None,
    palette_as_image: bool = False,
    aoi: str | os.PathLike[str] | None = None,
    bbox: Sequence[float] | None = None,
    remote: bool = False,
) -> Reading:
    """How scenes are read, from a person's arguments; raises `TypeError` for values of another type.

    Raises:
        InputError: As `read_area` and `box_area`; or both an aoi and a bbox are given.
    """
    return Reading(
        band_numbers(bands),
        nodata_values(nodata),
        palette_as_image=palette_as_image,
        resolution=resolution,
        area=_area(aoi, bbox),
        remote=remote,
    )


def _area(aoi: str | os.PathLike[str] | None, bbox: Sequence[float] | None) -> Area | None:
    """The area that a person asks for."""
    if aoi is not None and bbox is not None:
        raise InputError(f"--aoi {aoi} cannot be combined with --bbox; leave one of them out")
    if aoi is not None:
        return read_area(aoi)
    if bbox is not None:
        return box_area(coordinates(bbox))
    return None


@dataclass(frozen=True)
class SceneMapper:
    """Model and settings that all scenes share.

    Attributes:
        model, processor: As `inference.load_model` returns them, or an engine for the model; with workers only the
            configuration is used here.
        window, stride, batch_size, tta: As in `prediction.one_scene`.
        reading: How the scenes are read.
        workers: Workers that compute the parts; None for this process.
        float_shares: Whether confidence and probabilities are float32 rather than bytes.
        outlining: How polygons are drawn.
        stac: Whether a STAC item is written beside each map.
        engine: Name of the engine; None for PyTorch.
    """

    model: Network
    processor: CrossEarthImageProcessor
    window: int
    stride: int
    batch_size: int = 4
    tta: bool = False
    reading: Reading = DEFAULT_READING
    workers: Workers | None = None
    float_shares: bool = False
    outlining: Outlining = AS_THEY_ARE
    stac: bool = False
    engine: str | None = None

    def open(self, source: str) -> Scene:
        """Opens the scene at a path that all workers can read."""
        return replace(self.reading, num_channels=self.model.config.num_channels).open(source)

    def advice(self, scene: Scene) -> str | None:
        """Advice on a resolution that suits the model better, if none was requested."""
        if scene.resolution is not None:
            return None
        return resolution_advice(scene.native_grid, self.model.config.ground_sampling_distance)

    def map(
        self,
        scene: Scene,
        outputs: MapOutputs,
        *,
        progress: bool = True,
        on_windows: WindowCounter | None = None,
    ) -> MapReport:
        """Maps an open scene; raises as `prediction.one_scene`, `Workers.runner` and `stac_item`."""
        if self.stac:
            check_item(outputs.map)
        workers = self.workers
        report = predict_map(
            scene,
            outputs,
            self.model,
            self.processor,
            window=self.window,
            stride=self.stride,
            batch_size=self.batch_size,
            tta=self.tta,
            float_shares=self.float_shares,
            outlining=self.outlining,
            progress=progress,
            on_windows=on_windows,
            run_parts=None if workers is None else workers.runner(SceneSource.of(scene)),
            device_type=None if workers is None else workers.device_type,
            engine=self.engine,
        )
        if not self.stac:
            return report
        return replace(report, files=(*report.files, self.write_item(scene, outputs)))

    def write_item(self, scene: Scene, outputs: MapOutputs) -> Path:
        """Writes the STAC item of a finished map of an open scene; raises as `stac_item`."""
        name = (
            Path(str(getattr(self.model.config, "_name_or_path", "") or "")).name
            or "without a name"
        )
        label_set = label_set_of(self.model.config)
        return write_item(outputs.map, scene, label_set, outputs.files, name)

    @cached_property
    def job(self) -> str:
        """What decides the classes of its maps besides their scenes, as `map_job` has it."""
        return map_job(
            self.reading,
            self.model,
            model_digest(self.model, self.processor),
            window=self.window,
            stride=self.stride,
            tta=self.tta,
            engine=self.engine,
        )


@contextmanager
def scene_mapper(
    model: str | os.PathLike[str] | Model | None,
    reading: Reading,
    *,
    window: int | None = None,
    stride: int | None = None,
    fast: bool = False,
    tta: bool = False,
    batch_size: int = 4,
    device: str = "auto",
    dtype: str = "float32",
    engine: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    float_shares: bool = False,
    outlining: Outlining = AS_THEY_ARE,
    stac: bool = False,
    tell: Teller | None = None,
) -> Iterator[SceneMapper]:
    """Model, settings and workers for the duration of a block, from the arguments of `predict`.

    Raises:
        InputError: Options are invalid or exclude each other; or as in `load_model`, `resolve_window` and `workers`.
    """
    if batch_size < 1:
        raise InputError(f"batch size {batch_size} must be at least 1")
    if fast and stride is not None:
        raise InputError(
            f"stride {stride} cannot be combined with fast, which sets its own; leave one of them out"
        )
    if engine is not None:
        check_engine(engine)
        if scheduler is not None:
            raise InputError(
                f"the engine {engine} cannot be combined with --scheduler; leave it out"
            )
        if device == "auto":
            device = "cpu"
    with shared_workers(model, device, dtype, workers, scheduler, engine) as shared:
        if isinstance(model, tuple):
            network, processor = model
        else:
            place, precision = (device, dtype) if shared is None else ("cpu", shared.model.dtype)
            network, processor = load_model(model, device=place, dtype=precision)
        computing: Network = network
        if engine is not None:  # also with workers, which then find the graph in the cache
            computing = engine_network(network, processor, engine, tell=tell)
        side, step = resolve_window(network.config, window, stride, fast=fast)
        if window is not None and side != window and tell is not None:
            if window % 16:
                reason = "not a multiple of 16"
            else:
                reason = f"below the least of {network.config.least_side} pixels"
            tell(f"window {window} is {reason}: {side} is used")
        yield SceneMapper(
            computing,
            processor,
            side,
            step,
            batch_size=batch_size,
            tta=tta,
            reading=reading,
            workers=shared,
            float_shares=float_shares,
            outlining=outlining,
            stac=stac,
            engine=engine,
        )


def _opened(
    scene: str | os.PathLike[str] | Scene, reading: Reading, channels: int
) -> AbstractContextManager[Scene]:
    """The scene for the duration of a block; a scene that a person has opened stays open."""
    if not isinstance(scene, Scene):
        return replace(reading, num_channels=channels).open(scene)
    if reading != DEFAULT_READING:
        raise InputError(
            f"{scene.path} is already open, so its reading is fixed; give bands, nodata, palette_as_image, "
            "resolution, area and remote to Scene"
        )
    if scene.num_channels != channels:
        raise InputError(
            f"{scene.path} was opened with {scene.num_channels} channels, but the model takes {channels}; open it with "
            f"num_channels={channels}"
        )
    return nullcontext(scene)
