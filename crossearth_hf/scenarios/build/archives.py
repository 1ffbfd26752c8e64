"""Raw data as its authors publish it: folders and zips under one root, read in place, never unpacked to disk."""

import io
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO
from zlib import error as ZlibError

from ...errors import InputError

MAX_MEMBERS = 500_000
"""Largest number of files in a zip; the benchmark's largest archive has some tens of thousands."""
MAX_FILE_BYTES = 8 * 2**30
"""Largest decompressed size of a raw file; the benchmark's largest is below 1 GiB."""
MAX_RATIO = 1100
"""Largest ratio of decompressed to compressed bytes, of a member and of a whole zip. Deflate cannot exceed 1032 (zlib's
technical notes), so a larger ratio means a zip bomb or overlapping members."""

_OTHER_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".rar", ".7z", ".zip")
_OPEN_ZIPS = 8


@dataclass(frozen=True, order=True)
class RawFile:
    """A file of the raw data: on disk, or a member of a zip.

    Attributes:
        relative: Path below the raw folder with "/"; a zip counts as a folder with the zip's name without its ending.
        path: The file, or the zip that holds it.
        member: Name in the zip; None for a file on disk.
        size: Bytes, decompressed.
    """

    relative: str
    path: Path
    member: str | None
    size: int

    def __str__(self) -> str:
        if self.member is None:
            return str(self.path)
        return f"{self.path}:{self.member}"

    @property
    def name(self) -> str:
        """File name without folders."""
        return self.relative.rsplit("/", 1)[-1]

    @property
    def stem(self) -> str:
        """File name without folders and ending."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """Ending in lower case with its dot."""
        return PurePosixPath(self.name).suffix.lower()

    def read_bytes(self) -> bytes:
        """Reads the whole file and verifies the checksum of a zip; raises `InputError` if it cannot be read."""
        try:
            if self.member is None:
                return self.path.read_bytes()
            # in pieces, because zipfile would otherwise hold the file three times
            content = io.BytesIO()
            with _zip(self.path).open(self.member) as stream:
                shutil.copyfileobj(stream, content, 2**20)
            return content.getvalue()
        except READ_ERRORS as error:
            raise InputError(
                f"{self} cannot be read ({error}); download or copy it again"
            ) from error

    def modified(self) -> int:
        """When the file, or the zip that holds it, was changed last, in nanoseconds; raises as `read_bytes`."""
        try:
            return self.path.stat().st_mtime_ns
        except OSError as error:
            raise InputError(
                f"{self} cannot be read ({error.strerror}); download or copy it again"
            ) from error

    def stream(self) -> IO[bytes]:
        """The file opened for reading in pieces, with random access; raises as `read_bytes`."""
        try:
            if self.member is None:
                return self.path.open("rb")
            return _zip(self.path).open(self.member)
        except READ_ERRORS as error:
            raise InputError(
                f"{self} cannot be read ({error}); download or copy it again"
            ) from error


READ_ERRORS = (OSError, EOFError, zipfile.BadZipFile, ZlibError, NotImplementedError, RuntimeError)
JSON_ERRORS = (OSError, ValueError, RecursionError)
"""Errors of JSON files that cannot be read, are not JSON, or are nested too deeply."""


@dataclass(frozen=True)
class RawFolder:
    """All files under a raw folder, zips opened in place.

    Attributes:
        root: The folder, or a single zip.
        entries: Every file, folders before zips, in natural order.
    """

    root: Path
    entries: tuple[RawFile, ...]

    @classmethod
    def open(cls, root: str | os.PathLike[str]) -> "RawFolder":
        """Lists a folder (or one zip).

        Raises:
            InputError: The folder is missing, or a zip file is damaged, encrypted or unsafe: with paths that leave the
                archive, or a bomb (`MAX_MEMBERS`, `MAX_FILE_BYTES`, `MAX_RATIO`).
        """
        path = Path(root)
        if path.is_file() and path.suffix.lower() == ".zip":
            return cls(path, tuple(sorted(_members(path, ""), key=_natural)))
        if not path.is_dir():
            raise InputError(
                f"{path} is not a folder; name the folder that holds the downloaded archives"
            )
        on_disk: list[RawFile] = []
        in_zips: list[RawFile] = []
        for file in _walk(path):
            relative = file.relative_to(path).as_posix()
            if file.suffix.lower() == ".zip":
                in_zips += _members(file, relative.removesuffix(file.suffix) + "/")
            else:
                on_disk.append(RawFile(relative, file, None, file.stat().st_size))
        return cls(path, (*sorted(on_disk, key=_natural), *sorted(in_zips, key=_natural)))

    def files(self, pattern: str) -> list[RawFile]:
        """Files whose last path components match a pattern's.

        Args:
            pattern: Components separated by "/", each with the wildcards * ? []: "images/*.png" finds every .png in a
                folder called images, at any depth.

        Returns:
            In natural order. Of copies with the same folder, name and size (an archive beside its unpacked folder),
            only the one on disk.

        Raises:
            InputError: Two files of different sizes match with the same last components.
        """
        wanted = pattern.split("/")
        found: dict[str, RawFile] = {}
        for entry in self.entries:
            parts = entry.relative.split("/")[-len(wanted) :]
            if len(parts) != len(wanted) or not all(map(fnmatchcase, parts, wanted)):
                continue
            first = found.setdefault("/".join(parts), entry)
            if first.size != entry.size:
                raise InputError(
                    f"{first} and {entry} are both '{pattern}' and differ in size; leave the right one in {self.root}"
                )
        return list(found.values())

    def other_archives(self) -> list[str]:
        """Archives that are not read in place (tar, rar, 7z, a zip within a zip)."""
        return [
            entry.relative for entry in self.entries if entry.name.lower().endswith(_OTHER_ARCHIVES)
        ]


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not _is_clutter(name))
        yield from (Path(folder) / name for name in sorted(names) if not _is_clutter(name))


def _members(path: Path, prefix: str) -> Iterable[RawFile]:
    """The files of a zip, checked for attacks."""
    try:
        infos = [info for info in _zip(path).infolist() if not info.is_dir()]
    except READ_ERRORS as error:
        raise InputError(f"{path} is cut off or not a zip ({error}); download it again") from error
    _check_members(path, infos)
    for info in infos:
        name = info.filename.replace("\\", "/")
        if not any(map(_is_clutter, name.split("/"))):
            yield RawFile(prefix + name, path, info.filename, info.file_size)


def _check_members(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    refuse = "this is not the archive of the data set's authors: download it from them"
    if len(infos) > MAX_MEMBERS:
        raise InputError(f"{path} holds {len(infos)} files, more than {MAX_MEMBERS}; {refuse}")
    names = {info.filename for info in infos}
    if len(names) < len(infos):
        raise InputError(f"{path} holds two files of one name; {refuse}")
    for info in infos:
        parts = info.filename.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or re.match(r"[A-Za-z]:", parts[0]):
            raise InputError(
                f"{path} holds '{info.filename}', a path that leaves the archive; {refuse}"
            )
        if info.flag_bits & 0x1:
            raise InputError(
                f"{path} is encrypted; unpack it with its password and name the folder"
            )
        if info.file_size > MAX_FILE_BYTES or info.file_size > MAX_RATIO * max(
            info.compress_size, 64
        ):
            raise InputError(
                f"{path} holds '{info.filename}' of {info.file_size} bytes in {info.compress_size}, beyond the limits "
                f"of {MAX_FILE_BYTES} bytes and {MAX_RATIO}:1; {refuse}"
            )
    total = sum(info.file_size for info in infos)
    if total > MAX_RATIO * max(path.stat().st_size, 64):
        raise InputError(
            f"{path} would unpack to {total} bytes, more than {MAX_RATIO} times its size; {refuse}"
        )


def _is_clutter(name: str) -> bool:
    """Whether a file or folder is an operating system's own or hidden."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _natural(file: RawFile) -> list[tuple[int, str]]:
    """Sorts 2 before 10."""
    return [
        (int(part), "") if part.isdigit() else (-1, part)
        for part in re.split(r"(\d+)", file.relative)
    ]


def _zip(path: Path) -> zipfile.ZipFile:
    """The zip at `path`, opened once per process: forked workers must not share a file handle."""
    status = path.stat()
    return _open_zip(path, os.getpid(), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=_OPEN_ZIPS)
def _open_zip(path: Path, process: int, modified: int, size: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)
