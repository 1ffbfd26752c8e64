"""Rasters that are not on this machine: Cloud-Optimized GeoTIFFs behind URLs, read in pieces by GDAL's own readers.

Nothing is fetched unless a person allows it. Credentials come from GDAL's environment alone, such as
AWS_ACCESS_KEY_ID, GS_OAUTH2_REFRESH_TOKEN and AZURE_STORAGE_CONNECTION_STRING.
"""

import os
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import rasterio
from rasterio.session import DummySession

from ..errors import InputError
from .gdal import GDAL_ERRORS, gdal_cause

INDIRECT_DRIVERS = (
    "WMS",
    "WCS",
    "WMTS",
    "OGCAPI",
    "STACIT",
    "STACTA",
    "PLMosaic",
    "EEDAI",
    "DAAS",
    "NGW",
    "HTTP",
)
"""Of files that say where in the network the pixels are."""

_PREFIXES = {
    "http": "/vsicurl/http://",
    "https": "/vsicurl/https://",
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
}
_REMOTE = re.compile(
    r"(?:https?|ftp|s3|gs|az|oss)://|/vsi(?:curl|s3|gs|az|adls|oss|swift|webhdfs|hdfs)\w*[/?]", re.I
)

# Our choices, unless the environment says otherwise. Files beside the raster are not looked for. What was read is
# forgotten once a raster is closed, because GDAL keeps half-transferred pieces and takes them for whole.
_SETTINGS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_CONNECTTIMEOUT": "15",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "CPL_VSIL_CURL_CACHE_SIZE": str(128 * 2**20),
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/:/vsigs/:/vsiaz/",
}
_PAUSES = (0.5, 1.0, 2.0)  # seconds before a broken connection is tried again
_FINAL = re.compile(
    r"HTTP response code: 4(?!29)\d\d|Range downloading not supported|does not exist|No such|Access"
)


def is_remote(name: str) -> bool:
    """Whether GDAL would look into the network for a raster of this name."""
    return _REMOTE.search(name) is not None


def is_url(name: str) -> bool:
    """Whether a name is a URL that can be read: https://, http://, s3://, gs:// or az://."""
    return name.partition("://")[0].lower() in _PREFIXES and "://" in name


def url_path(name: str) -> str:
    """The path in a URL, without what may be secret; other names as they are."""
    if is_url(name):
        return urlsplit(name).path
    return name


def check_allowed(name: str, *, allowed: bool) -> None:
    """Raises `InputError` for a raster in the network that is not allowed, or that has no URL of a known kind."""
    if not is_remote(name):
        return
    if not allowed:
        raise InputError(f"{name} is not on this machine; add --remote to allow network access")
    if not is_url(name):
        raise InputError(
            f"{name} is not a URL that can be read; give one that starts with https, http, s3, gs or az"
        )


class RemoteRaster:
    """A rasterio dataset behind a URL, whose connection may break: reads are tried again with a new one.

    It has the attributes of the dataset.

    Args:
        url: The raster.
        driver: Name of the only GDAL driver that may open it; None for any.

    Raises:
        InputError: The file does not exist, permission is missing, the connection fails, or the server does not
            support range requests.
    """

    def __init__(self, url: str, driver: str | None) -> None:
        scheme, _, place = url.partition("://")
        self._url, self._driver, self._path = url, driver, _PREFIXES[scheme.lower()] + place
        self._dataset: Any = None
        self._tried(lambda: None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def __enter__(self) -> "RemoteRaster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        if self._dataset is not None:
            self._dataset.close()

    def read(self, *arguments: Any, **options: Any) -> Any:
        """As in rasterio."""
        return self._tried(lambda: self._dataset.read(*arguments, **options))

    def read_masks(self, *arguments: Any, **options: Any) -> Any:
        """As in rasterio."""
        return self._tried(lambda: self._dataset.read_masks(*arguments, **options))

    def _tried(self, work: Callable[[], Any]) -> Any:
        """The result of `work`, with a dataset that is opened first if it is not, and again after each error."""
        for pause in (*_PAUSES, None):
            try:
                with rasterio.Env(session=DummySession(), **_settings()):
                    if self._dataset is None:
                        self._dataset = rasterio.open(self._path, driver=self._driver)
                    return work()
            except GDAL_ERRORS as error:
                reason = gdal_cause(error)
                self.close()
                self._dataset = None
                if pause is None or _FINAL.search(reason):
                    raise InputError(self._refusal(reason)) from error
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _refusal(self, reason: str) -> str:
        """One sentence about the last error."""
        if "Range downloading not supported" in reason:
            return f"the server of {self._url} cannot send parts of files (range requests); download the file first"
        if re.search(r"HTTP response code: (401|403)", reason):
            return f"{self._url} is not open to you ({reason}); give GDAL's credentials in the environment"
        if _FINAL.search(reason):
            return f"{self._url} cannot be read ({reason}); check the URL"
        return (
            f"{self._url} cannot be read in {len(_PAUSES) + 1} tries ({reason}); check the connection and run again, "
            "finished parts are kept"
        )


def fingerprint(source: Any) -> tuple[int, int, int] | None:
    """Numbers that change when a GeoTIFF is written anew: where its first and its last block lie."""
    found = []
    height, width = source.block_shapes[0]
    last = (source.width - 1) // width, (source.height - 1) // height
    for key in (
        "BLOCK_OFFSET_0_0",
        f"BLOCK_OFFSET_{last[0]}_{last[1]}",
        f"BLOCK_SIZE_{last[0]}_{last[1]}",
    ):
        try:
            found.append(int(source.get_tag_item(key, "TIFF", bidx=1) or 0))
        except (*GDAL_ERRORS, ValueError):
            return None
    return found[0], found[1], found[2]


def _settings() -> dict[str, str]:
    """Settings that the environment leaves open."""
    return {name: value for name, value in _SETTINGS.items() if name not in os.environ}
