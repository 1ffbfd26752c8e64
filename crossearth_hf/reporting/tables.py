"""Tables of a comparison: built once, written as Markdown here and as HTML by the page's template."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation.numbers import ABSENT, percent
from ..evaluation.report_file import METRICS, Entry, class_key
from ..scenarios.scenarios import SCENARIOS
from .comparison import NOTES, Comparison, Model, Score

PUBLISHED = "published (other harness)"
"""Title over all columns with scores that are not ours."""

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Cell:
    """A cell: its text, whether it is the highest of its row, and the numbers of its footnotes."""

    text: str
    best: bool = False
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Column:
    """A column's title and the title above several columns, if any."""

    title: Cell
    group: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: One or two sentences.
        columns: Columns; the first `keys` of them have texts, the others numbers.
        sections: Title and rows each; a title of "" is not shown.
        keys: How many columns identify a row.
    """

    caption: str
    columns: tuple[Column, ...]
    sections: tuple[tuple[str, tuple[tuple[Cell, ...], ...]], ...]
    keys: int = 1

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Spanning titles and how many neighboring columns they span."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return spans


def model_table(comparison: Comparison) -> Table:
    """The models: reports, parameters, choice of the checkpoint, precision, weights."""
    titles = ("model", "reports", "parameters", "checkpoint", "precision", "weights (SHA-256)")
    rows = tuple(
        (
            _model_cell(comparison, model),
            Cell(str(len(model.reports))),
            Cell(f"{model.reports[0].parameters / 1e6:.1f} M"),
            Cell(model.reports[0].selection),
            Cell(", ".join(dict.fromkeys(report.dtype for report in model.reports))),
            Cell(", ".join(report.sha256[:12] for report in model.reports)),
        )
        for model in comparison.models
    )
    return Table(
        "What is compared.", tuple(Column(Cell(title)) for title in titles), (("", rows),), keys=6
    )


def score_table(comparison: Comparison) -> Table:
    """Mean IoU of every model on every target: unseen targets with their mean, then the others."""
    methods = _methods(comparison)
    columns = [Column(Cell(title)) for title in ("target", "gap", "source → target", "images")]
    columns += [
        Column(_model_cell(comparison, model), "mean IoU, %") for model in comparison.models
    ]
    columns += [Column(Cell(method), PUBLISHED) for method in methods]
    unseen = [name for name in comparison.names if comparison.is_unseen(name)]
    apart = [name for name in comparison.names if name not in unseen]
    sections = []
    if unseen:
        rows = [row for name in unseen for row in _score_rows(comparison, name, methods)]
        if comparison.shared:
            rows.append(_mean_row(comparison, methods))
        sections.append(("unseen targets", tuple(rows)))
    if apart:
        rows = [row for name in apart for row in _score_rows(comparison, name, methods)]
        sections.append(("in-domain, in no mean", tuple(rows)))
    return Table(_score_caption(comparison), tuple(columns), tuple(sections), keys=4)


def entry_table(comparison: Comparison, name: str) -> Table:
    """All scores of one target: metrics, then the IoU of every class."""
    entry = comparison.entry(name)
    metrics = [
        (metric.title, key)
        for key, metric in METRICS.items()
        if any(_scores(comparison, name, key))
    ]
    classes = [(label, class_key(label)) for label in entry.classes]
    columns = (
        Column(Cell("%")),
        *(Column(_model_cell(comparison, model)) for model in comparison.models),
    )
    sections = tuple(
        (title, tuple(_measure_row(comparison, name, label, key) for label, key in rows))
        for title, rows in (("over all classes", metrics), ("IoU per class", classes))
    )
    return Table(f"{name}: all scores.", columns, sections)


def notes(comparison: Comparison) -> list[tuple[int, str]]:
    """Number and text of the footnotes that occur."""
    return [(number, NOTES[key]) for key, number in comparison.numbered().items()]


def markdown(table: Table) -> str:
    """A table in GitHub's Markdown; spanning titles follow the titles that they span."""
    titles = []
    for column in table.columns:
        title = _markdown_cell(column.title)
        if column.group:
            title += f", {column.group}"
        titles.append(title)
    numbers = len(table.columns) - table.keys
    lines = [titles, ["---"] * table.keys + ["---:"] * numbers]
    for heading, rows in table.sections:
        if heading:
            lines.append([f"*{escape_markdown(heading)}*"] + [""] * (len(titles) - 1))
        lines += [
            [_markdown_cell(cell, i < table.keys) for i, cell in enumerate(row)] for row in rows
        ]
    return f"{markdown_rows(lines)}\n\n{escape_markdown(table.caption)}"


def markdown_rows(lines: Sequence[Sequence[str]]) -> str:
    """Lines of a Markdown table from cells that are Markdown already."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape_markdown(text: str) -> str:
    """`text` without anything that Markdown or HTML would read as markup."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|~#!$])", r"\\\1", text)


def superscript(numbers: Sequence[int]) -> str:
    """Footnote numbers as raised digits, for plain text and pictures."""
    return "˒".join(str(number).translate(_SUPERSCRIPTS) for number in numbers)


def entry_notes(comparison: Comparison, name: str) -> tuple[int, ...]:
    """Footnote numbers of an entry."""
    numbers = comparison.numbered()
    return tuple(sorted(numbers[key] for key in comparison.notes[name]))


def _model_cell(comparison: Comparison, model: Model) -> Cell:
    if model.oracle:
        return Cell(model.name, notes=(comparison.numbered()["oracle"],))
    return Cell(model.name)


def _methods(comparison: Comparison) -> list[str]:
    """Published methods in the order of their appearance."""
    return list(
        dict.fromkeys(
            method for name in comparison.names for method in comparison.entry(name).published
        )
    )


def _score_rows(
    comparison: Comparison, name: str, methods: Sequence[str]
) -> list[tuple[Cell, ...]]:
    entry = comparison.entry(name)
    gap, domains = ABSENT, entry.target
    if entry.scenario in SCENARIOS:
        gap = SCENARIOS[entry.scenario].gap
    if entry.source:
        domains = f"{entry.source} → {entry.target}"
    facts = (
        Cell(name, notes=entry_notes(comparison, name)),
        Cell(gap),
        Cell(domains),
        Cell(str(entry.images)),
    )
    published = tuple(Cell(_published(entry.published.get(method))) for method in methods)
    rows = [(*facts, *_score_cells(comparison, name, "mean_iou"), *published)]
    if entry.binary:
        empty = (Cell(""),) * len(methods)
        lead = (Cell(f"{name}, foreground IoU"), Cell(""), Cell(""), Cell(""))
        rows.append((*lead, *_score_cells(comparison, name, "foreground_iou"), *empty))
    return rows


def _scores(comparison: Comparison, name: str, key: str) -> list[Score | None]:
    return [comparison.score(model, name, key) for model in comparison.models]


def _score_cells(comparison: Comparison, name: str, key: str) -> tuple[Cell, ...]:
    scores = _scores(comparison, name, key)
    if "data" in comparison.notes[name]:  # not comparable
        return _rated(scores, set())
    return _rated(scores, comparison.best(scores))


def _measure_row(comparison: Comparison, name: str, label: str, key: str) -> tuple[Cell, ...]:
    cells = _score_cells(comparison, name, key)
    if key == "expected_calibration_error":  # the only score for which lower is better
        cells = tuple(Cell(cell.text) for cell in cells)
    return (Cell(label), *cells)


def _mean_row(comparison: Comparison, methods: Sequence[str]) -> tuple[Cell, ...]:
    means = [comparison.mean(model) for model in comparison.models]
    entries = [comparison.entry(name) for name in comparison.shared]
    marks = sorted(
        {number for name in comparison.shared for number in entry_notes(comparison, name)}
    )
    published = [Cell(_mean_published(entries, method)) for method in methods]
    count = f"{len(entries)} targets"
    if len(comparison.models) > 1:
        count += " that all have"
    lead = (Cell("mean", notes=tuple(marks)), Cell(""), Cell(count), Cell(""))
    return (*lead, *_rated(means, comparison.best(means)), *published)


def _mean_published(entries: Sequence[Entry], method: str) -> str:
    """Mean of a method's published scores; absent if one is missing."""
    scores = [entry.published[method] for entry in entries if method in entry.published]
    if len(scores) < len(entries):
        return ABSENT
    return _published(sum(scores) / len(scores))


def _rated(scores: Sequence[Score | None], best: set[int]) -> tuple[Cell, ...]:
    return tuple(Cell(str(score or ABSENT), index in best) for index, score in enumerate(scores))


def _published(value: float | None) -> str:
    if value is None:
        return ABSENT
    return percent(value / 100)


def _score_caption(comparison: Comparison) -> str:
    level = comparison.entry(comparison.names[0]).level
    parts = ["Mean IoU over classes in percent.", how_to_read_spread(comparison, level)]
    if len(comparison.models) > 1:
        parts.append("Bold: the highest number of ours in a row, whatever its spread.")
    if comparison.shared:
        parts.append(f"The mean is over {', '.join(comparison.shared)}.")
    else:
        parts.append(
            "There is no mean, because no unseen target was scored by all models on the same data."
        )
    if _methods(comparison):
        parts.append(
            "Published scores come from the paper's own harness and are not a comparison on equal terms."
        )
    return " ".join(parts)


def how_to_read_spread(comparison: Comparison, level: float) -> str:
    """How to read the spread of a number: an interval over images, a deviation over seeds, or both."""
    kinds = []
    if any(len(model.reports) == 1 for model in comparison.models):
        kinds.append(
            f"in brackets the {100 * level:g} % confidence interval over images (bootstrap)"
        )
    if any(len(model.reports) > 1 for model in comparison.models):
        kinds.append("± the standard deviation over seeds")
    return f"{'; '.join(kinds)}.".capitalize()


def _markdown_cell(cell: Cell, foreign: bool = True) -> str:
    """A cell; only `foreign` text needs escaping."""
    text = cell.text
    if foreign:
        text = escape_markdown(text)
    if cell.best and text:
        text = f"**{text}**"
    return text + superscript(cell.notes)
