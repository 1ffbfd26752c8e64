"""The API reference: what the package offers is documented, and pdoc renders it."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

import crossearth_hf

pytest.importorskip("pdoc")
PACKAGE = Path(crossearth_hf.__file__).parent
SCRIPT = PACKAGE.parent / "scripts" / "api_reference.py"


def silent(path):
    """Public functions and classes of a module that have no docstring, and the module itself if it has none."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if ast.get_docstring(tree) is None:
        yield path.name
    for node in tree.body:
        offered = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        if offered and ast.get_docstring(node) is None:
            yield f"{path.name}: {node.name}"


def test_every_public_name_says_what_it_is():
    assert not [name for path in sorted(PACKAGE.rglob("*.py")) for name in silent(path)]


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("api_reference", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_every_module_is_found(script):
    paths = [path for path in PACKAGE.rglob("*.py") if (path.parent / "__init__.py").exists()]  # no metric's folder
    files = {path.relative_to(PACKAGE.parent).with_suffix("").parts for path in paths}
    assert set(script.module_names()) == {".".join(file).removesuffix(".__init__") for file in files}


def test_the_pages_are_written_from_the_docstrings(script, tmp_path):
    script.write_reference(tmp_path, ["crossearth_hf.labels", "crossearth_hf.files.outputs"])
    page = (tmp_path / "crossearth_hf" / "labels.html").read_text(encoding="utf-8")
    assert re.search(r"<h6[^>]*>Attributes:</h6>\s*<ul>\s*<li><strong>name:</strong>\s+Key of the set in", page)
    assert "check_output" in (tmp_path / "crossearth_hf" / "files" / "outputs.html").read_text(encoding="utf-8")
    assert (tmp_path / "index.html").is_file()
