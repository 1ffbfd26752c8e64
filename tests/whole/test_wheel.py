"""The wheel does the whole job: in an environment outside the clone every command finds what it needs."""

import json
import os
import shutil
import signal
import site
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from paths import ROOT
from training_runs import make_workplace

for needed in ("setuptools", "accelerate", "gradio", "pyogrio", "shapely", "matplotlib", "jinja2"):
    pytest.importorskip(needed)

import httpx  # noqa: E402 - comes with gradio

SOURCES = (
    "crossearth_hf",
    "crossearth_command.py",
    "hub_cards",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "setup.py",
)
OUTSIDE = {
    name: value for name, value in os.environ.items() if name != "PYTHONPATH"
}  # which may name the clone
OUTSIDE |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
PATIENCE = 180  # seconds


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of the clone, built from a copy of it."""
    copy = tmp_path_factory.mktemp("copy")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(copy / "dist")]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(copy)], check=True)
    (built,) = (copy / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def binaries(wheel, tmp_path_factory):
    """The programs of an environment with the wheel, which sees the other packages of this one but not the clone."""
    root = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root], check=True)
    python = root / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(python)]
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True, env=OUTSIDE
    )
    (packages,) = root.glob("lib/python*/site-packages")
    # Only after the installation, which would find the clone's. Of a folder named here no .pth file is read, and so
    # none of an editable installation.
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    return root / "bin"


@pytest.fixture
def started(binaries, tmp_path):
    """Starts a program of the environment, in an empty folder."""

    def start(program, *arguments):
        command = [binaries / program, *map(str, arguments)]
        return subprocess.Popen(
            command,
            cwd=tmp_path,
            env=OUTSIDE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.fixture
def done(started):
    """What a program of the environment says, which has to succeed."""

    def run(program, *arguments):
        process = started(program, *arguments)
        words, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, words
        return words

    return run


def test_it_holds_every_file(wheel):
    folders = {
        ROOT / "crossearth_hf": "crossearth_hf",
        ROOT / "hub_cards": "crossearth_hf/hub_cards",
    }
    expected = {
        f"{place}/{path.relative_to(folder).as_posix()}"
        for folder, place in folders.items()
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name not in ("__pycache__", "crossearth-tiny")
    }
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if ".dist-info/" not in name} == expected | {
            "crossearth_command.py"
        }


SEVERAL = """
import sys
import crossearth_hf.app.page
from crossearth_hf.cli import main
for line in sys.argv[1:]:
    assert main(line.split()) == 0
print(crossearth_hf.__file__)
"""
"""Commands in one process, with the app's page: every process imports the package, which takes seconds."""


def test_a_scene_is_mapped_by_the_bundled_model(done, binaries, tmp_path):
    synth = "synth temperate-summer scene.tif --size 128"
    words = done("python", "-c", SEVERAL, synth, "predict scene.tif map.tif --device cpu")
    assert "building" in words
    assert binaries.parent in Path(words.splitlines()[-1]).parents
    assert (tmp_path / "map.tif").is_file()


@pytest.fixture
def flags(tmp_path):
    """Those of a run of two steps of two crops, in its folder."""
    make_workplace(tmp_path)
    data = (
        "--model",
        "tiny.json",
        "--train_data",
        "data:[0-4]",
        "--output_dir",
        "run",
        "--classes",
        "land-cover",
    )
    return (
        *data,
        "--max_steps",
        "2",
        "--per_device_train_batch_size",
        "1",
        "--gradient_accumulation_steps",
        "2",
    )


def test_a_model_is_trained_scored_and_described(done, flags, tmp_path):
    assert "wrote the model" in done("crossearth", "train", *flags)
    evaluate = "evaluate run --out report --folder data:5 --name Town"
    done("python", "-c", SEVERAL, evaluate, "card run --report report")
    assert "Town" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.slow
def test_several_processes_train(done, flags, tmp_path):
    processes = ("--num_processes", "2", "--multi_gpu", "--main_process_port", "0")
    done("crossearth", "launch", *processes, "--module", "crossearth_hf.cli", "train", *flags)
    assert json.loads((tmp_path / "run" / "checkpoint" / "run.json").read_text())["processes"] == 2


def test_the_app_serves_its_page(started):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = started("crossearth", "app", "--port", port, "--device", "cpu")
    try:
        page = wait_for(f"http://127.0.0.1:{port}/", server)
    finally:
        server.send_signal(signal.SIGTERM)
        words, _ = server.communicate(timeout=PATIENCE)
    assert server.returncode == 0, words
    assert "drop in a scene, get a map" in page


def wait_for(address, server):
    """The page at an address, once it is there."""
    end = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < end:
        try:
            return httpx.get(address).text
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail("the server did not answer")
