"""Report folders of `crossearth evaluate`, read and checked: names, numbers and arrays may come from anywhere."""

import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files.documents import read_json
from ..scenarios.scenarios import VERSION
from .fields import Fields

FORMAT = "crossearth-report/1"


@dataclass(frozen=True)
class Metric:
    """A score that is one number per entry.

    Attributes:
        title: What tables call it.
        hub_type: The Hub's name for its kind, under which a model card lists it; None where it lists none.
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
"""By their keys in a report's scores, in the order of all tables."""

_LARGEST_ARRAY = 256 * 2**20  # bytes; an archive may claim anything
_Interval = tuple[float, float] | None


def class_key(name: str) -> str:
    """Key of a class's IoU in `Entry.scores`."""
    return f"iou/{name}"


@dataclass(frozen=True)
class Reliability:
    """How often a prediction of a given confidence is right.

    Attributes:
        confidence, accuracy: Mean of each bin, 0..1, NaN for an empty one.
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
        name: Of the entry; the same in every report that scores this target.
        slug: The name for files.
        scenario: Code of a benchmark scenario; None for a folder.
        ours: Whether the scenario is this project's own rather than the paper's.
        source, target: Domains; the source is None where it is not known.
        unseen: Whether nothing of the target's domain was trained on.
        classes, colors: Of the label set.
        scored_classes: Those that the labels know.
        images, pixels: How many were scored.
        fingerprint: Hash of the data.
        mapped: Whether the model has other classes, mapped to these.
        incomplete: Whether images of the split were missing.
        assumed: Whether the layout of the raw archives is assumed rather than confirmed.
        window, stride, scale: Of the sliding window.
        scores: By `METRICS` and `class_key`: fractions, None where undefined.
        intervals: Confidence intervals by the same keys, or None.
        level: Of the intervals.
        reliability: None where the report has none.
        published: Percent by method, from the paper: another harness.

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
        """Whether the entry has a foreground: two classes, the first the background."""
        return self.scores["foreground_iou"] is not None


@dataclass(frozen=True, repr=False)
class Report(Mapping[str, Entry]):
    """A report: a mapping from the names of targets to entries, `report["Harvey"]["mean_iou"]`, and a table to print.

    Attributes:
        folder: Where it lies; None for a report that was not written.
        name: Of the model.
        sha256, config_sha256: Of its weights and of its config.json.
        training: Its recipe, as its folder tells it; None where it tells none.
        parameters: How many it has.
        created: When the report was begun, as written there.
        selection: Rule by which the checkpoint was chosen.
        dtype, device: What it ran in and on.
        software: Versions by name.
        entries: By name.
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
            raise InputError(f"the report of {self.name} was not written; evaluate with a folder to write to")
        return self.folder

    def examples(self, entry: str) -> Iterator[Example]:
        """The pictures kept of an entry, in the order of their numbers; `InputError` for a damaged one."""
        for path in sorted((self.place / "examples" / self.entries[entry].slug).glob("*.npz")):
            image, truth, prediction = _arrays(path, ("image", "truth", "prediction"))
            shapes = {image.shape[:2], truth.shape, prediction.shape}
            if image.ndim != 3 or image.shape[2] != 3 or len(shapes) > 1 or min(image.shape) < 1:
                raise InputError(f"{path} holds arrays of different sizes; evaluate again")
            yield Example(*(array.astype(np.uint8) for array in (image, truth, prediction)))

    def features(self, entry: str) -> RegionFeatures | None:
        """The features kept of an entry; None without any; `InputError` for a damaged file."""
        path = self.place / "features" / f"{self.entries[entry].slug}.npz"
        if not path.exists():
            return None
        source, source_classes, target, target_classes = _arrays(
            path, ("source", "source_classes", "target", "target_classes")
        )
        ids = [source_classes, target_classes]
        fits = source.ndim == target.ndim == 2 and target.shape[1] > 1 and all(array.ndim == 1 for array in ids)
        fits = fits and len(source) == len(source_classes) and len(target) == len(target_classes)
        fits = fits and (not len(source) or source.shape[1] == target.shape[1])
        if not fits or any((array >= len(self.entries[entry].classes)).any() for array in ids):
            raise InputError(f"{path} holds arrays that do not fit together; evaluate again")
        features = RegionFeatures(
            source.astype(np.float32), source_classes.astype(np.int64),
            target.astype(np.float32), target_classes.astype(np.int64),
        )  # fmt: skip
        if not (np.isfinite(features.source).all() and np.isfinite(features.target).all()):
            raise InputError(f"{path} holds features that are not finite; evaluate again, in float32")
        return features


def read_report(folder: str | os.PathLike[str]) -> Report:
    """Reads and checks a report folder; pictures and features are read when asked for.

    Raises:
        InputError: no report there, another format, a damaged one, no finished entry, other scenarios than the
            package's.
    """
    path = Path(folder) / "report.json"
    if not path.exists():
        raise InputError(f"{folder} holds no report.json; name a folder that `crossearth evaluate` wrote")
    return as_report(read_json(path, "evaluate again"), str(path), Path(folder))


def as_report(values: dict[str, Any], name: str, folder: Path | None) -> Report:
    """Checks what `report.json` holds, or would hold.

    Args:
        values: Its content.
        name: What messages call it.
        folder: Where it lies, if anywhere.

    Raises:
        InputError: as `read_report` does.
    """
    fields = Fields(values, name)
    if fields.values.get("format") != FORMAT:
        raise InputError(
            f"{name} has the format {str(fields.values.get('format'))[:60]!r}, but {FORMAT!r} is read here: evaluate "
            "again, or install the version of the package that wrote it"
        )
    entries = list(fields.fields("entries").values)
    if not entries:
        raise InputError(f"{name} has no finished entry; let `crossearth evaluate` finish one first")
    model, protocol = fields.fields("model"), fields.fields("protocol")
    return Report(
        folder=folder,
        name=model.text("name"),
        sha256=model.text("sha256"),
        config_sha256=model.text("config_sha256"),
        training=model.fields("training").values or None,
        parameters=model.count("parameters"),
        created=fields.text("created"),
        selection=protocol.text("selection"),
        dtype=protocol.text("dtype"),
        device=protocol.text("device"),
        software={key: str(value)[:40] for key, value in fields.fields("software").values.items()},
        entries={entry: _read_entry(entry, fields.fields("entries")) for entry in entries},
    )


def _read_entry(name: str, entries: Fields) -> Entry:
    fields = entries.fields(name)
    Fields({"name": name}, entries.place).text("name")
    data, published = fields.fields("data"), fields.fields("published")
    scenario = fields.optional_text("scenario")
    version = fields.optional_text("benchmark_version")
    if scenario is not None and version != VERSION:
        raise InputError(
            f"{fields.place} was scored with version {version} of the scenarios, this package has {VERSION}: scores of "
            "different versions do not compare, evaluate again"
        )
    classes, source, target = fields.texts("classes"), fields.optional_text("source"), fields.text("target")
    scores, intervals, level = _read_scores(fields, classes)
    entry = Entry(
        name=name,
        slug=fields.text("slug"),
        scenario=scenario,
        ours=fields.flag("ours"),
        source=source,
        target=target,
        unseen=fields.flag("unseen") and source != target,
        classes=classes,
        colors=fields.colors("colors"),
        scored_classes=fields.texts("scored_classes"),
        images=data.count("images"),
        pixels=data.count("pixels"),
        fingerprint=data.text("fingerprint"),
        mapped=bool(fields.fields("class_map").values),
        incomplete=data.flag("incomplete"),
        assumed=data.optional_text("layout") == "assumed",
        window=fields.count("window"),
        stride=fields.count("stride"),
        scale=fields.number("scale", 0, 1e6),
        scores=scores,
        intervals=intervals,
        level=level,
        reliability=_read_reliability(fields),
        published={method: published.number(method, 0, 100) for method in published.values},
    )
    if not re.fullmatch(r"(?!\.)[\w.()+-]+", entry.slug, re.ASCII):
        raise InputError(f"{fields.place}: the slug {entry.slug!r} is not a plain file name; evaluate again")
    if len(entry.colors) != len(classes) or not set(entry.scored_classes) <= set(classes):
        raise InputError(f"{fields.place}: classes, colors and scored classes do not fit together; evaluate again")
    return entry


def _read_scores(
    fields: Fields, classes: tuple[str, ...]
) -> tuple[dict[str, float | None], dict[str, _Interval], float]:
    scores, intervals = fields.fields("scores"), fields.fields("intervals")
    by_class, intervals_by_class = scores.fields("iou"), intervals.fields("iou")
    if intervals.values:
        level = intervals.number("level", 0, 1)
    else:
        level = 0.95
    return (
        {key: scores.fraction(key) for key in METRICS} | {class_key(name): by_class.fraction(name) for name in classes},
        {key: intervals.interval(key) for key in METRICS}
        | {class_key(name): intervals_by_class.interval(name) for name in classes},
        level,
    )


def _read_reliability(fields: Fields) -> Reliability | None:
    bins = fields.fields("reliability")
    if not bins.values:
        return None
    columns = [bins.numbers("confidence", 1), bins.numbers("accuracy", 1), bins.numbers("count", 2.0**63)]
    if len({len(column) for column in columns}) > 1:
        raise InputError(f"{bins.place} has columns of different lengths; evaluate again")
    return Reliability(*(np.array(column, dtype=np.float64) for column in columns))


def _arrays(path: Path, names: tuple[str, ...]) -> list[np.ndarray]:
    """Arrays of an .npz file, never a pickle."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > _LARGEST_ARRAY:
                raise InputError(f"{path} unpacks to more than {_LARGEST_ARRAY >> 20} MiB; it is not part of a report")
        with np.load(path, allow_pickle=False) as content:
            return [content[name] for name in names]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read: {error}; evaluate again") from error
