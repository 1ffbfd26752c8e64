"""The ablation's results as one JSON, one table for each regime and one figure."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ablation.cells import left_out_mean
from ablation.gains import Confusions, Gain, holm, mean_iou, paired_gain
from ablation.protocol import BASE, LEFT_OUT, REGIMES, ROWS, UNSEEN
from crossearth_hf.evaluation.numbers import ABSENT, percent_spread, spread
from crossearth_hf.files.outputs import staged
from crossearth_hf.labels import get_label_set
from crossearth_hf.reporting.tables import markdown_rows

LABELS = get_label_set("land-cover")
BLUE = "#0072B2"  # of Okabe and Ito


def write_ablation(results: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Writes `ablation.json`, `ablation.md` and `ablation.png` to `folder`; returns their paths.

    Args:
        results: What `cells.execute` returned; cells may be missing, the table says how many seeds there are.
        folder: Existing folder.
    """
    summary = summarize(results)
    texts = {
        "ablation.json": json.dumps({"summary": summary, "runs": list(results)}) + "\n",
        "ablation.md": "\n\n".join(_table(regime, rows) for regime, rows in summary.items()) + "\n",
    }
    for name, text in texts.items():
        with staged([folder / name]) as (temporary,):
            temporary.write_text(text, encoding="utf-8")
    with staged([folder / "ablation.png"]) as (temporary,):
        _figure(summary, temporary)
    return [folder / name for name in (*texts, "ablation.png")]


def summarize(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means and deviations over seeds, and gains over the base.

    Returns:
        regime -> row -> {"seeds", "left_out", "minutes", "targets": name -> [mean, deviation], "unseen" and
        "unseen_top": the same of the mean over `UNSEEN`, "gain": fields of `Gain` or None}. Scores are those with
        factors, but for "unseen_top".
    """
    summary: dict[str, Any] = {}
    for regime in REGIMES:
        runs = [result for result in results if result["regime"] == regime]
        rows = {row: [run for run in runs if run["row"] == row] for row in ROWS}
        if runs:
            gains = _gains({row: found for row, found in rows.items() if found})
            summary[regime] = {
                row: _summary(found, gains.get(row)) for row, found in rows.items() if found
            }
    return summary


def _summary(runs: Sequence[dict[str, Any]], gain: Gain | None) -> dict[str, Any]:
    targets = {
        name: spread([_score(run, name, "factors") for run in runs]) for name in runs[0]["targets"]
    }
    return {
        "seeds": len(runs),
        "unseen": spread([_unseen(run, "factors") for run in runs]),
        "unseen_top": spread([_unseen(run, "top") for run in runs]),
        "left_out": spread([left_out_mean(run) for run in runs]),
        "minutes": spread([run["training_seconds"] / 60 for run in runs]),
        "targets": targets,
        "gain": None if gain is None else asdict(gain),
    }


def _gains(rows: dict[str, list[dict[str, Any]]]) -> dict[str, Gain]:
    """Gain of every row that shares seeds with the base, p-values corrected over the rows."""
    if BASE not in rows:
        return {}
    counts = {row: _confusions(runs) for row, runs in rows.items()}
    labeled = {name: _labeled(rows[BASE][0], name) for name in UNSEEN}
    found = {row: paired_gain(counts[row], counts[BASE], labeled) for row in rows if row != BASE}
    gains = {row: gain for row, gain in found.items() if gain is not None}
    corrected = holm({row: gain.p for row, gain in gains.items()})
    return {row: replace(gain, p=corrected[row]) for row, gain in gains.items()}


def _confusions(runs: Sequence[dict[str, Any]]) -> Confusions:
    return {
        run["seed"]: {name: np.array(run["targets"][name]["factors"]) for name in UNSEEN}
        for run in runs
    }


def _labeled(run: dict[str, Any], target: str) -> list[int]:
    return [LABELS.label2id[name] for name in run["targets"][target]["classes"]]


def _score(run: dict[str, Any], target: str, way: str) -> float:
    counts = np.array(run["targets"][target][way]).sum(0)
    return float(mean_iou(counts, _labeled(run, target)))


def _unseen(run: dict[str, Any], way: str) -> float:
    return float(np.mean([_score(run, name, way) for name in UNSEEN]))


def _table(regime: str, rows: dict[str, Any]) -> str:
    """Markdown: a line per row, the primary outcome first."""
    targets = list(next(iter(rows.values()))["targets"])
    head = [
        "row",
        "seeds",
        "unseen",
        f"gain over {BASE} [95 %]",
        "p (Holm)",
        *targets,
        "unseen, top score",
    ]
    head += [f"left-out regions ({len(LEFT_OUT)})", "minutes"]
    lines = [head, ["---"] * len(head)]
    for name, row in rows.items():
        gain, p = _gain(row["gain"])
        cells = [percent_spread(*row["targets"][target]) for target in targets]
        means = [percent_spread(*row[key]) for key in ("unseen", "unseen_top", "left_out")]
        minutes = f"{row['minutes'][0]:.0f}"
        lines.append([name, str(row["seeds"]), means[0], gain, p, *cells, *means[1:], minutes])
    note = "Mean IoU in percent with factors chosen on left-out regions, mean and deviation over seeds. Unseen: mean of"
    return f"**{regime}**\n\n{markdown_rows(lines)}\n\n{note} {', '.join(UNSEEN)}."


def _gain(gain: dict[str, Any] | None) -> tuple[str, str]:
    """A gain in points with its interval, and its p-value."""
    if gain is None:
        return ABSENT, ABSENT
    mean, low, high = (f"{100 * gain[key]:+.1f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]", f"{gain['p']:.3f}"


def _figure(summary: dict[str, Any], path: Path) -> None:
    """Gains over the base with their intervals, one panel per regime."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(4.6 * len(summary), 3.6), layout="constrained")
    for axes, (regime, rows) in zip(
        figure.subplots(1, len(summary), squeeze=False)[0], summary.items(), strict=True
    ):
        gains = {name: row["gain"] for name, row in rows.items() if row["gain"] is not None}
        means = np.array([100 * gain["mean"] for gain in gains.values()])
        bounds = np.array(
            [[100 * gain["low"], 100 * gain["high"]] for gain in gains.values()]
        ).reshape(-1, 2)
        errors = np.abs(bounds - means[:, None]).T
        axes.errorbar(means, range(len(means)), xerr=errors, fmt="o", color=BLUE, capsize=3)
        axes.axvline(0, color="#999999", linewidth=1)
        axes.set_yticks(range(len(means)), list(gains))
        axes.invert_yaxis()
        axes.set_title(regime, fontsize=9)
        axes.set_xlabel(f"gain over {BASE} on unseen domains, points of mean IoU")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150, format="png")
