"""A server on this machine that hands out files with range requests, counts bytes, and breaks connections on demand."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Loopback:
    """The server; `url` is its address.

    Args:
        folder: Whose files it hands out.

    Attributes:
        sent: Bytes of bodies that were sent.
        requests: Method and path of all requests.
        breaks: Number of the next GET requests whose body is cut off.
        refuses: Number of the next GET requests that are answered with 503.
        ranges: Whether it heeds ranges.
        pages: Bodies of other paths, as a function of method, path and body.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.sent, self.requests = folder, 0, list[tuple[str, str]]()
        self.breaks, self.refuses, self.ranges = 0, 0, True
        self.pages = None
        self.url = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Loopback

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def do_POST(self):
        self.answer(with_body=True)

    def answer(self, *, with_body):
        state = self.state
        state.requests.append((self.command, self.path))
        request = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        page = state.pages and state.pages(self.command, self.path, request)
        path = state.folder / self.path.partition("?")[0].lstrip("/")
        if page is not None:
            return self.send(200, page, {"Content-Type": "application/json"}, with_body)
        if not path.is_file():
            return self.send(404, b"no such file", {}, with_body)
        if with_body and state.refuses:
            state.refuses -= 1
            return self.send(503, b"busy", {}, with_body)
        content = path.read_bytes()
        asked = self.headers.get("Range")
        if asked is None or not state.ranges:
            return self.send(
                200, content, {"Accept-Ranges": "bytes"} if state.ranges else {}, with_body
            )
        first, _, last = asked.removeprefix("bytes=").partition("-")
        first, last = int(first), min(int(last or len(content)), len(content) - 1)
        headers = {
            "Content-Range": f"bytes {first}-{last}/{len(content)}",
            "Accept-Ranges": "bytes",
        }
        return self.send(206, content[first : last + 1], headers, with_body)

    def send(self, code, body, headers, with_body):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not with_body:
            return
        if self.state.breaks and self.command == "GET" and code < 400:
            self.state.breaks -= 1
            body = body[: len(body) // 2]
            self.close_connection = True
        self.state.sent += len(body)
        self.wfile.write(body)


@contextmanager
def serving(folder: Path) -> Iterator[Loopback]:
    """The server for the duration of a block."""
    state = Loopback(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
