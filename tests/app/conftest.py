"""What the tests of the app share."""

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a job."""
    (tmp_path / "job").mkdir()
    return tmp_path / "job"
