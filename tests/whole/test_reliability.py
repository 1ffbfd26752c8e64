"""Every command that writes, disturbed: killed, interrupted, without room, on files that change under its hands.

The long form of the first part is `tests/tools/reliability.py`.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import datasets
import numpy as np
import pytest
import rasterio
import reliability
from rasters import write_raster
from writing_commands import cut, grown, make_inputs

from crossearth_hf import CrossEarthImageProcessor, cli
from crossearth_hf.files.outputs import staged
from crossearth_hf.scenarios.build import plan

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")
EVERY = (
    "predict", "convert", "build-dataset", "train", "evaluate",
    "synth", "style-bank", "style-preview", "report", "card",
)  # fmt: skip
LONG = ("predict", "convert", "build-dataset", "train", "evaluate")


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    """A function that gives the trials of a command, which has run once to its end."""
    work = tmp_path_factory.mktemp("reliability")
    with pytest.MonkeyPatch.context() as patch:  # `make_commands` sets both
        patch.setattr(plan, "SHARD_PIXELS", plan.SHARD_PIXELS)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", datasets.config.HF_DATASETS_CACHE)
        make_inputs(work / "inputs")
        yield cache(lambda name: reliability.Trials(name, work / "inputs", work, seed=1))


@pytest.mark.parametrize("name", [*LONG, pytest.param("predict-workers", marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "SIGINT"])
def test_an_ended_run_leaves_nothing_broken_and_the_next_one_finishes(trials, name, number):
    command = trials(name)
    assert command.run(number, 2) == 2
    assert command.problems == []


@pytest.mark.parametrize("name", [pytest.param("predict", marks=pytest.mark.slow), "predict-new"])
def test_a_map_that_is_killed_between_any_two_of_its_last_steps(trials, tmp_path, name):
    """Moves and removals at the end of `predict`: too short for random moments to hit them all."""
    command = trials(name)
    for operation in range(max(1, command.operations - 9), command.operations + 1):
        folder = tmp_path / f"{operation}"
        folder.mkdir()
        kill = partial(signal.raise_signal, signal.SIGKILL)
        assert (
            command.wait(reliability.start(name, command.root, folder, at=operation, act=kill))
            == -9
        )
        assert command.wait(reliability.start(name, command.root, folder)) == 0, command.last_words(
            folder
        )
        assert reliability.contents(folder) == command.wanted
        assert reliability.hidden(folder) == []


@pytest.fixture
def mounted(tmp_path):
    """A function that mounts a file system of a few bytes, or one that is read-only."""
    place = tmp_path / "small"
    place.mkdir()

    def mount(options):
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr.decode().strip()}")
        return place

    yield mount
    subprocess.run(["umount", place], capture_output=True, check=False)


@pytest.mark.parametrize("share", [0, 0.6])
@pytest.mark.parametrize("name", EVERY)
def test_a_full_disk(trials, mounted, name, share):
    command = trials(name)
    needed = sum(path.stat().st_size for path in command.finished.rglob("*") if path.is_file())
    place = mounted(f"size={max(4096, int(share * needed))}")
    if not share:
        (place / "ballast").write_bytes(bytes(4096))
    _check_refusal(command, place, "No space left on device|cannot be written")


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 0.75, 0.95])
def test_a_disk_that_fills_while_a_map_is_made(trials, mounted, share):
    """At parts, map, confidence, preview: the sentence names what was asked for, and libtiff says nothing besides."""
    command = trials("predict-new")
    # parts are large
    needed = 2 * sum(path.stat().st_size for path in command.finished.rglob("*") if path.is_file())
    place = mounted(f"size={int(share * needed)}")
    code = command.wait(reliability.start("predict-new", command.root, place))
    words = command.last_words(place)
    if code == 0:
        assert reliability.contents(place) == command.wanted
        return
    last = words.strip().splitlines()[-1]
    assert re.search(r"(map\.tif|c\.tif|p\.png) cannot be written.*No space left on device", last)
    assert "_tiff" not in words
    assert command.leftovers(place) == []


@pytest.mark.parametrize("name", EVERY)
def test_a_folder_that_is_read_only(trials, mounted, name):
    _check_refusal(
        trials(name), mounted("ro,size=64k"), "Read-only file system|not writable|cannot be made"
    )


def _check_refusal(trials, place, pattern):
    """One sentence, exit code 2, nothing left that is not whole; the inputs as they were."""
    code = trials.wait(reliability.start(trials.name, trials.root, place))
    words = trials.last_words(place)
    assert code == 2, words
    [sentence] = [line for line in words.splitlines() if re.match("(crossearth: )?error: ", line)]
    assert re.search(pattern, sentence)
    assert "Traceback" not in words
    here = {
        path: digest for path, digest in reliability.contents(place).items() if path != "ballast"
    }
    changed = [path for path, digest in here.items() if trials.wanted.get(path) != digest]
    assert [
        path for path in changed if not trials.command.is_earlier(path, place, trials.finished)
    ] == []
    assert trials.leftovers(place) == []
    assert reliability.contents(trials.root) == trials.inputs


@pytest.mark.parametrize("change", [Path.unlink, grown, cut])
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("predict", "scenes/scene.tif"),
        ("convert", "source.pth"),
        ("build-dataset", "raw/Train.zip"),
    ],
)
def test_an_input_that_changes_while_it_is_read(trials, tmp_path, name, file, change):
    """Nothing wrong is ever written: either what the file held before, or nothing, with a sentence."""
    if name == "convert" and change is cut:
        pytest.skip(
            "weights are mapped into memory: the system ends a process that reads beyond a file's new end"
        )
    inputs, place = tmp_path / "inputs", tmp_path / "results"
    shutil.copytree(trials(name).root, inputs)
    place.mkdir()
    act = partial(change, inputs / file)
    code = trials(name).wait(reliability.start(name, inputs, place, at=1, act=act))
    words, here = trials(name).last_words(place), reliability.contents(place)
    assert "Traceback" not in words
    if code == 0:
        differing = {path for path, _ in here.items() ^ trials(name).wanted.items()}
        assert differing <= {
            "out/loveda_rural/build.json"
        }  # which holds the time of the archive's last change
    else:
        assert code == 2, words
        assert file.split("/")[-1] in words.strip().splitlines()[-1]
        assert here == {}
    assert (trials(name).leftovers(place) if code else reliability.hidden(place)) == []


def test_pixels_that_are_no_numbers_get_no_class(trials, tmp_path, capsys):
    values = np.random.default_rng(0).uniform(0, 300, (3, 70, 90)).astype(np.float32)
    values[0, 10:20, 30:40], values[1, 40:45, 50:60], values[2, 0, 0] = np.nan, np.inf, -np.inf
    write_raster(tmp_path / "scene.tif", values)
    model = str(trials("predict").root / "model")
    assert (
        cli.main(
            ["predict", str(tmp_path / "scene.tif"), str(tmp_path / "map.tif"), "--model", model]
        )
        == 0
    )
    with rasterio.open(tmp_path / "map.tif") as result:
        assert ((result.read(1) == 255) == ~np.isfinite(values).all(axis=0)).all()


# --- working folders


def killed(act):
    """Does `act` in a process that then gets SIGKILL."""
    if (child := os.fork()) == 0:
        try:
            act()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def write_half(target):
    with staged([target]) as (stage,):
        stage.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_working_folders_of_killed_processes_do_not_pile_up(tmp_path):
    for _ in range(3):
        killed(lambda: write_half(tmp_path / "a.txt"))
        assert len(reliability.hidden(tmp_path)) == 1
    with staged([tmp_path / "b.txt"]) as (stage,):
        stage.write_text("whole")
        assert reliability.hidden(tmp_path) == [stage.parent.name]
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]


def test_a_working_folder_in_use_is_left_alone(tmp_path):
    with staged([tmp_path / "a.txt"]) as (first,):
        first.write_text("1")
        with staged([tmp_path / "b.txt"]) as (second,):
            second.write_text("2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_a_folder_that_a_kill_left_aside_comes_back(tmp_path, monkeypatch):
    target, replace = tmp_path / "model", os.replace
    (target / "old").mkdir(parents=True)

    def killed_before_the_second_move(source, place):
        if Path(place) == target:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, place)

    def replace_it():
        monkeypatch.setattr(os, "replace", killed_before_the_second_move)
        with staged([target]) as (stage,):
            (stage / "new").mkdir(parents=True)

    killed(replace_it)
    assert not target.exists()
    with staged([tmp_path / "other.txt"]) as (stage,):
        stage.touch()
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "model", "model/old", "other.txt",
    ]  # fmt: skip


# --- a healthy torchvision


_TORCHVISION = """
import importlib.abc, importlib.machinery, sys, types

class Trap(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"
    def __call__(cls, *args, **kwargs):
        raise AssertionError(f"torchvision's {cls.__name__} was used")

class Module(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Trap(name, (), {})

class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.startswith("torchvision."):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
    def create_module(self, spec):
        return Module(spec.name)
    def exec_module(self, module):
        pass

sys.meta_path.insert(0, Finder())
__version__ = "0.28.0"
"""
_PROCESS = """
import numpy as np, sys, crossearth_hf
from transformers import AutoImageProcessor
from transformers.utils import is_torchvision_available
assert is_torchvision_available()
processor = AutoImageProcessor.from_pretrained(sys.argv[1])
assert isinstance(processor, crossearth_hf.CrossEarthImageProcessor), type(processor)
image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
np.save(sys.argv[2], processor(image, return_tensors="np")["pixel_values"])
"""


def test_torchvision_changes_nothing(tmp_path):
    """Where torchvision is installed, transformers prefers it: ours is taken all the same, and never calls it."""
    site = tmp_path / "site"
    (site / "torchvision").mkdir(parents=True)
    (site / "torchvision-0.28.0.dist-info").mkdir()
    (site / "torchvision" / "__init__.py").write_text(_TORCHVISION)
    (site / "torchvision-0.28.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n"
    )
    CrossEarthImageProcessor().save_pretrained(tmp_path / "processor")
    paths = os.pathsep.join([str(site), str(Path(__file__).resolve().parents[2])])
    command = [
        sys.executable,
        "-c",
        _PROCESS,
        str(tmp_path / "processor"),
        str(tmp_path / "pixels.npy"),
    ]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    assert (
        np.load(tmp_path / "pixels.npy")
        == CrossEarthImageProcessor()(image, return_tensors="np")["pixel_values"]
    ).all()
