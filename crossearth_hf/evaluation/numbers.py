"""Numbers for readers: mean and spread over seeds, percent, intervals."""

from collections.abc import Sequence
from statistics import mean, stdev

ABSENT = "\N{EN DASH}"
"""Text for a missing number."""


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and the sample's standard deviation; None for a single value."""
    if len(values) == 1:
        return mean(values), None
    return mean(values), stdev(values)


def percent(value: float | None) -> str:
    """A fraction in percent with one decimal."""
    if value is None:
        return ABSENT
    return f"{100 * value:.1f}"


def percent_spread(average: float, deviation: float | None) -> str:
    """Mean and standard deviation in percent, such as "67.5 ± 0.4"; the mean alone without a deviation."""
    if deviation is None:
        return percent(average)
    return f"{percent(average)} ± {percent(deviation)}"


def percent_interval(average: float, interval: tuple[float, float] | None) -> str:
    """A score and its confidence interval in percent, such as "67.5 [66.1, 68.8]"."""
    if interval is None:
        return percent(average)
    low, high = interval
    return f"{percent(average)} [{percent(low)}, {percent(high)}]"
