"""Requests to the app that name an address to fetch, for `tests/tools/fuzz.py`: none may reach gradio."""

import asyncio
import json
from typing import Any

import hypothesis.strategies as st

from crossearth_hf.app.gates import NoFetching, PlainRequests

Case = Any

_ADDRESSES = (
    "http://127.0.0.1:1/a",
    "HTTPS://example.org/a",
    "ftp://127.0.0.1/a",
    "file:///etc/passwd",
)
_TYPES = (
    b"application/json",
    b"Application/JSON; charset=utf-8",
    b"multipart/form-data",
    b"multipart/form-data; boundary=x",
    b"multipart/form-data, application/json",
    b"text/plain",
    b"",
)
_ENCODINGS = ("utf-8", "utf-16", "utf-16-le", "utf-32", "utf-8-sig")
_PATHS = (
    "/gradio_api/queue/join",
    "/gradio_api/call/map",
    "/gradio_api/run/map",
)  # those that read JSON


@st.composite
def request_cases(draw: st.DrawFn) -> Case:
    """Path, headers, body."""
    names = st.sampled_from((b"content-type", b"x-other"))
    headers = draw(st.lists(st.tuples(names, st.sampled_from(_TYPES)), max_size=3))
    value: Any = {"path": draw(st.sampled_from(_ADDRESSES)), "meta": {"_type": "gradio.FileData"}}
    for _ in range(draw(st.integers(0, 4))):
        value = draw(
            st.sampled_from(([value], {"value": value}, [None, value], {"files": [value]}))
        )
    encoding = draw(st.sampled_from(_ENCODINGS))
    text = json.dumps({"data": [value], "fn_index": 0}, ensure_ascii=draw(st.booleans()))
    body = text.replace("/", "\\/") if draw(st.booleans()) else text
    return draw(st.sampled_from(_PATHS)), headers, body.encode(encoding)


def send_request(case: Case) -> int:
    """Sends a request through the gate to a server that reads JSON as gradio's does: it must not see the address."""
    path, headers, body = case
    seen: list[bytes] = []

    async def server(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        kinds = [value for name, value in scope["headers"] if name == b"content-type"]
        kind = kinds[0] if kinds else b""  # as starlette takes it
        if not kind or b"json" in kind.lower():
            seen.append(message["body"])

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        pass

    host = (b"host", b"127.0.0.1:7860")
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [host, *headers],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 7860),
    }
    asyncio.run(PlainRequests(NoFetching(server))(scope, receive, send))
    assert not any(_names_address(content) for content in seen), "an address reaches the server"
    return 0


def _names_address(body: bytes) -> bool:
    """Whether Python's JSON reader, which guesses the encoding, finds an address in a body."""
    try:
        return "://" in json.dumps(json.loads(body))
    except ValueError:
        return False
