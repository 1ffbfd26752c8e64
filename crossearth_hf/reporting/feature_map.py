"""Features of source and target regions in the plane, by PCA and by t-SNE. Call in `paper_style`.

PCA is a plain projection onto two of many directions. t-SNE shows neighbors; its distances and sizes have no meaning.
Both are shown side by side, with a number computed from the features themselves. scikit-learn has both, and has a
seventh of the size of UMAP with its dependencies (numba and LLVM).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from ..evaluation.report_file import Entry, RegionFeatures
from .comparison import Comparison
from .figures import model_label
from .style import COLORS, MARKERS, WIDTH, shortened

FEWEST_REGIONS = 10
"""Fewest regions of source and target together for a map."""

_MOST_REGIONS = 750  # of source and of target each; t-SNE of twice as many takes seconds
_WIDTH_FOR_TSNE = (
    30  # principal components that t-SNE starts from, as in van der Maaten and Hinton (2008)
)


def feature_figure(comparison: Comparison, name: str) -> Figure | None:
    """A row per model with PCA and t-SNE; None if no report has enough features of this target.

    Of several seeds, the first one with features is shown.
    """
    found = []
    for model in comparison.models:
        kept = [report.features(name) for report in model.reports if name in report.entries]
        features = next((item for item in kept if item is not None), None)
        if features is not None and _varies(features):
            label = model_label(comparison, model)
            if len(model.reports) > 1:
                label += " (first report)"
            found.append((label, thinned(features)))
    if not found:
        return None
    entry = comparison.entry(name)
    figure = Figure(figsize=(WIDTH, 2.5 * len(found) + 0.6), layout="constrained")
    grid = figure.subplots(len(found), 2, squeeze=False)
    for axes, (title, features) in zip(grid, found, strict=True):
        _draw(axes, title, features, entry)
    handles = _legend(entry, [features for _, features in found])
    figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=1.2)
    return figure


def thinned(features: RegionFeatures, most: int = _MOST_REGIONS) -> RegionFeatures:
    """At most `most` regions of source and of target each, drawn with a fixed seed, in their order."""
    rng = np.random.default_rng(0)
    parts = []
    for points, classes in (
        (features.source, features.source_classes),
        (features.target, features.target_classes),
    ):
        kept = np.sort(rng.permutation(len(points))[:most])
        parts += [points[kept], classes[kept]]
    return RegionFeatures(*parts)


def nearest_source_agreement(features: RegionFeatures) -> float | None:
    """Share of target regions whose nearest source region is of their class, averaged over the target's classes."""
    if not len(features.source) or not len(features.target):
        return None
    nearest = (
        NearestNeighbors(n_neighbors=1)
        .fit(features.source)
        .kneighbors(features.target, return_distance=False)
    )
    agrees = features.source_classes[nearest[:, 0]] == features.target_classes
    return float(
        np.mean(
            [
                agrees[features.target_classes == label].mean()
                for label in np.unique(features.target_classes)
            ]
        )
    )


def planes(features: RegionFeatures) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, 2) of PCA, (N, 2) of t-SNE, source before target, and the two components' shares of the variance."""
    points = np.concatenate(
        [part for part in (features.source, features.target) if len(part)]
    ).astype(np.float64)
    width = min(_WIDTH_FOR_TSNE, *points.shape)
    with threadpool_limits(1):  # sums in one order: the same map every time
        pca = PCA(width, svd_solver="full").fit(points)
        components = pca.transform(points)
        tsne = TSNE(
            perplexity=min(30.0, (len(points) - 1) / 3), init="pca", random_state=0
        ).fit_transform(components)
    return components[:, :2], tsne, pca.explained_variance_ratio_[:2]


def _varies(features: RegionFeatures) -> bool:
    points = [part for part in (features.source, features.target) if len(part)]
    return sum(map(len, points)) >= FEWEST_REGIONS and bool(
        np.ptp(np.concatenate(points), axis=0).any()
    )


def _draw(axes: Sequence[Axes], model: str, features: RegionFeatures, entry: Entry) -> None:
    linear, neighbors, shares = planes(features)
    agreement = nearest_source_agreement(features)
    for axis, points, title in zip(axes, (linear, neighbors), ("PCA", "t-SNE"), strict=True):
        _scatter(axis, points, features, len(entry.classes))
        axis.set_title(f"{model}: {title}")
        axis.set(xticks=(), yticks=())
        axis.spines[["top", "right"]].set_visible(True)
    axes[0].set_xlabel(f"first component, {100 * shares[0]:.0f} % of the variance")
    axes[0].set_ylabel(f"second component, {100 * shares[1]:.0f} %")
    if agreement is not None:
        axes[1].set_xlabel(f"nearest source region of the same class: {100 * agreement:.0f} %")


def _scatter(axes: Axes, points: np.ndarray, features: RegionFeatures, classes: int) -> None:
    count = len(features.source)
    for label in range(classes):
        color, marker = COLORS[label % len(COLORS)], MARKERS[label % len(MARKERS)]
        source = points[:count][features.source_classes == label]
        target = points[count:][features.target_classes == label]
        style: dict[str, Any] = {"marker": marker, "s": 11, "rasterized": True}
        axes.scatter(
            *source.T, facecolors="none", edgecolors=color, linewidth=0.6, alpha=0.8, **style
        )
        axes.scatter(*target.T, color=color, linewidth=0, alpha=0.75, **style)


def _legend(entry: Entry, shown: Sequence[RegionFeatures]) -> list[Line2D]:
    present = {
        int(label)
        for item in shown
        for ids in (item.source_classes, item.target_classes)
        for label in ids
    }
    style: dict[str, Any] = {"linestyle": "none", "markersize": 4.5}
    handles = [
        Line2D([], [], color=COLORS[label % len(COLORS)], marker=MARKERS[label % len(MARKERS)],
               label=shortened(entry.classes[label].replace("_", " "), 30), **style)
        for label in sorted(present)
    ]  # fmt: skip
    if any(len(item.source) for item in shown):
        hollow: dict[str, Any] = {"color": "#333333", "marker": "o", "markerfacecolor": "none"}
        handles.append(Line2D([], [], label="hollow: source", **hollow, **style))
    handles.append(Line2D([], [], color="#333333", marker="o", label="filled: target", **style))
    return handles
