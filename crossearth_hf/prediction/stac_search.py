"""Searches of STAC APIs (https://github.com/radiantearth/stac-api-spec), through pystac-client."""

from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from ..errors import InputError, reason_of

_MARK = "stac:"
_DEFAULT_LIMIT = 100
_KEYS = ("collections", "ids", "bbox", "datetime", "limit")


def is_search(source: str) -> bool:
    """Whether a text names a search, such as `stac:https://host/api?collections=naip&bbox=8,47,9,48`."""
    return source.startswith(_MARK)


def found_items(source: str, *, allowed: bool) -> list[dict[str, Any]]:
    """The items of a search.

    Args:
        source: `stac:URL?KEY=VALUE&...` with the keys collections and ids (commas between several), bbox, datetime and
            limit (items at most, 100 by default).
        allowed: Whether a person allows requests.

    Raises:
        InputError: A key is unknown, a value is wrong, requests are not allowed, the API does not answer, no item is
            found, or a package is missing.
    """
    if not allowed:
        raise InputError(f"{source} is a network search; add --remote to allow network access")
    url, search = _parsed(source)
    try:
        from pystac_client import Client  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise InputError(
            f"a search needs the package '{error.name}'; run: pip install 'crossearth-hf[stac]'"
        ) from error
    try:
        items = list(Client.open(url).search(**search).items_as_dicts())
    except Exception as error:  # of the network, of JSON, or a refusal of the API
        raise InputError(
            f"the STAC API at {url} does not answer as it should ({reason_of(error)}); check the URL and the search"
        ) from error
    if not items:
        raise InputError(f"{source} finds no item; search a larger box or another time")
    return items


def _parsed(source: str) -> tuple[str, dict[str, Any]]:
    """The API's address, and the arguments of pystac-client's search."""
    parts = urlsplit(source.removeprefix(_MARK))
    if parts.scheme not in ("http", "https"):
        raise InputError(
            f"{source} is invalid; write stac:https://HOST/PATH?collections=NAME&bbox=W,S,E,N"
        )
    fields = dict(parse_qsl(parts.query))
    unknown = sorted(set(fields) - set(_KEYS))
    if unknown:
        raise InputError(f"a STAC search has no '{unknown[0]}'; it takes {', '.join(_KEYS)}")
    search: dict[str, Any] = {"max_items": _number(fields.get("limit", str(_DEFAULT_LIMIT)))}
    for key in ("collections", "ids"):
        if key in fields:
            search[key] = fields[key].split(",")
    if "bbox" in fields:
        search["bbox"] = _box(fields["bbox"])
    if "datetime" in fields:
        search["datetime"] = fields["datetime"]
    return urlunsplit(parts._replace(query="")), search


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise InputError(
            f"the limit '{text}' of a STAC search is not a whole number from 1; give one such as 20"
        )
    return int(text)


def _box(text: str) -> list[float]:
    try:
        west, south, east, north = map(float, text.split(","))
    except ValueError as error:
        raise InputError(
            f"the bbox '{text}' of a STAC search is not W,S,E,N in degrees; correct it"
        ) from error
    return [west, south, east, north]
