"""style-bank, style-preview: Earth-Style Injection."""

import argparse
import signal
from typing import Any

from .arguments import (
    add_networks,
    add_overwrite,
    add_reading,
    add_three_bands,
    interrupt,
    options,
    say,
)


def add_style_bank(subparsers: Any) -> None:
    """Arguments of `crossearth style-bank`."""
    parser = subparsers.add_parser(
        "style-bank",
        help="learn the styles of a folder of imagery",
        description="Computes a style bank for Earth-Style Injection: mean and covariance of the style embeddings of "
        "all rasters in FOLDER. It holds numbers only, nothing of the images.",
    )
    parser.set_defaults(run=_style_bank)
    parser.add_argument(
        "folder", metavar="FOLDER", help="rasters of any kind; FOLDER:GLOB takes only some names"
    )
    parser.add_argument("out", metavar="OUT", help=".safetensors file to write")
    add_networks(parser)
    add_three_bands(parser)
    add_reading(parser)
    add_overwrite(parser, "an existing file")


def _style_bank(arguments: argparse.Namespace) -> None:
    from ..styles.bank import write_style_bank  # noqa: PLC0415

    signal.signal(signal.SIGTERM, interrupt)
    bank = write_style_bank(**options(arguments))
    if bank.count <= len(bank.mean):
        say(
            f"{bank.count} tiles are too few to cover the {len(bank.mean)} dimensions of a style; add images"
        )
    print(f"wrote {arguments.out}: {bank.count} tiles of {', '.join(bank.sources)}")


def add_style_preview(subparsers: Any) -> None:
    """Arguments of `crossearth style-preview`."""
    parser = subparsers.add_parser(
        "style-preview",
        help="draw what Earth-Style Injection does to an image",
        description="Draws a grid with a row per style of the bank: the original, the styled image, the mix.",
    )
    parser.set_defaults(run=_style_preview)
    parser.add_argument(
        "image", metavar="IMAGE", help="raster of any kind; the central 512 x 512 pixels are shown"
    )
    parser.add_argument("out", metavar="OUT", help="PNG to write")
    parser.add_argument(
        "--alpha",
        metavar="A",
        type=float,
        default=0.1,
        help="share of the Earth style (default: 0.1)",
    )
    parser.add_argument(
        "--mask-ratio",
        metavar="R",
        type=float,
        default=0.7,
        help="share of the blocks that are restyled (default: 0.7)",
    )
    parser.add_argument(
        "--block-size",
        metavar="N",
        type=int,
        default=64,
        help="side of a block (default: 64 pixels)",
    )
    parser.add_argument(
        "--residual",
        action="store_true",
        help="add the style's change only: keeps the finest detail",
    )
    parser.add_argument(
        "--low-pass",
        metavar="S",
        type=float,
        default=0.0,
        help="blur the change by S pixels, so that detail stays",
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, default=0, help="seed of the drawn styles (default: 0)"
    )
    parser.add_argument(
        "--draws", metavar="N", type=int, default=4, help="rows of the grid (default: 4)"
    )
    parser.add_argument(
        "--bank",
        metavar="FILE",
        help="bank that style-bank wrote; default: the package's Earth bank",
    )
    add_networks(parser)
    add_three_bands(parser)
    add_reading(parser)
    add_overwrite(parser, "an existing file")


def _style_preview(arguments: argparse.Namespace) -> None:
    from ..styles.preview import write_style_preview  # noqa: PLC0415

    write_style_preview(**options(arguments))
    print(f"wrote {arguments.out}")
