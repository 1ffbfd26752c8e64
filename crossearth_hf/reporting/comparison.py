"""Comparisons of models: seeds under one name, shared targets, and footnotes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..evaluation.numbers import percent_interval, percent_spread, spread
from ..evaluation.report_file import Entry, Report, read_report
from ..scenarios.scenarios import SCENARIOS

NOTES = {
    "oracle": "The checkpoint was chosen on the target itself. Such an oracle is not a real result and is never "
    "marked as the highest.",
    "ours": "This scenario is this project's own and is not documented in the paper.",
    "incomplete": "The data are incomplete: images of the split were missing when the data set was built.",
    "assumed": "The layout of this data set's archives could not be confirmed, so its split is assumed.",
    "mapped": "A model has other classes, which were mapped to these.",
    "data": "The models were scored on different images or labels, so their scores are not comparable and enter no "
    "mean.",
    "windows": "The models were scored with different windows, strides or scales.",
    "partial": "Only some classes are labeled in these images; the means are over these classes.",
    "seeds": "Not all seeds of all models were scored on this target, so it enters no mean.",
    "seen": "This target is in-domain for some models, so it enters no mean.",
    "binary": "The paper does not say whether its scores of binary sets are the mean IoU or the foreground's IoU.",
}
"""Footnotes by key."""


@dataclass(frozen=True)
class Model:
    """A column of the tables: one report, or the reports of several seeds under one name.

    Attributes:
        name: Its name.
        reports: One report per seed.
    """

    name: str
    reports: tuple[Report, ...]

    @property
    def oracle(self) -> bool:
        """Whether a checkpoint was chosen on the target."""
        return any("oracle" in report.selection for report in self.reports)

    def entries(self, name: str) -> list[Entry]:
        """The entry called `name` of each report that has it."""
        return [report.entries[name] for report in self.reports if name in report.entries]


@dataclass(frozen=True)
class Score:
    """A number for a table: from one report, with its confidence interval, or over seeds, with their deviation.

    Attributes:
        value: Fraction.
        deviation: The sample's standard deviation over seeds; None for a single report.
        interval: Confidence interval; None over seeds.
    """

    value: float
    deviation: float | None = None
    interval: tuple[float, float] | None = None

    def __str__(self) -> str:
        if self.deviation is not None:
            return percent_spread(self.value, self.deviation)
        return percent_interval(self.value, self.interval)

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper end of the error bar: the interval, or one deviation to each side."""
        if self.interval is not None:
            return self.interval
        return self.value - (self.deviation or 0), self.value + (self.deviation or 0)


@dataclass(frozen=True)
class Comparison:
    """Models side by side.

    Attributes:
        models: Models in the given order.
        names: Entries of all models: scenarios in the benchmark's order, then folders.
        notes: Keys of `NOTES` for each entry.
    """

    models: tuple[Model, ...]
    names: tuple[str, ...]
    notes: dict[str, tuple[str, ...]]

    def entry(self, name: str) -> Entry:
        """An entry, from the first model that has it."""
        return self._entries(name)[0]

    def is_unseen(self, name: str) -> bool:
        """Whether no model has seen the target's domain in training."""
        return all(entry.unseen for entry in self._entries(name))

    @property
    def shared(self) -> tuple[str, ...]:
        """The unseen targets that all reports of all models scored on the same data; means are over these."""
        reports = sum(len(model.reports) for model in self.models)
        return tuple(
            name
            for name in self.names
            if self.is_unseen(name)
            and "data" not in self.notes[name]
            and len(self._entries(name)) == reports
            and all(entry.scores["mean_iou"] is not None for entry in self._entries(name))
        )

    def score(self, model: Model, name: str, key: str = "mean_iou") -> Score | None:
        """A model's score on an entry by a key of `Entry.scores`, or None."""
        entries = [entry for entry in model.entries(name) if entry.scores.get(key) is not None]
        if not entries:
            return None
        average, deviation = spread([entry.scores[key] or 0.0 for entry in entries])
        if len(model.reports) > 1:
            return Score(average, deviation)
        return Score(average, deviation, entries[0].intervals[key])

    def mean(self, model: Model) -> Score | None:
        """Mean of the mean IoU over `shared`, computed per seed; None if nothing is shared."""
        if not self.shared:
            return None
        per_seed = [
            sum(report.entries[name].scores["mean_iou"] or 0.0 for name in self.shared)
            / len(self.shared)
            for report in model.reports
        ]
        return Score(*spread(per_seed))

    def best(self, scores: Sequence[Score | None]) -> set[int]:
        """Indices of the models with the highest printed number, without oracles; empty if all are equal."""
        rated = {
            index: round(1000 * score.value)
            for index, (model, score) in enumerate(zip(self.models, scores, strict=True))
            if score is not None and not model.oracle
        }
        highest = max(rated.values(), default=0)
        if len(set(rated.values())) > 1:
            return {index for index, value in rated.items() if value == highest}
        return set()

    def numbered(self) -> dict[str, int]:
        """The notes in use, numbered from 1 in the order of `NOTES`."""
        used = {key for keys in self.notes.values() for key in keys}
        if any(model.oracle for model in self.models):
            used.add("oracle")
        ordered = (key for key in NOTES if key in used)
        return {key: number for number, key in enumerate(ordered, start=1)}

    def _entries(self, name: str) -> list[Entry]:
        return [entry for model in self.models for entry in model.entries(name)]


def compare(
    reports: Sequence[str | os.PathLike[str]], groups: Mapping[str, Sequence[str]] | None = None
) -> Comparison:
    """Reads report folders and sets their models side by side.

    Args:
        reports: Report folders.
        groups: Report folders of the seeds of each model, by its name, which may also be in `reports`; a group of one
            report only renames it.

    Raises:
        InputError: A report cannot be read (see `read_report`), two models have the same name, a report is in two
            groups, the same weights occur twice, or an entry has different classes.
    """
    models = _models(reports, groups or {})
    found = list(
        dict.fromkeys(
            name for model in models for report in model.reports for name in report.entries
        )
    )
    order = {code: index for index, code in enumerate(SCENARIOS)}
    first = {name: next(e for model in models for e in model.entries(name)) for name in found}
    names = sorted(found, key=lambda name: order.get(first[name].scenario or "", len(order)))
    return Comparison(
        tuple(models), tuple(names), {name: tuple(_notes(models, name)) for name in names}
    )


def _models(
    reports: Sequence[str | os.PathLike[str]], groups: Mapping[str, Sequence[str]]
) -> list[Model]:
    read: dict[Path, Report] = {}
    for folder in [*reports, *(member for members in groups.values() for member in members)]:
        read.setdefault(Path(folder).resolve(), read_report(folder))
    if not read:
        raise InputError(
            "no report was given; give at least one folder that `crossearth evaluate` wrote"
        )
    group_of: dict[Path, str] = {}
    for name, members in groups.items():
        for member in members:
            if group_of.setdefault(Path(member).resolve(), name) != name:
                raise InputError(f"{member} is in two groups; a report belongs to one model")
    members_of: dict[tuple[str, Path | None], list[Report]] = {}
    for place, report in read.items():
        key: tuple[str, Path | None] = (report.name, place)
        if place in group_of:
            key = (group_of[place], None)
        members_of.setdefault(key, []).append(report)
    models = [Model(name, tuple(members)) for (name, _), members in members_of.items()]
    _check_models(models)
    return models


def _check_models(models: Sequence[Model]) -> None:
    for index, model in enumerate(models):
        for other in models[:index]:
            if other.name == model.name:
                one, two = other.reports[0].place, model.reports[0].place
                raise InputError(
                    f"{one} and {two} are both of a model called '{model.name}': give them different names, --group "
                    f"A={one} --group B={two}, or put seeds of one model into one group"
                )
        digests = [report.sha256 for report in model.reports]
        if len(set(digests)) < len(digests):
            raise InputError(
                f"the group '{model.name}' has the same weights twice; seeds must be different models"
            )
        if len({report.selection for report in model.reports}) > 1:
            raise InputError(
                f"the reports of '{model.name}' chose their checkpoints differently; do not group them"
            )


def _notes(models: Sequence[Model], name: str) -> list[str]:
    """Keys of `NOTES` for an entry; raises `InputError` if its classes differ."""
    entries = [entry for model in models for entry in model.entries(name)]
    first = entries[0]
    if any(entry.classes != first.classes for entry in entries):
        raise InputError(
            f"'{name}' has different classes in two reports; compare reports with the same classes"
        )
    data = {(entry.fingerprint, entry.pixels, entry.scored_classes) for entry in entries}
    applies = {
        "ours": any(entry.ours for entry in entries),
        "incomplete": any(entry.incomplete for entry in entries),
        "assumed": any(entry.assumed for entry in entries),
        "mapped": any(entry.mapped for entry in entries),
        "data": len(data) > 1,
        "windows": len({(entry.window, entry.stride, entry.scale) for entry in entries}) > 1,
        "partial": any(set(entry.scored_classes) != set(entry.classes) for entry in entries),
        "seeds": any(0 < len(model.entries(name)) < len(model.reports) for model in models),
        "seen": len({entry.unseen for entry in entries}) > 1,
        "binary": first.binary and bool(first.published),
    }
    return [key for key, holds in applies.items() if holds]
