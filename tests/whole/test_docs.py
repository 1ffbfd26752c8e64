"""The documentation: every public name is described, and the site builds without a broken link."""

import ast
import subprocess
import sys

import pytest
from paths import ROOT

PACKAGE = ROOT / "crossearth_hf"


def undescribed(path):
    """Public functions and classes of a module without a docstring, and the module itself if it has none."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if ast.get_docstring(tree) is None:
        yield path.name
    for node in tree.body:
        is_public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith(
            "_"
        )
        if is_public and ast.get_docstring(node) is None:
            yield f"{path.name}: {node.name}"


def test_every_public_name_is_described():
    assert not [name for path in sorted(PACKAGE.rglob("*.py")) for name in undescribed(path)]


def test_the_site_builds(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "site" / "reference" / "index.html").read_text(encoding="utf-8")
    assert "CrossEarthForSemanticSegmentation" in reference
