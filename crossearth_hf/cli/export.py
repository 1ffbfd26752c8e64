"""export: a model as a file that runs without Python."""

import argparse
import signal
from typing import Any

from .arguments import add_overwrite, interrupt, options

_EXPORT = """\
Writes MODEL as a file that onnxruntime, OpenVINO, a browser or QGIS's plugin Deepness runs. Batch, height and width are
free; the file's metadata describes the input, classes, colors, pixel size and license."""


def add_export(subparsers: Any) -> None:
    """Arguments of `crossearth export`."""
    parser = subparsers.add_parser(
        "export",
        help="write a model as a file that runs without Python",
        description=_EXPORT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_export)
    parser.add_argument(
        "model", metavar="MODEL", help="folder or Hub id; `bundled` for the model of the package"
    )
    parser.add_argument(
        "out",
        metavar="OUT",
        help="file to write: .onnx, or .xml for OpenVINO (weights in .bin beside)",
    )
    parser.add_argument(
        "--format", metavar="FORMAT", default="onnx", help="onnx or openvino (default: onnx)"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--full-resolution",
        action="store_true",
        help="scores at full resolution instead of a quarter of it",
    )
    what.add_argument(
        "--deepness",
        action="store_true",
        help="for QGIS's plugin Deepness: tiles of one size, shares of the classes",
    )
    parser.add_argument(
        "--int8", action="store_true", help="compute in 8 bits: smaller, often faster, less exact"
    )
    add_overwrite(parser)


def _export(arguments: argparse.Namespace) -> None:
    from ..export import export_model  # noqa: PLC0415

    signal.signal(signal.SIGTERM, interrupt)
    report = export_model(**options(arguments))
    names = " and ".join(map(str, report.files))
    print(f"wrote {names}: {report.bytes / 1e6:.1f} MB\nin: {report.input}\nout: {report.output}")
