"""train, average: a run of training, alone or as one of the processes of `crossearth launch`; means of models."""

import argparse
import sys
from typing import Any

from ..command_line import complain, is_main_process
from ..errors import InputError
from .arguments import add_overwrite, options, say, shares


def add_train(subparsers: Any) -> None:
    """Arguments of `crossearth train`."""
    parser = subparsers.add_parser(
        "train",
        help="train a model",
        add_help=False,
        prefix_chars="\0",  # every flag, --help too, is a field of TrainConfig
    )
    parser.set_defaults(run=_train)
    parser.add_argument("arguments", nargs="*")


def add_average(subparsers: Any) -> None:
    """Arguments of `crossearth average`."""
    parser = subparsers.add_parser(
        "average",
        help="average the weights of models",
        description="Writes the mean of the weights of several models to OUT: of runs from one start (a soup), or of a "
        "model and its start, which keeps more of what the start knew (WiSE-FT).",
    )
    parser.set_defaults(run=_average)
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        help="folders or Hub ids of one architecture and start",
    )
    parser.add_argument("output_dir", metavar="OUT", help="folder for the averaged model")
    parser.add_argument(
        "--weights", metavar="A,B", type=shares, help="one per model (default: all equal)"
    )
    add_overwrite(parser, "an existing model folder")


def _average(arguments: argparse.Namespace) -> None:
    from ..training.averaging import average_models  # noqa: PLC0415

    found = average_models(**options(arguments), tell=say)
    print(
        f"wrote {arguments.output_dir}, averaged with the weights {', '.join(f'{share:g}' for share in found)}"
    )


def _train(arguments: argparse.Namespace) -> None:
    """Trains; exit codes beside the usual ones: 1 for a run that diverged."""
    from ..training import parse_train_config  # noqa: PLC0415

    config = parse_train_config(arguments.arguments)
    try:
        from ..training.trainer import train  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise InputError(
            f"train needs '{error.name}'; install it with pip install 'crossearth-hf[train]'"
        ) from error
    try:
        folder = train(config)
    except FloatingPointError as error:
        complain("crossearth", str(error))
        raise SystemExit(1) from error
    except KeyboardInterrupt:
        print(
            "crossearth: interrupted; --resume_from_checkpoint resumes from the last checkpoint",
            file=sys.stderr,
        )
        raise SystemExit(130) from None
    if is_main_process():
        print(f"wrote the model, its log and its last checkpoint to {folder}")
