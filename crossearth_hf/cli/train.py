"""train: a run of training, alone or as one of the processes that `crossearth launch` starts."""

import argparse
import sys
from typing import Any

from ..command_line import complain
from ..errors import InputError


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


def _train(arguments: argparse.Namespace) -> None:
    """Trains; exit codes beside the usual ones: 1 for a run that diverged."""
    from ..training import parse_train_config  # noqa: PLC0415

    config = parse_train_config(arguments.arguments)
    try:
        from ..training.trainer import train  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise InputError(f"train needs '{error.name}'; install it with pip install 'crossearth-hf[train]'") from error
    try:
        folder = train(config)
    except FloatingPointError as error:
        complain("crossearth", str(error))
        raise SystemExit(1) from error
    except KeyboardInterrupt:
        print("crossearth: interrupted; --resume_from_checkpoint goes on from the last checkpoint", file=sys.stderr)
        raise SystemExit(130) from None
    print(f"wrote the model, its log and its last checkpoint to {folder}")
