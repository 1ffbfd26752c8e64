"""predict, convert, synth: maps, checkpoints, drawings."""

import argparse
import signal
from collections.abc import Iterator
from itertools import starmap
from typing import Any

from ..errors import InputError
from .arguments import (
    add_computing,
    add_overwrite,
    add_reading,
    coordinates,
    interrupt,
    numbers,
    options,
    say,
)

# Options, under the names that `prediction.predict` uses.
_FILES = ("confidence", "probabilities", "polygons", "preview")
_READING = ("bands", "resolution", "nodata", "palette_as_image", "aoi", "bbox", "remote")
_COMPUTING = (
    *("model", "window", "stride", "fast", "tta", "batch_size"),
    *("device", "dtype", "engine", "workers", "scheduler", "float_shares", "stac"),
)

_PREDICT = """\
Maps SCENE, any raster that GDAL reads, to a Cloud-Optimized GeoTIFF on the same grid.

Several scenes, a folder, a list (NAME.txt, a path per line) or STAC items (NAME.json, NAME.geojson with links to
files, or with --remote to URLs) are mapped into the folder MAP, each under its own name: north/a.jp2 becomes
MAP/north/a.tif, a STAC item MAP/ID.tif. With --remote, SCENE may also be a URL or a search of a STAC API,
stac:URL?collections=...&bbox=... A folder is searched for files that end in .jpg, .jpeg, .png, .tif, .tiff,
.vrt, .jp2 or .img. --confidence, --probabilities, --polygons (for GeoPackages) and --preview then name folders too.
Existing maps are skipped, so that the same command finishes a job that was interrupted; a scene that fails does not
stop the others."""


def add_predict(subparsers: Any) -> None:
    """Arguments of `crossearth predict`."""
    parser = subparsers.add_parser(
        "predict",
        help="map a scene, or many",
        description=_PREDICT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_predict)
    parser.add_argument(
        "scene", metavar="SCENE", nargs="+", help="raster of any type, with 1 or more bands"
    )
    parser.add_argument(
        "map",
        metavar="MAP",
        help="GeoTIFF to write, with class ids and 255 for no data; or a folder",
    )
    parser.add_argument("--model", metavar="DIR_OR_HUB_ID", help="model (default: bundled)")
    _add_files(parser)
    _add_tables(parser)
    _add_part(parser)
    parser.add_argument(
        "--bands",
        metavar="R,G,B",
        type=numbers,
        help="band numbers from 1, one per model channel",
    )
    add_reading(parser)
    parser.add_argument(
        "--resolution",
        metavar="METERS",
        type=float,
        help="read the scene at this pixel size; the map keeps the scene's own grid",
    )
    _add_windows(parser)
    dtype_help = "auto: bfloat16 if the device supports it, else float32 (default: float32)"
    add_computing(parser, ("auto", "float32", "bfloat16", "float16"), dtype_help)
    parser.add_argument(
        "--engine",
        choices=("onnxruntime", "openvino"),
        help="compute with it instead of PyTorch, on the CPU in float32",
    )
    who = parser.add_mutually_exclusive_group()
    who.add_argument(
        "--workers", metavar="N", type=int, help="share the work among N processes on this machine"
    )
    who.add_argument(
        "--scheduler", metavar="URL", help="use a Dask cluster, such as tcp://host:8786"
    )
    add_overwrite(parser)


def _add_files(parser: argparse.ArgumentParser) -> None:
    """Rasters and pictures to write beside the map."""
    parser.add_argument("--preview", metavar="PNG", help="also draw scene and map side by side")
    parser.add_argument(
        "--confidence", metavar="TIF", help="also write the top class's share of all scores"
    )
    parser.add_argument(
        "--probabilities",
        metavar="TIF",
        help="also write each class's share of all scores, one band per class",
    )
    parser.add_argument(
        "--float-shares",
        action="store_true",
        help="write both as float32, not as bytes in steps of 0.004",
    )


def _add_tables(parser: argparse.ArgumentParser) -> None:
    """Polygons and tables to write."""
    parser.add_argument(
        "--polygons",
        metavar="FILE",
        help="also write polygons with class and hectares: .gpkg (with a style for QGIS), .geojson, .parquet or .fgb",
    )
    parser.add_argument(
        "--min-area",
        metavar="M2",
        type=float,
        help="square meters; smaller polygons join their largest neighbor",
    )
    parser.add_argument(
        "--simplify",
        metavar="METERS",
        type=float,
        help="simplify polygons; neighbors keep a common border",
    )
    parser.add_argument(
        "--areas",
        metavar="TABLE",
        help="also write pixels, share and hectares of each class (.csv or .json)",
    )
    parser.add_argument(
        "--stac", action="store_true", help="also write a STAC item beside each map (.json)"
    )
    parser.add_argument(
        "--zones",
        metavar=("POLYGONS", "TABLE"),
        nargs=2,
        help="also write hectares of each class in each of these polygons, with their attributes",
    )


def _add_part(parser: argparse.ArgumentParser) -> None:
    """Which part of a scene to map, and how several scenes belong together."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--aoi",
        metavar="POLYGONS",
        help="map only the area in these polygons (any vector format and CRS)",
    )
    where.add_argument(
        "--bbox",
        metavar="W,S,E,N",
        type=coordinates,
        help="map only this box, in degrees (WGS84), whatever the CRS",
    )
    parser.add_argument(
        "--remote",
        action="store_true",
        help="allow scenes at URLs (https, s3, gs, az), read in pieces; without it, nothing is fetched",
    )
    parser.add_argument(
        "--as-one",
        action="store_true",
        help="map all scenes as tiles of one seamless map; they must have the same CRS, pixel size and bands",
    )
    parser.add_argument(
        "--asset",
        metavar="KEY",
        help="asset of STAC items to map (default: visual, or the only data)",
    )


def _add_windows(parser: argparse.ArgumentParser) -> None:
    """How windows slide over a scene."""
    parser.add_argument(
        "--window", metavar="N", type=int, help="side of the sliding window in pixels"
    )
    step = parser.add_mutually_exclusive_group()
    step.add_argument("--stride", metavar="N", type=int, help="step between windows in pixels")
    step.add_argument(
        "--fast",
        action="store_true",
        help="less overlap between windows: faster, but seams may show",
    )
    parser.add_argument(
        "--tta", action="store_true", help="average over flipped windows: slower, but steadier"
    )


def _predict(arguments: argparse.Namespace) -> None:
    from ..inference.memory import keep_freed_memory  # noqa: PLC0415
    from ..prediction.scene_list import list_tiles, names_many  # noqa: PLC0415

    signal.signal(signal.SIGTERM, interrupt)
    keep_freed_memory()
    if arguments.as_one:
        _predict_scene(list_tiles(arguments.scene, asset=arguments.asset), arguments)
    elif names_many(arguments.scene, arguments.map):
        _predict_many(arguments)
    else:
        _predict_one(arguments)


def _predict_one(arguments: argparse.Namespace) -> None:
    source = arguments.scene[0]
    if arguments.asset is not None:
        raise InputError(
            f"--asset is for STAC items that become maps in a folder, not for {source}; name an output folder"
        )
    _predict_scene(source, arguments)


def _predict_scene(scene: str | list[str], arguments: argparse.Namespace) -> None:
    from ..prediction import predict  # noqa: PLC0415

    report = predict(
        scene, arguments.map, **options(arguments, "scene", "map", "asset", "as_one"), tell=say
    )
    print(report.table())


def _predict_many(arguments: argparse.Namespace) -> None:
    from tqdm.auto import tqdm  # noqa: PLC0415

    from ..prediction.area_tables import AreaTables  # noqa: PLC0415
    from ..prediction.many_scenes import (  # noqa: PLC0415
        MapFolders,
        SceneResult,
        map_scenes,
        write_missing_items,
        write_tables,
    )
    from ..prediction.mapper import reading_of, scene_mapper  # noqa: PLC0415
    from ..prediction.outlining import Outlining  # noqa: PLC0415
    from ..prediction.scene_list import list_scenes  # noqa: PLC0415

    extras = {name: getattr(arguments, name) for name in _FILES}
    reading = reading_of(**{name: getattr(arguments, name) for name in _READING})
    computing = {name: getattr(arguments, name) for name in _COMPUTING}
    outlining = Outlining(arguments.min_area, arguments.simplify)
    outlining.check_asked(arguments.polygons and f"{arguments.polygons}/*.gpkg")
    outputs = [arguments.map, *(folder for folder in extras.values() if folder is not None)]
    scenes = list_scenes(arguments.scene, outputs, asset=arguments.asset, remote=arguments.remote)
    folders = MapFolders.checked(arguments.map, **extras)
    folders.check_inputs(scenes)
    items = folders.items(scenes) if arguments.stac else []
    tables = AreaTables.checked(
        arguments.areas,
        arguments.zones,
        others=[*(scene.source for scene in scenes), *items],
        overwrite=arguments.overwrite,
        replaces_own=True,
    )
    problems: list[str] = []
    advised: dict[str, list[str]] = {}  # advice -> the scenes that it applies to
    reports = {}
    with scene_mapper(reading=reading, **computing, outlining=outlining, tell=say) as mapper:
        if arguments.overwrite:
            waiting = scenes
        else:
            waiting = folders.unfinished(scenes, mapper.job)
        if len(waiting) < len(scenes):
            say(f"{len(scenes) - len(waiting)} of {len(scenes)} maps already exist and are skipped")
        results: Iterator[SceneResult] = iter(())
        if waiting:
            results = map_scenes(waiting, folders, mapper, overwrite=arguments.overwrite)
        for result in results:
            if result.report is not None:
                reports[result.scene.name] = result.report
                tqdm.write(f"{result.report.line()}\n  {result.summary}")
            if result.problem is not None:
                problems.append(result.problem)
            for sentence in filter(None, (*result.notices, result.skipped, result.advice)):
                advised.setdefault(sentence, []).append(result.scene.source)
        if arguments.stac:
            problems += write_missing_items(scenes, folders, mapper)
    if tables.files:
        problems += write_tables(tables, scenes, folders, reports, mapper.job)
    for sentence in [*starmap(_addressed, sorted(advised.items())), *problems]:
        say(sentence)
    if problems:
        raise InputError(
            f"{len(problems)} of {len(scenes)} scenes failed, see above; all other maps are written, and the same "
            "command tries these again"
        )


def _addressed(advice: str, sources: list[str]) -> str:
    """Advice with the scenes that it applies to, the first one by name."""
    others = {1: "", 2: " and another scene"}.get(len(sources), f" and {len(sources) - 1} others")
    return f"{min(sources)}{others}: {advice}"


def add_convert(subparsers: Any) -> None:
    """Arguments of `crossearth convert`."""
    parser = subparsers.add_parser(
        "convert",
        help="convert a checkpoint, or make a new model from DINOv2 or DINOv3",
        description="Converts a published CrossEarth checkpoint into a folder that from_pretrained loads. A pretrained "
        "ViT alone (DINOv2, DINOv3) becomes a new model with untrained adapters and head.",
    )
    parser.set_defaults(run=_convert)
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help=".pth or .safetensors, or ORG/NAME:FILE on the Hub; a ViT alone also as a folder or ORG/NAME",
    )
    parser.add_argument("output_dir", metavar="OUT_DIR", help="folder to write")
    parser.add_argument(
        "--backbone",
        metavar="FILE_OR_DIR",
        help="DINOv2 weights, for checkpoints that hold only adapters and head",
    )
    parser.add_argument(
        "--label-set", metavar="NAME", help="names of the classes, such as isprs or loveda"
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML or JSON with settings that shapes do not show: num_attention_heads (of the ViT), out_indices, "
        "group_norm_groups, image_size, window_stride, ground_sampling_distance, training_only",
    )
    parser.add_argument(
        "--preset", metavar="NAME", help="ViT alone: head and crop (default: large-512)"
    )
    parser.add_argument(
        "--backbone-blocks",
        metavar="N",
        type=int,
        dest="num_blocks",
        help="ViT alone: blocks to use (default: all)",
    )
    add_overwrite(parser, "an existing model folder")


def _convert(arguments: argparse.Namespace) -> None:
    from ..conversion import convert, describe  # noqa: PLC0415

    signal.signal(signal.SIGTERM, interrupt)
    report = convert(**options(arguments))
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
    parser.add_argument(
        "domain", metavar="DOMAIN", help="such as temperate-summer; a wrong name lists them all"
    )
    parser.add_argument(
        "scene", metavar="SCENE", help="GeoTIFF to write; the labels go to SCENE_labels.tif"
    )
    parser.add_argument(
        "--size", metavar="N", type=int, default=1024, help="side in pixels (default: 1024)"
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, default=0, help="which scene of the domain (default: 0)"
    )
    add_overwrite(parser)


def _synth(arguments: argparse.Namespace) -> None:
    from ..synthetic import generate_scene, write_scene  # noqa: PLC0415

    scene = generate_scene(arguments.domain, arguments.seed, arguments.size, arguments.size)
    image, labels = write_scene(scene, arguments.scene, overwrite=arguments.overwrite)
    print(f"wrote {image} and {labels}")
