"""Scores a model on all unseen sets at hand, as reports: `python scripts/score_targets.py MODEL --data DATA --out OUT`.

DATA holds the folders of `TARGETS` and manifest.json. Nothing may be chosen on these sets.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import crossearth_hf as ce
from crossearth_hf.errors import InputError
from crossearth_hf.evaluation.report_file import class_key

ROADS_AND_HOUSES = ("building", "road", "water", "vegetation")
REST_IS_LAND = (255, 1, 2, 3, 4)
"""Mask values where 255 stands for what is none of the labeled classes."""

TARGETS: dict[str, dict[str, Any]] = {
    "Dubai 7-8": {"path": "dubai:tile[78]_*"},
    "Harvey 1/4": {"path": "harvey_uav", "labeled": ROADS_AND_HOUSES, "scale": 0.25},
    "Harvey 1/2": {"path": "harvey_uav", "labeled": ROADS_AND_HOUSES, "scale": 0.5},
    "Indonesia": {"path": "indonesia_bt", "labeled": ("building", "vegetation")},
    "Indonesia 1/2": {"path": "indonesia_bt", "labeled": ("building", "vegetation"), "scale": 0.5},
    "Cities": {"path": "manifest.json:cities_building", "labeled": ("building",)},
    "EPFL": {"path": "epfl_roads", "labeled": ("road",)},
    "CIL": {"path": "cil_roads", "labeled": ("road",)},
    "Flood": {"path": "flood_oblique_water", "labeled": ("water",), "mask_values": REST_IS_LAND},
    "LoveDA": {"path": "loveda"},
    "Potsdam": {"path": "isprs_potsdam"},
    "Vaihingen": {"path": "isprs_vaihingen"},
}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder or Hub id")
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument(
        "--only", nargs="+", choices=TARGETS, default=list(TARGETS), help="some of them"
    )
    options = parser.parse_args()
    targets = {}
    for name in options.only:
        fields = dict(TARGETS[name])
        targets[name] = ce.folder(options.data / fields.pop("path"), **fields)
    try:
        report = ce.evaluate(options.model, targets, out=options.out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for entry in report.entries.values():
        scores = {name: entry.scores[class_key(name)] for name in entry.scored_classes}
        classes = ", ".join(
            f"{name} {100 * score:.1f}" for name, score in scores.items() if score is not None
        )
        print(f"{entry.name}: mean IoU {100 * (entry['mean_iou'] or 0):.1f} ({classes})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
