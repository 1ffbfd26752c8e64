"""Feeds damaged, hostile and senseless input to the command line, and counts how it answers.

`python tests/tools/fuzz.py [--minutes 10] [--targets rasters arguments] [--seed 0] [--out FILE.json]` needs the dev
extra and a POSIX system. Hypothesis draws the cases. Each runs in this process on a fresh copy of a small workplace, as
a person would run it, and must end within `LIMIT` seconds with exit code 0 or 2, one sentence for the latter, without a
traceback, without a hidden folder left, and without having run anything that a pickle names. What fails is printed with
its case, once per place in the code; the exit code is then 1. `tests/whole/test_fuzz.py` runs a few cases of each.
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
from fuzz_cases import CANARY, make_workplace
from fuzz_targets import TARGETS, Case, Target

LIMIT = 60  # seconds for a case, on a busy machine


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


def failure(
    target: Target, case: Case, workplace: Path, codes: Counter[int]
) -> tuple[str, str] | None:
    """Runs a case in a copy of the workplace; a name and the words of what is wrong, or None."""
    home = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="crossearth-fuzz-") as folder:
        # fast; see `_rewrite`
        shutil.copytree(workplace, folder, copy_function=os.link, dirs_exist_ok=True)
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
            return f"{type(error).__name__} at {_place(error.__traceback__)}", traceback.format_exc(
                limit=-8
            )
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
    is_sentence = any(line.startswith(("crossearth", "error: ")) for line in last)
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
    own = ("crossearth_hf", "fuzz_")
    frames = [
        frame
        for frame in traceback.extract_tb(trace)
        if any(part in frame.filename for part in own)
    ]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown"


def explore(
    target: Target, workplace: Path, *, cases: int, seed: int, minutes: float = 60
) -> Findings:
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=10, help="for all targets together (default: 10)"
    )
    parser.add_argument(
        "--targets", nargs="+", choices=TARGETS, default=list(TARGETS), metavar="NAME"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the cases (default: 0)")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    options = parser.parse_args(arguments)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="crossearth-fuzz-") as folder:
        workplace = make_workplace(Path(folder) / "workplace")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for name in options.targets:
            findings = _in_child(
                name, workplace, options.seed, options.minutes / len(options.targets)
            )
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
