"""Progress: a bar on a terminal or in a notebook, elsewhere a line every 10%; other libraries' bars off."""

import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of widgets that a notebook may lack: then lines stand for bars
    from tqdm.auto import tqdm
from tqdm.notebook import tqdm_notebook
from tqdm.std import tqdm as terminal_tqdm

Item = TypeVar("Item")

LINES = 10
"""Lines of a whole job where there is no terminal."""


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
        desc: What is done, such as "predicting".
        unit: What is counted, in the singular; "" where `desc` says it.
        total: How many; by default the length of `items`.
        initial: How many are done already.
        shown: Whether to show anything.
        passing: Whether the bar vanishes at its end, as one within another job: then no lines stand for it.
        options: Others of tqdm's, for the bar alone.
    """
    if not shown or _has_bars():
        return tqdm(
            items, desc=desc, unit=unit, total=total, initial=initial, disable=not shown, leave=not passing, **options
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

    def __init__(self, items: Iterable[Item], desc: str, unit: str, total: int, initial: int) -> None:
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
        """So many more are done."""
        self.n += count
        if self._due() > self._lines:
            self._lines = self._due()
            seconds = time.monotonic() - self._started
            left = seconds * (self.total - self.n) / max(self.n - self._first, 1e-9)
            share = f"{100 * self._lines // LINES}%" + (f" of {self.total} {self._unit}s" if self._unit else "")
            times = f"{terminal_tqdm.format_interval(seconds)} passed, {terminal_tqdm.format_interval(left)} left"
            print(f"{self._desc}: {share}, {times}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing: lines stand."""

    def set_postfix(self, values: object) -> None:
        """Nothing: the log holds these."""

    def set_description_str(self, desc: str) -> None:
        """Says from now on what is done."""
        self._desc = desc

    def _due(self) -> int:
        """Lines for what is done; shares of windows add up to a whole but for rounding."""
        if self.total:
            return int(LINES * self.n / self.total + 1e-6)
        return 0


@contextmanager
def quiet_loaders() -> Iterator[None]:
    """Switches off bars and tables with which transformers loads and saves weights, unless its verbosity is info."""
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
