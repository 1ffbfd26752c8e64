"""Checks before gradio: requests are plain, come from our own page, and name no address to be fetched."""

import ipaddress
import json
import re
import sys
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import on_one_line

_UPLOAD = "/gradio_api/upload"  # the one route whose body may be large, and is not JSON
_LARGEST_BODY = 2**20  # bytes of a request to any other
_DECIDING = (
    "content-type",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "host",
    "origin",
)
_FETCHING = "addresses are not fetched here"
_READING = ("GET", "HEAD", "OPTIONS")


class PlainRequests:
    """Middleware that answers 400 to ambiguous requests, and to requests on which gradio raises an exception.

    Where a header is sent twice, one program reads the first copy and another one reads the last.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts the headers that decide how a request is read; leaves one line in the log for an exception."""
        names = [name.decode("latin-1").lower() for name, _ in scope.get("headers", ())]
        twice = [name for name in _DECIDING if names.count(name) > 1]
        if twice or {"content-length", "transfer-encoding"} <= set(names):
            if twice:
                sentence = f"send the header {twice[0]} once"
            else:
                sentence = "send content-length or transfer-encoding"
            await PlainTextResponse(sentence, status_code=400)(scope, receive, send)
            return
        answered = False

        async def watched(message: Message) -> None:
            nonlocal answered
            answered = answered or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except ClientDisconnect:  # in the middle of an upload: no one waits for an answer
            return
        except Exception as error:
            if scope["type"] != "http":
                raise
            told = on_one_line(
                f"{scope['method']} {scope['path'][:100]}: {type(error).__name__}: {error}"[:400]
            )
            print(f"crossearth app: request refused: {told}", file=sys.stderr)
            if answered:
                await send({"type": "http.response.body", "body": b""})
            else:
                await PlainTextResponse("this request cannot be handled", status_code=400)(
                    scope, receive, send
                )


class OwnPage:
    """Middleware that answers 403 to requests that a foreign page makes a visitor's browser send.

    Args:
        app: The application behind it.
        local: Whether the server listens on this machine only. Then it accepts no other host name, because a foreign
            page's own name could be made to point here (DNS rebinding).
        names: Other host names under which the page is served, such as a proxy's name.
    """

    def __init__(self, app: ASGIApp, local: bool, names: Iterable[str] = ()) -> None:
        self.app, self.local, self.names = app, local, frozenset(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Checks the host, and the origin of requests that change something."""
        sentence = None
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if self.local and not self._is_ours(headers.get("host", "")):
                sentence = "this server answers to 127.0.0.1 and localhost only"
            elif scope["method"] not in _READING and _is_foreign(headers):
                sentence = "another page may not send this"
        if sentence is None:
            await self.app(scope, receive, send)
        else:
            await PlainTextResponse(sentence, status_code=403)(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        name = host_name(f"//{host}")
        return name in self.names or is_loopback(name)


def is_loopback(name: str) -> bool:
    """Whether a host name or address means this machine."""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _is_foreign(headers: Headers) -> bool:
    """Whether a browser says that a request comes from a page of another host than the one it goes to."""
    origin = headers.get("origin")
    # behind a proxy the host may be another
    if origin is None or headers.get("sec-fetch-site") == "same-origin":
        return False
    return origin.lower().partition("://")[2] != headers.get("host", "").lower()


def host_name(address: str) -> str:
    """The host of an address in lower case, or empty."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


class NoFetching:
    """Middleware that answers 403 to requests with which gradio would fetch an address for the caller."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Checks the path, and the body of any stated type unless it goes to the upload route."""
        path = unquote(re.sub("%(25)+", "%", scope.get("path", "")))  # however often it was encoded
        is_address = "/proxy=" in path or (":/" in path and ("file=" in path or "file/" in path))
        if is_address:
            refusal = _FETCHING
        else:
            refusal = None
        if (
            refusal is None
            and scope["type"] == "http"
            and scope["method"] not in _READING
            and scope["path"] != _UPLOAD
        ):
            body = await _read(receive)
            if body is None:
                refusal = "only an upload may be this long"
            else:
                refusal = _why_refused(body)
            receive = _replayed(body or b"", receive)
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            await PlainTextResponse(refusal, status_code=403)(scope, receive, send)


async def _read(receive: Receive) -> bytes | None:
    """The body of a request; None if it is too long."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > _LARGEST_BODY:
            return None
    return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` for a request whose body was read already."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        if waiting:
            return waiting.pop()
        return await receive()

    return receive_again


def _why_refused(body: bytes) -> str | None:
    """A sentence about a JSON body with a file whose path is an address, or with nesting too deep to search."""
    try:
        value = json.loads(body)
        if isinstance(value, dict) and value.get("session_hash") == "":
            return "session_hash is empty"  # gradio loses such a request in its queue
        if _holds_address(value):
            return _FETCHING
        return None
    except ValueError:  # not JSON: gradio refuses it
        return None
    except RecursionError:  # nested too deeply to search
        return _FETCHING


def _holds_address(value: Any) -> bool:
    if isinstance(value, dict):
        return "://" in str(value.get("path", "")) or any(map(_holds_address, value.values()))
    return isinstance(value, list) and any(map(_holds_address, value))
