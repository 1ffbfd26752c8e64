"""Panels of image, truth, prediction and error side by side. Call in `paper_style`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from PIL import Image

from ..evaluation.report_file import Entry, Example
from ..labels import IGNORE_INDEX
from .comparison import Comparison, Model
from .figures import model_label
from .style import WIDTH, shortened

MOST_ROWS = 4
"""Examples of a panel."""

WRONG = np.array((136, 0, 46), np.uint8)
"""Color of wrong pixels: different from the classes of all label sets, and the darkest color in a picture of errors."""

_MOST_READ = 32  # examples of a report to search
_TALLEST = 8.0  # inches of pictures; with the legend, a page of a paper
_SIDE = 448  # longer side of a picture in pixels: 300 per inch in a panel of five columns
_HATCH = np.array((225, 150), np.uint8)  # grays of the stripes where nothing is labeled


@dataclass(frozen=True)
class _Row:
    """An image with its truth and the predictions of the models that kept it, by the model's index."""

    image: np.ndarray
    truth: np.ndarray
    predictions: dict[int, np.ndarray] = field(default_factory=dict)


def panel_figure(comparison: Comparison, name: str) -> Figure | None:
    """At most `MOST_ROWS` examples of a target, first those that most models kept; None if there are none.

    For one model: image, truth, prediction and error in a row. For several models: the truth below the image, errors
    below the predictions.
    """
    models = [model for model in comparison.models if model.entries(name)]
    rows = _rows(models, name)
    if not rows:
        return None
    entry = comparison.entry(name)
    single = len(models) == 1
    columns, lines_per_row = 1 + len(models), 2
    if single:
        columns, lines_per_row = 4, 1
    width = WIDTH / max(4, columns)  # inches of a picture
    height = width * rows[0].truth.shape[0] / rows[0].truth.shape[1]
    rows = rows[: max(1, int(_TALLEST / height / lines_per_row))]
    lines = len(rows) * lines_per_row
    layout = ConstrainedLayoutEngine(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    figure = Figure(figsize=(columns * width, lines * height + 0.75), layout=layout)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for index, row in enumerate(rows):
        if single:
            _draw_line(grid[index], row, entry)
        else:
            _draw_pair(grid[2 * index], grid[2 * index + 1], row, entry, len(models))
    _titles(grid[0], comparison, models, single)
    figure.legend(
        handles=_legend(entry, rows),
        loc="outside lower center",
        ncols=4,
        handlelength=1.2,
        handleheight=1.2,
    )
    return figure


def error_picture(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the image pale and gray, wrong pixels dark red, pixels without a label striped."""
    gray = np.asarray(Image.fromarray(image).convert("L"), dtype=np.float32)
    pale = (185 + gray * (70 / 255)).astype(np.uint8)
    painted = np.where((prediction != truth)[..., None], WRONG, pale[..., None])
    return _striped(painted, truth)


def _rows(models: Sequence[Model], name: str) -> list[_Row]:
    found: dict[bytes, _Row] = {}
    for place, model in enumerate(models):
        report = next(report for report in model.reports if name in report.entries)
        for example in islice(report.examples(name), _MOST_READ):
            small = _reduced(example)
            row = found.setdefault(
                small.image.tobytes() + small.truth.tobytes(), _Row(small.image, small.truth)
            )
            row.predictions[place] = small.prediction
    return sorted(found.values(), key=lambda row: -len(row.predictions))[:MOST_ROWS]


def _reduced(example: Example) -> Example:
    """At most `_SIDE` pixels on the longer side; label maps keep their ids."""
    height, width = example.truth.shape
    zoom = _SIDE / max(height, width)
    if zoom >= 1:
        return example
    size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    image = Image.fromarray(example.image).resize(size, Image.Resampling.LANCZOS)
    maps = [
        Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)
        for labels in (example.truth, example.prediction)
    ]
    return Example(np.asarray(image), np.asarray(maps[0]), np.asarray(maps[1]))


def _painted(labels: np.ndarray, entry: Entry) -> np.ndarray:
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(entry.colors)] = entry.colors
    return _striped(palette[labels], labels)


def _striped(picture: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`picture` with stripes where nothing is labeled, which look like no class."""
    rows, columns = np.indices(labels.shape)
    period = max(2, max(labels.shape) // 56)
    stripes = _HATCH[(rows + columns) // period % 2]
    return np.where((labels == IGNORE_INDEX)[..., None], stripes[..., None], picture)


def _draw_line(axes: Sequence[Axes], row: _Row, entry: Entry) -> None:
    _show(axes[0], row.image)
    _show(axes[1], _painted(row.truth, entry))
    _show(axes[2], _painted(row.predictions[0], entry))
    _show_error(axes[3], row, 0)


def _draw_pair(
    upper: Sequence[Axes], lower: Sequence[Axes], row: _Row, entry: Entry, models: int
) -> None:
    _show(upper[0], row.image)
    _show(lower[0], _painted(row.truth, entry))
    lower[0].set_xlabel("truth", fontsize=6.5, labelpad=1.5)
    for place in range(models):
        axes = upper[1 + place]
        if place in row.predictions:
            _show(axes, _painted(row.predictions[place], entry))
            _show_error(lower[1 + place], row, place)
        else:
            axes.text(0.5, 0.5, "not kept", ha="center", va="center", transform=axes.transAxes)


def _show(axes: Axes, picture: np.ndarray) -> None:
    axes.imshow(picture)
    axes.set_axis_on()
    axes.set(xticks=(), yticks=())
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.4, color="#8A8A8A")


def _show_error(axes: Axes, row: _Row, place: int) -> None:
    prediction = row.predictions[place]
    _show(axes, error_picture(row.image, row.truth, prediction))
    labeled = row.truth != IGNORE_INDEX
    if labeled.any():
        right = 100 * np.mean(prediction[labeled] == row.truth[labeled])
        axes.set_xlabel(f"{right:.0f} % right", fontsize=6.5, labelpad=1.5)


def _titles(
    axes: Sequence[Axes], comparison: Comparison, models: Sequence[Model], single: bool
) -> None:
    names = []
    for model in models:
        name = model_label(comparison, model, 20, 2)
        if len(model.reports) > 1:
            name += "\n(its first report)"
        names.append(name)
    titles = ["image", *names]
    if single:
        titles = ["image", "truth", *names, "error"]
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=7, pad=3)


def _legend(entry: Entry, rows: Sequence[_Row]) -> list[Patch]:
    edge: dict[str, Any] = {"edgecolor": "#8A8A8A", "linewidth": 0.5}
    patches = [
        Patch(facecolor=_rgb(color), label=shortened(label.replace("_", " "), 30), **edge)
        for color, label in zip(entry.colors, entry.classes, strict=True)
    ]
    patches.append(Patch(facecolor=_rgb(WRONG), label="wrong", **edge))
    if any((row.truth == IGNORE_INDEX).any() for row in rows):
        patches.append(
            Patch(facecolor=_rgb(_HATCH[[0, 0, 0]]), hatch="//////", label="not labeled", **edge)
        )
    return patches


def _rgb(color: Sequence[int] | np.ndarray) -> tuple[float, float, float]:
    """Red, green and blue of 0..255 as matplotlib takes them."""
    red, green, blue = (float(channel) / 255 for channel in color)
    return red, green, blue
