"""Scores unseen sets by the top score, with a model's factors, and with factors chosen on the set itself: an oracle.

`python scripts/measure_read_out.py MODEL --data DATA --out read-out.json`. The sets are those of score_targets.py.
Pixels are drawn at random from each image, as in `crossearth calibrate`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from score_targets import TARGETS

from crossearth_hf.data import all_images, load_source
from crossearth_hf.errors import InputError
from crossearth_hf.evaluation import metrics
from crossearth_hf.evaluation.image_scores import scored_ids
from crossearth_hf.evaluation.read_out import ScoredPixels, choose_factors, score_pixels
from crossearth_hf.files.outputs import staged
from crossearth_hf.inference.loading import load_model
from crossearth_hf.inference.windows import resolve_window
from crossearth_hf.labels import LabelSet, label_set_of


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder or Hub id, with class_factors")
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--out", type=Path, required=True, help=".json file to write")
    parser.add_argument(
        "--only", nargs="+", choices=TARGETS, default=list(TARGETS), help="some of them"
    )
    options = parser.parse_args()
    try:
        results = measure(options.model, options.data, options.only)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with staged([options.out]) as (stage,):
        stage.write_text(json.dumps(results, indent=1), encoding="utf-8")
    print("| target | top score | with factors | oracle |\n|---|---|---|---|")
    for name, found in results.items():
        means = " | ".join(
            f"{100 * found[way]['mean_iou']:.1f}" for way in ("argmax", "factors", "oracle")
        )
        print(f"| {name} | {means} |")
    return 0


def measure(name: str, data: Path, targets: list[str]) -> dict[str, Any]:
    """By target and way: mean IoU, factors and confusion matrix."""
    model, processor = load_model(name)
    label_set = label_set_of(model.config)
    chosen = np.asarray(model.config.class_factors or [1.0] * len(label_set.classes))
    model.config.class_factors = None
    window, stride = resolve_window(model.config, None, None)
    results = {}
    for target in targets:
        fields = TARGETS[target]
        source = load_source(
            str(data / fields["path"]), label_set, mask_values=fields.get("mask_values")
        )
        scale = fields.get("scale", 1.0)
        pixels = score_pixels(
            model,
            processor,
            all_images([source]),
            label_set,
            window=window,
            stride=stride,
            scale=scale,
        )
        pixels = ScoredPixels(
            pixels.scores, pixels.labels, tuple(fields.get("labeled", label_set.classes))
        )
        ways = {"argmax": np.ones_like(chosen), "factors": chosen}
        ways["oracle"] = choose_factors({target: pixels}, label_set)
        results[target] = {
            way: _scores(pixels, factors, label_set) for way, factors in ways.items()
        }
    return results


def _scores(pixels: ScoredPixels, factors: np.ndarray, label_set: LabelSet) -> dict[str, Any]:
    table = scored_ids(label_set, pixels.classes)
    predicted = table[(pixels.scores * factors).argmax(1)]
    confusion = metrics.confusion_matrix(predicted, table[pixels.labels], len(label_set.classes))
    return {
        "mean_iou": pixels.mean_iou(factors, label_set),
        "factors": factors.round(4).tolist(),
        "confusion_matrix": confusion.tolist(),
    }


if __name__ == "__main__":
    sys.exit(main())
