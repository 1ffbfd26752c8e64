"""launch: several processes, as `accelerate launch` starts them."""

import argparse
import logging
import subprocess
from typing import Any, NoReturn

from ..errors import InputError


def add_launch(subparsers: Any) -> None:
    """Arguments of `crossearth launch`."""
    parser = subparsers.add_parser(
        "launch",
        help="run a script in several processes",
        add_help=False,
        prefix_chars="\0",  # every flag, --help too, belongs to accelerate's own parser
    )
    parser.set_defaults(run=_launch)
    parser.add_argument("arguments", nargs="*")


def _launch(arguments: argparse.Namespace) -> None:
    """What `accelerate launch` does, with the exit code of the script and no traceback of the launcher's own."""
    try:
        from accelerate.commands.launch import launch_command, launch_command_parser  # noqa: PLC0415
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415
    except ImportError as error:
        raise InputError("launch needs 'accelerate'; install it with pip install 'crossearth-hf[train]'") from error
    parser = launch_command_parser()
    parser.error = _refuse  # its own prints a usage of a hundred lines
    options = parser.parse_args(arguments.arguments)
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the script has said what was wrong
    try:
        launch_command(options)
    except subprocess.CalledProcessError as error:
        raise SystemExit(_exit_code(error.returncode)) from None
    except ChildFailedError as error:
        raise SystemExit(_exit_code(error.get_first_failure()[1].exitcode)) from None


def _refuse(message: str) -> NoReturn:
    """Ends the command with what accelerate's parser says."""
    if "required: training_script" in message:
        reason = "launch needs a script to run"
    else:
        reason = message
    raise InputError(f"{reason}; write crossearth launch [OPTIONS] SCRIPT [ARGUMENTS], see crossearth launch --help")


def _exit_code(code: int) -> int:
    """That of a process as a shell gives it: 128 and the signal's number for one that a signal ended."""
    if code >= 0:
        return code
    return 128 - code
