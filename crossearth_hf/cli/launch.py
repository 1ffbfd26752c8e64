"""launch: several processes, as `accelerate launch` starts them."""

import argparse
import logging
import os
import subprocess
import sys
from importlib.util import find_spec
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
    """Does what `accelerate launch` does, with the script's exit code and without the launcher's traceback."""
    try:
        from accelerate.commands.launch import launch_command, launch_command_parser  # noqa: PLC0415
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            "launch needs 'accelerate'; install it with pip install 'crossearth-hf[train]'"
        ) from error
    parser = launch_command_parser()
    parser.error = _refuse  # its own prints a usage of a hundred lines
    options = parser.parse_args(arguments.arguments)
    _check_script(options)
    # the script has already said what is wrong
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        launch_command(options)
    except subprocess.CalledProcessError as error:
        raise SystemExit(_exit_code(error.returncode)) from None
    except ChildFailedError as error:
        raise SystemExit(_exit_code(error.get_first_failure()[1].exitcode)) from None


def _check_script(options: argparse.Namespace) -> None:
    """Raises `InputError` for a script or module that does not exist: every process would say so."""
    name = options.training_script
    if options.module and not _is_module(name):
        raise InputError(
            f"there is no module {name}; check its name, or leave --module out for a file"
        )
    if not (options.module or options.no_python or os.path.exists(name)):
        raise InputError(f"there is no script {name}; check the path, or add --module for a module")


def _is_module(name: str) -> bool:
    sys.path.insert(0, os.getcwd())  # where the processes look first
    try:
        return find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):
        return False
    finally:
        sys.path.pop(0)


def _refuse(message: str) -> NoReturn:
    """Ends the command with the message of accelerate's parser."""
    if "required: training_script" in message:
        reason = "launch needs a script to run"
    else:
        reason = message
    raise InputError(
        f"{reason}; write crossearth launch [OPTIONS] SCRIPT [ARGUMENTS], see crossearth launch --help"
    )


def _exit_code(code: int) -> int:
    """The exit code as a shell gives it: 128 plus the signal's number for a process that a signal ended."""
    if code >= 0:
        return code
    return 128 - code
