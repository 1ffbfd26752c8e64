"""Contestants' processes, seen from the one that measures."""

import json
import os
import selectors
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .jobs import Setup

SCRIPTS = Path(__file__).resolve().parents[1]


class ContestantError(Exception):
    """A contestant that ran out of memory or time, or failed otherwise; the message says which."""


class Contestant:
    """One contestant in a process of its own; use it as a context, which ends the process.

    Args:
        setup: What it has to do.
        source: Folder that its `crossearth_hf` is imported from.
        timeout: Seconds for an answer.
    """

    def __init__(self, setup: Setup, source: Path, timeout: float) -> None:
        self.timeout = timeout
        setup.folder.mkdir(parents=True, exist_ok=True)
        self.log = (setup.folder / "log.txt").open("a")
        path = os.pathsep.join(
            [str(source), str(SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        settings = {
            "OMP_NUM_THREADS": str(setup.threads),
            "PYTHONPATH": path,
            "HF_HUB_OFFLINE": "1",
        }
        if setup.device == "cpu":
            settings["ACCELERATE_USE_CPU"] = "true"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "speed.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env=os.environ | settings, cwd=setup.folder,
        )  # fmt: skip
        loaded = self._ask(asdict(setup))
        self.loaded_bytes: int = loaded["loaded_bytes"]
        if loaded["package"] is not None and source not in Path(loaded["package"]).parents:
            self.close()
            raise ContestantError(f"{loaded['package']} was imported where {source} was to be")

    def __enter__(self) -> "Contestant":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, command: str) -> dict[str, Any]:
        """Time and memory of "warm_up" or "run".

        Raises:
            ContestantError: it failed, died or took too long.
        """
        return self._ask(command)

    def outcome(self) -> np.ndarray:
        """What the last run returned."""
        return np.load(self._ask("result")["outcome"])

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()

    def _ask(self, question: object) -> dict[str, Any]:
        """The answer; whoever fails to give one is ended, so that it does not compute on beside the others."""
        try:
            return self._exchange(json.dumps(question, default=str))
        except BaseException:
            self.close()
            raise

    def _exchange(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise ContestantError(self._death()) from None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(self.timeout):
                raise ContestantError(f"no answer within {self.timeout:g} s")
        answer = self.process.stdout.readline()
        if not answer:
            raise ContestantError(self._death())
        reply: dict[str, Any] = json.loads(answer)
        if "error" in reply:
            raise ContestantError(reply["error"])
        return reply

    def _death(self) -> str:
        code = self.process.wait()
        if code == -signal.SIGKILL:
            return "out of memory (killed)"
        return f"the process ended with code {code}"
