"""Progress: a bar on a terminal or in a notebook, elsewhere a line every 10%; hides other libraries' bars."""

import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a notebook may lack widgets, and gets lines then
    from tqdm.auto import tqdm
from tqdm.notebook import tqdm_notebook
from tqdm.std import tqdm as terminal_tqdm

Item = TypeVar("Item")

LINES = 10
"""Lines that a job prints where there is no terminal."""


def progress_bar(
    items: Iterable[Item] | None = None,
    *,
    desc: str,
    unit: str,
    total: int | None = None,
    initial: int = 0,
    shown: bool = True,
    passing: bool = False,
    **options: Any,
) -> Any:
    """A bar of tqdm, or an object with the same methods that prints lines to stderr.

    Args:
        items: What to iterate over, if anything.
        desc: The task, such as "predicting".
        unit: Unit in the singular; "" if `desc` names it.
        total: How many; by default the length of `items`.
        initial: How many are done already.
        shown: Whether to show anything.
        passing: Whether the bar vanishes at its end, as bars within other jobs do; no lines are printed for it.
        options: More options of tqdm, for the bar only.
    """
    if not shown or _has_bars():
        return tqdm(
            items,
            desc=desc,
            unit=unit,
            total=total,
            initial=initial,
            disable=not shown,
            leave=not passing,
            **options,
        )
    if total is None:
        if isinstance(items, Sized):
            total = len(items)
        else:
            total = 0
    return ProgressLines(items or (), desc, unit, 0 if passing else total, initial)


class ProgressLines(Generic[Item]):
    """A job's progress in lines; the part of tqdm's methods that this package uses.

    Args:
        items: What to iterate over.
        desc: What is done.
        unit: What is counted.
        total: How many; 0 for silence.
        initial: How many are done already.

    Attributes:
        n: How many are done.
    """

    def __init__(
        self, items: Iterable[Item], desc: str, unit: str, total: int, initial: int
    ) -> None:
        self.total = total
        self._items, self._desc, self._unit = items, desc, unit
        self.n: float = initial
        self._first, self._started = initial, time.monotonic()
        self._lines = self._due()

    def __iter__(self) -> Iterator[Item]:
        for item in self._items:
            yield item
            self.update()

    def __enter__(self) -> "ProgressLines[Item]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, count: float = 1) -> None:
        """Counts finished items."""
        self.n += count
        if self._due() > self._lines:
            self._lines = self._due()
            seconds = time.monotonic() - self._started
            left = seconds * (self.total - self.n) / max(self.n - self._first, 1e-9)
            share = f"{100 * self._lines // LINES}%" + (
                f" of {self.total} {self._unit}s" if self._unit else ""
            )
            times = f"{terminal_tqdm.format_interval(seconds)} passed, {terminal_tqdm.format_interval(left)} left"
            print(f"{self._desc}: {share}, {times}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Does nothing: lines stay."""

    def set_postfix(self, values: object) -> None:
        """Does nothing: the log has these values."""

    def set_description_str(self, desc: str) -> None:
        """Changes the name of the task."""
        self._desc = desc

    def _due(self) -> int:
        """Lines due so far; shares of windows may add up to slightly less than a whole."""
        if self.total:
            return int(LINES * self.n / self.total + 1e-6)
        return 0


@contextmanager
def quiet_loaders() -> Iterator[None]:
    """Hides the bars and tables of transformers and datasets, unless transformers' verbosity is info."""
    from transformers.utils import logging  # noqa: PLC0415 - takes a second, and not all need it

    datasets: Any = sys.modules.get("datasets")  # where a job has needed it
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    if verbosity > logging.INFO:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    splits = datasets is not None and datasets.are_progress_bars_disabled() is False
    if splits and verbosity > logging.INFO:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if splits:
            datasets.enable_progress_bars()


def _has_bars() -> bool:
    """Whether bars can be drawn: on a terminal, or where tqdm has found a notebook."""
    return sys.stderr.isatty() or issubclass(tqdm, tqdm_notebook)
