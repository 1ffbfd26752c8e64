"""Writes the API reference as HTML, from the docstrings: `python scripts/api_reference.py [OUT]`, docs/api by default.

pdoc (MIT-0) renders it: it reads the docstrings' sections, needs no configuration and no source files of its own.
"""

import argparse
import importlib
import pkgutil
import sys
import warnings
from pathlib import Path

import pdoc

import crossearth_hf


def module_names() -> list[str]:
    """The package and its modules; one whose optional dependency is not installed is named on stderr and left out."""
    names = ["crossearth_hf"]
    for module in pkgutil.walk_packages(crossearth_hf.__path__, "crossearth_hf."):
        try:
            importlib.import_module(module.name)
            names.append(module.name)
        except ModuleNotFoundError as error:
            print(f"left out {module.name}: {error}", file=sys.stderr)
    return names


def write_reference(out: Path, names: list[str]) -> None:
    """Writes a page for each of the modules `names`, an index and a search into the folder `out`."""
    footer = f"crossearth_hf {crossearth_hf.__version__}"
    pdoc.render.configure(docformat="google", footer_text=footer, show_source=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules that a sub-package brings too, and of transformers' annotations
        pdoc.pdoc(*names, output_directory=out)


def main() -> int:
    """Reads the command line and writes the reference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=Path("docs/api"), help="folder; default: docs/api")
    options = parser.parse_args()
    write_reference(options.out, module_names())
    print(f"wrote {options.out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
