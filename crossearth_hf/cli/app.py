"""app: the app in a browser."""

import argparse
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import InputError

_FOLDER = Path(__file__).parents[2] / "app"


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
    if not (_FOLDER / "app.py").is_file():
        raise InputError("the app comes with a clone of the repository, not with the package; clone it, or use predict")
    missing = [name for name in ("gradio", "pyogrio", "shapely") if find_spec(name) is None]
    if missing:
        raise InputError(f"the app needs {', '.join(missing)}; run: pip install -e '.[app]'")
    sys.path.insert(0, str(_FOLDER))
    code = import_module("app").main(arguments.arguments)
    if code:
        raise SystemExit(code)
