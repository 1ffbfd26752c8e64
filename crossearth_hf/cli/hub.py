"""card, publish: models and data sets for the Hub."""

import argparse
from typing import Any

from .arguments import add_overwrite, options


def add_card(subparsers: Any) -> None:
    """Arguments of `crossearth card`."""
    parser = subparsers.add_parser(
        "card",
        help="write a model's card",
        description="Writes the card of the model in the folder MODEL: what it is, how it was trained, its scores, its "
        "licenses. In an existing card, only the parts between marks are rewritten. A STAC item of the model "
        "(extension mlm) is written beside it: stac.json.",
    )
    parser.set_defaults(run=_card)
    parser.add_argument(
        "model", metavar="MODEL", help="folder with config.json and model.safetensors"
    )
    parser.add_argument(
        "--report",
        dest="reports",
        metavar="DIR",
        action="append",
        required=True,
        help="report of `crossearth evaluate` on this model; repeat for runs with other seeds to show the spread",
    )
    parser.add_argument("--out", metavar="FILE.md", help="default: README.md in the model's folder")
    parser.add_argument(
        "--template", metavar="FILE.md", help="template of a new card; default: the bundled one"
    )
    parser.add_argument(
        "--license",
        metavar="ID",
        help="license of the weights, as the Hub names it, such as cc-by-4.0",
    )
    add_overwrite(parser, "a card that was written by hand")


def _card(arguments: argparse.Namespace) -> None:
    from ..hub.model_card import write_model_card  # noqa: PLC0415
    from ..hub.model_item import ITEM  # noqa: PLC0415

    card = write_model_card(**options(arguments))
    print(f"wrote {card} and {card.with_name(ITEM)}")


def add_publish(subparsers: Any) -> None:
    """Arguments of `crossearth publish`."""
    parser = subparsers.add_parser(
        "publish",
        help="push a model or data set to the Hub",
        description="Lists the files of FOLDER that would go to REPO on the Hub, and checks that the model or data set "
        "loads and has a card. Nothing is sent without --really. Weights go as safetensors only, with their code.",
    )
    parser.set_defaults(run=_publish)
    parser.add_argument(
        "folder", metavar="FOLDER", help="a model with its card, or a data set of build-dataset"
    )
    parser.add_argument("repo_id", metavar="REPO", help="ORGANIZATION/NAME on the Hub")
    parser.add_argument("--dataset", action="store_true", help="FOLDER is a data set")
    parser.add_argument("--private", action="store_true", help="make the repository private")
    parser.add_argument("--really", action="store_true", help="push; without it nothing is sent")


def _publish(arguments: argparse.Namespace) -> None:
    from ..hub.publishing import publish  # noqa: PLC0415

    upload = publish(**options(arguments))
    print(upload.describe())
    print(
        f"pushed to {arguments.repo_id}"
        if arguments.really
        else "nothing was sent; --really pushes these files"
    )
