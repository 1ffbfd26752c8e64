"""Report folders of `crossearth evaluate`, read and checked, because they may come from anywhere."""

import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import check_paths
from ..errors import InputError
from ..files.documents import read_json
from ..scenarios.scenarios import VERSION
from .bootstrap import LEVEL
from .fields import (
    COLORS,
    COUNT,
    FLAG,
    FRACTION,
    INTERVAL,
    TEXT,
    TEXTS,
    Fields,
    Kind,
    number,
    numbers,
)

FORMAT = "crossearth-report/1"


@dataclass(frozen=True)
class Metric:
    """A score with one number per entry.

    Attributes:
        title: Its name in tables.
        hub_type: The Hub's name for this kind of metric, for model cards; None if cards leave it out.
    """

    title: str
    hub_type: str | None = None


METRICS = {
    "mean_iou": Metric("mean IoU", "mean_iou"),
    "foreground_iou": Metric("foreground IoU", "iou"),
    "boundary_iou": Metric("boundary IoU"),
    "mean_f1": Metric("mean F1"),
    "accuracy": Metric("accuracy", "accuracy"),
    "expected_calibration_error": Metric("calibration error"),
}
"""Metrics by their keys in a report's scores, in the order of all tables."""

_LARGEST_ARRAY = 256 * 2**20  # bytes; an archive may claim anything
_Interval = tuple[float, float] | None


def class_key(name: str) -> str:
    """The key of a class's IoU in `Entry.scores`."""
    return f"iou/{name}"


@dataclass(frozen=True)
class Reliability:
    """How often a prediction of a given confidence is right.

    Attributes:
        confidence, accuracy: Mean of each bin, 0..1; NaN for an empty bin.
        count: Pixels of each bin.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


@dataclass(frozen=True)
class Example:
    """An image that was scored: (H, W, 3) uint8 `image`, (H, W) uint8 `truth` (255 ignored) and `prediction`."""

    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


@dataclass(frozen=True)
class RegionFeatures:
    """Pooled features of class regions: (N, C) float32 and (N,) class ids of source and target each; N may be 0."""

    source: np.ndarray
    source_classes: np.ndarray
    target: np.ndarray
    target_classes: np.ndarray


@dataclass(frozen=True)
class Entry:
    """A model on one target.

    Attributes:
        name: Name of the entry; the same in all reports on this target.
        slug: Name for files.
        scenario: Code of a benchmark scenario; None for a folder.
        ours: Whether the scenario is this project's own, not the paper's.
        source, target: Domains; the source is None if unknown.
        unseen: Whether the model was trained on nothing of the target's domain.
        classes, colors: Classes and colors of the label set.
        scored_classes: Classes that the labels have.
        images, pixels: Number of scored images and pixels.
        fingerprint: Hash of the data.
        mapped: Whether the model has other classes, which are mapped to these.
        incomplete: Whether images of the split were missing.
        assumed: Whether the layout of the raw archives is assumed rather than confirmed.
        window, stride, scale: Settings of the sliding window.
        scores: Fractions by the keys of `METRICS` and `class_key`; None if undefined.
        intervals: Confidence intervals by the same keys, or None.
        level: Confidence level of the intervals.
        reliability: Reliability curve, or None.
        published: Scores of the paper in percent, by method; another harness computed them.

    `entry["mean_iou"]` is short for `entry.scores["mean_iou"]`.
    """

    name: str
    slug: str
    scenario: str | None
    ours: bool
    source: str | None
    target: str
    unseen: bool
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    scored_classes: tuple[str, ...]
    images: int
    pixels: int
    fingerprint: str
    mapped: bool
    incomplete: bool
    assumed: bool
    window: int
    stride: int
    scale: float
    scores: dict[str, float | None]
    intervals: dict[str, _Interval]
    level: float
    reliability: Reliability | None
    published: dict[str, float]

    def __getitem__(self, key: str) -> float | None:
        return self.scores[key]

    @property
    def binary(self) -> bool:
        """Whether the entry has two classes, the first of which is the background."""
        return self.scores["foreground_iou"] is not None


@dataclass(frozen=True, repr=False)
class Report(Mapping[str, Entry]):
    """A report: a mapping from the names of targets to entries, `report["Harvey"]["mean_iou"]`, and a table to print.

    Attributes:
        folder: Its folder; None for a report that was not written.
        name: Name of the model.
        sha256, config_sha256: Hashes of its weights and of its config.json.
        training: Its training recipe from its folder, or None.
        parameters: Number of its parameters.
        created: When the report was started, as it states.
        selection: How the checkpoint was chosen.
        dtype, device: Precision and device of the evaluation.
        software: Versions by name.
        entries: Entries by name.
    """

    folder: Path | None
    name: str
    sha256: str
    config_sha256: str
    training: dict[str, Any] | None
    parameters: int
    created: str
    selection: str
    dtype: str
    device: str
    software: dict[str, str]
    entries: dict[str, Entry]

    def __getitem__(self, name: str) -> Entry:
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        from .table import terminal_table  # noqa: PLC0415 - it needs this module

        return terminal_table(self)

    @property
    def place(self) -> Path:
        """The folder of a report that was written."""
        if self.folder is None:
            raise InputError(
                f"the report of {self.name} was not written; evaluate with a folder to write to"
            )
        return self.folder

    def examples(self, entry: str) -> Iterator[Example]:
        """The kept examples of an entry, in the order of their numbers; raises `InputError` for a damaged file."""
        for path in sorted((self.place / "examples" / self.entries[entry].slug).glob("*.npz")):
            image, truth, prediction = _arrays(path, ("image", "truth", "prediction"))
            shapes = {image.shape[:2], truth.shape, prediction.shape}
            if image.ndim != 3 or image.shape[2] != 3 or len(shapes) > 1 or min(image.shape) < 1:
                raise InputError(f"{path} holds arrays of different sizes; evaluate again")
            yield Example(*(array.astype(np.uint8) for array in (image, truth, prediction)))

    def features(self, entry: str) -> RegionFeatures | None:
        """The kept features of an entry, or None; raises `InputError` for a damaged file."""
        path = self.place / "features" / f"{self.entries[entry].slug}.npz"
        if not path.exists():
            return None
        source, source_classes, target, target_classes = _arrays(
            path, ("source", "source_classes", "target", "target_classes")
        )
        ids = [source_classes, target_classes]
        fits = (
            source.ndim == target.ndim == 2
            and target.shape[1] > 1
            and all(array.ndim == 1 for array in ids)
        )
        fits = fits and len(source) == len(source_classes) and len(target) == len(target_classes)
        fits = fits and (not len(source) or source.shape[1] == target.shape[1])
        if not fits or any((array >= len(self.entries[entry].classes)).any() for array in ids):
            raise InputError(f"{path} holds arrays that do not fit together; evaluate again")
        features = RegionFeatures(
            source.astype(np.float32), source_classes.astype(np.int64),
            target.astype(np.float32), target_classes.astype(np.int64),
        )  # fmt: skip
        if not (np.isfinite(features.source).all() and np.isfinite(features.target).all()):
            raise InputError(
                f"{path} holds features that are not finite; evaluate again, in float32"
            )
        return features


def read_report(folder: str | os.PathLike[str]) -> Report:
    """Reads and checks a report folder; pictures and features are read when asked for.

    Raises:
        InputError: The folder holds no report, or the report has another format, is damaged, has no finished entry or
            has scenarios of another version.
    """
    check_paths(folder=folder)
    path = Path(folder) / "report.json"
    if not path.exists():
        raise InputError(
            f"{folder} holds no report.json; name a folder that `crossearth evaluate` wrote"
        )
    return as_report(read_json(path, "evaluate again"), str(path), Path(folder))


def as_report(values: dict[str, Any], name: str, folder: Path | None) -> Report:
    """Checks the content of a `report.json`.

    Args:
        values: Its content.
        name: Its name in messages.
        folder: Its folder, if it has one.

    Raises:
        InputError: The content cannot be read as a report, see `read_report`.
    """
    fields = Fields(values, name)
    if fields.values.get("format") != FORMAT:
        raise InputError(
            f"{name} has the format {str(fields.values.get('format'))[:60]!r}, but {FORMAT!r} is read here: evaluate "
            "again, or install the version of the package that wrote it"
        )
    entries = list(fields.fields("entries").values)
    if not entries:
        raise InputError(
            f"{name} has no finished entry; let `crossearth evaluate` finish one first"
        )
    model, protocol = fields.fields("model"), fields.fields("protocol")
    return Report(
        folder=folder,
        training=model.fields("training").values or None,
        parameters=model.take("parameters", COUNT),
        created=fields.take("created", TEXT),
        software={key: str(value)[:40] for key, value in fields.fields("software").values.items()},
        entries={entry: _read_entry(entry, fields.fields("entries")) for entry in entries},
        **{key: model.take(key, TEXT) for key in ("name", "sha256", "config_sha256")},
        **{key: protocol.take(key, TEXT) for key in ("selection", "dtype", "device")},
    )


def _read_entry(name: str, entries: Fields) -> Entry:
    Fields({"name": name}, entries.place).take("name", TEXT)
    fields = entries.fields(name)
    data, published = fields.fields("data"), fields.fields("published")
    scenario = fields.optional("scenario", TEXT)
    version = fields.optional("benchmark_version", TEXT)
    if scenario is not None and version != VERSION:
        raise InputError(
            f"{fields.place} was scored with version {version} of the scenarios, this package has {VERSION}: scores of "
            "different versions do not compare, evaluate again"
        )
    classes = tuple(fields.take("classes", TEXTS))
    source, target = fields.optional("source", TEXT), fields.take("target", TEXT)
    intervals = _by_key(fields.fields("intervals"), classes, INTERVAL)
    entry = Entry(
        name=name,
        slug=fields.take("slug", TEXT),
        scenario=scenario,
        ours=fields.take("ours", FLAG),
        source=source,
        target=target,
        unseen=fields.take("unseen", FLAG) and source != target,
        classes=classes,
        colors=tuple(
            (int(red), int(green), int(blue)) for red, green, blue in fields.take("colors", COLORS)
        ),
        scored_classes=tuple(fields.take("scored_classes", TEXTS)),
        images=data.take("images", COUNT),
        pixels=data.take("pixels", COUNT),
        fingerprint=data.take("fingerprint", TEXT),
        mapped=bool(fields.fields("class_map").values),
        incomplete=data.take("incomplete", FLAG),
        assumed=data.optional("layout", TEXT) == "assumed",
        window=fields.take("window", COUNT),
        stride=fields.take("stride", COUNT),
        scale=fields.take("scale", number(0, 1e6)),
        scores=_by_key(fields.fields("scores"), classes, FRACTION),
        intervals={key: bounds and (bounds[0], bounds[1]) for key, bounds in intervals.items()},
        level=fields.fields("intervals").optional("level", FRACTION) or LEVEL,
        reliability=_read_reliability(fields),
        published={method: published.take(method, number(0, 100)) for method in published.values},
    )
    if not re.fullmatch(r"(?!\.)[\w.()+-]+", entry.slug, re.ASCII):
        raise InputError(
            f"{fields.place}: the slug {entry.slug!r} is not a plain file name; evaluate again"
        )
    if len(entry.colors) != len(classes) or not set(entry.scored_classes) <= set(classes):
        raise InputError(
            f"{fields.place}: classes, colors and scored classes do not fit together; evaluate again"
        )
    return entry


def _by_key(fields: Fields, classes: Sequence[str], kind: Kind) -> dict[str, Any]:
    """Values of this kind, or None, by the keys of metrics and classes."""
    by_class = fields.fields("iou")
    overall = {key: fields.optional(key, kind) for key in METRICS}
    return overall | {class_key(name): by_class.optional(name, kind) for name in classes}


def _read_reliability(fields: Fields) -> Reliability | None:
    bins = fields.fields("reliability")
    if not bins.values:
        return None
    limits = {"confidence": 1, "accuracy": 1, "count": 2.0**63}
    columns = [
        np.array(bins.take(key, numbers(high)), dtype=np.float64) for key, high in limits.items()
    ]
    if len({len(column) for column in columns}) > 1:
        raise InputError(f"{bins.place} has columns of different lengths; evaluate again")
    return Reliability(*columns)


def _arrays(path: Path, names: tuple[str, ...]) -> list[np.ndarray]:
    """Arrays of an .npz file, never a pickle."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > _LARGEST_ARRAY:
                raise InputError(
                    f"{path} unpacks to more than {_LARGEST_ARRAY >> 20} MiB; it is not part of a report"
                )
        with np.load(path, allow_pickle=False) as content:
            return [content[name] for name in names]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read: {error}; evaluate again") from error
