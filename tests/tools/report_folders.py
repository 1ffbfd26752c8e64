"""Report folders for tests: SynthEarth scenes, predictions of known quality, and scores counted pixel by pixel."""

import hashlib
import json
from pathlib import Path

import numpy as np

from crossearth_hf.labels import LABEL_SETS
from crossearth_hf.scenarios.domains import DOMAINS
from crossearth_hf.scenarios.scenarios import SCENARIOS, VERSION
from crossearth_hf.synthetic import generate_scene

BINS = 15
SIDE = 96


def noisy(truth, classes, quality, rng):
    """A prediction that is right in about `quality` of the pixels, wrong in blocks of 8 x 8."""
    rows, columns = -(-truth.shape[0] // 8), -(-truth.shape[1] // 8)
    wrong = np.kron(rng.random((rows, columns)) > quality, np.ones((8, 8), bool))[
        : truth.shape[0], : truth.shape[1]
    ]
    other = np.kron(rng.integers(0, classes, (rows, columns)), np.ones((8, 8), int))[
        : len(truth), : truth.shape[1]
    ]
    return np.where(wrong, other, truth).astype(np.uint8)


def scored(pairs, classes):
    """Scores of (truth, prediction) pairs from sets of pixels, as no code of the package computes them."""
    truth, prediction = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
    prediction, truth = prediction[truth != 255], truth[truth != 255]
    ious = {}
    for index, name in enumerate(classes):
        union = np.logical_or(truth == index, prediction == index).sum()
        ious[name] = (
            None
            if union == 0
            else float(np.logical_and(truth == index, prediction == index).sum() / union)
        )
    present = [value for value in ious.values() if value is not None]
    return {
        "mean_iou": float(np.mean(present)),
        "mean_f1": float(np.mean([2 * value / (1 + value) for value in present])),
        "accuracy": float((truth == prediction).mean()),
        "foreground_iou": ious[classes[1]] if len(classes) == 2 else None,
        "iou": ious,
        "f1": {
            name: None if value is None else 2 * value / (1 + value) for name, value in ious.items()
        },
        "boundary_iou": None,
        "expected_calibration_error": 0.04,
    }


def around(value, width=0.02):
    return None if value is None else [max(0.0, value - width), min(1.0, value + width)]


def pictures(label_set, quality, seed, *, images=2, side=SIDE):
    """(image, truth, prediction) of scenes; truth has an unlabeled strip and the set's number of classes."""
    classes = len(LABEL_SETS[label_set].classes)
    rng = np.random.default_rng(seed)
    found = []
    for index in range(images):
        scene = generate_scene("temperate-summer", index, side, side)
        truth = (scene.labels % classes).astype(np.uint8)
        truth[:, :6] = 255
        found.append(
            (scene.image, truth, noisy(np.where(truth == 255, 0, truth), classes, quality, rng))
        )
    return found


def entry(label_set, examples, **changes):
    """What a report says of `examples`; `changes` replace or add fields."""
    known = LABEL_SETS[label_set]
    scores = scored([(truth, prediction) for _, truth, prediction in examples], known.classes)
    confidence = (np.arange(BINS) + 0.5) / BINS
    fields = {
        "kind": "folder",
        "slug": "folder",
        "scenario": None,
        "benchmark_version": None,
        "ours": False,
        "source": None,
        "target": "folder",
        "unseen": True,
        "label_set": label_set,
        "class_map": None,
        "classes": list(known.classes),
        "colors": [list(color) for color in known.colors],
        "scored_classes": list(known.classes),
        "data": {
            "images": len(examples),
            "pixels": int(sum((truth != 255).sum() for _, truth, _ in examples)),
            "fingerprint": hashlib.sha256(
                b"".join(truth.tobytes() for _, truth, _ in examples)
            ).hexdigest(),
            "incomplete": False,
            "layout": None,
            "build": None,
        },
        "window": 512,
        "stride": 341,
        "scale": 1.0,
        "seconds": 1.5,
        "confusion_matrix": [[0] * len(known.classes)] * len(known.classes),
        "scores": scores,
        "intervals": {
            "level": 0.95,
            "resamples": 1000,
            "mean_iou": around(scores["mean_iou"]),
            "foreground_iou": around(scores["foreground_iou"]),
            "iou": {name: around(value, 0.05) for name, value in scores["iou"].items()},
        },
        "reliability": {
            "confidence": [None, *confidence[1:].tolist()],
            "accuracy": [None, *(0.9 * confidence[1:]).tolist()],
            "count": [0, *range(10, 10 * BINS, 10)],
        },
        "images": [
            {"name": f"{i}", "mean_iou": 0.5, "accuracy": 0.5} for i in range(len(examples))
        ],
        "published": {},
    }
    return fields | changes


def scenario_entry(code, examples, **changes):
    """An entry of a benchmark scenario."""
    scenario = SCENARIOS[code]
    facts = {
        "kind": "scenario",
        "slug": "".join(letter if letter.isalnum() else "-" for letter in code).strip("-"),
        "scenario": code,
        "benchmark_version": VERSION,
        "ours": scenario.ours,
        "source": scenario.source,
        "target": scenario.target,
        "unseen": not scenario.in_domain,
        "published": dict(scenario.published),
    }
    return entry(DOMAINS[scenario.target].label_set, examples, **(facts | changes))


def write_report(
    folder, entries, *, name="model", selection="last checkpoint", examples=None, features=None
):
    """Writes a report folder; `examples` and `features` are by entry's name."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    report = {
        "format": "crossearth-report/1",
        "created": "2026-01-02T03:04:05+00:00",
        "model": {
            "name": name,
            "sha256": hashlib.sha256(str(folder).encode()).hexdigest(),
            "config_sha256": "0" * 64,
            "classes": [],
            "parameters": 7_012_345,
            "training": None,
        },
        "software": {"crossearth_hf": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
        "protocol": {
            "selection": selection,
            "seed": 0,
            "blending": "uniform",
            "dtype": "float32",
            "device": "cpu",
        },
        "entries": entries,
        "means": {},
    }
    (folder / "report.json").write_text(json.dumps(report, allow_nan=False))
    for key, kept in (examples or {}).items():
        place = folder / "examples" / entries[key]["slug"]
        place.mkdir(parents=True)
        for index, (image, truth, prediction) in enumerate(kept):
            np.savez_compressed(
                place / f"{index:03}.npz", image=image, truth=truth, prediction=prediction
            )
    for key, arrays in (features or {}).items():
        (folder / "features").mkdir(exist_ok=True)
        np.savez_compressed(folder / "features" / f"{entries[key]['slug']}.npz", **arrays)
    return folder


def region_features(classes, shift, seed, *, regions=40, width=16):
    """Features that gather by class; those of the target are shifted."""
    rng = np.random.default_rng(seed)
    centers = 3 * rng.standard_normal((classes, width))
    arrays = {}
    for role, offset in (("source", 0.0), ("target", shift)):
        ids = rng.integers(0, classes, regions).astype(np.uint8)
        points = centers[ids] + offset + rng.standard_normal((regions, width))
        arrays |= {role: points.astype(np.float16), f"{role}_classes": ids}
    return arrays
