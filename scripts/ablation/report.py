"""The ablation's results as one JSON, one table and one figure."""

import json
from collections.abc import Callable, Sequence
from math import nan
from pathlib import Path
from statistics import mean
from typing import Any

from ablation.experiments import ALL_EXPERIMENTS, EXPERIMENTS, TRIED, VARIANTS, Experiment
from crossearth_hf.evaluation.numbers import ABSENT, percent_spread, spread
from crossearth_hf.files.outputs import staged
from crossearth_hf.reporting.tables import markdown_rows

Scores = dict[str, float]  # mean IoU per target

BASE = "full"
"""The variant that others are compared with seed by seed: the same model without the method."""

_PRECISIONS = {"no": "float32", "bf16": "bfloat16"}

SELECTIONS: dict[str, str] = {
    "last": "last checkpoint",
    "source": "checkpoint chosen on the source's validation images",
    "oracle": "checkpoint chosen on the target itself (an oracle, no result)",
}


def write_ablation(results: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Writes `ablation.json`, `ablation.md` and `ablation.png` to `folder`; returns their paths.

    Args:
        results: What `experiments.execute` returned; cells may be missing, the table says how many seeds there are.
        folder: Existing folder.
    """
    summary = summarize(results)
    texts = {
        "ablation.json": json.dumps({"summary": summary, "runs": list(results)}, indent=1) + "\n",
        "ablation.md": "\n\n".join(_table(name, rows) for name, rows in summary.items()) + "\n",
    }
    for name, text in texts.items():
        with staged([folder / name]) as (temporary,):
            temporary.write_text(text, encoding="utf-8")
    with staged([folder / "ablation.png"]) as (temporary,):
        _figure(summary, temporary)
    return [folder / name for name in (*texts, "ablation.png")]


def summarize(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over seeds.

    Returns:
        experiment -> variant -> {"seeds": count, "last" / "source" / "oracle": {column: [mean, deviation]}}; columns
        are the targets, the source's validation images and "unseen": the mean over the experiment's headline targets,
        computed per seed. The deviation is the sample's, None for a single seed. Beside them "gain": the same of the
        differences in "unseen" of the last checkpoint to `BASE` of the same seed and start, or None.
        Such runs share crops too, so that these differences spread less than the scores do; the peer has a start of
        its own. "precisions": names of those that the runs computed in.
    """
    summary: dict[str, Any] = {}
    every_variant = VARIANTS | TRIED
    for experiment in ALL_EXPERIMENTS.values():
        every = [run for run in results if run["experiment"] == experiment.name]
        base = {run["seed"]: run for run in every if run["variant"] == BASE}
        rows: dict[str, Any] = {}
        for variant in every_variant:
            runs = [run for run in every if run["variant"] == variant]
            if not runs:
                continue
            pairs = [(run, base[run["seed"]]) for run in runs if run["seed"] in base]
            gains = [
                _unseen(run, experiment) - _unseen(other, experiment)
                for run, other in pairs
                if run.get("start") == other.get("start") or every_variant[variant].peer
            ]
            rows[variant] = {
                "seeds": len(runs),
                "gain": list(spread(gains)) if gains else None,
                "precisions": sorted({_PRECISIONS[run["config"]["mixed_precision"]] for run in runs}),
            } | {
                selection: _spread([_with_headline(select(run, experiment.validation.name), experiment.headline)
                                    for run in runs])
                for selection, select in _SELECT.items()
            }  # fmt: skip
        if rows:
            summary[experiment.name] = rows
    return summary


def _unseen(run: dict[str, Any], experiment: Experiment) -> float:
    """The generalization score of a run's last checkpoint."""
    return _with_headline(_last(run, experiment.validation.name), experiment.headline)["unseen"]


def _scores(checkpoint: dict[str, Any]) -> Scores:
    return {name: values["mean_iou"] for name, values in checkpoint["scores"].items()}


def _last(run: dict[str, Any], validation: str) -> Scores:
    return _scores(run["checkpoints"][-1])


def _chosen_on_source(run: dict[str, Any], validation: str) -> Scores:
    return max((_scores(checkpoint) for checkpoint in run["checkpoints"]), key=lambda scores: scores[validation])


def _chosen_on_target(run: dict[str, Any], validation: str) -> Scores:
    checkpoints = [_scores(checkpoint) for checkpoint in run["checkpoints"]]
    return {name: max(scores[name] for scores in checkpoints) for name in checkpoints[0]}


_SELECT: dict[str, Callable[[dict[str, Any], str], Scores]] = {
    "last": _last,
    "source": _chosen_on_source,
    "oracle": _chosen_on_target,
}


def _with_headline(scores: Scores, headline: Sequence[str]) -> Scores:
    return {"unseen": mean(scores[name] for name in headline)} | scores


def _spread(runs: Sequence[Scores]) -> dict[str, list[float | None]]:
    columns = {name: [scores[name] for scores in runs] for name in runs[0]}
    return {name: list(spread(values)) for name, values in columns.items()}


def _table(name: str, rows: dict[str, Any]) -> str:
    """Markdown: a line per variant, the last checkpoint per target, then the headline by the other two selections."""
    experiment = ALL_EXPERIMENTS[name]
    targets = [target.name for target in experiment.targets]
    head = [
        "variant",
        "seeds",
        "unseen",
        f"gain over {BASE}, same seeds",
        *targets,
        "unseen, source-chosen",
        "unseen, oracle",
        f"({experiment.validation.name})",
    ]
    lines = [head, ["---"] * len(head)]
    for variant, row in rows.items():
        last = [_cell(row["last"]["unseen"]), _gain(variant, row["gain"])]
        last += [_cell(row["last"][column]) for column in targets]
        others = [_cell(row[selection]["unseen"]) for selection in ("source", "oracle")]
        inside = _cell(row["last"][experiment.validation.name])
        lines.append([variant, str(row["seeds"]), *last, *others, f"({inside})"])
    return f"**{name}**\n\n{markdown_rows(lines)}{_precisions(rows)}"


def _precisions(rows: dict[str, Any]) -> str:
    """A line below the table where its rows were not all computed in one precision."""
    groups: dict[str, list[str]] = {}
    for variant, row in rows.items():
        groups.setdefault(" and ".join(row["precisions"]), []).append(variant)
    parts = [f"{', '.join(variants)} in {precision}" for precision, variants in groups.items()]
    return f"\n\nPrecision: {'; '.join(parts)}." if len(groups) > 1 else ""


def _cell(value: Sequence[float | None]) -> str:
    """Mean IoU and its standard deviation in percent."""
    average, deviation = value
    return percent_spread(average or 0.0, deviation)


def _gain(variant: str, gain: Sequence[float | None] | None) -> str:
    """A difference with its sign and spread, in points."""
    if gain is None or variant == BASE:
        return ABSENT
    average, deviation = gain
    return f"{'+' if (average or 0) >= 0 else ''}{_cell([average, deviation])}"


def _figure(summary: dict[str, Any], path: Path) -> None:
    """Bars of the headline per variant, with the spread over seeds; one panel per experiment of `EXPERIMENTS`."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    panels = {name: rows for name, rows in summary.items() if name in EXPERIMENTS} or summary
    figure = Figure(figsize=(4.2 * len(panels), 3.6), layout="constrained")
    for axes, (name, rows) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        rows = {variant: row for variant, row in rows.items() if variant in VARIANTS} or rows
        values = [row["last"]["unseen"] for row in rows.values()]
        heights = [100 * height for height, _ in values]
        spreads = [nan if deviation is None else 100 * deviation for _, deviation in values]  # None with one seed
        colors = ["#0072B2" if variant == "crossearth" else "#999999" for variant in rows]  # Okabe and Ito's blue
        axes.barh(list(rows), heights, xerr=spreads, color=colors, capsize=3)
        axes.invert_yaxis()
        headline = ALL_EXPERIMENTS[name].headline
        axes.set_title(f"{name} → {', '.join(headline)}", fontsize=9)
        axes.set_xlabel("mean IoU over the unseen targets, %")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150, format="png")
