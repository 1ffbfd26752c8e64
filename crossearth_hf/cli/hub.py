"""card, publish: models and data sets for the Hub."""

import argparse
from typing import Any


def add_card(subparsers: Any) -> None:
    """Arguments of `crossearth card`."""
    parser = subparsers.add_parser(
        "card",
        help="write a model's card",
        description="Writes the card of the model in MODEL, a folder: what it is, how it was trained, what its report "
        "says, licenses. In a card that is there, only the parts between its marks are written anew.",
    )
    parser.set_defaults(run=_card)
    parser.add_argument("model", metavar="MODEL", help="folder with config.json and model.safetensors")
    parser.add_argument(
        "--report",
        dest="reports",
        metavar="DIR",
        action="append",
        required=True,
        help="of `crossearth evaluate` on this model; again for each run of another seed, for the spread",
    )
    parser.add_argument("--out", metavar="FILE.md", help="default: README.md in the model's folder")
    parser.add_argument("--template", metavar="FILE.md", help="where a new card begins; default: the bundled one")
    parser.add_argument("--license", metavar="ID", help="of the weights, as the Hub names it, such as cc-by-4.0")
    parser.add_argument("--overwrite", action="store_true", help="replace a card that was written by hand")


def _card(arguments: argparse.Namespace) -> None:
    from ..hub.model_card import write_model_card  # noqa: PLC0415

    options = {name: value for name, value in vars(arguments).items() if name != "run"}
    print(f"wrote {write_model_card(**options)}")


def add_publish(subparsers: Any) -> None:
    """Arguments of `crossearth publish`."""
    parser = subparsers.add_parser(
        "publish",
        help="push a model or data set to the Hub",
        description="Lists what of FOLDER would go to REPO on the Hub and checks that it loads and has a card; nothing "
        "is sent without --really. Weights go as safetensors only, with their code.",
    )
    parser.set_defaults(run=_publish)
    parser.add_argument("folder", metavar="FOLDER", help="a model with its card, or a data set of build-dataset")
    parser.add_argument("repo_id", metavar="REPO", help="ORGANIZATION/NAME on the Hub")
    parser.add_argument("--dataset", action="store_true", help="FOLDER is a data set")
    parser.add_argument("--private", action="store_true", help="only its owners see the repository")
    parser.add_argument("--really", action="store_true", help="push; without it nothing is sent")


def _publish(arguments: argparse.Namespace) -> None:
    from ..hub.publishing import publish  # noqa: PLC0415

    options = {name: value for name, value in vars(arguments).items() if name != "run"}
    upload = publish(**options)
    print(upload.describe())
    print(f"pushed to {arguments.repo_id}" if arguments.really else "nothing was sent; --really pushes these files")
