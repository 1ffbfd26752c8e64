"""Numbers as a reader sees them: mean and spread over seeds, percent, intervals."""

from collections.abc import Sequence
from statistics import mean, stdev

ABSENT = "\N{EN DASH}"
"""Where there is no number."""


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and the sample's standard deviation; None for a single value."""
    return mean(values), stdev(values) if len(values) > 1 else None


def percent(value: float | None) -> str:
    """A fraction in percent with one decimal."""
    if value is None:
        return ABSENT
    return f"{100 * value:.1f}"


def percent_spread(average: float, deviation: float | None) -> str:
    """Mean and standard deviation in percent, such as "67.5 ± 0.4"; the mean alone without a deviation."""
    return percent(average) + ("" if deviation is None else f" ± {percent(deviation)}")


def percent_interval(average: float, interval: tuple[float, float] | None) -> str:
    """A score and its confidence interval in percent, such as "67.5 [66.1, 68.8]"."""
    return percent(average) + ("" if interval is None else f" [{percent(interval[0])}, {percent(interval[1])}]")
