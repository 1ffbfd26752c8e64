"""What keeps the server from fetching addresses that a caller names: gradio would, for files given as URLs."""

import json
import re
from typing import Any
from urllib.parse import unquote

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LARGEST_BODY = 2**20  # bytes of a request that is no upload


class NoFetching:
    """Middleware that answers 403 to requests with which gradio would fetch an address for the caller."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Looks at the path, and at the body unless it is an upload."""
        path = unquote(re.sub("%(25)+", "%", scope.get("path", "")))  # however often it was encoded
        refused = "/proxy=" in path or (":/" in path and ("file=" in path or "file/" in path))
        if not refused and scope["type"] == "http" and scope["method"] == "POST" and not _is_upload(scope):
            body = await _read(receive)
            refused = body is None or _names_address(body)
            receive = _replayed(body or b"", receive)
        if refused:
            await PlainTextResponse("addresses are not fetched here", status_code=403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _is_upload(scope: Scope) -> bool:
    return dict(scope["headers"]).get(b"content-type", b"").startswith(b"multipart/form-data")


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
        return waiting.pop() if waiting else await receive()

    return receive_again


def _names_address(body: bytes) -> bool:
    """Whether a JSON body holds a file whose path is an address, or may hold one too deep to be found."""
    try:
        return _holds_address(json.loads(body))
    except ValueError:  # not JSON: gradio refuses it
        return False
    except RecursionError:  # nested so deep that nobody can tell
        return True


def _holds_address(value: Any) -> bool:
    if isinstance(value, dict):
        return "://" in str(value.get("path", "")) or any(map(_holds_address, value.values()))
    return isinstance(value, list) and any(map(_holds_address, value))
