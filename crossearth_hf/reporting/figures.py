"""Charts of a comparison: radar or bars over the unseen targets, bars per class, reliability. Call in `paper_style`."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..evaluation.numbers import ABSENT
from ..evaluation.report_file import Entry, Reliability, class_key
from .comparison import Comparison, Model, Score
from .style import WIDTH, bar_styles, line_styles, shortened
from .tables import entry_notes, superscript

FEWEST_AXES = 3
"""Fewest targets for a radar chart; for fewer, bars are drawn."""

_INK, _PALE = "#333333", "#8A8A8A"
_WIDEST_LABEL = 26  # characters


def score_figure(comparison: Comparison) -> Figure | None:
    """Mean IoU over the shared unseen targets, all on one scale from 0; None if nothing is shared."""
    if not comparison.shared:
        return None
    if len(comparison.shared) >= FEWEST_AXES:
        return _radar(comparison)
    models = comparison.models
    rows = [
        (_label(comparison, name), [comparison.score(model, name) for model in models])
        for name in comparison.shared
    ]
    return _bars(rows, [model_label(comparison, model) for model in models], "mean IoU, %")


def class_figure(comparison: Comparison, name: str) -> Figure:
    """Bars of mean IoU, foreground IoU of binary sets, and IoU per class, with error bars."""
    entry = comparison.entry(name)
    over_all = [("mean IoU", "mean_iou"), ("foreground IoU", "foreground_iou")][: 1 + entry.binary]
    per_class = [
        (shortened(label.replace("_", " "), _WIDEST_LABEL, 2), class_key(label))
        for label in entry.classes
    ]
    models = [model for model in comparison.models if model.entries(name)]
    rows = [
        (label, [comparison.score(model, name, key) for model in models])
        for label, key in over_all + per_class
    ]
    title = f"IoU on {_label(comparison, name)}, %"
    return _bars(
        rows, [model_label(comparison, model) for model in models], title, ruled=len(over_all)
    )


def reliability_figure(comparison: Comparison) -> Figure | None:
    """Accuracy over confidence, a small chart per target; None if no report has the bins."""
    names = [
        name
        for name in comparison.names
        if any(e.reliability for m in comparison.models for e in m.entries(name))
    ]
    if not names:
        return None
    widest = 4
    if len(names) > 8:
        widest = 6
    lines = math.ceil(len(names) / widest)
    columns = math.ceil(len(names) / lines)
    side = min(2.4, WIDTH / columns)
    figure = Figure(figsize=(side * columns, side * lines + 0.5), layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(grid.flat, names, strict=False):
        _reliability_chart(axes, comparison, name)
    for axes in grid.flat[max(0, len(names) - columns) : len(names)]:
        axes.set_xlabel("confidence, %")
        axes.tick_params(labelbottom=True)
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy, %")
    if len(comparison.models) > 1:
        labels = [model_label(comparison, model) for model in comparison.models]
        handles = grid.flat[0].get_lines()[1:]
        figure.legend(
            handles, labels, loc="outside lower center", ncols=min(3, len(labels)), handlelength=3
        )
    return figure


def model_label(comparison: Comparison, model: Model, width: int = 40, lines: int = 1) -> str:
    """A model's name, cut to `width` characters, with the mark of an oracle."""
    label = shortened(model.name, width, lines)
    if model.oracle:
        label += superscript((comparison.numbered()["oracle"],))
    return label


def _label(comparison: Comparison, name: str, width: int = _WIDEST_LABEL, lines: int = 2) -> str:
    return shortened(name, width, lines) + superscript(entry_notes(comparison, name))


def _radar(comparison: Comparison) -> Figure:
    names = comparison.shared
    figure = Figure(figsize=(WIDTH, WIDTH))
    axes = figure.add_axes((0.2, 0.2, 0.6, 0.6), projection="polar")
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    top = _limit([comparison.score(model, name) for model in comparison.models for name in names])
    _radar_axes(axes, angles, top)
    upright = len(names) <= 12
    for angle, name in zip(angles, names, strict=True):
        label = _label(comparison, name, lines=1 + upright)
        _axis_label(axes, angle, 1.05 * top, label, upright=upright)
    closed = np.append(angles, angles[0])
    handles = []
    for model, style in zip(comparison.models, line_styles(len(comparison.models)), strict=True):
        scores = [comparison.score(model, name) for name in (*names, names[0])]
        values = [100 * score.value for score in scores if score]
        handles += axes.plot(closed, values, linewidth=1.2, markersize=3, clip_on=False, **style)
        if len(model.reports) > 1:
            low, high = np.array([score.bounds for score in scores if score]).T * 100
            axes.fill_between(closed, low, high, color=style["color"], alpha=0.2, linewidth=0)
    labels = [
        f"{model_label(comparison, model)}, mean {comparison.mean(model)}"
        for model in comparison.models
    ]
    below = _lowest(figure, axes)
    figure.legend(
        handles,
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, below - 0.01),
        ncols=2,
        handlelength=3,
    )
    return figure


def _lowest(figure: Figure, axes: Axes) -> float:
    """Lower edge of axes with their labels, as a share of the figure's height."""
    box = axes.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
    if box is None:
        return 0.0
    return box.ymin / figure.bbox.height


def _radar_axes(axes: Axes, angles: np.ndarray, top: float) -> None:
    axes.set_theta_zero_location("N")  # type: ignore[attr-defined]
    axes.set_theta_direction(-1)  # type: ignore[attr-defined]
    axes.set_ylim(0, top)
    axes.set_xticks(angles, [""] * len(angles))
    step = _tick_step(top)
    ticks = np.arange(step, top, step)
    axes.set_yticks(ticks, [""] * len(ticks))
    axes.spines["polar"].set_color("#A0A0A0")
    box = {"facecolor": "white", "alpha": 0.75, "pad": 0.6, "linewidth": 0}
    for tick in ticks:  # between the first two axes, where no line of the grid runs
        axes.text(
            angles[1] / 2,
            tick,
            f"{tick:g}",
            color=_INK,
            fontsize=6,
            ha="center",
            va="center",
            bbox=box,
        )


def _axis_label(axes: Axes, angle: float, radius: float, text: str, *, upright: bool) -> None:
    """An upright label, or one along its axis if there are so many axes that upright labels would overlap."""
    sine, cosine = math.sin(angle), math.cos(angle)
    if upright:
        if abs(sine) < 0.1:
            side = "center"
        elif sine > 0:
            side = "left"
        else:
            side = "right"
        if abs(cosine) < 0.9:
            height = "center"
        elif cosine > 0:
            height = "bottom"
        else:
            height = "top"
        axes.text(angle, radius, text, ha=side, va=height, linespacing=0.95, clip_on=False)
        return
    side, rotation = "left", 90 - math.degrees(angle)
    if sine < -1e-9:
        side, rotation = "right", 270 - math.degrees(angle)
    axes.text(angle, radius, text, rotation=rotation, rotation_mode="anchor", va="center",
              ha=side, fontsize=7, clip_on=False)  # fmt: skip


def _bars(
    rows: Sequence[tuple[str, Sequence[Score | None]]],
    models: Sequence[str],
    title: str,
    *,
    ruled: int = 0,
) -> Figure:
    """Groups of horizontal bars from the top down: a label and a bar per model each; a rule after `ruled` groups."""
    thickness = 0.2  # inches
    if len(models) > 1:
        thickness = 0.145
    group = thickness * len(models) + 0.1
    height = group * len(rows) + 0.75 + 0.16 * math.ceil(len(models) / 3)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    step = thickness / group
    top = _limit([score for _, scores in rows for score in scores])
    handles: list[Any] = []
    for index, style in enumerate(bar_styles(len(models))):
        places = np.arange(len(rows)) + (index - (len(models) - 1) / 2) * step
        scores = [scores[index] for _, scores in rows]
        values = [100 * (score or Score(0)).value for score in scores]
        handles.append(axes.barh(places, values, height=0.92 * step, linewidth=0, **style))
        for place, score in zip(places, scores, strict=True):
            _error_bar(axes, place, score, top)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlim=(0, 1.08 * top), xlabel=title.replace("\n", " "))
    axes.set_xticks(np.arange(0, top + 1, _tick_step(top)))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    if ruled:
        axes.axhline(ruled - 0.5, color=_PALE, linewidth=0.6)
    if len(models) > 1:
        figure.legend(
            handles,
            list(models),
            loc="outside lower center",
            ncols=min(3, len(models)),
            handlelength=2.2,
        )
    return figure


def _tick_step(top: float) -> int:
    """Percent from tick to tick of a scale up to `top`."""
    if top > 40:
        return 20
    return 10


def _error_bar(axes: Axes, place: float, score: Score | None, top: float) -> None:
    """The spread of a bar, and its number."""
    if score is None:
        axes.text(0.006 * top, place, ABSENT, va="center", fontsize=6.5, color=_INK)
        return
    value, (low, high) = 100 * score.value, (100 * bound for bound in score.bounds)
    if high > low:
        arms = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axes.errorbar(
            value, place, xerr=arms, color="black", linewidth=0.8, capsize=1.8, capthick=0.8
        )
    end = max(high, value) + 0.008 * top
    axes.text(end, place, f"{value:.1f}", va="center_baseline", fontsize=6.5, color=_INK)


def _limit(scores: Sequence[Score | None]) -> float:
    """Upper end of a scale in percent: the next ten."""
    highest = max((max(score.value, score.bounds[1]) for score in scores if score), default=0.0)
    return min(100.0, 10.0 * max(1, math.ceil(round(10 * highest, 9))))


def _reliability_chart(axes: Axes, comparison: Comparison, name: str) -> None:
    axes.plot([0, 100], [0, 100], color=_PALE, linewidth=0.8, linestyle=(0, (2, 2)))
    for model, style in zip(comparison.models, line_styles(len(comparison.models)), strict=True):
        bins = merged_bins(model.entries(name))
        if bins is None:
            axes.plot([], [], **style)
            continue
        filled = bins.count > 0
        x, y, share = (
            100 * bins.confidence[filled],
            100 * bins.accuracy[filled],
            bins.count[filled] / bins.count.sum(),
        )
        axes.plot(x, y, linewidth=1, markersize=2.5, **style)
        axes.scatter(x, y, s=6 + 160 * share, color=style["color"], alpha=0.25, linewidth=0)
    axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal", xticks=(0, 50, 100), yticks=(0, 50, 100))
    axes.set_title(_label(comparison, name, width=18), fontsize=7)
    axes.grid(True)


def merged_bins(entries: Sequence[Entry]) -> Reliability | None:
    """The bins of several seeds joined, weighted by pixels; None if there are none or their numbers differ."""
    found = [entry.reliability for entry in entries if entry.reliability is not None]
    if not found or len({len(bins.count) for bins in found}) > 1:
        return None
    count = np.sum([bins.count for bins in found], axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = [
            np.sum(
                [np.where(bins.count > 0, getattr(bins, key), 0) * bins.count for bins in found],
                axis=0,
            )
            / count
            for key in ("confidence", "accuracy")
        ]
    return Reliability(means[0], means[1], count)
