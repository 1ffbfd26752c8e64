"""Hidden folders for work in progress, and the moves from there into place.

A folder is this package's own by the note in it, never by its name: nothing else is ever removed. What killed processes
leave in such a folder, the next call beside it clears away or puts back.
"""

import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import InputError

if sys.platform != "win32":
    import fcntl

NOTE = ".made-by-crossearth.json"
"""Name of the note that marks a folder."""

_PREFIX = ".crossearth-"
_MAKER = {"made by": "crossearth"}
_LEAVING, _REPLACED = ".leaving", ".replaced"  # a former result: its files move there one by one; all of them are there
_PAUSE = 0.1  # seconds between two looks at a lock
_RASTERS = (".tif", ".tiff", ".png")
_SIDE_ENDINGS = (".aux.xml", ".ovr", ".msk", ".OVR", ".MSK")
_WORLD_FILES = (".tfw", ".tifw", ".wld")  # they place a map that has no place of its own


def side_files(raster: Path) -> list[Path]:
    """Where GDAL looks for statistics, place, overviews and mask of a raster; none for files of other kinds."""
    kind = raster.suffix.lower()
    if kind not in _RASTERS:
        return []
    beside = [Path(f"{raster}{ending}") for ending in _SIDE_ENDINGS]
    if kind == ".png":
        return beside
    return beside + [raster.with_suffix(ending) for ending in _WORLD_FILES]


def mark(folder: Path, **facts: Any) -> None:
    """Notes in a folder that this package made it, with facts for a later call; an earlier note is replaced at once."""
    fresh = folder / f"{NOTE}.new"
    fresh.write_text(json.dumps(_MAKER | facts, sort_keys=True), encoding="utf-8")
    os.replace(fresh, folder / NOTE)


def marked(folder: Path) -> dict[str, Any] | None:
    """The note in a folder that this package made for this user; None for anything else, links to folders included."""
    note = folder / NOTE
    try:
        if not (is_own_folder(folder) and stat.S_ISREG(note.lstat().st_mode)):
            return None
        facts = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if isinstance(facts, dict) and facts.items() >= _MAKER.items():
        return facts
    return None


def is_own_folder(path: Path) -> bool:
    """Whether a path is a folder, no link to one, of the user whom this process's files belong to there."""
    try:
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):
            return False
        with tempfile.TemporaryFile(dir=path.parent) as file:  # some file systems give files to another user
            return os.fstat(file.fileno()).st_uid == status.st_uid
    except OSError:
        return False


def is_unmarked(folder: Path) -> bool:
    """Whether a folder holds nothing that could be lost: a kill came before its note was written or after it went."""
    return all(path.name == f"{NOTE}.new" for path in folder.iterdir())


def is_private(folder: Path) -> bool:
    """Whether a folder has the permissions that working folders are made with."""
    return stat.S_IMODE(folder.lstat().st_mode) == stat.S_IRWXU


@contextmanager
def working_folder(parent: Path, results: Sequence[str]) -> Iterator[Path]:
    """A hidden folder in `parent`, locked until it goes, from which results of these names move to `parent`.

    Those that killed processes left there are cleared away.
    """
    clear_abandoned(parent)
    folder, lock = _locked_folder(parent)
    try:
        mark(folder, name=folder.name, results=list(results))
        yield folder
    finally:
        remove_marked(folder)
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
        with suppress(OSError):
            if not _is_working_folder(folder):
                continue
            lock = _lock(folder, wait=False)
            if lock is None:
                continue
            try:
                for name in (marked(folder) or {}).get("results", []):
                    put_back(folder, parent / Path(str(name)).name)
                if _is_working_folder(folder):
                    remove_marked(folder)
            finally:
                os.close(lock)


def _is_working_folder(folder: Path) -> bool:
    """Whether a folder of our prefix is ours: by its permissions, and by a note that names it or by being empty."""
    if not (is_own_folder(folder) and is_private(folder)):
        return False
    note = marked(folder)
    if note is None:  # a copied note names another
        return is_unmarked(folder)
    return note.get("name") == folder.name


def _lock(folder: Path, *, wait: bool) -> int | None:
    """A file descriptor that holds the folder's lock, which ends with the process, or None."""
    if sys.platform == "win32":
        return None
    with suppress(OSError):  # held by a living process, or a file system without locks
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            return descriptor
        except BaseException:
            os.close(descriptor)
            raise
    return None


@contextmanager
def alone_in(folder: Path, refusal: str, *, seconds: float = 0) -> Iterator[None]:
    """Holds any folder, which a killed process gives back; file systems without locks do without.

    Raises:
        InputError: with the sentence `refusal`, where another process still holds it after so many seconds.
    """
    until = time.monotonic() + seconds
    lock = _lock(folder, wait=False)
    while lock is None and _is_held(folder):
        if time.monotonic() > until:
            raise InputError(refusal)
        time.sleep(_PAUSE)
        lock = _lock(folder, wait=False)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _is_held(folder: Path) -> bool:
    """Whether another process has the lock of a folder, on a file system that knows locks."""
    if sys.platform == "win32":
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True  # it has become free: to be taken now


def remove_marked(folder: Path) -> None:
    """Removes a working folder, its note last, so that a kill leaves one that is known; also if Ctrl-C comes then."""
    try:
        _remove_content(folder)
    except KeyboardInterrupt:
        _remove_content(folder)
        raise


def _remove_content(folder: Path) -> None:
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != NOTE:
                path.unlink(missing_ok=True)
        (folder / NOTE).unlink(missing_ok=True)
        folder.rmdir()


def remove_folder(folder: Path) -> None:
    """Removes a folder, also if Ctrl-C comes meanwhile."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def move_into_place(stage: Path, target: Path) -> None:
    """Moves a result from its working folder to `target`, together with the side files that GDAL wrote for it.

    Former side files go with the former file. Where a move fails, the former state is put back; a kill leaves it in
    the working folder, from where `clear_abandoned` puts it back: at no moment is one map beside another's side files.
    """
    old, new = ([path for path in side_files(raster) if os.path.lexists(path)] for raster in (target, stage))
    replaces_folder = stage.is_dir() and os.path.lexists(target)
    if not (old or new or replaces_folder):
        os.replace(stage, target)  # at once
        return
    leaving, replaced = _asides(stage.parent, target)
    leaving.mkdir()
    try:
        for path in filter(os.path.lexists, [target, *old]):
            os.replace(path, leaving / path.name)
        os.rename(leaving, replaced)
        for path in filter(os.path.lexists, new):
            os.replace(path, target.with_name(path.name))
        os.replace(stage, target)
    except BaseException:
        put_back(stage.parent, target)
        raise
    remove_folder(replaced)


def put_back(folder: Path, target: Path) -> None:
    """Undoes a `move_into_place` that did not come to its end."""
    leaving, replaced = _asides(folder, target)
    if os.path.lexists(target):
        return
    if replaced.is_dir():
        for path in side_files(target):  # those of the new file, for which it was too early
            if os.path.lexists(path):
                os.replace(path, folder / path.name)
    for aside in filter(Path.is_dir, (leaving, replaced)):
        for path in sorted(aside.iterdir(), key=lambda path: path.name == target.name):  # the file itself last
            if not os.path.lexists(target.with_name(path.name)):
                os.replace(path, target.with_name(path.name))


def _asides(folder: Path, target: Path) -> tuple[Path, Path]:
    return folder / f"{target.name}{_LEAVING}", folder / f"{target.name}{_REPLACED}"
