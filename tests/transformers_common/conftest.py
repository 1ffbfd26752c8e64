"""These tests are those of the installed transformers release: `make test-transformers` fetches and runs them."""

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2] / "build" / "transformers-tests"
if TESTS.is_dir():
    sys.path.insert(0, str(TESTS))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Elsewhere they are left out: fetching needs the network."""
    return None if config.option.markexpr == "transformers" else True
