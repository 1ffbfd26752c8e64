"""What the app does with one scene, and its server, which `crossearth app` starts."""

import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from ..command_line import WRONG_INPUT, complain
from ..errors import InputError
from ..inference.windows import WindowCounter
from ..prediction import MapReport
from ..prediction import predict as map_scene
from ..prediction.mapper import reading_of
from ..raster.polygons import Footprint, footprint, write_polygons
from .downloads import write_archive
from .growth import BATCH_SIZE, Growth
from .jobs import Jobs, repeat_forever
from .looks import advice
from .pictures import Layers, save_layers
from .settings import Model, check_address, load_models, parse, work_folder
from .uploads import Limits, admitted, notices, remove_old

_SWEEP = 60  # seconds from one search for old files to the next


@dataclass(frozen=True)
class Prediction:
    """What the page shows about one scene.

    Attributes:
        report: Classes, their pixels and hectares, and the files: map, confidence and picture.
        polygons: The map as a GeoPackage.
        archive: All of these files in a ZIP.
        layers: Pictures of scene, map and confidence.
        place: Where the scene lies, or None.
        summary: How the scene was read, in one line.
        advice: What would give a better map, or None.
        notices: Oddities of the scene, one sentence each.
    """

    report: MapReport
    polygons: Path
    archive: Path
    layers: Layers
    place: Footprint | None
    summary: str
    advice: str | None
    notices: tuple[str, ...]


def predict(
    upload: str | Path | None,
    model: Model,
    folder: Path,
    *,
    limits: Limits | None = None,
    bands: Sequence[int] | None = None,
    nodata: Sequence[float] | None = None,
    at_model_resolution: bool = False,
    name: str | None = None,
    on_windows: WindowCounter | None = None,
    on_growth: Callable[[Growth], None] | None = None,
) -> Prediction:
    """Maps an uploaded file, also without a server.

    Args:
        upload: A GeoTIFF, JPEG or PNG under any name.
        model: A model and its processor.
        folder: An empty folder for the results.
        limits: Largest sizes; the defaults if None.
        bands: Band numbers, counted from 1; by default as `Scene` chooses them.
        nodata: Values that mean no data, beside what the file declares; None to find undeclared fill, () for none.
        at_model_resolution: Whether to read the scene at the pixel size that the model learned.
        name: Start of the names of the files; they are map.tif and so on if None.
        on_windows: Called with the number of finished windows and their total; an exception in it ends the job.
        on_growth: Called with the growing map, once and before its first window.

    Raises:
        InputError: Something is wrong with the upload. The message is a sentence for the page.
    """
    config = model[0].config
    trained_at = config.ground_sampling_distance
    if at_model_resolution and trained_at is None:
        raise InputError(
            "This model does not state its resolution; clear the checkbox for that resolution."
        )
    limits = limits or Limits()
    reading = reading_of(bands=bands, nodata=nodata)
    reading = replace(reading, num_channels=config.num_channels)
    if at_model_resolution:
        reading = replace(reading, resolution=trained_at)
    if name is None:
        start = ""
    else:
        start = f"{name}-"
    files = folder / "files"
    map_file, confidence = files / f"{start}map.tif", files / f"{start}confidence.tif"
    polygons, archive = files / f"{start}polygons.gpkg", folder / f"{name or 'map'}.zip"
    with admitted(upload, folder, limits, reading) as scene:
        scene.check_has_data()
        files.mkdir()
        grid, growth = scene.native_grid, Growth(scene.grid, config)
        if on_growth is not None:
            on_growth(growth)

        def count(done: int, total: int) -> None:
            growth.place()
            if on_windows is not None:
                on_windows(done, total)

        report = map_scene(
            scene,
            map_file,
            model=(growth.watched(model[0]), model[1]),
            confidence=confidence,
            preview=files / f"{start}picture.png",
            batch_size=BATCH_SIZE,
            progress=False,
            tell=None,
            on_windows=count,
        )
        write_polygons(map_file, polygons, grid, report.label_set)
        write_archive(files, archive)
        layers = save_layers(scene, map_file, confidence, folder)
        return Prediction(
            report,
            polygons,
            archive,
            layers,
            footprint(grid),
            scene.summary(),
            None if at_model_resolution else advice(grid, trained_at, limits),
            (*notices(scene, with_fields=True), *report.doubts),
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Serves the page until Ctrl-C or SIGTERM, then empties the work folder; returns the exit code."""
    arguments = parse(argv)
    from .page import Handlers, start  # noqa: PLC0415 - gradio takes seconds to import

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    try:
        check_address(arguments)
        with work_folder(arguments.work_dir) as folders:
            models = load_models(arguments.model, arguments.device)
            limits = Limits(arguments.max_megapixels, arguments.max_megabytes)
            results = folders.served / "results"
            with closing(Jobs(results, keep=60 * arguments.keep_minutes)) as jobs:

                def sweep() -> None:
                    jobs.sweep()
                    remove_old(folders.served, jobs.keep, spared=results)

                repeat_forever(sweep, min(_SWEEP, jobs.keep))
                start(Handlers(predict, models, jobs, limits), folders, arguments).block_thread()
    except InputError as error:
        complain("crossearth app", str(error))
        return WRONG_INPUT
    except KeyboardInterrupt:
        print("crossearth app: stopped", file=sys.stderr)
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ends the server like Ctrl-C, also if a shell started it in the background."""
    raise KeyboardInterrupt
