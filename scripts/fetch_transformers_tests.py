"""Fetches the common tests of the installed transformers release into build/transformers-tests.

    python scripts/fetch_transformers_tests.py

They are in the release's source distribution alone, and import some modules that it lacks: these become empty classes.
`make test-transformers` runs them on CrossEarth, see tests/transformers_common.
"""

import importlib.metadata
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

TARGET = Path(__file__).resolve().parents[1] / "build" / "transformers-tests"
PACKAGE = "transformers_release_tests"  # not `tests`, which this project has
ABSENT = {
    f"{PACKAGE}/__init__.py": "",
    f"{PACKAGE}/exporters/test_export.py": "class ExportTesterMixin: ...\n",
    f"{PACKAGE}/generation/test_utils.py": "class GenerationTesterMixin: ...\n",
    f"{PACKAGE}/utils/test_configuration_utils.py": (
        "config_common_kwargs = {'return_dict': False, 'output_hidden_states': True, 'output_attentions': True}\n"
    ),
    "fetch_hub_objects_for_ci.py": "def url_to_local_path(url):\n    return url\n",
}


def main() -> int:
    """Downloads, unpacks and completes them, unless they are there."""
    version = importlib.metadata.version("transformers")
    done = TARGET / "version.txt"
    if done.is_file() and done.read_text() == version:
        print(f"{TARGET} has the tests of transformers {version}")
        return 0
    shutil.rmtree(TARGET, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        download = ["download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", folder]
        if subprocess.run(
            [sys.executable, "-m", "pip", *download, f"transformers=={version}"], check=False
        ).returncode:
            print(
                f"the source distribution of transformers {version} cannot be fetched; connect to PyPI and try again"
            )
            return 1
        (archive,) = Path(folder).glob("transformers-*.tar.gz")
        unpack(archive, TARGET)
    for name, content in ABSENT.items():
        path = TARGET / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    done.write_text(version)
    print(f"{TARGET} has the tests of transformers {version}")
    return 0


def unpack(archive: Path, target: Path) -> None:
    """The common tests, which lie side by side in the folder `tests` of the source distribution."""
    with tarfile.open(archive) as source:
        for member in source:
            parts = Path(member.name).parts
            content = source.extractfile(member) if member.isfile() else None
            if (
                content is not None
                and parts[1:2] == ("tests",)
                and len(parts) == 3
                and member.name.endswith(".py")
            ):
                path = target / PACKAGE / parts[-1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())


if __name__ == "__main__":
    sys.exit(main())
