"""Rounds in which contestants take turns, and what their times say."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .jobs import Case
from .peers import NETWORKS
from .process import Contestant, ContestantError


@dataclass
class Entry:
    """A contestant of a case and what was measured of it.

    Attributes:
        family, option: As in `jobs.Setup`.
        seconds, cpu_seconds: Of every round; of the clock and of all processors together.
        peak_bytes: Most memory of any round.
        error: Why it could not go on, if so.
        outcome: What it computed.
    """

    family: str
    option: str = ""
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    error: str | None = None
    outcome: np.ndarray | None = None

    @property
    def name(self) -> str:
        """Such as "ours:float32"."""
        return f"{self.family}:{self.option}" if self.option else self.family

    def note(self, measured: dict[str, Any]) -> None:
        """Adds a round."""
        self.seconds.append(measured["seconds"])
        self.cpu_seconds.append(measured["cpu_seconds"])
        self.peak_bytes = max(self.peak_bytes, measured["peak_bytes"])


Start = Callable[[Entry], Contestant]
Tell = Callable[[str], None]


def race(case: Case, entries: Sequence[Entry], rounds: int, start: Start, tell: Tell) -> None:
    """Measures all entries, in turns: first, second, ..., first, second, ... One computes at a time.

    Args:
        case: What is measured.
        entries: Filled in place; whoever fails is left out of further rounds, `error` says why.
        rounds: Turns of each.
        start: Starts an entry's process.
        tell: Told every measurement.
    """
    with ExitStack() as stack:
        waiting: dict[str, Contestant] = {}
        for entry in entries if case.stays else ():
            with _recorded(entry, case, tell):
                waiting[entry.name] = stack.enter_context(_warm(entry, start))
        for number in range(1, rounds + 1):
            for entry in entries:
                if entry.error is None:
                    with (
                        _recorded(entry, case, tell),
                        _turn(entry, start, waiting.get(entry.name)) as contestant,
                    ):
                        entry.note(contestant.run("run"))
                        tell(
                            f"{case.name}: round {number}, {entry.name}: {entry.seconds[-1]:.3f} s, of the processors "
                            f"{entry.cpu_seconds[-1]:.3f} s"
                        )
                        # other weights, other scores
                        if entry.outcome is None and entry.family not in NETWORKS:
                            entry.outcome = contestant.outcome()


def _warm(entry: Entry, start: Start) -> Contestant:
    contestant = start(entry)
    try:
        contestant.run("warm_up")
    except BaseException:
        contestant.close()
        raise
    return contestant


@contextmanager
def _turn(entry: Entry, start: Start, waiting: Contestant | None) -> Iterator[Contestant]:
    """The entry's process: the one that waits, or a new one that ends with the turn."""
    if waiting is not None:
        yield waiting
    else:
        with _warm(entry, start) as contestant:
            yield contestant


@contextmanager
def _recorded(entry: Entry, case: Case, tell: Tell) -> Iterator[None]:
    """What goes wrong with a contestant becomes the entry's error."""
    try:
        yield
    except ContestantError as error:
        entry.error = str(error)
        tell(f"{case.name}: {entry.name}: {error}")


def summary(entry: Entry, entries: Sequence[Entry]) -> dict[str, Any]:
    """Times, memory and outcome of an entry, and under "against" beside each of the other `entries`.

    Ratios are taken within a round, between neighbors in time; their median says more than that of the medians.
    """
    report: dict[str, Any] = {"contestant": entry.name, "error": entry.error}
    if entry.seconds:
        report |= {
            "median_seconds": statistics.median(entry.seconds),
            "seconds": entry.seconds,
            "cpu_seconds": entry.cpu_seconds,
            "peak_bytes": entry.peak_bytes,
            "against": {
                other.name: _against(entry, other)
                for other in entries
                if other is not entry and other.seconds
            },
        }
    return report


def _against(entry: Entry, other: Entry) -> dict[str, Any]:
    ratios = [mine / its for mine, its in zip(entry.seconds, other.seconds, strict=False)]
    cpu_ratios = [
        mine / its for mine, its in zip(entry.cpu_seconds, other.cpu_seconds, strict=False)
    ]
    return {
        "ratio": statistics.median(ratios),
        "ratio_least": min(ratios),
        "ratio_most": max(ratios),
        "cpu_ratio": statistics.median(cpu_ratios),
        "memory_ratio": entry.peak_bytes / other.peak_bytes,
        **agreement(entry.outcome, other.outcome),
    }


def agreement(outcome: np.ndarray | None, reference: np.ndarray | None) -> dict[str, float]:
    """How far an outcome is from a reference of the same shape; nothing where it has another, or there is none.

    Returns:
        "difference": largest difference over the largest value of the reference, for scores (1, K, H, W) and losses
        (n,); "changed": share of the pixels whose best class, or whose label in maps (H, W), is another.
    """
    if outcome is None or reference is None or outcome.shape != reference.shape or not outcome.size:
        return {}
    if outcome.ndim == 2:
        return {"changed": float((outcome != reference).mean())}
    difference = float(np.abs(outcome - reference).max() / np.abs(reference).max())
    if outcome.ndim == 1:
        return {"difference": difference}
    return {
        "difference": difference,
        "changed": float((outcome.argmax(1) != reference.argmax(1)).mean()),
    }
