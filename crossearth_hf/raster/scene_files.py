"""The files on disk behind a raster, for any name that GDAL opens."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import rasterio

from .gdal import GDAL_ERRORS

_LARGEST_XML = 2**28  # bytes: a mosaic of half a million files
_MOST_SEPARATORS = 24  # in a name; longer texts are not names
_STARTS = re.compile(r"""://|[:,?={}"'!&]|/vsi[a-z0-9_]+/""")
_ENDS = re.compile(r"""[:,?={}"'!&/]""")


def files_of(source: Any) -> list[str]:
    """The files that GDAL reads for an open rasterio dataset, and its names for what is not a file on disk.

    GDAL lists neither the sources of a VRT within a VRT nor the file behind names such as `GTIFF_DIR:1:a.tif`,
    `vrt://a.tif` or `/vsisubfile/0_9,a.tif`; these are found in names and XML files.
    """
    found: dict[str, None] = {}
    waiting = [source.name, *source.files]
    while waiting:
        name = waiting.pop()
        is_xml = name.lstrip().startswith("<")  # a VRT may be given as text
        for file in list(_references(name, "")) if is_xml else _files_in(name) or [name]:
            if file not in found:
                found[file] = None
                waiting += [*_files_in_xml(file), *_listed(file, source.name)]
    return list(found)


def _listed(file: str, opened: str) -> list[str]:
    """The files that GDAL lists for a VRT that another raster refers to."""
    if file != opened and _is_xml(file):
        with suppress(*GDAL_ERRORS), rasterio.open(file) as inner:
            return list(inner.files)
    return []


def _files_in(name: str, folder: str = "") -> list[str]:
    """Files that a name refers to, directly or behind prefixes, options and archives; the longest of nested names."""
    whole = os.path.join(folder, name)
    if os.path.isfile(whole):
        return [whole]
    starts = [0, *(match.end() for match in _STARTS.finditer(name))]
    ends = [*(match.start() for match in _ENDS.finditer(name)), len(name)]
    if len(starts) > _MOST_SEPARATORS:
        return []
    pieces = {name[start:end] for start in starts for end in ends if end > start}
    places = {
        os.path.join(folder, spelling) for piece in pieces for spelling in (piece, unquote(piece))
    }
    files = [place for place in places if os.path.isfile(place)]
    return [file for file in files if not any(file != other and file in other for other in files)]


def _files_in_xml(path: str) -> list[str]:
    """Files that an XML file, such as a VRT, refers to; none for other files."""
    try:
        if not _is_xml(path) or os.path.getsize(path) > _LARGEST_XML:
            return []
        xml = Path(path).read_bytes()
        folders = dict.fromkeys(os.path.dirname(place) for place in (path, os.path.realpath(path)))
        return [file for folder in folders for file in _references(xml, folder)]
    except (OSError, ValueError):
        return []


def _is_xml(path: str) -> bool:
    """Whether a file, such as a VRT of any name, holds XML."""
    if not os.path.isfile(path):  # a pipe would block
        return False
    try:
        with open(path, "rb") as stream:
            return stream.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    except OSError:
        return False


def _references(xml: str | bytes, folder: str) -> Iterator[str]:
    """Files that XML refers to; `folder` is that of the XML file."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return
    is_vrt = root.tag.startswith("VRT")
    for element in root.iter():
        text = (element.text or "").strip()
        if re.search("[^\\d\\s.,eE+-]", text):
            is_relative = element.get("relativeToVRT", "0" if is_vrt else "1") == "1"
            yield from _files_in(text, folder if is_relative else "")
