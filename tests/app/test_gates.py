"""What the app's server lets through: plain requests of its own page that name no address."""

import gzip
import json

import pytest

pytest.importorskip("gradio")
pytest.importorskip("pyogrio")
pytest.importorskip("shapely")

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from crossearth_hf.app.gates import NoFetching, OwnPage, PlainRequests, is_loopback
from crossearth_hf.app.page import _own_page

ADDRESS = "http://example.org/scene.tif"
FILE = {"path": ADDRESS, "meta": {"_type": "gradio.FileData"}}


async def echo(request):
    return PlainTextResponse(await request.body())


async def fail(request):
    raise KeyError("secret\nname")


async def fail_midway(request):
    async def pieces():
        yield b"first"
        raise KeyError("midway")

    return StreamingResponse(pieces())


def client(*middleware, host="127.0.0.1:7860"):
    methods = ["GET", "HEAD", "OPTIONS", "POST", "PUT"]
    routes = [
        Route("/fail", fail, methods=methods),
        Route("/midway", fail_midway),
        Route("/{p:path}", echo, methods=methods),
    ]
    return TestClient(
        Starlette(routes=routes, middleware=list(middleware)), base_url=f"http://{host}"
    )


@pytest.mark.parametrize(
    "name", ["content-type", "content-length", "content-encoding", "host", "origin"]
)
def test_headers_that_decide_come_once(name):
    value = {
        "content-type": "application/json",
        "content-length": "2",
        "host": "127.0.0.1:7860",
    }.get(name, "x")
    headers = [(b"host", b"127.0.0.1:7860"), (b"x-other", b"1"), (b"x-other", b"2")]
    plain = client(Middleware(PlainRequests))
    assert plain.post("/x", content=b"{}", headers=headers).status_code == 200
    twice = [*headers, (name.encode(), value.encode()), (name.title().encode(), value.encode())]
    answer = plain.post("/x", content=b"{}", headers=twice)
    assert answer.status_code == 400
    assert answer.text == f"send the header {name} once"


def test_a_length_and_chunks_do_not_go_together():
    headers = {"content-length": "2", "transfer-encoding": "chunked"}
    assert (
        client(Middleware(PlainRequests)).post("/x", content=b"{}", headers=headers).status_code
        == 400
    )


def test_an_exception_is_one_line_of_the_log(capfd):
    plain = client(Middleware(PlainRequests))
    answer = plain.post("/fail")
    assert (answer.status_code, answer.text) == (400, "this request cannot be handled")
    assert plain.get("/midway").text == "first"
    log = capfd.readouterr().err
    assert log.splitlines() == [
        "crossearth app: request refused: POST /fail: KeyError: 'secret\\nname'",
        "crossearth app: request refused: GET /midway: KeyError: 'midway'",
    ]


BODIES = {
    "plain": json.dumps(FILE).encode(),
    "escaped": b'{"path": "http:\\/\\/example.org\\/scene.tif"}',
    "escaped signs": b'{"p\\u0061th": "http\\u003a\\u002f\\u002fexample.org"}',
    "nested": json.dumps({"data": [[{"a": {"b": [FILE]}}]]}).encode(),
    "second of two": b'{"path": "a.tif", "path": "http://example.org"}',
    "UTF-16": json.dumps(FILE).encode("utf-16"),
    "UTF-16 without mark": json.dumps(FILE).encode("utf-16-le"),
    "UTF-32": json.dumps(FILE).encode("utf-32-be"),
    "marked UTF-8": json.dumps(FILE).encode("utf-8-sig"),
    "spaces": b" \n\t" + json.dumps(FILE, indent=9).encode(),
    "NaN": b'{"seed": NaN, "scene": {"path": "https://example.org"}}',
    "capitals": b'{"path": "HTTP://example.org"}',
    "other schemes": b'{"path": "ftp://example.org/a.tif"}',
    "files": b'{"path": "file:///etc/passwd"}',
    "list for a path": b'{"path": ["http://example.org"]}',
    "with a local address": b'{"path": "http://example.org", "url": "/gradio_api/file=/tmp/a.tif"}',
}
TYPES = [
    "application/json",
    "application/json; charset=utf-16",
    "Application/JSON",
    "application/geo+json",
    "text/plain",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "application/x-www-form-urlencoded",
    "",
]
ROUTES = [
    "queue/join",
    "call/predict",
    "call/v2/predict",
    "run/predict",
    "api/predict/",
    "upload/",
    "component_server",
]


@pytest.mark.parametrize("kind", BODIES)
def test_no_body_names_an_address(kind):
    gate = client(Middleware(NoFetching))
    for type_ in TYPES:
        answer = gate.post(
            "/gradio_api/call/predict", content=BODIES[kind], headers={"content-type": type_}
        )
        assert (answer.status_code, answer.text) == (403, "addresses are not fetched here"), type_


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_every_route_but_the_upload_is_looked_at(route, method):
    answer = client(Middleware(NoFetching)).request(
        method,
        f"/gradio_api/{route}",
        content=BODIES["plain"],
        headers={"content-type": "multipart/form-data"},
    )
    assert answer.status_code == 403


def test_a_packed_body_is_not_unpacked_behind_the_gate_either():
    packed = gzip.compress(BODIES["plain"])
    answer = client(Middleware(NoFetching)).post(
        "/x", content=packed, headers={"content-encoding": "gzip"}
    )
    assert answer.content == packed


@pytest.mark.parametrize(
    "path",
    [
        f"file={ADDRESS}",
        "file=HTTP://example.org",
        "file=ftp://example.org",
        "file=http%3A%2F%2Fexample.org",
        "file=http%253A%252F%252Fexample.org",
        "file%3Dhttp:%2F%2Fexample.org",
        "file/https:/%2fexample.org",
        f"proxy={ADDRESS}",
        "proxy=example.org",
        "proxy%3Dhttp:%5C%5Cexample.org",
    ],
)
def test_no_path_names_an_address(path):
    gate = client(Middleware(NoFetching))
    assert gate.get(f"/gradio_api/{path}").status_code == 403
    assert gate.head(f"/gradio_api/{path}").status_code == 403


def test_what_is_no_address_passes():
    gate = client(Middleware(NoFetching))
    for path in ("/file=/tmp/a.tif", "/file/tmp/100%25.tif", "/assets/a:b.js"):
        assert gate.get(path).status_code == 200
    assert (
        gate.post("/x", json={"data": [{"path": "/tmp/a.tif", "url": "http://here/"}]}).status_code
        == 200
    )
    assert gate.post("/x", content=b"{no json").text == "{no json"
    assert gate.post("/x", content=b" " * (2**20 + 1)).text == "only an upload may be this long"
    assert gate.post("/x", content=b"[" * 10**5).status_code == 403
    assert gate.post("/x", json={"session_hash": ""}).text == "session_hash is empty"
    upload = gate.post("/gradio_api/upload", files={"file": b"http://" * 200_000})
    assert upload.status_code == 200


def own_page(host="127.0.0.1:7860", local=True, names=()):
    return client(Middleware(OwnPage, local=local, names=names), host=host)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "127.9.9.9", "[::1]:7860"]
)
def test_a_local_server_answers_to_its_own_names(host):
    assert own_page(host).get("/").status_code == 200
    assert own_page(host).post("/", headers={"origin": f"http://{host}".lower()}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7860", "0.0.0.0:7860"],
)
def test_a_local_server_answers_to_no_other_name(host):
    for method in ("GET", "POST", "HEAD"):
        assert own_page(host).request(method, "/gradio_api/info").status_code == 403


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://localhost:7860",
        "http://127.0.0.1:3000",
        "http://127.0.0.1",
        "null",
        "x",
        "http://[",
    ],
)
def test_a_foreign_page_sends_nothing(origin, local):
    page = own_page(local=local)
    for method in ("POST", "PUT"):
        answer = page.request(
            method, "/gradio_api/upload", content=b"{}", headers={"origin": origin}
        )
        assert (answer.status_code, answer.text) == (403, "another page may not send this")
    assert page.get("/", headers={"origin": origin}).status_code == 200, (
        "browsers keep the answer from it"
    )


def test_programs_and_proxies_get_through():
    assert own_page().post("/").status_code == 200, "no browser, no origin"
    own = {"origin": "https://maps.example"}
    assert own_page("maps.example", local=False).post("/", headers=own).status_code == 200
    assert (
        own_page("maps.example", names=["maps.example"]).post("/", headers=own).status_code == 200
    )
    behind = own | {"sec-fetch-site": "same-origin"}
    assert own_page("10.0.0.7:7860", local=False).post("/", headers=behind).status_code == 200


def test_which_servers_are_local(monkeypatch):
    for name in ("GRADIO_SERVER_NAME", "GRADIO_ROOT_PATH", "SYSTEM"):
        monkeypatch.delenv(name, raising=False)

    def is_local(host):
        return _own_page(host)[0].kwargs["local"]

    assert all(map(is_local, (None, "localhost", "127.0.0.1", "::1")))
    assert not any(map(is_local, ("0.0.0.0", "10.0.0.7")))
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    assert [is_local(host) for host in (None, "127.0.0.1")] == [False, True]
    monkeypatch.setenv("GRADIO_ROOT_PATH", "https://maps.example/app")
    assert _own_page(None)[0].kwargs["names"] == ["maps.example"]
    monkeypatch.setenv("SYSTEM", "spaces")
    monkeypatch.setenv("SPACE_ID", "me/crossearth")
    assert _own_page(None) == []
    assert is_loopback("127.0.0.1")
    assert not is_loopback("")
