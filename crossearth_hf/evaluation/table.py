"""A report as a table in plain characters, for the terminal."""

from collections.abc import Sequence

from .numbers import ABSENT, percent, percent_interval
from .report_file import METRICS, Entry, Report
from .report_folder import SELECTIONS, means

_TITLES = (
    "target",
    "images",
    *(metric.title for metric in METRICS.values()),
    "published (other harness)",
)
_WITH_INTERVAL = ("mean_iou", "foreground_iou")


def terminal_table(report: Report) -> str:
    """All entries in percent: unseen targets with their mean, in-domain ones apart, and notes where there are any."""
    rows: list[tuple[str, ...]] = [_TITLES]
    notes: list[str] = []
    for title, unseen in (("unseen", True), ("in-domain, in no mean", False)):
        entries = [entry for entry in report.entries.values() if entry.unseen is unseen]
        if not entries:
            continue
        rows += [(title,), *(_row(entry) for entry in entries)]
        if unseen:
            mean = means({entry.name: vars(entry) for entry in entries})["unseen"]
            rows.append((f"mean of {len(mean['targets'])}", "", percent(mean["mean_iou"])))
        notes += [note for entry in entries for note in _notes(entry)]
    if report.selection == SELECTIONS["oracle"]:
        notes.append("The checkpoint was chosen on the target itself: an oracle, no result.")
    levels = {f"{100 * entry.level:g} %" for entry in report.entries.values()}
    notes.append(
        f"In percent; in brackets the {', '.join(sorted(levels))} confidence interval over images."
    )
    return "\n".join(
        [f"{report.name}, {report.selection}, {report.dtype}", "", *_aligned(rows), "", *notes]
    )


def _row(entry: Entry) -> tuple[str, ...]:
    published = ", ".join(f"{method} {score:.1f}" for method, score in entry.published.items())
    return (
        entry.name,
        str(entry.images),
        *(_score(entry, key) for key in METRICS),
        published or ABSENT,
    )


def _score(entry: Entry, key: str) -> str:
    """A score in percent; of those that matter most with its interval."""
    value = entry.scores[key]
    if value is None:
        return ABSENT
    if key in _WITH_INTERVAL:
        return percent_interval(value, entry.intervals[key])
    return percent(value)


def _notes(entry: Entry) -> list[str]:
    notes = []
    if entry.ours:
        notes.append(f"{entry.name} is a scenario of this package, not of the paper.")
    if entry.incomplete:
        notes.append(f"{entry.name} was scored on a part of its images.")
    if entry.assumed:
        notes.append(
            f"The data of {entry.name} were built from archives whose layout is assumed, not confirmed."
        )
    if entry.mapped:
        notes.append(
            f"{entry.name} has other classes than the model, whose classes count as mapped in the report."
        )
    if len(entry.scored_classes) < len(entry.classes):
        notes.append(
            f"{entry.name} is scored over {', '.join(entry.scored_classes)} only; the rest counts as one class."
        )
    return notes


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first and the last column start at the left, numbers end at the right."""
    width = max(map(len, rows))
    full = [[*row, *[""] * (width - len(row))] for row in rows]
    sides = [max(len(row[column]) for row in full if row[1] or row[2]) for column in range(width)]
    lines = []
    for row in full:
        cells = [text.rjust(side) for text, side in zip(row, sides, strict=True)]
        for column in (0, width - 1):
            cells[column] = row[column].ljust(sides[column])
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return lines
