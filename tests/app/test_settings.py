"""Starting the app: flags, models, work folders, and the files of a Space."""

import signal
import socket

import pytest

pytest.importorskip("pyogrio")
pytest.importorskip("shapely")

from packaging.requirements import Requirement
from paths import ROOT

import crossearth_hf
from crossearth_hf.app import main, settings
from crossearth_hf.errors import InputError


def test_models_of_one_name_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "load_model", lambda name, device: name)
    for folder in ("a/best", "b/best", "b/other"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert settings.load_models(["a/best", "b/best", "b/other", "org/model"], "cpu") == {
        "a/best": "a/best",
        "b/best": "b/best",
        "other": "b/other",
        "org/model": "org/model",
    }
    monkeypatch.chdir("b/other")
    assert settings.load_models(["."], "cpu") == {"other": "."}


def test_the_work_folder_is_emptied_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setenv("GRADIO_EXAMPLES_CACHE", "")
    (tmp_path / "mine.txt").write_text("mine")
    stale = tmp_path / "crossearth-app" / "served" / "old"
    stale.mkdir(parents=True)
    with settings.work_folder(tmp_path) as folders:
        assert not stale.exists()
        folders.examples.mkdir()
        (folders.served / "upload.tif").write_text("x")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "crossearth-app",
        "examples",
        "mine.txt",
    ]
    with settings.work_folder(None) as folders:
        assert folders.served.is_dir()
    assert not folders.served.parent.exists()


def test_two_servers_do_not_share_a_work_folder(tmp_path, monkeypatch):
    for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
        monkeypatch.setenv(name, "")
    with settings.work_folder(tmp_path) as folders:
        (folders.served / "upload.tif").write_text("x")
        with pytest.raises(InputError, match="another server uses"), settings.work_folder(tmp_path):
            pass
        assert (folders.served / "upload.tif").exists()
    with settings.work_folder(tmp_path):
        pass


def test_work_folders_that_cannot_be(tmp_path, monkeypatch):
    for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
        monkeypatch.setenv(name, "")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("mine")
    (tmp_path / "linked" / "crossearth-app").mkdir(parents=True)
    (tmp_path / "linked" / "crossearth-app" / "served").symlink_to(tmp_path / "mine")
    for parent in ("file", "linked"):
        with (
            pytest.raises(InputError, match="choose another folder with --work-dir"),
            settings.work_folder(tmp_path / parent),
        ):
            pass
    assert (tmp_path / "mine" / "precious.txt").exists()


@pytest.mark.parametrize(
    "flags",
    [
        "--max-megapixels 0",
        "--max-megapixels nan",
        "--max-megabytes inf",
        "--keep-minutes inf",
        "--keep-minutes -1",
        "--max-queue -1",
        "--port 0",
        "--port 99999999",
        "--port x",
        "--prot",
        "scene.tif",
    ],
)
def test_wrong_flags(flags, capsys):
    with pytest.raises(SystemExit) as stop:
        settings.parse(flags.split())
    assert stop.value.code == 2
    usage, error = capsys.readouterr().err.splitlines()
    assert usage == "usage: crossearth app [options]"
    assert error.startswith("crossearth app: error: ")
    assert flags.split()[-1] in error


def test_addresses_that_cannot_be_opened(capsys, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = str(other.getsockname()[1])
        for flags in (
            ["--port", taken],
            ["--host", "8.8.8.8"],
            ["--host", "::zz"],
            ["--host", "a" * 70],
        ):
            assert main(flags) == 2
            (error,) = capsys.readouterr().err.splitlines()
            assert flags[1] in error
            assert "cannot be opened here; choose another port with --port" in error
    settings.check_address(settings.parse(["--port", taken]))


def test_the_readme_names_every_flag():
    readme = (ROOT / "app" / "README.md").read_text()
    flags = vars(settings.parse([]))
    assert [flag for flag in flags if f"`--{flag.replace('_', '-')}" not in readme] == []


def test_a_space_installs_this_version_with_the_app():
    requirement = Requirement((ROOT / "app" / "requirements.txt").read_text().strip())
    wheel = f"crossearth_hf-{crossearth_hf.__version__}-py3-none-any.whl"
    assert (requirement.name, requirement.extras) == ("crossearth-hf", {"app"})
    assert requirement.url.rpartition("/")[2] == wheel
    readme = (ROOT / "app" / "README.md").read_text()
    assert f"dist/{wheel} {wheel}" in readme
    front = readme.split("---")[1]
    assert "app_file: app.py" in front
