"""`predict`, the way from a scene and the name of a model to a map; and what the scenes of a job share."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

from ..errors import InputError
from ..inference.loading import load_config, load_model, resolve_device
from ..inference.windows import WindowCounter, resolve_window
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..raster.scene import DEFAULT_READING, Reading, Scene
from .arguments import band_numbers, check_flags, check_model, check_paths, check_whole_numbers, nodata_values
from .map_report import MapReport
from .one_scene import MapOutputs, predict_map, resolution_advice
from .workers import ModelSource, SceneSource, Workers, cluster_workers, local_workers

Model = tuple[CrossEarthForSemanticSegmentation, CrossEarthImageProcessor]
"""What `inference.load_model` gives."""

Teller = Callable[[str], None]
"""Passes on a sentence for the person who waits for the map."""


def on_stderr(sentence: str) -> None:
    """Prints a sentence beside the results."""
    print(sentence, file=sys.stderr)


def predict(
    scene: str | os.PathLike[str] | Scene,
    map_path: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | Model | None = None,
    confidence: str | os.PathLike[str] | None = None,
    probabilities: str | os.PathLike[str] | None = None,
    preview: str | os.PathLike[str] | None = None,
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
    workers: int | None = None,
    scheduler: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
    tell: Teller | None = on_stderr,
    on_windows: WindowCounter | None = None,
) -> MapReport:
    """Maps a scene of any size, as `crossearth predict` does, to a GeoTIFF of class ids on the scene's own grid.

    The map needs a path: labels of a whole scene may not fit into memory. `predict_array` keeps small images there.

    Args:
        scene: A raster that GDAL reads; or an open `Scene`, which stays open and brings its own bands, nodata,
            palette_as_image and resolution.
        map_path: File to write, ends in .tif or .tiff: uint8 class ids, 255 without data.
        model: Folder or Hub id; or model and processor as `load_model` gives them. By default the bundled model.
        confidence: GeoTIFF to write too: the top score's share of all scores.
        probabilities: GeoTIFF to write too: a band per class, its share of all scores.
        preview: PNG to write too: the scene beside its map.
        bands: Band numbers from 1, as many as the model has channels; by default as their names and colors say.
        nodata: Value or values that mean no data, beside what the file declares; "none" for no others. By default fill
            that is not declared is looked for.
        palette_as_image: Whether a palette of few flat colors is a picture rather than a map of classes.
        resolution: Meters per pixel at which the model sees the scene; by default the scene's own.
        window, stride: Side of the sliding window and step between windows, in pixels; by default the model's.
        fast: Whether windows overlap less: faster, but seams may show.
        tta: Whether every window is also looked at flipped: slower, but steadier.
        batch_size: Windows per forward pass.
        device, dtype: As in `load_model`, for a model that is named.
        workers: Processes on this machine that share the work, for a model that is named.
        scheduler: Address of a Dask cluster that does, instead.
        overwrite: Whether files that exist are replaced.
        progress: Whether to show a progress bar, on a terminal or in a notebook; elsewhere lines on stderr.
        tell: Told how the scene is read, what is odd about it and what would give a better map; None for silence.
        on_windows: Told the windows done and their total; what it raises ends the job and leaves no file.

    Raises:
        TypeError: an argument of another type, in one sentence.
        InputError: a scene, model, path or option that does not fit, in one sentence; a full disk, too little memory.
    """
    path = scene.path if isinstance(scene, Scene) else scene
    extras = {"confidence": confidence, "probabilities": probabilities, "preview": preview}
    asked = {name: file for name, file in extras.items() if file is not None}
    check_paths(scene=path, map_path=map_path, **asked)
    check_flags(fast=fast, tta=tta, palette_as_image=palette_as_image, overwrite=overwrite, progress=progress)
    check_whole_numbers(window=window, stride=stride, batch_size=batch_size, workers=workers)
    check_model(model)
    outputs = MapOutputs.checked(path, map_path, overwrite=overwrite, **asked)
    reading = reading_of(bands=bands, resolution=resolution, nodata=nodata, palette_as_image=palette_as_image)
    channels = (model[0].config if isinstance(model, tuple) else load_config(model)).num_channels
    with _opened(scene, reading, channels) as opened:
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
            workers=workers,
            scheduler=scheduler,
            tell=tell,
        ) as mapper:
            advice = mapper.advice(opened)
            if advice is not None and tell is not None:
                tell(advice)
            return mapper.map(opened, outputs, progress=progress, on_windows=on_windows)


def _tell_of(scene: Scene, tell: Teller | None) -> None:
    """Says how a scene is read and what is odd about it; raises `EmptyScene` where no pixel has data."""
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
) -> Reading:
    """How scenes are read, from what a person gives; raises `TypeError` for what is not a number."""
    return Reading(band_numbers(bands), nodata_values(nodata), palette_as_image=palette_as_image, resolution=resolution)


@dataclass(frozen=True)
class SceneMapper:
    """What all scenes share, and where they are computed.

    Attributes:
        model, processor: As `inference.load_model` gives them; with workers only the configuration is used here.
        window, stride, batch_size, tta: As `prediction.one_scene` takes them.
        reading: How the scenes are read.
        workers: Who computes the parts; None for this process.
    """

    model: CrossEarthForSemanticSegmentation
    processor: CrossEarthImageProcessor
    window: int
    stride: int
    batch_size: int = 4
    tta: bool = False
    reading: Reading = DEFAULT_READING
    workers: Workers | None = None

    def open(self, source: str) -> Scene:
        """The scene at a path, which all workers see."""
        return replace(self.reading, num_channels=self.model.config.num_channels).open(source)

    def advice(self, scene: Scene) -> str | None:
        """What resolution would suit the model better, if none was asked for."""
        if scene.resolution is not None:
            return None
        return resolution_advice(scene.native_grid, self.model.config.ground_sampling_distance)

    def map(
        self, scene: Scene, outputs: MapOutputs, *, progress: bool = True, on_windows: WindowCounter | None = None
    ) -> MapReport:
        """Maps an open scene; raises as `prediction.one_scene` and `Workers.runner` do."""
        workers = self.workers
        return predict_map(
            scene,
            outputs,
            self.model,
            self.processor,
            window=self.window,
            stride=self.stride,
            batch_size=self.batch_size,
            tta=self.tta,
            progress=progress,
            on_windows=on_windows,
            run_parts=None if workers is None else workers.runner(SceneSource.of(scene)),
            device_type=None if workers is None else workers.device_type,
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
    workers: int | None = None,
    scheduler: str | None = None,
    tell: Teller | None = None,
) -> Iterator[SceneMapper]:
    """Model, settings and workers for the length of a block, of the arguments of `predict`.

    Raises:
        InputError: options that are none or exclude each other; as `load_model`, `resolve_window` and `workers` do.
    """
    if batch_size < 1:
        raise InputError(f"batch size {batch_size} must be at least 1")
    if fast and stride is not None:
        raise InputError(f"stride {stride} does not go with fast, which sets its own; leave one of them out")
    with _workers(model, device, dtype, workers, scheduler) as shared:
        if isinstance(model, tuple):
            network, processor = model
        else:
            place, precision = (device, dtype) if shared is None else ("cpu", shared.model.dtype)
            network, processor = load_model(model, device=place, dtype=precision)
        side, step = resolve_window(network.config, window, stride, fast=fast)
        if window is not None and side != window and tell is not None:
            short = f"below the least of {network.config.least_side} pixels"
            if window % 16:
                reason = "not a multiple of 16"
            else:
                reason = short
            tell(f"window {window} is {reason}: {side} is used")
        yield SceneMapper(
            network, processor, side, step, batch_size=batch_size, tta=tta, reading=reading, workers=shared
        )


def _opened(scene: str | os.PathLike[str] | Scene, reading: Reading, channels: int) -> AbstractContextManager[Scene]:
    """The scene for the length of a block; one that a person has opened stays open after it."""
    if not isinstance(scene, Scene):
        return replace(reading, num_channels=channels).open(scene)
    if reading != DEFAULT_READING:
        raise InputError(
            f"{scene.path} is open already, and how it is read was said then; give bands, nodata, palette_as_image and "
            "resolution to Scene"
        )
    if scene.num_channels != channels:
        raise InputError(
            f"{scene.path} was opened with {scene.num_channels} channels and the model takes {channels}; open it with "
            f"num_channels={channels}"
        )
    return nullcontext(scene)


def _workers(
    model: str | os.PathLike[str] | Model | None, device: str, dtype: str, count: int | None, scheduler: str | None
) -> AbstractContextManager[Workers | None]:
    """Whoever shares the work, for the length of a block; None where it is this process alone."""
    if count is None and scheduler is None:
        return nullcontext()
    if count is not None and scheduler is not None:
        raise InputError(f"{count} workers do not go with the scheduler {scheduler}; leave one of them out")
    if isinstance(model, tuple):
        raise InputError("workers load the model themselves; give its folder or Hub id instead of a loaded one")
    if model is None:
        name = None
    else:
        name = os.fspath(model)
    source = ModelSource(os.path.abspath(name) if name is not None and os.path.isdir(name) else name, device, dtype)
    if scheduler is not None:
        return cluster_workers(scheduler, source)
    resolve_device(device)  # a wrong one is told before processes start
    return local_workers(count or 0, source)
