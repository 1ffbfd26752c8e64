"""Output files and folders: checked before the work, staged beside their place, moved there together at the end."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import InputError

if sys.platform != "win32":
    import fcntl

_PREFIX = ".crossearth-"
_ASIDE = ".replaced"
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

    What killed processes left beside it is cleared away.

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
    clear_abandoned(target.parent)
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
    left behind and the targets are as they were; what a kill leaves behind, the next call beside it clears away. More
    working files may be put into the folders of the yielded paths; targets in one folder share one.

    Raises:
        InputError: where the folder or the disk refuses (permissions, no space).
    """
    try:
        with ExitStack() as stack:
            parents = dict.fromkeys(target.parent for target in targets)
            folders = {parent: stack.enter_context(_working_folder(parent)) for parent in parents}
            stages = [folders[target.parent] / target.name for target in targets]
            yield stages
            for stage, target in zip(stages, targets, strict=True):
                if stage.is_dir():
                    replace_folder(stage, target, stage.with_name(f"{stage.name}{_ASIDE}"))
                else:
                    _replace_file(stage, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{' and '.join(map(str, targets))} cannot be written: {reason}; nothing was changed"
        ) from error


@contextmanager
def _working_folder(parent: Path) -> Iterator[Path]:
    """A hidden folder in `parent`, locked until it goes; those that killed processes left there are cleared away."""
    clear_abandoned(parent)
    folder, lock = _locked_folder(parent)
    try:
        yield folder
    finally:
        remove_folder(folder)
        if lock is not None:
            os.close(lock)


def _locked_folder(parent: Path) -> tuple[Path, int | None]:
    """A new folder in `parent` and its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        lock = _lock(folder, wait=True)
        if folder.exists():
            return folder, lock
        if lock is not None:  # another process took it for abandoned before it was locked
            os.close(lock)


def clear_abandoned(parent: Path) -> None:
    """Removes working folders that killed processes left in `parent`; what was moved aside in them returns."""
    for folder in parent.glob(f"{_PREFIX}*"):
        lock = _lock(folder, wait=False)
        if lock is None:
            continue
        with suppress(OSError):
            for aside in folder.glob(f"*{_ASIDE}"):
                place = parent / aside.name.removesuffix(_ASIDE)
                if not place.exists():
                    os.replace(aside, place)
            shutil.rmtree(folder)
        os.close(lock)


def _lock(folder: Path, *, wait: bool) -> int | None:
    """A file descriptor that holds the folder's lock, which ends with the process; None where there is none to have."""
    if sys.platform == "win32":
        return None
    with suppress(OSError):  # held by a living process, or a file system without locks
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            return descriptor
        except BaseException:
            os.close(descriptor)
            raise
    return None


def _replace_file(stage: Path, target: Path) -> None:
    os.replace(stage, target)
    for sidecar in _SIDECARS:
        Path(f"{target}{sidecar}").unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Removes a folder, also if Ctrl-C comes meanwhile."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise


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


@contextmanager
def locked(path: Path, refusal: str, *, seconds: float = 0) -> Iterator[None]:
    """Holds a lock file, which a killed process gives back; file systems without locks do without.

    Raises:
        InputError: with the sentence `refusal`, where another process still holds it after so many seconds.
    """
    lock = FileLock(path, timeout=seconds)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(refusal) from error
    except NotImplementedError:
        pass
    try:
        yield
    finally:
        lock.release()
