"""style-bank, style-preview: Earth-Style Injection."""

import argparse
import signal
from typing import Any

from .arguments import add_reading, interrupt, numbers, say


def add_style_bank(subparsers: Any) -> None:
    """Arguments of `crossearth style-bank`."""
    parser = subparsers.add_parser(
        "style-bank",
        help="learn the styles of a folder of imagery",
        description="Computes a style bank for Earth-Style Injection: mean and covariance of the style embeddings of "
        "all rasters in FOLDER. It holds numbers only, nothing of the images.",
    )
    parser.set_defaults(run=_style_bank)
    parser.add_argument("folder", metavar="FOLDER", help="rasters of any kind; FOLDER:GLOB takes only some names")
    parser.add_argument("out", metavar="OUT", help=".safetensors file to write")
    parser.add_argument("--networks", metavar="FILE", help="other style networks, as EarthStyle.save writes them")
    parser.add_argument("--bands", metavar="R,G,B", type=numbers, help="one or three band numbers, from 1")
    add_reading(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")


def _style_bank(arguments: argparse.Namespace) -> None:
    from ..styles.bank import write_style_bank  # noqa: PLC0415

    signal.signal(signal.SIGTERM, interrupt)
    options = {name: value for name, value in vars(arguments).items() if name != "run"}
    bank = write_style_bank(**options)
    if bank.count <= len(bank.mean):
        say(f"{bank.count} tiles vary in fewer directions than the {len(bank.mean)} of a style: more images are better")
    print(f"wrote {arguments.out}: {bank.count} tiles of {', '.join(bank.sources)}")


def add_style_preview(subparsers: Any) -> None:
    """Arguments of `crossearth style-preview`."""
    parser = subparsers.add_parser(
        "style-preview",
        help="draw what Earth-Style Injection does to an image",
        description="Draws a grid: each row a style drawn from the bank; original, whole image in that style, mix.",
    )
    parser.set_defaults(run=_style_preview)
    parser.add_argument("image", metavar="IMAGE", help="raster of any kind; its middle 512 x 512 pixels are shown")
    parser.add_argument("out", metavar="OUT", help="PNG to write")
    parser.add_argument("--alpha", metavar="A", type=float, default=0.1, help="share of the Earth style (default: 0.1)")
    parser.add_argument("--mask-ratio", metavar="R", type=float, default=0.7, help="share restyled (default: 0.7)")
    parser.add_argument("--block-size", metavar="N", type=int, default=64, help="side of a block (default: 64 pixels)")
    parser.add_argument("--residual", action="store_true", help="add what the style changes: keeps the finest detail")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="which draws (default: 0)")
    parser.add_argument("--draws", metavar="N", type=int, default=4, help="rows of the grid (default: 4)")
    parser.add_argument("--bank", metavar="FILE", help="of style-bank; default: the Earth bank of the package")
    parser.add_argument("--networks", metavar="FILE", help="other style networks, as EarthStyle.save writes them")
    parser.add_argument("--bands", metavar="R,G,B", type=numbers, help="one or three band numbers, from 1")
    add_reading(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")


def _style_preview(arguments: argparse.Namespace) -> None:
    from ..styles.preview import write_style_preview  # noqa: PLC0415

    options = {name: value for name, value in vars(arguments).items() if name != "run"}
    write_style_preview(**options)
    print(f"wrote {arguments.out}")
