"""Files of a folder, or of a pattern with *, by the texts that replace the stars."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError


def matching_files(
    place: str, folder: Path, pattern: str, suffixes: Sequence[str]
) -> list[tuple[tuple[str, ...], Path]]:
    """The files of a folder with their names, or the files of a pattern with the texts of its stars, ordered by path.

    Args:
        place: Name of the data source in messages.
        folder: Folder of relative patterns.
        pattern: A folder, a file, or a pattern.
        suffixes: Endings of the files of a folder.

    Raises:
        InputError: No file matches.
    """
    path = folder / pattern
    found: list[tuple[tuple[str, ...], Path]]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes)
        found = [((file.stem,), file) for file in files]
    elif path.is_file():
        found = [(_texts(path, path), path)]
    else:
        files = sorted(map(Path, glob.glob(str(path), recursive=True)))
        found = [(_texts(path, file), file) for file in files if file.is_file()]
    if not found:
        raise InputError(f"{place}: no file matches '{pattern}' in {folder}; correct the pattern")
    return found


def _texts(pattern: Path, file: Path) -> tuple[str, ...]:
    """The texts of the stars of a pattern; the whole path if the pattern is a file with special characters."""
    match = _expression(str(pattern)).fullmatch(str(file))
    if match is None:
        return (str(file),)
    return match.groups()


def keyed_files(
    place: str, folder: Path, pattern: str, suffixes: Sequence[str]
) -> dict[tuple[str, ...], Path]:
    """The files of `matching_files` by the texts of the stars; raises `InputError` if two have the same texts."""
    keyed: dict[tuple[str, ...], Path] = {}
    for key, file in matching_files(place, folder, pattern, suffixes):
        if key in keyed:
            raise InputError(
                f"{place}: {keyed[key]} and {file} have the same name; give every image its own name"
            )
        keyed[key] = file
    return keyed


def stars_of(folder: Path, pattern: str) -> int:
    """The number of texts that `matching_files` gives for every file."""
    if (folder / pattern).is_dir():
        return 1
    return _expression(pattern).groups


def _expression(pattern: str) -> re.Pattern[str]:
    """A glob pattern as a regular expression; its groups are the texts of the stars."""
    parts = re.split(r"(\*\*/|\*|\?)", pattern)
    known = {"**/": "((?:.*/)?)", "*": "([^/]*)", "?": "([^/])"}
    return re.compile("".join(known.get(part, re.escape(part)) for part in parts))
