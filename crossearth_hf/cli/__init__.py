"""The `crossearth` command: arguments -> one call -> what was written.

Exit codes: 0 done, 2 wrong input (one sentence on stderr), 130 interrupted. Subcommands import what they need.
"""

import io
import os
import sys
from collections.abc import Sequence

from ..command_line import WRONG_INPUT, Parser, complain
from ..errors import InputError, shown
from .app import add_app
from .benchmark import add_calibrate, add_evaluate, add_report, add_scenarios
from .build import add_build_dataset
from .export import add_export
from .hub import add_card, add_publish
from .launch import add_launch
from .maps import add_convert, add_predict, add_synth
from .styles import add_style_bank, add_style_preview
from .train import add_average, add_train

_COMMANDS = (
    add_predict,
    add_convert,
    add_synth,
    add_train,
    add_average,
    add_style_bank,
    add_style_preview,
    add_scenarios,
    add_build_dataset,
    add_calibrate,
    add_evaluate,
    add_report,
    add_card,
    add_publish,
    add_export,
    add_launch,
    add_app,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand and returns the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # some paths are not text, and terminals lack some characters
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _run(sys.argv[1:] if argv is None else argv)
    except InputError as error:
        complain("crossearth", str(error))
        return WRONG_INPUT
    except BrokenPipeError:  # the reader of the output has seen enough, as `| head` does
        sys.stdout = None
        return 0
    except UnicodeEncodeError:
        complain(
            "crossearth",
            "a file name holds bytes that are not UTF-8, which GDAL cannot take; rename that file",
        )
        return WRONG_INPUT
    except OSError as error:  # such as a name that is too long
        if error.filename is None:
            name = "a file"
        else:
            name = shown(os.fspath(error.filename))
        complain(
            "crossearth",
            f"{name} cannot be used: {error.strerror or type(error).__name__}; check the path",
        )
        return WRONG_INPUT
    except KeyboardInterrupt:
        print("crossearth: interrupted; no unfinished file is left behind", file=sys.stderr)
        return 130
    return 0


def _run(argv: Sequence[str]) -> None:
    """Runs a subcommand; without any, its help is shown."""
    if not argv:
        _parser().print_help()
        return
    arguments = _parser().parse_args(argv)
    arguments.run(arguments)


def _parser() -> Parser:
    parser = Parser(
        prog="crossearth",
        description="Land-cover maps of imagery that a model has never seen.",
    )
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in _COMMANDS:
        add(subparsers)
    return parser
