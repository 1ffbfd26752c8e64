"""Feeds damaged, hostile and senseless input to the command line, and counts how it answers.

`python scripts/fuzz.py [--minutes 10] [--targets rasters arguments] [--seed 0] [--out FILE.json]` needs the dev extra
and a POSIX system. Cases are drawn by hypothesis. Each runs in this process on a fresh copy of a small workplace, as a
person would run it, and must end within `LIMIT` seconds with exit code 0 or 2, one sentence for the latter, without a
traceback, without a hidden folder left, and without having run anything that a pickle names. What fails is printed
with its case, once per place in the code; the exit code is then 1. `tests/test_fuzz.py` runs a few cases of each.
"""

import argparse
import contextlib
import faulthandler
import io
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from fuzz_cases import (
    CANARY,
    FRAMES,
    HOSTILE,
    JSON,
    argument_lists,
    changed,
    damaged,
    damages,
    hostile_pickle,
    json_changes,
    make_workplace,
    training_flags,
)
from published import ORACLE_CONFIG
from rasters import write_raster

from crossearth_hf import cli
from crossearth_hf.conversion.config import OVERRIDES
from crossearth_hf.errors import InputError, on_one_line
from crossearth_hf.geotiff import Scene
from crossearth_hf.training.config import field_descriptions, parse_train_config

LIMIT = 60  # seconds for a case, on a busy machine

Case = Any


@dataclass(frozen=True)
class Target:
    """A kind of input.

    Attributes:
        cases: Draws them.
        arguments: Puts a case into the current folder, a copy of the workplace, and says what to call with what.
    """

    cases: st.SearchStrategy[Case]
    call: Callable[[Case], int]


def _damage(case: tuple[str, Any]) -> str:
    """Damages a file in place; returns its name."""
    name, steps = case
    _rewrite(name, damaged(Path(name).read_bytes(), steps))
    return name


def _rewrite(name: str, content: bytes) -> None:
    """Puts another file in the place of one that is linked to that of the workplace."""
    Path(name).unlink(missing_ok=True)
    Path(name).write_bytes(content)


_PREDICT = ("--model", "model", "--device", "cpu", "--overwrite")
_SCORE = ("--folder", "town", "--name", "Town", "--device", "cpu", "--bootstrap", "5", "--out", "new")


def _rasters(case: Case) -> int:
    scene = _damage(case)
    if _is_huge(scene):  # a header may rightly claim any size: its map would take hours
        return cli.main(["style-preview", scene, "out.png", "--draws", "1"])
    return cli.main(["predict", scene, "out.tif", *_PREDICT])


def _is_huge(path: str) -> bool:
    try:
        with Scene(path) as scene:
            return scene.grid.height * scene.grid.width > 250_000
    except InputError:
        return False


def _label_maps(case: Case) -> int:
    mask = Path("town/masks/0.png")
    if isinstance(case, tuple) and case[0] == "values":
        _, kind, low, high, seed = case
        values = np.random.default_rng(seed).integers(low, high + 1, (40, 48)).astype(kind)
        mask.unlink()
        if kind in ("uint8", "bool"):
            Image.fromarray(values).save(mask)
        else:
            write_raster(mask.with_suffix(".tif"), values[None])
    else:
        name = _damage(case)
        if name.endswith(".tif"):
            mask.unlink()
            Path(name).rename(mask.with_suffix(".tif"))
    return cli.main(["evaluate", "model", *_SCORE])


def _model_folders(case: Case) -> int:
    name, steps = case
    if isinstance(steps, list) and steps and isinstance(steps[0][0], str):
        _damage(case)
    else:
        _rewrite(name, json.dumps(changed(json.loads(Path(name).read_text()), steps)).encode())
    return cli.main(["predict", "scene.tif", "out.tif", *_PREDICT])


def _checkpoints(case: Case) -> int:
    if case[0] == "hostile":
        _, which, frame, zipped, suffix = case
        name = f"hostile{suffix}"
        Path(name).write_bytes(hostile_pickle(which, frame, zipped, Path("source.pth").read_bytes()))
    elif case[0] == "header":
        name = _with_header("source.safetensors", case[1])
    else:
        name = _damage(case)
    return cli.main(["convert", name, "out", "--config", "given.yaml"])


def _with_header(name: str, steps: list[tuple[float, str, Any]]) -> str:
    """A safetensors file whose header, valid JSON, says something else."""
    content = Path(name).read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(changed(json.loads(content[8 : 8 + size]), steps)).encode()
    _rewrite(name, len(header).to_bytes(8, "little") + header + content[8 + size :])
    return name


def _conversion_configs(case: Case) -> int:
    _rewrite("given.yaml", _document(case, yaml.safe_load(ORACLE_CONFIG)))
    return cli.main(["convert", "source.safetensors", "out", "--config", "given.yaml"])


def _training_configs(case: Case) -> int:
    recipe = {"model": "tiny", "output_dir": "out", "train_data": ["town"], "steps": 3, "scale_range": [0.5, 2.0]}
    Path("run.yaml").write_bytes(_document(case, recipe))
    return _parse_training(["--config", "run.yaml"])


def _document(case: Case, document: dict[str, Any]) -> bytes:
    """Text as it stands, or `document` changed and with other fields, as YAML."""
    if isinstance(case, bytes):
        return case
    steps, fields = case
    whole = changed(document, steps)
    return yaml.safe_dump({**whole, **fields} if isinstance(whole, dict) else whole, allow_unicode=True).encode()


def _parse_training(arguments: list[str]) -> int:
    """What scripts/train.py does before it trains."""
    try:
        parse_train_config(arguments)
    except InputError as error:
        print(f"error: {on_one_line(str(error))}", file=sys.stderr)
        return 2
    return 0


def _reports(case: Case) -> int:
    name, steps = case
    _rewrite(name, json.dumps(changed(json.loads(Path(name).read_text()), steps)).encode())
    return cli.main(["card", "model", "--report", "report", "--out", "out.md"])


def _archives(case: Case) -> int:
    _damage(case)
    return cli.main(
        ["build-dataset", "loveda", "raw", "out", "--domains=loveda_rural", "--allow-incomplete", "--workers=1"]
    )


_ids = st.sampled_from(((0, 5), (0, 255), (0, 6), (200, 255), (-3, 3), (0, 70_000)))
_values = st.tuples(
    st.just("values"), st.sampled_from(("uint8", "uint16", "int32", "float32")), _ids, st.integers(0, 9)
)


def _documents(names: Iterable[str]) -> st.SearchStrategy[Case]:
    """Bytes; or changes of a document, and fields of these names with any value or one that may suit them."""
    values = JSON | st.integers(1, 64) | st.lists(st.integers(0, 4), min_size=4, max_size=4)
    return st.binary(max_size=60) | st.tuples(
        json_changes(least=0), st.dictionaries(st.sampled_from(sorted(names)), values, max_size=3)
    )


TARGETS = {
    "rasters": Target(damages(("scene.tif", "tiled.tif", "floats.tif", "palette.png", "bare.jpg")), _rasters),
    "label maps": Target(
        damages(("town/masks/0.png", "town/mask.tif")) | _values.map(lambda case: (*case[:2], *case[2], case[3])),
        _label_maps,
    ),
    "model folders": Target(
        st.tuples(st.sampled_from(("model/config.json", "model/preprocessor_config.json")), json_changes())
        | damages(("model/config.json", "model/preprocessor_config.json", "model/model.safetensors")),
        _model_folders,
    ),
    "checkpoints": Target(
        damages(("source.pth", "source.safetensors"))
        | st.tuples(st.just("header"), json_changes())
        | st.tuples(
            st.just("hostile"), st.sampled_from(HOSTILE), st.sampled_from(FRAMES), st.booleans(),
            st.sampled_from((".pth", ".pt", ".bin", ".safetensors")),
        ),
        _checkpoints,
    ),
    "conversion configs": Target(_documents(OVERRIDES), _conversion_configs),
    "training configs": Target(_documents(field_descriptions()), _training_configs),
    "training flags": Target(training_flags(), _parse_training),
    "reports": Target(st.tuples(st.just("report/report.json"), json_changes()), _reports),
    "archives": Target(damages(("raw/Train.zip", "raw/Val.zip")), _archives),
    "arguments": Target(argument_lists(), cli.main),
}  # fmt: skip


@dataclass
class Findings:
    """What came of the cases of a target.

    Attributes:
        codes: Number of cases by exit code.
        failures: Case and words by a name of the failure.
    """

    codes: Counter[int] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)


class _TooLongError(BaseException):
    pass


def _too_long(*_: object) -> None:
    raise _TooLongError


@contextlib.contextmanager
def _captured() -> Iterator[tuple[io.BytesIO, io.BytesIO]]:
    """Output and errors as a terminal takes them: the former in strict UTF-8."""
    streams = io.BytesIO(), io.BytesIO()
    out = io.TextIOWrapper(streams[0], "utf-8", errors="strict", write_through=True)
    errors = io.TextIOWrapper(streams[1], "utf-8", errors="backslashreplace", write_through=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        yield streams
    out.detach(), errors.detach()


def failure(target: Target, case: Case, workplace: Path, codes: Counter[int]) -> tuple[str, str] | None:
    """Runs a case in a copy of the workplace; a name and the words of what is wrong, or None."""
    home = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="crossearth-fuzz-") as folder:
        shutil.copytree(workplace, folder, copy_function=os.link, dirs_exist_ok=True)  # fast; see `_rewrite`
        os.chdir(folder)
        signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(LIMIT)
        faulthandler.dump_traceback_later(3 * LIMIT, exit=True)  # where no signal gets through
        try:
            with _captured() as (_, errors):
                code = _exit_code(target, case)
            signal.alarm(0)
            codes[code] += 1
            return _wrong(code, errors.getvalue().decode(), Path(folder))
        except _TooLongError:
            return f"hangs at {_place(sys.exc_info()[2])}", traceback.format_exc(limit=-8)
        except Exception as error:
            return f"{type(error).__name__} at {_place(error.__traceback__)}", traceback.format_exc(limit=-8)
        finally:
            signal.alarm(0)
            faulthandler.cancel_dump_traceback_later()
            os.chdir(home)


def _exit_code(target: Target, case: Case) -> int:
    try:
        return target.call(case)
    except SystemExit as stop:  # argparse's own way
        return stop.code if isinstance(stop.code, int) else 0


def _wrong(code: int, words: str, folder: Path) -> tuple[str, str] | None:
    last = words.strip().splitlines()[-3:]  # argparse shows a word with line breaks as it is
    is_sentence = any(line.startswith(("crossearth", "error: ", "train.py: error: ")) for line in last)
    hidden = [path.name for path in folder.rglob(".*") if not path.name.endswith("-unfinished")]
    found = {
        f"exit code {code}": code not in (0, 2),
        "code ran that a pickle names": (folder / CANARY).exists(),
        "a traceback": "Traceback" in words,
        f"no sentence: {last}": code == 2 and not is_sentence,
        f"left behind: {hidden}": bool(hidden),
    }
    return next(((name, words[-1500:]) for name, holds in found.items() if holds), None)


def _place(trace: Any) -> str:
    """File and line of the deepest frame in this project."""
    frames = [frame for frame in traceback.extract_tb(trace) if "crossearth_hf" in frame.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown"


def explore(target: Target, workplace: Path, *, cases: int, seed: int, minutes: float = 60) -> Findings:
    """Runs `cases` cases, or those for which `minutes` suffice; the same ones for the same seed."""
    findings, end = Findings(), time.monotonic() + 60 * minutes
    current = workplace.with_suffix(".case")

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=cases, deadline=None, database=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(target.cases)
    def run(case: Case) -> None:
        if time.monotonic() > end:
            return
        current.write_text(repr(case))
        if wrong := failure(target, case, workplace, findings.codes):
            findings.failures.setdefault(wrong[0], f"{case!r}\n{wrong[1]}")

    run()
    return findings


def _in_child(name: str, workplace: Path, seed: int, minutes: float) -> Findings:
    """`explore` in a process of its own, which may crash: then its last case is the failure."""
    context, findings = multiprocessing.get_context("fork"), Findings()
    received, sent = context.Pipe(duplex=False)
    batch, end = 0, time.monotonic() + 60 * minutes
    while (left := end - time.monotonic()) > 0 and batch < 1000:
        child = context.Process(target=_send, args=(sent, name, workplace, seed + batch, left / 60))
        child.start()
        while child.is_alive() and not received.poll(0.2):
            pass
        part = received.recv() if received.poll() else None
        child.join()
        if part is None:
            crash = workplace.with_suffix(".case").read_text()
            part = Findings(Counter(), {f"the process ends with {child.exitcode}": crash})
        findings.codes += part.codes
        findings.failures = part.failures | findings.failures
        batch += 1
    return findings


def _send(pipe: Any, name: str, workplace: Path, seed: int, minutes: float) -> None:
    pipe.send(explore(TARGETS[name], workplace, cases=400, seed=seed, minutes=minutes))


def main(arguments: Sequence[str] | None = None) -> int:
    """Explores every target for its share of the time; exit code 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="for all targets together (default: 10)")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0, help="of the cases (default: 0)")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    options = parser.parse_args(arguments)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="crossearth-fuzz-") as folder:
        workplace = make_workplace(Path(folder) / "workplace")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for name in options.targets:
            findings = _in_child(name, workplace, options.seed, options.minutes / len(options.targets))
            found[name] = {
                "cases": findings.codes.total(),
                "codes": dict(findings.codes),
                "failures": findings.failures,
            }
            print(f"{name}: {findings.codes.total()} cases, {dict(findings.codes)}", flush=True)
            for failed, case in findings.failures.items():
                print(f"  {failed}\n    {case}", flush=True)
    print(f"{sum(facts['cases'] for facts in found.values())} cases")
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if any(facts["failures"] for facts in found.values()) else 0


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.exit(main())
