"""What may be opened at all: no pipes or devices, which would block for ever, and no VRT that stands for too much."""

import errno
import mmap
import os
import re
import stat
from collections import Counter
from contextlib import suppress
from pathlib import Path
from xml.sax.saxutils import unescape

from ..errors import InputError

MOST_SOURCES = 200_000
"""Reads that one read of a virtual raster may lead to, those of nested ones counted as often as they occur; our choice:
GDAL keeps three kilobytes for each and takes 15 seconds to open so many."""

DEEPEST_NESTING = 32
"""Levels of virtual rasters in virtual rasters; our choice."""

_KINDS = {
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_BEFORE_NAMES = re.compile(r"/vsi\w+/|[,?]|(?<=[A-Za-z0-9_]):")  # what stands before and between files in GDAL's names
_SOURCE = re.compile(rb"<Source(?:Filename|Dataset)([^>]*)>([^<]*)<")
_IS_RELATIVE = re.compile(rb"""relativeToVRT\s*=\s*["']1""")
_HEADER_BYTES = 4096


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raises `InputError` for a pipe, a socket, a device or a loop of links; what is missing is not judged here."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{path} is a loop of symbolic links; name the file itself") from error
        return
    kind = _KINDS.get(stat.S_IFMT(mode))
    if kind is not None:
        raise InputError(f"{path} is {kind}, not a file; save its content to a file and name that")


def check_raster(name: str) -> None:
    """Checks what GDAL would open under a name before GDAL does, which nothing can interrupt.

    Args:
        name: A path, or a name with files in it, such as `vrt://a.tif?bands=1` or `/vsigzip/a.tif.gz`.

    Raises:
        InputError: where it leads to something that is not a regular file or folder, also beside it or through a
            virtual raster (VRT); for a VRT that refers to itself, is nested too deep or stands for too many reads.
    """
    if "<VRTDataset" in name:
        _count_reads(name.encode(), Path(), ("the VRT in the name",), {})
        return
    for piece in {name, *_BEFORE_NAMES.split(name)}:
        if piece and "\0" not in piece:
            if os.path.isfile(piece):
                _check_beside(piece)
            _count_file(piece, (), {})


def _check_beside(path: str) -> None:
    """Checks what GDAL may read with a raster: the files beside it whose names start with its own, without ending."""
    stem = Path(path).stem.lower()
    with suppress(OSError), os.scandir(Path(path).parent) as entries:
        for name in [entry.name for entry in entries if entry.name.lower().startswith((f"{stem}.", f"{stem}_"))]:
            check_regular(Path(path).with_name(name))


def _count_file(path: str, outer: tuple[str, ...], known: dict[str, int]) -> int:
    """Reads that one read of a file leads to, 1 unless it is a VRT; `outer` are the VRTs around it."""
    check_regular(path)
    place = os.path.realpath(path)
    if place in outer:
        raise InputError(f"{path} refers to itself; build the VRT again from the rasters themselves")
    if place not in known:
        known[place] = _count_vrt(place, outer, known)
    return known[place]


def _count_vrt(path: str, outer: tuple[str, ...], known: dict[str, int]) -> int:
    """The same, for a file that was not met before."""
    try:
        with open(path, "rb") as file:
            if b"<VRTDataset" not in file.read(_HEADER_BYTES):
                return 1
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
                return _count_reads(text, Path(path).parent, (*outer, path), known)
    except OSError:  # a folder, no permission: GDAL says what is wrong with it
        return 1


def _count_reads(text: bytes | mmap.mmap, folder: Path, outer: tuple[str, ...], known: dict[str, int]) -> int:
    """Reads behind the text of a VRT whose relative names start from `folder`."""
    if len(outer) > DEEPEST_NESTING:
        raise InputError(
            f"{outer[0]} nests VRTs more than {DEEPEST_NESTING} deep; build it again from the rasters themselves"
        )
    found: Counter[tuple[bytes, bytes]] = Counter()
    for number, match in enumerate(_SOURCE.finditer(text), 1):
        _check_count(number, outer[0])
        found[match[1], match[2]] += 1
    reads = 0
    for (attributes, name), times in found.items():
        reads += times * _count_file(_source_path(attributes, name, folder), outer, known)
        _check_count(reads, outer[0])
    return reads


def _source_path(attributes: bytes, name: bytes, folder: Path) -> str:
    """Where a VRT in `folder` finds a source."""
    path = unescape(os.fsdecode(name), {"&quot;": '"', "&apos;": "'"}).strip()
    if _IS_RELATIVE.search(attributes):
        return str(folder / path)
    return path


def _check_count(reads: int, name: str) -> None:
    if reads > MOST_SOURCES:
        raise InputError(
            f"{name} stands for more than {MOST_SOURCES:,} sources, counted in each band and in VRTs within it; map "
            "parts of it, or the rasters themselves"
        )
