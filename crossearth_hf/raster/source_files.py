"""Checks of files before they are opened: no pipes or devices, which would block forever, and no excessive VRTs."""

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
from .remote import check_allowed, is_remote, is_url

MOST_SOURCES = 200_000
"""Largest number of reads behind one read of a virtual raster, with nested rasters counted as often as they occur. Our
choice: GDAL keeps three kilobytes for each and takes 15 seconds to open this many."""

DEEPEST_NESTING = 32
"""Largest number of nested levels of virtual rasters; our choice."""

_KINDS = {
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# text before and between files in GDAL's names
_BEFORE_NAMES = re.compile(r"/vsi\w+/|[,?]|(?<=[A-Za-z0-9_]):")
_SOURCE = re.compile(rb"<Source(?:Filename|Dataset)([^>]*)>([^<]*)<")
_IS_RELATIVE = re.compile(rb"""relativeToVRT\s*=\s*["']1""")
_HEADER_BYTES = 4096


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raises `InputError` for a pipe, a socket, a device or a loop of links, but not for a missing file."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{path} is a loop of symbolic links; name the file itself") from error
        return
    kind = _KINDS.get(stat.S_IFMT(mode))
    if kind is not None:
        raise InputError(f"{path} is {kind}, not a file; save its content to a file and name that")


def check_raster(name: str, *, remote: bool = False) -> None:
    """Checks what GDAL would open under a name, because GDAL cannot be interrupted.

    Args:
        name: A path, or a name with files in it, such as `vrt://a.tif?bands=1` or `/vsigzip/a.tif.gz`; or a URL.
        remote: Whether it may lead into the network.

    Raises:
        InputError: The name leads into the network unasked (`remote.check_allowed`), or to something other than a
            regular file or folder, also beside it or through a virtual raster (VRT). Or a VRT refers to itself, is
            nested too deeply or causes too many reads.
    """
    check_allowed(name, allowed=remote)
    if is_url(name):
        return
    if "<VRTDataset" in name:
        _count_reads(name.encode(), Path(), ("the VRT in the name",), {}, remote)
        return
    for piece in {name, *_BEFORE_NAMES.split(name)}:
        if piece and "\0" not in piece:
            if os.path.isfile(piece):
                _check_beside(piece)
            _count_file(piece, (), {}, remote)


def _check_beside(path: str) -> None:
    """Checks files that GDAL may read with a raster: those beside it whose names start with its own name."""
    stem = Path(path).stem.lower()
    with suppress(OSError), os.scandir(Path(path).parent) as entries:
        for name in [
            entry.name
            for entry in entries
            if entry.name.lower().startswith((f"{stem}.", f"{stem}_"))
        ]:
            check_regular(Path(path).with_name(name))


def _count_file(path: str, outer: tuple[str, ...], known: dict[str, int], remote: bool) -> int:
    """Number of reads behind one read of a file, 1 unless it is a VRT; `outer` are the VRTs around it."""
    check_regular(path)
    place = os.path.realpath(path)
    if place in outer:
        raise InputError(
            f"{path} refers to itself; build the VRT again from the rasters themselves"
        )
    if place not in known:
        known[place] = _count_vrt(place, outer, known, remote)
    return known[place]


def _count_vrt(path: str, outer: tuple[str, ...], known: dict[str, int], remote: bool) -> int:
    """The same, for a file that was not counted before."""
    try:
        with open(path, "rb") as file:
            if b"<VRTDataset" not in file.read(_HEADER_BYTES):
                return 1
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
                return _count_reads(text, Path(path).parent, (*outer, path), known, remote)
    except OSError:  # a folder or no permission: GDAL reports the reason
        return 1


def _count_reads(
    text: bytes | mmap.mmap,
    folder: Path,
    outer: tuple[str, ...],
    known: dict[str, int],
    remote: bool,
) -> int:
    """Reads behind the text of a VRT whose relative names start from `folder`."""
    if len(outer) > DEEPEST_NESTING:
        raise InputError(
            f"{outer[0]} nests VRTs more than {DEEPEST_NESTING} levels deep; build it again from the rasters themselves"
        )
    found: Counter[tuple[bytes, bytes]] = Counter()
    for number, match in enumerate(_SOURCE.finditer(text), 1):
        _check_count(number, outer[0])
        found[match[1], match[2]] += 1
    reads = 0
    for (attributes, name), times in found.items():
        source = _source_path(attributes, name, folder)
        if "<VRTDataset" in source:
            inner = (*outer, "a VRT within it")
            reads += times * _count_reads(source.encode(), Path(), inner, known, remote)
        elif not is_remote(source):
            reads += times * _count_file(source, outer, known, remote)
        elif remote:
            reads += times
        else:
            raise InputError(
                f"{outer[0]} refers to {source}, which is not on this machine; "
                "add --remote to allow network access"
            )
        _check_count(reads, outer[0])
    return reads


def _source_path(attributes: bytes, name: bytes, folder: Path) -> str:
    """The path of a source for a VRT in `folder`."""
    path = unescape(os.fsdecode(name), {"&quot;": '"', "&apos;": "'"}).strip()
    if _IS_RELATIVE.search(attributes):
        return str(folder / path)
    return path


def _check_count(reads: int, name: str) -> None:
    if reads > MOST_SOURCES:
        raise InputError(
            f"{name} has more than {MOST_SOURCES:,} sources, counted in each band and in nested VRTs; map "
            "parts of it, or the rasters themselves"
        )
