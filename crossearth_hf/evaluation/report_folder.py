"""The report folder of a model: `report.json`, examples and features. Entries are added one by one, each as a whole.

The form of `report.json` is `crossearth-report/1`: model (name and hashes), software, protocol, entries by name, means.
`evaluation.report_file` reads and checks it.
"""

import dataclasses
import datetime
import hashlib
import io
import json
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from ..errors import InputError
from ..files.digests import file_sha256
from ..files.documents import read_yaml
from ..files.downloads import CONFIG, INDEX, WEIGHTS, weight_parts
from ..files.outputs import check_place, check_writable, staged
from ..files.working_folders import alone_in, clear_abandoned
from ..inference.loading import model_folder
from ..labels import label_set_of
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from .bootstrap import SEED
from .boundary import SHARE
from .calibration import BINS
from .report_file import FORMAT, Report, as_report, read_report
from .targets import Task

SELECTIONS = {
    "last": "last checkpoint",
    "source": "chosen on the source's validation split",
    "oracle": "chosen on the target (oracle)",
}
"""How the checkpoint was chosen, by the name on the command line."""

_LOCK_SECONDS = 60
_ADDING = ".adding.txt"  # holds number of examples and name of an entry that is being moved into the folder
_SOFTWARE = ("crossearth_hf", "torch", "transformers", "datasets", "numpy", "scipy", "accelerate")


@dataclass(frozen=True)
class Protocol:
    """Settings that all entries of a report share.

    Attributes:
        selection: How the checkpoint was chosen, a value of `SELECTIONS`.
        dtype, device: Precision and device of the model.
        seed: Seed of the bootstrap.
        blending: How overlapping windows are blended.
        boundary_share: Width of the band of boundary IoU, relative to the image's diagonal.
        bins: Number of bins of the calibration error.
    """

    selection: str
    dtype: str
    device: str
    seed: int = SEED
    blending: str = "uniform"
    boundary_share: float = SHARE
    bins: int = BINS


def identify(name: str, model: CrossEarthForSemanticSegmentation) -> dict[str, Any]:
    """Name, hashes, classes, size and training recipe of a model in a folder or on the Hub."""
    folder = model_folder(name)
    recipe = None
    if (folder / "train.yaml").is_file():
        recipe = read_yaml(folder / "train.yaml", "train the model again")
    if os.path.isdir(name):
        name = os.path.basename(os.path.abspath(name))
    return {
        "name": name,
        "sha256": _weights_hash(folder),
        "config_sha256": file_sha256(folder / CONFIG),
        "classes": list(label_set_of(model.config).classes),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "training": recipe,
    }


def software() -> dict[str, str]:
    """Versions of the software that computed the scores."""
    versions = {"python": platform.python_version()}
    for package in _SOFTWARE:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # only some sources need `datasets`
            continue
    return versions


class ReportFolder:
    """A report on disk, to which entries are added.

    Args:
        path: The folder, which is made with the first entry.
        model: As `identify` returns it.
        protocol: Settings that all entries share.

    Raises:
        InputError: The folder cannot be made, or it holds a report that is damaged, or that is of another model,
            another protocol or another version of the benchmark.
    """

    def __init__(
        self, path: str | os.PathLike[str], model: Mapping[str, Any], protocol: Protocol
    ) -> None:
        self.path = check_place(path, overwrite=True, parents=True)
        self._file = self.path / "report.json"
        self._head = _head(model, protocol)
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file; name a folder for the report")
        if self.path.exists():
            check_writable(self.path)
        for folder in (self.path, self.path / "features", *self.path.glob("examples/*")):
            clear_abandoned(folder)
        if self._file.exists():
            read_report(self.path)
            self._check_head(self._read())
        if (self.path / _ADDING).exists():
            with self._alone():
                self._remove_unfinished()

    def entries(self) -> dict[str, dict[str, Any]]:
        """Finished entries by name, as in `report.json`."""
        if self._file.exists():
            return self._read()["entries"]
        return {}

    def finished(
        self, task: Task, *, resamples: int, features: bool, examples: int
    ) -> dict[str, Any] | None:
        """The entry of a task, if it was scored in the same way and its files exist.

        Raises:
            InputError: An entry of this name was scored with other settings.
        """
        entry = self.entries().get(task.name)
        if entry is None:
            return None
        wanted = task.settings() | {"scenario": task.scenario and task.scenario.code}
        for key, value in wanted.items():
            if entry.get(key) != value:
                raise InputError(
                    f"{task.name} in {self.path} has {key} {entry.get(key)!r}, now it is {value!r}; add --overwrite to "
                    "score it again, or name another report or entry"
                )
        kept = len(list((self.path / "examples" / entry["slug"]).glob("*.npz")))
        missing = (
            kept < min(examples, entry["data"]["images"])
            or entry["intervals"]["resamples"] != resamples
        )
        missing |= features and not (self.path / "features" / f"{entry['slug']}.npz").exists()
        if missing:
            return None
        return entry

    def check_free(self, names: Iterable[str]) -> None:
        """Raises `InputError` if unrelated files are in the place of the files of a new entry."""
        slugs = {key: entry["slug"] for key, entry in self.entries().items()}
        for name in names:
            if name in slugs:
                continue
            slugs[name] = _slug(name, slugs)
            folder = self.path / "examples" / slugs[name]
            for path in (folder, self.path / "features" / f"{slugs[name]}.npz"):
                if os.path.lexists(path) and not (
                    path == folder and path.is_dir() and not any(path.iterdir())
                ):
                    raise InputError(
                        f"{path} is in the place of files of {name}, but the report in {self.path} does not list it; "
                        "move it away or name another folder for the report"
                    )

    def add(
        self,
        name: str,
        entry: Mapping[str, Any],
        examples: Sequence[Mapping[str, np.ndarray]],
        features: Mapping[str, np.ndarray] | None,
    ) -> None:
        """Adds an entry with its arrays to the folder, all of it or nothing; an entry of the same name is replaced.

        Several processes may add to one report; each waits for the others.
        """
        _make_folders([self.path])
        with self._alone():
            self._remove_unfinished()
            content: dict[str, Any] = {"entries": {}}
            if self._file.exists():
                content = self._read()
                self._check_head(content)
            self.check_free([name])
            slug = _slug(name, {key: other["slug"] for key, other in content["entries"].items()})
            folder = self.path / "examples" / slug
            arrays: dict[Path, Any] = {
                folder / f"{index:03}.npz": maps for index, maps in enumerate(examples)
            }
            if features is not None:
                arrays[self.path / "features" / f"{slug}.npz"] = features
            kept_before = _kept(content["entries"].get(name))
            entries = content["entries"] | {
                name: {"slug": slug, "examples": len(examples)} | dict(entry)
            }
            report = report_content(self._head, entries, content.get("created", now()))
            try:
                with staged([self.path / _ADDING]) as (note,):
                    note.write_text(f"{len(examples)} {name}", encoding="utf-8")
                self._write(arrays, report)
            finally:
                self._remove_unfinished()
            for index in range(len(examples), kept_before):
                (folder / f"{index:03}.npz").unlink(missing_ok=True)

    def _alone(self) -> AbstractContextManager[None]:
        """A block in which no other process adds to the folder."""
        refusal = (
            f"another process has been writing {self.path} for {_LOCK_SECONDS} seconds; run again"
        )
        return alone_in(self.path, refusal, seconds=_LOCK_SECONDS)

    def _remove_unfinished(self) -> None:
        """Removes the files of an entry that is not in the report, and the note of it, also if Ctrl-C interrupts."""
        try:
            self._remove_noted()
        except KeyboardInterrupt:
            self._remove_noted()
            raise

    def _remove_noted(self) -> None:
        """Removes what the note names unless the report lists it: `add` found these places free."""
        note = self.path / _ADDING
        if not note.exists():
            return
        count, _, name = note.read_text(encoding="utf-8").partition(" ")
        slugs = {key: entry["slug"] for key, entry in self.entries().items()}
        if name not in slugs and count.isdecimal():
            slug = _slug(name, slugs)
            examples = (f"examples/{slug}/{index:03}.npz" for index in range(int(count)))
            for file in (f"features/{slug}.npz", *examples):
                (self.path / file).unlink(missing_ok=True)
        note.unlink(missing_ok=True)

    def _write(self, arrays: Mapping[Path, Any], report: Mapping[str, Any]) -> None:
        """Writes the arrays into their files, and the report last: until then the old report is valid."""
        _make_folders({path.parent for path in arrays} | {self.path})
        with staged([*arrays, self._file]) as stages:
            for stage, maps in zip(stages, arrays.values(), strict=False):
                # on a full disk, an abandoned zip file would print a traceback
                archive = io.BytesIO()
                np.savez_compressed(archive, **maps)
                stage.write_bytes(archive.getbuffer())
            stages[-1].write_text(
                json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8"
            )

    def _read(self) -> dict[str, Any]:
        return json.loads(self._file.read_text(encoding="utf-8"))

    def _check_head(self, content: Mapping[str, Any]) -> None:
        """Raises `InputError` if the report has another model or protocol."""
        for key in ("sha256", "config_sha256"):
            if content["model"].get(key) != self._head["model"][key]:
                raise InputError(
                    f"{self.path} is the report of the model {content['model']['name']} with {key} "
                    f"{content['model'].get(key)}, not of {self._head['model']['name']} with "
                    f"{self._head['model'][key]}; name another folder for this one"
                )
        for key, value in self._head["protocol"].items():
            if content["protocol"].get(key) != value:
                raise InputError(
                    f"{self.path} was scored with {key} {content['protocol'].get(key)!r}, not {value!r}; choose the "
                    "same or name another folder"
                )


def report_in_memory(
    model: Mapping[str, Any], protocol: Protocol, entries: Mapping[str, Mapping[str, Any]]
) -> Report:
    """A report in memory, with the same content and the same checks as a written one."""
    slugs: dict[str, str] = {}
    for name in entries:
        slugs[name] = _slug(name, slugs)
    named = {name: {"slug": slugs[name]} | dict(entry) for name, entry in entries.items()}
    content = json.loads(
        json.dumps(report_content(_head(model, protocol), named, now()), allow_nan=False)
    )
    return as_report(content, "the report", None)


def report_content(
    head: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]], created: str
) -> dict[str, Any]:
    """The content of `report.json`."""
    return {
        "format": FORMAT,
        "created": created,
        "model": head["model"],
        "software": software(),
        "protocol": head["protocol"],
        "entries": entries,
        "means": means(entries),
    }


def _head(model: Mapping[str, Any], protocol: Protocol) -> dict[str, Any]:
    return {"model": dict(model), "protocol": dataclasses.asdict(protocol)}


def means(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean IoU over unseen targets, and separately over in-domain targets."""
    result = {}
    for key, unseen in (("unseen", True), ("in_domain", False)):
        scores = {
            name: entry["scores"]["mean_iou"]
            for name, entry in entries.items()
            if entry["unseen"] is unseen
        }
        present = {name: score for name, score in scores.items() if score is not None}
        average = None
        if present:
            average = mean(present.values())
        result[key] = {"mean_iou": average, "targets": list(present)}
    return result


def now() -> str:
    """The current time in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _kept(entry: Mapping[str, Any] | None) -> int:
    """Number of examples of an entry; for reports of earlier releases, which do not state it, at most one per image."""
    if entry is None:
        return 0
    return entry.get("examples", entry["data"]["images"])


def _make_folders(folders: Iterable[Path]) -> None:
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{error.filename} cannot be made: {error.strerror}; free space, or name another folder"
        ) from error


def _slug(name: str, taken: Mapping[str, str]) -> str:
    """The name for files of the entry `name`: its own, or a new one that no other entry has."""
    if name in taken:
        return taken[name]
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "entry"
    others, slug, number = {other.lower() for other in taken.values()}, plain, 2
    while slug.lower() in others:
        slug, number = f"{plain}-{number}", number + 1
    return slug


def _weights_hash(folder: Path) -> str:
    """SHA-256 of model.safetensors, or of the hashes of its parts."""
    if (folder / WEIGHTS).exists():
        return file_sha256(folder / WEIGHTS)
    digests = [file_sha256(folder / part) for part in weight_parts(folder / INDEX)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()
