"""predict, convert, synth: maps, checkpoints, drawings."""

import argparse
import signal
from typing import Any

from ..errors import InputError
from .arguments import interrupt, numbers, say


def add_predict(subparsers: Any) -> None:
    """Arguments of `crossearth predict`."""
    parser = subparsers.add_parser(
        "predict",
        help="map a scene",
        description="Maps SCENE, any raster that GDAL reads, to a Cloud-Optimised GeoTIFF on the same grid.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_predict)
    parser.add_argument("scene", metavar="SCENE", help="raster with 1 or more bands, of any type")
    parser.add_argument("map", metavar="MAP", help="GeoTIFF to write: class ids, 255 without data")
    parser.add_argument("--model", metavar="DIR_OR_HUB_ID", help="default: the model that comes with a clone")
    parser.add_argument("--preview", metavar="PNG", help="also draw scene and map side by side")
    parser.add_argument("--confidence", metavar="TIF", help="also write the top score's share of all scores")
    parser.add_argument("--bands", metavar="R,G,B", type=numbers, help="one or three band numbers, from 1")
    parser.add_argument("--resolution", metavar="METRES", type=float, help="resample to this pixel size and back")
    parser.add_argument("--window", metavar="N", type=int, help="side of the sliding window in pixels")
    parser.add_argument("--stride", metavar="N", type=int, help="step between windows in pixels")
    parser.add_argument("--batch-size", metavar="N", type=int, default=4, help="windows at a time (default: 4)")
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


def _predict(arguments: argparse.Namespace) -> None:
    from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415

    from ..geotiff import Scene  # noqa: PLC0415
    from ..inference import load_model, resolve_window  # noqa: PLC0415
    from ..mapping import MapOutputs, predict_map  # noqa: PLC0415

    signal.signal(signal.SIGTERM, interrupt)
    disable_progress_bar()
    if arguments.batch_size < 1:
        raise InputError(f"batch size {arguments.batch_size} must be at least 1")
    outputs = MapOutputs.checked(
        arguments.scene,
        arguments.map,
        confidence=arguments.confidence,
        preview=arguments.preview,
        overwrite=arguments.overwrite,
    )
    with Scene(arguments.scene, bands=arguments.bands, resolution=arguments.resolution) as scene:
        say(scene.summary())
        model, processor = load_model(arguments.model, device=arguments.device, dtype=arguments.dtype)
        window, stride = resolve_window(model.config, arguments.window, arguments.stride)
        if arguments.window is not None and window != arguments.window:
            say(f"window {arguments.window} is not a multiple of 16: {window} is used")
        advice = resolution_advice(scene.grid.pixel_size(), model.config.ground_sampling_distance)
        if advice and arguments.resolution is None:
            say(advice)
        report = predict_map(
            scene, outputs, model, processor, window=window, stride=stride, batch_size=arguments.batch_size
        )
    print(report.table())


def resolution_advice(pixel_size: tuple[float, float] | None, trained_at: float | None) -> str | None:
    """A sentence if a scene's pixels, (width, height) in metres, are beyond twice or half what the model learned at."""
    if pixel_size is None or trained_at is None or 0.5 <= max(pixel_size) / trained_at <= 2:
        return None
    return (
        f"the scene has pixels of {max(pixel_size):.3g} m, the model learned at {trained_at:.3g} m: "
        f"--resolution {trained_at:g} may give a better map"
    )


def add_convert(subparsers: Any) -> None:
    """Arguments of `crossearth convert`."""
    parser = subparsers.add_parser(
        "convert",
        help="convert a published checkpoint",
        description="Converts a published CrossEarth checkpoint into a folder that from_pretrained loads.",
        allow_abbrev=False,
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
        help="draw a labelled SynthEarth scene",
        description="Draws a SynthEarth scene with its labels: for demos, tests and first steps in training.",
        allow_abbrev=False,
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
