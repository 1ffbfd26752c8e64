"""What the app does with one scene, and the server around it: `crossearth app` starts it."""

import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from ..command_line import WRONG_INPUT, complain
from ..errors import InputError
from ..inference.windows import WindowCounter
from ..prediction import MapReport, resolution_advice
from ..prediction import predict as map_scene
from ..raster.grid import Grid
from ..raster.polygons import Footprint, footprint, write_polygons
from .jobs import Jobs, repeat_forever
from .pictures import Layers, save_layers
from .settings import Model, check_address, load_models, parse, work_folder
from .uploads import Limits, admitted, notices, remove_old

_SWEEP = 60  # seconds from one search for old files to the next


@dataclass(frozen=True)
class Prediction:
    """What the page shows of one scene.

    Attributes:
        report: Classes, their pixels and hectares, and the files map.tif, confidence.tif and picture.png.
        polygons: The map as a GeoPackage.
        layers: Pictures of scene, map and confidence.
        place: Where the scene lies, or None.
        summary: What was read, in one line.
        advice: What would give a better map, or None.
        notices: What is odd about the scene, a sentence each.
    """

    report: MapReport
    polygons: Path
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
    on_windows: WindowCounter | None = None,
) -> Prediction:
    """Maps an uploaded file; needs no server.

    Args:
        upload: A GeoTIFF, JPEG or PNG under any name.
        model: A model and its processor.
        folder: An empty folder for the results.
        limits: Largest sizes; the usual ones where None.
        bands: Band numbers, counted from 1; by default as `Scene` chooses them.
        nodata: Values that mean no data, beside what the file declares; None to find undeclared fill, () for none.
        at_model_resolution: Whether to read the scene at the pixel size that the model learned.
        on_windows: Told the windows done and their total; what it raises ends the job.

    Raises:
        InputError: with a sentence for the page, for whatever is wrong with the upload.
    """
    config = model[0].config
    trained_at = config.ground_sampling_distance
    if at_model_resolution and trained_at is None:
        raise InputError("This model does not state its resolution; untick the box that asks for it.")
    if at_model_resolution:
        resolution = trained_at
    else:
        resolution = None
    channels, limits = config.num_channels, limits or Limits()
    with admitted(
        upload, folder, limits, bands=bands, nodata=nodata, resolution=resolution, num_channels=channels
    ) as scene:
        grid = scene.native_grid
        report = map_scene(
            scene,
            folder / "map.tif",
            model=model,
            confidence=folder / "confidence.tif",
            preview=folder / "picture.png",
            progress=False,
            tell=None,
            on_windows=on_windows,
        )
        write_polygons(folder / "map.tif", folder / "polygons.gpkg", grid, report.label_set)
        layers = save_layers(scene, folder / "map.tif", folder / "confidence.tif", report.label_set, folder)
        return Prediction(
            report,
            folder / "polygons.gpkg",
            layers,
            footprint(grid),
            scene.summary(),
            None if resolution else _advice(grid, trained_at, limits),
            notices(scene, with_fields=True),
        )


def _advice(grid: Grid, trained_at: float | None, limits: Limits) -> str | None:
    """A sentence for a scene whose pixels do not suit the model; names the box on the page only where it works."""
    remedy = "tick the box that reads it at that, and its map may be better"
    if trained_at is not None and grid.can_be_rescaled(trained_at):
        rescaled = grid.rescaled(trained_at)
        if rescaled.width * rescaled.height > limits.megapixels * 1e6:
            remedy = "at that it has too many pixels for this server; cut out a part of it"
    return resolution_advice(grid, trained_at, remedy)


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
    """Ends the server like Ctrl-C, also where a shell started it in the background."""
    raise KeyboardInterrupt
