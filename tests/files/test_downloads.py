"""Models on the Hub: a small server stands for it, and none, and one that never answers."""

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants
from tiny_model import tiny_config

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor
from crossearth_hf.cli import main
from crossearth_hf.errors import InputError
from crossearth_hf.files import downloads as hub
from crossearth_hf.inference.loading import load_config, load_model

COMMIT = "c" * 40


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    CrossEarthForSemanticSegmentation(tiny_config()).save_pretrained(folder)
    CrossEarthImageProcessor().save_pretrained(folder)
    return folder


@pytest.fixture
def point(monkeypatch, tmp_path):
    """A function that makes an address the Hub's; every test has a cache of its own."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def to(address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        hub._answers.cache_clear()

    yield to
    hub._answers.cache_clear()


@pytest.fixture
def server(model, point):
    """A Hub that holds the repository org/model."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            self.answer()

        def answer(self):
            place, _, name = self.path.partition("/resolve/")
            path = model / name.partition("/")[2]
            known = place == "/org/model" and path.is_file()
            content = path.read_bytes() if known else b""
            self.send_response(200 if known or self.path == "/" else 404)
            if not known:
                missing = "EntryNotFound" if place == "/org/model" else "RepoNotFound"
                self.send_header("X-Error-Code", missing)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{path.name}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        point(f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()


def test_a_model_of_the_hub_is_loaded_and_found_again_without_it(server, point):
    assert load_config("org/model").num_labels == 6
    assert load_model("org/model", device="cpu")[0].config.num_labels == 6
    point("http://127.0.0.1:1")
    assert load_model("org/model", device="cpu")[0].config.num_labels == 6


def test_what_the_hub_does_not_hold(server, tmp_path):
    with pytest.raises(
        InputError, match=r"'org/other' is neither a path on this machine nor a public repository"
    ):
        load_model("org/other")
    with pytest.raises(InputError, match=r"'org/model' on the Hub has no file full.pth"):
        hub.hub_file("org/model", "full.pth")


@pytest.fixture(params=["closed", "silent"])
def nobody(request, point):
    """A Hub that refuses connections, and one that takes them and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "silent":
            listener.listen(8)
        point(f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield


def commands(tmp_path):
    yield ["predict", "absent.tif", str(tmp_path / "m.tif"), "--model", "org/absent"]
    yield ["convert", "org/absent:full.pth", str(tmp_path / "out")]
    yield [
        "evaluate",
        "org/absent",
        "--out",
        str(tmp_path / "r"),
        "--folder",
        str(tmp_path),
        "--name",
        "x",
    ]


@pytest.mark.parametrize("number", range(3))
def test_without_a_network_a_hub_id_is_one_sentence_within_five_seconds(
    nobody, tmp_path, capsys, monkeypatch, number
):
    if number:  # once is enough to see how long a person waits
        monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.5)
    (tmp_path / "absent.tif").write_bytes(b"")
    arguments = list(commands(tmp_path))[number]
    if arguments[0] == "predict":
        from crossearth_hf.synthetic import generate_scene, write_scene  # noqa: PLC0415

        write_scene(
            generate_scene("temperate-summer", 0, 32, 32), tmp_path / "s.tif", overwrite=True
        )
        arguments[1] = str(tmp_path / "s.tif")
    started = time.monotonic()
    assert main(arguments) == 2
    assert time.monotonic() - started < 5
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert (
        "'org/absent' is not a path on this machine and cannot be downloaded from the Hub"
        in lines[0]
    )


def test_publishing_without_a_network_says_so(nobody, monkeypatch):
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.5)
    with pytest.raises(InputError, match=r"the Hub .* does not answer"):
        hub.require_online("org/model cannot be pushed")


@pytest.mark.parametrize("name", ["a b", "-x/y", "a/b\x1b[31m", "x" * 500, "a..b"])
def test_names_that_are_none(name):
    with pytest.raises(InputError, match="is not a name of a repository") as raised:
        load_config(name)
    assert len(str(raised.value)) < 400
