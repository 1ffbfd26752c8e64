"""predict, convert, synth: maps, checkpoints, drawings."""

import argparse
import signal
from itertools import starmap
from typing import Any

from ..errors import InputError
from .arguments import add_reading, interrupt, numbers, say

# Options by the names that `prediction.predict` knows them by.
_FILES = ("confidence", "probabilities", "preview")
_READING = ("bands", "resolution", "nodata", "palette_as_image")
_COMPUTING = (
    *("model", "window", "stride", "fast", "tta", "batch_size"),
    *("device", "dtype", "workers", "scheduler"),
)

_PREDICT = """\
Maps SCENE, any raster that GDAL reads, to a Cloud-Optimized GeoTIFF on the same grid.

Several scenes, a folder, a list (NAME.txt, a path per line) or STAC items (NAME.json, NAME.geojson with links to
files on this machine) are mapped into the folder MAP, each under its own name: north/a.jp2 of a folder to
MAP/north/a.tif, a STAC item to MAP/ID.tif. A folder is searched for files that end in .jpg, .jpeg, .png, .tif, .tiff,
.vrt, .jp2 or .img. --confidence, --probabilities and --preview then name folders too. Existing maps are skipped, so
that the same command finishes a job that was interrupted; a scene that fails does not stop the others."""


def add_predict(subparsers: Any) -> None:
    """Arguments of `crossearth predict`."""
    parser = subparsers.add_parser(
        "predict",
        help="map a scene, or many",
        description=_PREDICT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_predict)
    parser.add_argument("scene", metavar="SCENE", nargs="+", help="raster with 1 or more bands, of any type")
    parser.add_argument("map", metavar="MAP", help="GeoTIFF to write: class ids, 255 without data; or a folder")
    parser.add_argument("--model", metavar="DIR_OR_HUB_ID", help="default: the bundled model")
    parser.add_argument("--preview", metavar="PNG", help="also draw scene and map side by side")
    parser.add_argument("--confidence", metavar="TIF", help="also write the top score's share of all scores")
    parser.add_argument("--probabilities", metavar="TIF", help="also write every class's share of all scores, as bands")
    parser.add_argument("--asset", metavar="KEY", help="asset of STAC items to map (default: visual, or the only data)")
    parser.add_argument(
        "--bands", metavar="R,G,B", type=numbers, help="band numbers from 1, as many as the model has channels"
    )
    add_reading(parser)
    parser.add_argument("--resolution", metavar="METERS", type=float, help="resample to this pixel size and back")
    parser.add_argument("--window", metavar="N", type=int, help="side of the sliding window in pixels")
    step = parser.add_mutually_exclusive_group()
    step.add_argument("--stride", metavar="N", type=int, help="step between windows in pixels")
    step.add_argument("--fast", action="store_true", help="less overlap of windows: faster, seams less hidden")
    parser.add_argument("--tta", action="store_true", help="also look at every window flipped: slower, steadier")
    parser.add_argument("--batch-size", metavar="N", type=int, default=4, help="windows at a time (default: 4)")
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="float32",
        help="auto: bfloat16 where the device computes in it, else float32 (default: float32)",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--workers", metavar="N", type=int, help="share the work among N processes on this machine")
    where.add_argument("--scheduler", metavar="URL", help="or among a Dask cluster, such as tcp://host:8786")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


def _predict(arguments: argparse.Namespace) -> None:
    from ..inference.memory import keep_freed_memory  # noqa: PLC0415
    from ..prediction.scene_list import names_many  # noqa: PLC0415

    signal.signal(signal.SIGTERM, interrupt)
    keep_freed_memory()
    if names_many(arguments.scene, arguments.map):
        _predict_many(arguments)
    else:
        _predict_one(arguments)


def _predict_one(arguments: argparse.Namespace) -> None:
    from ..prediction import predict  # noqa: PLC0415

    source = arguments.scene[0]
    if arguments.asset is not None:
        raise InputError(f"--asset chooses among STAC items, and {source} is to be one map; name an output folder")
    options = {name: getattr(arguments, name) for name in (*_FILES, *_READING, *_COMPUTING, "overwrite")}
    print(predict(source, arguments.map, **options, tell=say).table())


def _predict_many(arguments: argparse.Namespace) -> None:
    from tqdm.auto import tqdm  # noqa: PLC0415

    from ..prediction.many_scenes import MapFolders, map_scenes  # noqa: PLC0415
    from ..prediction.mapper import reading_of, scene_mapper  # noqa: PLC0415
    from ..prediction.scene_list import list_scenes  # noqa: PLC0415

    extras = {name: getattr(arguments, name) for name in _FILES}
    reading = reading_of(**{name: getattr(arguments, name) for name in _READING})
    computing = {name: getattr(arguments, name) for name in _COMPUTING}
    outputs = [arguments.map, *(folder for folder in extras.values() if folder is not None)]
    scenes = list_scenes(arguments.scene, outputs, asset=arguments.asset)
    folders = MapFolders.checked(arguments.map, **extras)
    folders.check_inputs(scenes)
    if arguments.overwrite:
        waiting = scenes
    else:
        waiting = folders.unfinished(scenes)
    if len(waiting) < len(scenes):
        say(f"{len(scenes) - len(waiting)} of {len(scenes)} maps already exist and are skipped")
    if not waiting:
        return
    problems: list[str] = []
    advised: dict[str, list[str]] = {}  # advice -> the scenes that it holds for
    with scene_mapper(reading=reading, **computing, tell=say) as mapper:
        for result in map_scenes(waiting, folders, mapper, overwrite=arguments.overwrite):
            if result.report is not None:
                tqdm.write(f"{result.report.line()}\n  {result.summary}")
            if result.problem is not None:
                problems.append(result.problem)
            for sentence in result.notices:
                advised.setdefault(sentence, []).append(result.scene.source)
            if result.skipped is not None:
                advised.setdefault(result.skipped, []).append(result.scene.source)
            if result.advice is not None:
                advised.setdefault(result.advice, []).append(result.scene.source)
    for sentence in [*starmap(_addressed, sorted(advised.items())), *problems]:
        say(sentence)
    if problems:
        raise InputError(
            f"{len(problems)} of {len(scenes)} scenes failed, see above; all other maps are written, and the same "
            "command tries these again"
        )


def _addressed(advice: str, sources: list[str]) -> str:
    """Advice with the scenes that it holds for, the first by name."""
    others = {1: "", 2: " and another one"}.get(len(sources), f" and {len(sources) - 1} others")
    return f"{min(sources)}{others}: {advice}"


def add_convert(subparsers: Any) -> None:
    """Arguments of `crossearth convert`."""
    parser = subparsers.add_parser(
        "convert",
        help="convert a published checkpoint",
        description="Converts a published CrossEarth checkpoint into a folder that from_pretrained loads.",
    )
    parser.set_defaults(run=_convert)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help=".pth or .safetensors, or ORG/NAME:FILE on the Hub")
    parser.add_argument("output_dir", metavar="OUT_DIR", help="folder to write")
    parser.add_argument("--backbone", metavar="FILE_OR_DIR", help="DINOv2, for checkpoints of adapters and head only")
    parser.add_argument("--label-set", metavar="NAME", help="names of the classes, such as isprs or loveda")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML or JSON with what shapes cannot show: num_attention_heads (of the ViT), out_indices, "
        "group_norm_groups, image_size, window_stride, ground_sampling_distance, training_only",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a model folder that exists")


def _convert(arguments: argparse.Namespace) -> None:
    from ..conversion import convert, describe  # noqa: PLC0415

    signal.signal(signal.SIGTERM, interrupt)
    options = {name: value for name, value in vars(arguments).items() if name != "run"}
    report = convert(**options)
    print(describe(report))
    print(f"Wrote {report.output_dir}")


def add_synth(subparsers: Any) -> None:
    """Arguments of `crossearth synth`."""
    parser = subparsers.add_parser(
        "synth",
        help="draw a labeled SynthEarth scene",
        description="Draws a SynthEarth scene with its labels: for demos, tests and first steps in training.",
    )
    parser.set_defaults(run=_synth)
    parser.add_argument("domain", metavar="DOMAIN", help="such as temperate-summer; a wrong one lists them all")
    parser.add_argument("scene", metavar="SCENE", help="GeoTIFF to write; the labels go to SCENE_labels.tif")
    parser.add_argument("--size", metavar="N", type=int, default=1024, help="side in pixels (default: 1024)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="which scene of the domain (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


def _synth(arguments: argparse.Namespace) -> None:
    from ..synthetic import generate_scene, write_scene  # noqa: PLC0415

    scene = generate_scene(arguments.domain, arguments.seed, arguments.size, arguments.size)
    image, labels = write_scene(scene, arguments.scene, overwrite=arguments.overwrite)
    print(f"wrote {image} and {labels}")
