"""Output files and folders: checked before the work, staged beside their place, moved there together at the end."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..errors import InputError
from .working_folders import (
    clear_abandoned,
    is_own_side_file,
    move_into_place,
    remove_folder,
    side_files,
    working_folder,
)

_PROBE_BYTES = 4 * 2**20  # more than GDAL writes at once


def check_output(path: str | os.PathLike[str], suffixes: Sequence[str], *, overwrite: bool) -> Path:
    """The path of a result, with symbolic links resolved.

    Args:
        path: The path as a person typed it.
        suffixes: Allowed endings in lower case, such as ".tif".
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: The path has another ending, its folder is missing or not writable, or a folder or an existing file
            is in its place.
    """
    if Path(path).is_dir():
        raise InputError(f"{path} is a folder; name the file to write in it")
    if Path(path).suffix.lower() not in suffixes:
        raise InputError(f"{path} must end in {' or '.join(suffixes)}; choose such a name")
    return check_place(path, overwrite=overwrite)


def check_place(path: str | os.PathLike[str], *, overwrite: bool, parents: bool = False) -> Path:
    """The path of a file or folder to write, with symbolic links resolved; `parents` makes missing folders above it.

    Working folders that killed processes left beside it are removed.

    Raises:
        InputError: The parent folder is missing or not writable, the file exists already, or side files exist without
            their raster.
    """
    target = Path(os.path.realpath(path))
    if parents:
        with suppress(OSError):  # the checks below report the reason
            target.parent.mkdir(parents=True, exist_ok=True)
    if not target.parent.is_dir():
        raise InputError(f"the folder {target.parent} does not exist; create it first")
    check_writable(target.parent)
    clear_abandoned(target.parent)
    if target.exists() and not overwrite:
        raise InputError(
            f"{path} exists already; add --overwrite to replace it or choose another name"
        )
    _check_side_files(target)
    return target


def check_writable(folder: Path) -> None:
    """Raises `InputError` unless files can be made in a folder; on some systems permissions do not show that."""
    try:
        may_write = os.access(folder, os.W_OK | os.X_OK)
        if may_write:
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            f"the folder {folder} is not writable ({error.strerror}); choose another one"
        ) from error
    if not may_write:
        raise InputError(f"the folder {folder} is not writable; choose another one")


def check_distinct(inputs: Iterable[str | os.PathLike[str]], outputs: Iterable[Path]) -> None:
    """Raises `InputError` if an output, or one of its side files, is an input or another output.

    Links and other spellings of a path count too. Inputs of a raster are all files that GDAL reads (`files_of`).
    """
    known = {key: path for path in inputs for key in _identity(path)}
    for output in outputs:
        for place in (output, *side_files(output)):
            other = next((known[key] for key in _identity(place) if key in known), None)
            if other is not None:
                raise InputError(
                    f"the output {output} is the same file as {other}; choose another name for it"
                )
        known |= dict.fromkeys(_identity(output), output)


def check_outside(inputs: Iterable[str | os.PathLike[str]], folder: Path) -> None:
    """Raises `InputError` if an input lies in a folder that is to be replaced or removed."""
    place = Path(os.path.realpath(folder))
    for path in inputs:
        if (
            place in Path(os.path.realpath(path)).parents
            or place in Path(os.path.abspath(path)).parents
        ):
            raise InputError(
                f"{path} lies inside {folder}, which would be replaced; choose another name"
            )


def check_apart(inputs: Iterable[str | os.PathLike[str]], folder: str | os.PathLike[str]) -> None:
    """Raises `InputError` if an output folder is an input, lies inside one or contains one; links count too."""
    place = Path(os.path.realpath(folder))
    for path in inputs:
        source = Path(os.path.realpath(path))
        if place == source or source in place.parents:
            raise InputError(
                f"{folder} lies in {path}, which is an input; choose a folder outside of it"
            )
        if place in source.parents:
            raise InputError(
                f"{path} lies inside {folder}, the folder of the results; choose another folder for them"
            )


def check_replaced(target: Path, replacement: Path) -> None:
    """Raises `InputError` if a folder to be replaced contains something that its replacement lacks."""
    strangers = {path.name for path in target.glob("*")} - {
        path.name for path in replacement.iterdir()
    }
    if strangers:
        raise InputError(
            f"{target / min(strangers)} would be lost: {target} is replaced as a whole; move it away or choose "
            "another name"
        )


def _identity(path: str | os.PathLike[str]) -> list[object]:
    """Keys that all names of a file share: its path without links and, if it exists, its inode."""
    keys: list[object] = [os.path.realpath(path)]
    with suppress(OSError, ValueError):
        status = os.stat(path)
        if status.st_ino:
            keys.append((status.st_dev, status.st_ino))
    return keys


def _check_side_files(target: Path) -> None:
    """Raises `InputError` for side files of `target` that must not be removed with it."""
    for path in filter(os.path.lexists, side_files(target)):
        if not os.path.lexists(target) and not is_own_side_file(path):
            raise InputError(
                f"{path} exists without {target.name} and would be read as a part of it; move it away or choose "
                "another name"
            )
        if path.is_dir() and not path.is_symlink():
            raise InputError(
                f"{path} is a folder, but a side file of {target.name} has this name; move it away or choose "
                "another name"
            )


@contextmanager
def staged(targets: Sequence[Path]) -> Iterator[list[Path]]:
    """Yields a temporary path for each target, in a hidden folder beside it; moves all of them at a regular end.

    A folder made at such a path replaces the whole target. Side files that GDAL writes beside a path move with it, and
    those of a replaced file are removed. After an exception, Ctrl-C included, nothing is left behind and the targets
    are unchanged; the next call beside it removes what a kill leaves behind. The folders of the yielded paths may hold
    other working files; targets in one folder share one such folder.

    Raises:
        InputError: The file system refuses (permissions, no space), or side files without their raster are in the way.
    """
    moved: list[Path] = []
    try:
        with ExitStack() as stack:
            parents = {target.parent: [other.name for other in targets if other.parent == target.parent]
                       for target in targets}  # fmt: skip
            folders = {
                parent: stack.enter_context(working_folder(parent, names))
                for parent, names in parents.items()
            }
            stages = [folders[target.parent] / target.name for target in targets]
            yield stages
            for target in targets:
                _check_side_files(target)
            for stage, target in zip(stages, targets, strict=True):
                move_into_place(stage, target)
                moved.append(target)
    except OSError as error:
        reason = error.strerror or str(error)
        names = " and ".join(map(str, targets[len(moved) :]))
        if moved:
            state = f"{' and '.join(map(str, moved))} was already written"
        else:
            state = "nothing was changed"
        raise InputError(f"{names} cannot be written: {reason}; {state}") from error


def replace_folder(
    stage: Path, target: Path, aside: Path, *, remove: Callable[[Path], None] = remove_folder
) -> None:
    """Moves the folder `stage` to `target` and removes the former content of `target`, if there is any.

    If the move fails, the former content is put back. A kill between the two moves leaves it in `aside`, a path on the
    same file system that `remove` empties first.
    """
    remove(aside)
    try:
        if target.exists():
            os.replace(target, aside)
        os.replace(stage, target)
    except BaseException:
        if aside.exists() and not target.exists():
            os.replace(aside, target)
        raise
    remove(aside)


def refusal_of_disk(folder: Path) -> str | None:
    """The system's reason why nothing can be written into a folder, which GDAL does not pass on; else None."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror
    return None
