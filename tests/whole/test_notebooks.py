"""The notebooks run from their first cell to their last."""

import pytest
from paths import ROOT

nbformat = pytest.importorskip("nbformat")
interactive = pytest.importorskip("IPython.core.interactiveshell")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    """In this process, which has imported the package; a kernel of its own would take seconds more."""
    monkeypatch.chdir(tmp_path)
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in cells), "notebooks are kept without outputs"
    shell = interactive.InteractiveShell.instance()
    shell.reset()
    shown = []
    for cell in cells:
        done = shell.run_cell(cell.source)
        done.raise_error()
        shown.append(done.result)
    interactive.InteractiveShell.clear_instance()
    assert any(result is not None for result in shown)
