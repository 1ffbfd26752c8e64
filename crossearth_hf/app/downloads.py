"""Names of the files that a visitor downloads, after the scene's, and all of them in one archive."""

import re
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

_LONGEST_NAME = 40  # signs


def name_of(upload: str | Path) -> str:
    """The name of an upload without its ending, of letters, digits, - and _ only; "scene" if nothing is left."""
    plain = re.sub(r"[^\w-]+", "-", Path(upload).stem)[:_LONGEST_NAME]
    return plain.strip("-_") or "scene"


def write_archive(folder: Path, archive: Path) -> None:
    """Writes a ZIP of all files in `folder`."""
    with ZipFile(archive, "w", ZIP_DEFLATED, compresslevel=1) as target:
        for path in sorted(folder.iterdir()):
            target.write(path, path.name)
