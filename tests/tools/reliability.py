"""Ends every command that writes at random moments, and looks at what it leaves.

`python tests/tools/reliability.py WORK_DIR [--kills 20] [--commands predict train] [--out FILE.json]` needs the dev
extra and a POSIX system. Each command runs on miniature inputs (`writing_commands.py`): once to its end, then again and
again in a folder of its own until a signal ends it, SIGKILL or SIGINT (Ctrl-C). Half of the signals come at a random
time, half at a random one of the command's own file operations (a file opened for writing, a folder made, a move, a
removal), since the delicate moments lie between those and are too short for a clock. After each:

- the inputs are bit by bit what they were;
- every result is not there, or as an earlier call left it, or that of the finished run; a log may end early, a
  checkpoint or a report may be one of an earlier step or target, complete;
- after SIGINT: exit code 130 (2 with a sentence where a library took it for an error of its own), no traceback, nothing
  hidden left but that from which the next run goes on;
- the same command, run again, ends with exit code 0 and all results of the finished run, and nothing else: no hidden
  working folder stays.

Times of creation and seconds are left out of comparisons. Processes are forked from one that has imported everything:
the five seconds of imports, in which nothing is written, would swallow most signals.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from fnmatch import fnmatch
from functools import cache, partial
from itertools import count
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

import torch
from writing_commands import PASSING, make_commands, make_inputs

TOOLS = os.path.dirname(os.path.abspath(__file__))
Act = Callable[[], object]

SIGNALS = (signal.SIGKILL, signal.SIGINT)
_CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")
_SERVER = ("_forkserver_address", "_forkserver_authkey")  # the latter in newer versions of Python
_MISSES = 30  # signals in a row that came too late before a command is given up
_PATIENCE = 300  # seconds


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file that is not hidden, by its path; what passes (times, seconds) left out."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = {path: path.relative_to(folder).as_posix() for path in paths}
    return {name: _digest(path) for path, name in names.items() if not _is_hidden(name)}


def hidden(folder: Path) -> list[str]:
    """Topmost hidden files and folders."""
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")))
    return [
        name
        for name in names
        if name.split("/")[-1].startswith(".") and not _is_hidden(os.path.dirname(name))
    ]


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _digest(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".safetensors":  # its metadata have no fixed order
        size = int.from_bytes(content[:8], "little")
        content = (
            json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True).encode()
            + content[8 + size :]
        )
    if path.suffix in (".json", ".jsonl"):
        try:
            lines = [content] if path.suffix == ".json" else content.splitlines()
            content = "\n".join(
                json.dumps(json.loads(line, object_pairs_hook=_lasting)) for line in lines
            ).encode()
        except ValueError:
            pass
    return hashlib.sha256(content).hexdigest()


def _lasting(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in pairs if name not in PASSING}


@cache
def _processes() -> ForkServerContext:
    """Processes are forked from one that has imported everything and done nothing else."""
    context, path = multiprocessing.get_context("forkserver"), os.environ.get("PYTHONPATH")
    # one that Dask has started knows nothing of this package, and every child would import it anew
    forkserver._forkserver._stop()
    context.set_forkserver_preload(["writing_commands"])
    # before 3.12.3 it knows no other
    os.environ["PYTHONPATH"] = TOOLS if path is None else f"{TOOLS}{os.pathsep}{path}"
    forkserver.ensure_running()
    if path is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = path
    return context


def _server() -> dict[str, Any]:
    """Where the process that forks others can be asked for one."""
    server = forkserver._forkserver
    return {name: getattr(server, name) for name in _SERVER if hasattr(server, name)}


def _share_server(place: dict[str, Any]) -> None:
    """Has this process ask the server that forked it, as Dask's workers are forked too.

    Else it would start one that knows nothing, and every worker would import everything anew.
    """
    server = forkserver._forkserver
    vars(server).update(place, ensure_running=lambda: None)


def start(
    name: str,
    root: Path,
    folder: Path,
    *,
    before: bool = False,
    at: int | None = None,
    act: Act | None = None,
) -> BaseProcess:
    """Starts a command in `folder`, whose output goes beside it; returns its process once it runs.

    Args:
        name: Of the command.
        root: Its inputs.
        folder: Current folder of the child; results go there.
        before: Whether to make the results of an earlier call instead.
        at: The file operation, from 1, before which the child calls `act`.
        act: What is done then.
    """
    received, sent = _processes().Pipe(duplex=False)
    child = _processes().Process(
        target=_child, args=(name, root, folder, before, at, act, sent, _server())
    )
    child.start()
    sent.close()
    received.recv()
    return child


def _child(
    name: str,
    root: Path,
    folder: Path,
    before: bool,
    at: int | None,
    act: Act | None,
    ready: Connection,
    server: dict[str, Any],
) -> NoReturn:
    code = 1
    try:
        _share_server(server)
        os.chdir(folder)
        output = os.open(folder.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        # renews torch's pool while there is one thread: two would race for it after a fork
        torch.set_num_threads(1)
        command = make_commands(root)[name]
        _watch(folder, at, act)
        ready.send(True)
        # ignored before: the fork server ignores it
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = command.before() if before and command.before else command.run()
    except BaseException:  # what a person would see as a traceback
        traceback.print_exc()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _watch(folder: Path, at: int | None, act: Act | None) -> None:
    """Counts this process's file operations below `folder`, and calls `act` before one of them."""
    own, numbers = os.getpid(), count(1)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if (
            not (event in _CHANGES or (event == "open" and _writes(arguments)))
            or os.getpid() != own
        ):
            return
        if isinstance(arguments[0], str | os.PathLike) and os.path.abspath(arguments[0]).startswith(
            f"{folder}/"
        ):
            operation = next(numbers)
            with open(folder.with_suffix(".count"), "w") as file:
                file.write(str(operation))
            if operation == at and act is not None:
                act()

    sys.addaudithook(hook)


def _writes(arguments: tuple[Any, ...]) -> bool:
    return isinstance(arguments[2], int) and bool(
        arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    )


class Trials:
    """Runs of a command that are ended by a signal.

    Args:
        name: Of the command.
        root: Its inputs.
        work: Folder for its results.
        seed: Of the moments.
    """

    def __init__(self, name: str, root: Path, work: Path, seed: int) -> None:
        self.name, self.command = name, make_commands(root)[name]
        self.root, self.folder = root, work / name
        self.finished, self.old = work / f"{name}-finished", work / f"{name}-old"
        self.random = random.Random(f"{seed} {name}")
        self.inputs = contents(root)
        self.problems: list[str] = []
        self.states: Counter[str] = Counter()
        self.old.mkdir()
        self.finished.mkdir()
        if self.command.before:
            self._succeed(self.old, before=True)
        self.seconds = self._succeed(self.finished, before=False)
        self.operations = int(self.finished.with_suffix(".count").read_text())
        self.wanted, self.replaced = contents(self.finished), contents(self.old)

    def _succeed(self, folder: Path, *, before: bool) -> float:
        """Runs the command undisturbed; returns its seconds."""
        child, started = start(self.name, self.root, folder, before=before), time.monotonic()
        if code := self.wait(child):
            raise SystemExit(f"{self.name} ends with {code} undisturbed: {self.last_words(folder)}")
        return time.monotonic() - started

    def run(self, number: signal.Signals, times: int) -> int:
        """Ends `times` runs by a signal, half at a random time, half at a random file operation; returns how many."""
        hits, misses = 0, 0
        while hits < times and misses < _MISSES:
            self._lay_out(with_old=hits % 4 < 2)
            if self._is_ended(number, by_clock=hits % 2 == 0):
                hits, misses = hits + 1, 0
                self._check(number, f"{number.name} {hits}")
                self._finish(f"{number.name} {hits}")
            else:
                misses += 1
        shutil.rmtree(self.folder, ignore_errors=True)
        return hits

    def _lay_out(self, with_old: bool) -> None:
        """An empty folder, or one with results to replace."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if with_old and self.command.before:
            shutil.copytree(self.old, self.folder)
        else:
            self.folder.mkdir()

    def _is_ended(self, number: signal.Signals, by_clock: bool) -> bool:
        """Runs the command until it ends or the signal comes; whether the signal ended it."""
        operation = None if by_clock else self.random.randint(1, self.operations)
        started = time.monotonic()
        child = start(
            self.name,
            self.root,
            self.folder,
            at=operation,
            act=partial(signal.raise_signal, number),
        )
        if by_clock:
            child.join(self.random.uniform(0, self.seconds))
            if child.pid is not None and child.is_alive():
                os.kill(child.pid, number)
        status = self.wait(child)
        if status == 0:  # the first run may have been slow, on a busy machine
            self.seconds = min(self.seconds, time.monotonic() - started)
        refused = status == 2 and self.last_words(self.folder).splitlines()[-1].startswith(
            "crossearth: error: "
        )
        if number == signal.SIGINT and status not in (0, 130) and not refused:
            self.problems.append(f"SIGINT: exit code {status}: {self.last_words(self.folder)}")
        return status != 0

    def wait(self, child: BaseProcess) -> int | None:
        """The exit code of a child, negative for a signal; SIGKILL if it takes `_PATIENCE` seconds."""
        child.join(_PATIENCE)
        if child.is_alive():
            self.problems.append(f"hangs for {_PATIENCE} seconds: {self.last_words(self.folder)}")
            child.kill()
            child.join()
        return child.exitcode

    def last_words(self, folder: Path) -> str:
        """The end of what a child in `folder` has printed."""
        return folder.with_suffix(".txt").read_text(errors="replace")[-1500:]

    def leftovers(self, folder: Path) -> list[str]:
        """What is hidden in `folder`, but for that from which the next run goes on."""
        return [
            path
            for path in hidden(folder)
            if not any(fnmatch(path, kept) for kept in self.command.keeps)
        ]

    def _check(self, number: signal.Signals, name: str) -> None:
        """Looks at what the signal left."""
        here = contents(self.folder)
        units = {self.command.unit(path) for path in [*here, *self.wanted]}
        states = {self.state(unit, here) for unit in units}
        self.problems += [f"{name}: {state}" for state in states if state.startswith("broken")]
        kinds = states - {"absent"}
        self.states[
            kinds.pop() if len(kinds) == 1 else "absent" if not kinds else "some of each"
        ] += 1
        if contents(self.root) != self.inputs:
            self.problems.append(f"{name}: the inputs have changed")
        left, words = self.leftovers(self.folder), self.last_words(self.folder)
        if number == signal.SIGINT and (left or "Traceback" in words):
            self.problems.append(f"{name}: leaves {left} and says {words}")

    def state(self, unit: str, here: dict[str, str]) -> str:
        """Absent, old, complete, earlier or broken."""
        own, wanted, old = (
            {path: digest for path, digest in files.items() if self.command.unit(path) == unit}
            for files in (here, self.wanted, self.replaced)
        )
        if not own:
            return "absent"
        if own == wanted:
            return "complete"
        if own == old:
            return "old"
        is_earlier = all(self.command.is_earlier(path, self.folder, self.finished) for path in own)
        return "earlier" if is_earlier else f"broken {unit}: {sorted(own)}"

    def _finish(self, name: str) -> None:
        """Runs the command again and compares."""
        if code := self.wait(start(self.name, self.root, self.folder)):
            self.problems.append(
                f"{name}: the next run ends with {code}: {self.last_words(self.folder)}"
            )
            return
        here = contents(self.folder)
        if here != self.wanted:
            differing = sorted(path for path, _ in set(here.items()) ^ set(self.wanted.items()))
            self.problems.append(f"{name}: after the next run {sorted(set(differing))} differ")
        if hidden(self.folder):
            self.problems.append(f"{name}: {hidden(self.folder)} stay after the next run")


def examine(name: str, root: Path, work: Path, times: int, seed: int) -> dict[str, Any]:
    """Ends a command by each signal `times` times; what was found, as it goes into the JSON file."""
    trials = Trials(name, root, work, seed)
    hits = {number.name: trials.run(number, times) for number in SIGNALS}
    short = [
        f"only {made} of {times} {number} came in time"
        for number, made in hits.items()
        if made < times
    ]
    return {
        "seconds": round(trials.seconds, 2),
        "file_operations": trials.operations,
        "hits": hits,
        "left": dict(trials.states),
        "problems": trials.problems + short,
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    """What was found, for a terminal."""
    kinds = ("absent", "old", "earlier", "complete", "some of each")
    rows = [("command", *(number.name for number in SIGNALS), *kinds, "problems")]
    for name, facts in found.items():
        left = (facts["left"].get(kind, 0) for kind in kinds)
        rows.append(
            (name, *map(str, facts["hits"].values()), *map(str, left), str(len(facts["problems"])))
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Examines the commands; exit code 1 if anything was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "work", type=Path, help="folder for inputs and results; made, and deleted at the end"
    )
    parser.add_argument(
        "--kills",
        type=int,
        default=20,
        help="of each signal and command (default: 20; long form: 100)",
    )
    parser.add_argument("--commands", nargs="+", metavar="NAME", help="default: all that write")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    options = parser.parse_args(arguments)
    work = options.work.resolve()
    work.mkdir(parents=True)
    found = {}
    try:
        make_inputs(work / "inputs")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for name in options.commands or make_commands(work / "inputs"):
            found[name] = examine(name, work / "inputs", work, options.kills, options.seed)
            print(f"{name}: {json.dumps(found[name], indent=1)}", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(table(found))
    if options.out:
        options.out.write_text(
            json.dumps({"date": date.today().isoformat(), "commands": found}, indent=1) + "\n"
        )
    return 1 if any(facts["problems"] for facts in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
