"""Output files and folders: checked before the work, staged beside their place, moved there together at the end."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError

_SIDECARS = (".aux.xml", ".ovr", ".msk")  # what GDAL keeps beside a raster: wrong once the raster is another


def check_output(path: str | os.PathLike[str], suffixes: Sequence[str], *, overwrite: bool) -> Path:
    """Where a result will be written, symbolic links followed.

    Args:
        path: As a person typed it.
        suffixes: Allowed endings in lower case, such as ".tif".
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: for another ending, a missing or unwritable folder, a folder in the file's place, an existing file.
    """
    if Path(path).is_dir():
        raise InputError(f"{path} is a folder; name the file to write in it")
    if Path(path).suffix.lower() not in suffixes:
        raise InputError(f"{path} must end in {' or '.join(suffixes)}; choose such a name")
    return check_place(path, overwrite=overwrite)


def check_place(path: str | os.PathLike[str], *, overwrite: bool, parents: bool = False) -> Path:
    """Where a file or folder will be written, symbolic links followed; with `parents` missing folders above are made.

    Raises:
        InputError: for a missing or unwritable parent folder, or something that exists there.
    """
    target = Path(os.path.realpath(path))
    if parents:
        with suppress(OSError):  # what is wrong with the folder is said below
            target.parent.mkdir(parents=True, exist_ok=True)
    if not target.parent.is_dir():
        raise InputError(f"the folder {target.parent} does not exist; create it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InputError(f"the folder {target.parent} is not writable; choose another one")
    if target.exists() and not overwrite:
        raise InputError(f"{path} exists already; add --overwrite to replace it or choose another name")
    return target


def check_distinct(inputs: Sequence[str | os.PathLike[str]], outputs: Sequence[Path]) -> None:
    """Raises `InputError` if an output is an input or another output, also under another spelling or link."""
    for index, output in enumerate(outputs):
        for other in [*inputs, *outputs[:index]]:
            same_file = output.exists() and os.path.exists(other) and os.path.samefile(output, other)
            if same_file or os.path.realpath(other) == str(output):
                raise InputError(f"the output {output} is the same file as {other}; choose another name for it")


@contextmanager
def staged(targets: Sequence[Path]) -> Iterator[list[Path]]:
    """Yields a temporary path for each target, in a hidden folder beside it; moves all of them at a regular end.

    A folder made at such a path takes the place of the whole target. After an exception, Ctrl-C included, nothing is
    left behind and the targets are as they were. More working files may be put into the folders of the yielded paths.

    Raises:
        InputError: where the folder or the disk refuses (permissions, no space).
    """
    folders: list[Path] = []
    try:
        for target in targets:
            folders.append(Path(tempfile.mkdtemp(prefix=".crossearth-", dir=target.parent)))
        stages = [folder / target.name for folder, target in zip(folders, targets, strict=True)]
        yield stages
        for stage, target in zip(stages, targets, strict=True):
            if stage.is_dir():
                replace_folder(stage, target, stage.with_name(f"{stage.name}.replaced"))
            else:
                _replace_file(stage, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{' and '.join(map(str, targets))} cannot be written: {reason}; nothing was changed"
        ) from error
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _replace_file(stage: Path, target: Path) -> None:
    os.replace(stage, target)
    for sidecar in _SIDECARS:
        Path(f"{target}{sidecar}").unlink(missing_ok=True)


def replace_folder(stage: Path, target: Path, aside: Path) -> None:
    """Puts the folder `stage` in the place of `target`, which need not exist; the former content goes.

    Where the move fails, the former content is put back. A kill between the two moves leaves it in `aside`, a path on
    the same file system that is emptied first.
    """
    shutil.rmtree(aside, ignore_errors=True)
    try:
        if target.exists():
            os.replace(target, aside)
        os.replace(stage, target)
    except BaseException:
        if aside.exists() and not target.exists():
            os.replace(aside, target)
        raise
    shutil.rmtree(aside, ignore_errors=True)
