"""app: the app in a browser."""

import argparse
from importlib.util import find_spec
from typing import Any

from ..errors import InputError


def add_app(subparsers: Any) -> None:
    """Arguments of `crossearth app`."""
    parser = subparsers.add_parser(
        "app",
        help="open the app in a browser",
        add_help=False,
        prefix_chars="\0",  # every flag, --help too, belongs to the app's own parser
    )
    parser.set_defaults(run=_app)
    parser.add_argument("arguments", nargs="*")


def _app(arguments: argparse.Namespace) -> None:
    missing = [name for name in ("gradio", "pyogrio", "shapely") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"the app needs {', '.join(missing)}; run: pip install 'crossearth-hf[app]'"
        )
    from ..app import main  # noqa: PLC0415

    code = main(arguments.arguments)
    if code:
        raise SystemExit(code)
