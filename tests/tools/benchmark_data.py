"""What the tests of the benchmark share: a stub that can be scored by hand, folders of images, built domains."""

import io
import json
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from stub_model import CLASSES, ColorModel

from crossearth_hf.scenarios.domains import DOMAINS
from crossearth_hf.scenarios.scenarios import VERSION

COLORS = 255 * np.eye(3, dtype=np.uint8)


class ScoredModel(ColorModel):
    """The stub with what evaluation asks of a model; a pure color has the confidence `SURE`."""

    def __init__(self, classes: tuple[str, ...] = CLASSES) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(()))
        self.config.ground_sampling_distance = None
        self.config.id2label = dict(enumerate(classes))


SURE = float(
    torch.sigmoid(torch.tensor(4.0))
    / (torch.sigmoid(torch.tensor(4.0)) + 2 * torch.sigmoid(torch.tensor(-4.0)))
)
"""Confidence of the stub in a pure color: masks of 4, -4 and -4 before the sigmoid."""


def painted(ids: np.ndarray) -> np.ndarray:
    """(H, W, 3) image in which the stub sees `ids`."""
    return COLORS[ids]


def write_pair(folder: Path, name: str, image: np.ndarray, labels: np.ndarray) -> None:
    """Puts an image and its mask into a data folder."""
    for part, values in (("images", image), ("masks", labels)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(folder / part / f"{name}.png")


def write_halves(folder: Path) -> Path:
    """Two images of 32 x 32: seen left red and right green; labeled so, but blue at the top right of the second."""
    seen = np.repeat([[0] * 16 + [1] * 16], 32, axis=0)
    for name, blue in (("a", 0), ("b", 8)):
        labels = seen.astype(np.uint8)
        labels[:blue, 16:] = 2
        labels[-1] = 255
        write_pair(folder, name, painted(seen), labels)
    return folder


def write_domain(
    data: Path, name: str, pairs: list[tuple[np.ndarray, np.ndarray]], split: str = "test", **facts
) -> None:
    """A domain as `crossearth build-dataset` leaves it: Parquet, a card with configurations, build.json."""
    import datasets  # noqa: PLC0415

    folder = data / DOMAINS[name].dataset
    (folder / name).mkdir(parents=True, exist_ok=True)
    columns = {
        "image": [_png(image) for image, _ in pairs],
        "label": [_png(labels) for _, labels in pairs],
    }
    columns["name"] = [f"tile{index}" for index in range(len(pairs))]
    features = {
        "image": datasets.Image(),
        "label": datasets.Image(),
        "name": datasets.Value("string"),
    }
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    table.to_parquet(folder / name / f"{split}-00000-of-00001.parquet")
    configs = {path.parent.name: [] for path in sorted(folder.glob("*/*.parquet"))}
    for path in sorted(folder.glob("*/*.parquet")):
        part = path.name.split("-")[0]
        configs[path.parent.name].append(
            {"split": part, "path": f"{path.parent.name}/{part}-*.parquet"}
        )
    listed = [{"config_name": key, "data_files": files} for key, files in configs.items()]
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': listed})}---\n")
    build = {
        "domain": name,
        "dataset": DOMAINS[name].dataset,
        "benchmark_version": VERSION,
        "splits": {split: {"images": len(pairs), "expected": None}},
        "incomplete": True,
        "layout": "confirmed",
        "fingerprint": "f" * 64,
    }
    (folder / name / "build.json").write_text(json.dumps(build | facts))


def as_entry(mean_iou: float | None, *, unseen: bool = True, **changes: object) -> dict:
    """An entry of a report: as little as a reader accepts, and `changes`."""
    scores = {"mean_iou": mean_iou, "boundary_iou": 0.2, "mean_f1": 0.6, "accuracy": 0.9}
    return {
        "kind": "folder", "scenario": None, "benchmark_version": None, "ours": False, "source": None, "target": "t",
        "unseen": unseen, "classes": ["a", "b"], "colors": [[0, 0, 0], [1, 1, 1]], "scored_classes": ["a", "b"],
        "class_map": None, "window": 16, "stride": 16, "scale": 1.0,
        "data": {"images": 3, "pixels": 9, "fingerprint": "f", "incomplete": False, "layout": None, "build": None},
        "scores": scores | {"expected_calibration_error": 0.05, "iou": {}},
        "intervals": {"level": 0.95, "resamples": 9, "mean_iou": [0.4, 0.6], "iou": {}},
    } | changes  # fmt: skip


def _png(values: np.ndarray) -> dict:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}
