"""Hidden folders for work in progress, and the moves from there into place.

Only the note in a folder, never its name, marks it as this package's own; nothing else is ever removed. After a kill,
the next call beside such a folder removes its content or puts it back.
"""

import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import InputError

if sys.platform != "win32":
    import fcntl

NOTE = ".made-by-crossearth.json"
"""Name of the note that marks a folder."""
NOTES = (NOTE, f"{NOTE}.new")
"""The note, and a fresh one that is about to take its place."""

_PREFIX = ".crossearth-"
_MAKER = {"made by": "crossearth"}
_LEAVING, _REPLACED = (
    ".leaving",
    ".replaced",
)  # a former result: while its files move there; once all have
_PAUSE = 0.1  # seconds between two looks at a lock
_RASTERS = (".tif", ".tiff", ".png")
_SIDE_ENDINGS = (".aux.xml", ".ovr", ".msk", ".OVR", ".MSK")
_WORLD_FILES = (
    ".tfw",
    ".tifw",
    ".wld",
)  # these georeference a map that has no georeference of its own
_STYLE = ".qml"  # of QGIS
_MOST_BYTES = 2**20  # of a side file that is searched for the note

OWN_SIDE_FILE = "made by crossearth"
"""Note in the side files that this package writes itself."""


def side_files(raster: Path) -> list[Path]:
    """Files in which GDAL looks for statistics, georeference, overviews and mask of a raster; [] for other files.

    Of GeoTIFFs also the style that QGIS loads with them, unless somebody else has made one: that belongs to its author.
    """
    kind = raster.suffix.lower()
    if kind not in _RASTERS:
        return []
    beside = [Path(f"{raster}{ending}") for ending in _SIDE_ENDINGS]
    if kind == ".png":
        return beside
    beside += [raster.with_suffix(ending) for ending in _WORLD_FILES]
    style = raster.with_suffix(_STYLE)
    if os.path.lexists(style) and not is_own_side_file(style):
        return beside
    return [*beside, style]


def is_own_side_file(path: Path) -> bool:
    """Whether a file has this package's note, as the names and colors beside maps do."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        with open(path, "rb") as file:
            return OWN_SIDE_FILE.encode() in file.read(_MOST_BYTES)
    except OSError:
        return False


def mark(folder: Path, **facts: Any) -> None:
    """Writes a note into a folder that this package made, with facts for a later call; replaces an earlier note."""
    fresh = folder / NOTES[1]
    fresh.write_text(json.dumps(_MAKER | facts, sort_keys=True), encoding="utf-8")
    os.replace(fresh, folder / NOTE)


def marked(folder: Path) -> dict[str, Any] | None:
    """The note in a folder that this package made for this user; None for anything else, also for links."""
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
    """Whether a path is a folder (not a link) of the user who owns the files that this process makes there."""
    try:
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):
            return False
        # some file systems give files to another user
        with tempfile.TemporaryFile(dir=path.parent) as file:
            return os.fstat(file.fileno()).st_uid == status.st_uid
    except OSError:
        return False


def is_unmarked(folder: Path) -> bool:
    """Whether a folder is empty except for a fresh note, as a kill before the note or after its removal leaves it."""
    return all(path.name == NOTES[1] for path in folder.iterdir())


def is_private(folder: Path) -> bool:
    """Whether a folder has the permissions of working folders."""
    return stat.S_IMODE(folder.lstat().st_mode) == stat.S_IRWXU


@contextmanager
def working_folder(parent: Path, results: Sequence[str]) -> Iterator[Path]:
    """A hidden, locked folder in `parent`, from which results with these names move to `parent`.

    It is removed at the end, and working folders of killed processes are removed at the start.
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
        if lock is not None:  # another process removed it as abandoned before it was locked
            os.close(lock)


def clear_abandoned(parent: Path) -> None:
    """Removes working folders that killed processes left in `parent`; files moved aside in them are put back."""
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
    """Whether a folder with our prefix is ours: by its permissions and its note, or because it is empty."""
    if not (is_own_folder(folder) and is_private(folder)):
        return False
    note = marked(folder)
    if note is None:  # a copied note names another
        return is_unmarked(folder)
    return note.get("name") == folder.name


def _lock(folder: Path, *, wait: bool) -> int | None:
    """A file descriptor that holds the folder's lock until the process ends, or None."""
    if sys.platform == "win32":
        return None
    operation = fcntl.LOCK_EX
    if not wait:
        operation |= fcntl.LOCK_NB
    with suppress(OSError):  # held by a living process, or a file system without locks
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, operation)
            return descriptor
        except BaseException:
            os.close(descriptor)
            raise
    return None


@contextmanager
def alone_in(folder: Path, refusal: str, *, seconds: float = 0) -> Iterator[None]:
    """Locks any folder; a killed process releases it, and file systems without locks ignore it.

    Raises:
        InputError: Another process still holds the lock after `seconds` seconds. The message is `refusal`.
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
    """Whether another process holds the lock of a folder, on a file system with locks."""
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
    return True  # it has become free: try again


def remove_marked(folder: Path, owns: Callable[[Path], bool] = os.path.lexists) -> None:
    """Removes a marked folder, also after Ctrl-C; its note goes last, so that a kill leaves a folder with a note.

    Args:
        folder: The folder.
        owns: Whether a file or folder in it may be removed, by default all; the folder stays if anything else is left.
    """
    try:
        _remove_content(folder, owns)
    except KeyboardInterrupt:
        _remove_content(folder, owns)
        raise


def _remove_content(folder: Path, owns: Callable[[Path], bool]) -> None:
    with suppress(OSError):
        for path in filter(owns, list(folder.iterdir())):
            if path.name not in NOTES:
                remove(path)
        for name in reversed(NOTES):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def remove(path: Path) -> None:
    """Removes a file, a link or a whole folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Removes a folder, also if Ctrl-C interrupts."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def move_into_place(stage: Path, target: Path) -> None:
    """Moves a result from its working folder to `target`, together with its side files.

    Side files of a replaced file are removed with it. A style that somebody else has made stays in place of ours. If a
    move fails, the former files are put back; after a kill, `clear_abandoned` does that. A map is never beside the side
    files of another one.
    """
    old, new = (
        [path for path in side_files(raster) if os.path.lexists(path)] for raster in (target, stage)
    )
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
        for path in new:
            if target.with_name(path.name) in side_files(target):
                os.replace(path, target.with_name(path.name))
        os.replace(stage, target)
    except BaseException:
        put_back(stage.parent, target)
        raise
    remove_folder(replaced)


def put_back(folder: Path, target: Path) -> None:
    """Undoes an interrupted `move_into_place`."""
    leaving, replaced = _asides(folder, target)
    if os.path.lexists(target):
        return
    if replaced.is_dir():
        for path in side_files(target):  # those of the new file, which came too early
            if os.path.lexists(path):
                os.replace(path, folder / path.name)
    for aside in filter(Path.is_dir, (leaving, replaced)):
        # the file itself last
        for path in sorted(aside.iterdir(), key=lambda path: path.name == target.name):
            if not os.path.lexists(target.with_name(path.name)):
                os.replace(path, target.with_name(path.name))


def _asides(folder: Path, target: Path) -> tuple[Path, Path]:
    return folder / f"{target.name}{_LEAVING}", folder / f"{target.name}{_REPLACED}"
