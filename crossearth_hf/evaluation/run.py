"""Scores a model on targets, with one process or several, and adds each target to the report."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from ..arguments import check_flags, check_paths, check_texts, check_whole_numbers
from ..data.fill_notices import fill_notices
from ..data.labeled_images import LabeledImage
from ..errors import InputError, shown
from ..files.outputs import check_apart
from ..inference.loading import BUNDLED_MODEL, load_model
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..scenarios.scenarios import VERSION, Scenario
from .bootstrap import RESAMPLES
from .features import domain_features
from .report_file import Report, read_report
from .report_folder import (
    SELECTIONS,
    Protocol,
    ReportFolder,
    identify,
    now,
    report_in_memory,
    software,
)
from .target_scores import count_images, fingerprint, label_digest, summarize
from .targets import Build, FolderTarget, ScenarioTarget, Target, Task


@dataclass(frozen=True)
class EvaluationSettings:
    """Checked arguments of `evaluate` that do not belong to a target."""

    batch_size: int
    examples: int
    features: bool
    resamples: int
    overwrite: bool

    def __post_init__(self) -> None:
        check_whole_numbers(
            batch_size=self.batch_size, examples=self.examples, resamples=self.resamples
        )
        check_flags(features=self.features, overwrite=self.overwrite)
        for name, least in (("batch_size", 1), ("examples", 0), ("resamples", 1)):
            if getattr(self, name) < least:
                raise InputError(
                    f"{name.replace('_', ' ')} {getattr(self, name)} must be at least {least}"
                )


def evaluate(
    model: str | os.PathLike[str] | None,
    targets: Mapping[str, Target],
    out: str | os.PathLike[str] | None = None,
    *,
    batch_size: int = 4,
    device: str = "auto",
    dtype: str = "float32",
    examples: int = 8,
    features: bool = False,
    selection: str = "last",
    resamples: int = RESAMPLES,
    overwrite: bool = False,
) -> Report:
    """Scores a model on targets and adds them to the report folder `out`; finished entries are not scored again.

    Each entry appears as soon as its target is done, complete or not at all; after a kill, the same call continues with
    the next target. Under `accelerate launch` or `torchrun`, the processes share the images of a target; the numbers
    are those of one process with as many threads.

    Args:
        model: Folder or Hub id of a CrossEarth model; None for the bundled one.
        targets: Targets by the names of their entries: `FolderTarget` and `ScenarioTarget`, which `crossearth_hf` calls
            `folder` and `scenario`.
        out: Folder of the report; a new folder, or one with a report on the same model. None writes nothing.
        batch_size: Windows per forward pass.
        device, dtype: As in `load_model`; each of several processes takes its own device.
        examples: Number of images to keep in `out` per target, with truth and prediction.
        features: Whether to keep features of class regions in `out`, see `domain_features`.
        selection: How the checkpoint was chosen: "last", "source" (on the source's validation split) or "oracle" (on
            the target).
        resamples: Resamples of the bootstrap for the confidence intervals.
        overwrite: Whether finished entries are scored again.

    Returns:
        The report with all its entries: `report["Harvey"]["mean_iou"]` is a fraction, or None if undefined.

    Raises:
        TypeError: An argument has the wrong type.
        InputError: The model or the data do not fit, a number or a name is invalid, the report folder is among the
            inputs, the report is on another model, protocol or version of the benchmark, a target has no labels, or,
            without `overwrite`, an entry was scored with other settings or data.
    """
    if out is None:
        examples = 0
    settings = EvaluationSettings(batch_size, examples, features, resamples, overwrite)
    _check_arguments(model, targets, out, settings, selection)
    state, own_device = _processes(device)
    network, processor = load_model(model, device=own_device, dtype=dtype)
    precision = str(network.dtype).removeprefix("torch.")
    protocol = Protocol(SELECTIONS[selection], precision, network.device.type)
    tasks = [
        target.task(name, network.config, with_source=features) for name, target in targets.items()
    ]
    identity = identify(os.fspath(model or BUNDLED_MODEL), network)
    if out is None:
        scored = {
            task.name: _scored(network, processor, task, images, settings)[0]
            for task, images in _with_images(tasks, state)
        }
        return report_in_memory(identity, protocol, scored)
    inputs: list[str | os.PathLike[str]] = [
        *sorted({task.root for task in tasks if task.root is not None})
    ]
    if model is not None and os.path.isdir(model):
        inputs.insert(0, model)
    check_apart(inputs, out)
    report = ReportFolder(out, identity, protocol)
    report.check_free(task.name for task in tasks)
    to_score = _with_images(tasks, state)
    done = {}
    if not overwrite:
        done = {task.name: _finished(report, task, settings) for task, _ in to_score}
    for task, images in to_score:
        if finished := done.get(task.name):
            _check_data(finished, task, images)
            continue
        entry, kept = _scored(network, processor, task, images, settings)
        of_regions = None
        if features:
            of_regions = _features(network, processor, task, images)
        if state.is_main_process:
            report.add(task.name, entry, kept, of_regions)
        state.wait_for_everyone()
    return read_report(out)


def _check_arguments(
    model: Any, targets: Any, out: Any, settings: EvaluationSettings, selection: Any
) -> None:
    """Raises `TypeError` or `InputError` for the first argument of `evaluate` that does not fit."""
    named = {"model": model, "out": out}
    check_paths(**{name: path for name, path in named.items() if path is not None})
    check_texts(selection=selection)
    if selection not in SELECTIONS:
        raise InputError(
            f"unknown selection {shown(selection)}; choose one of {', '.join(SELECTIONS)}"
        )
    if not isinstance(targets, Mapping):
        raise TypeError(
            f"targets is {shown(targets)}; give a dict such as {{'Harvey': folder('harvey_uav')}}"
        )
    for name, target in targets.items():
        if not (isinstance(name, str) and isinstance(target, FolderTarget | ScenarioTarget)):
            raise TypeError(
                f"targets holds {shown(name)}: {shown(target)}; give name: folder(...) or name: scenario(...)"
            )
    if not targets:
        raise InputError("there is nothing to score: targets is empty; name a folder or a scenario")
    if settings.features and out is None:
        raise InputError("features are kept in the folder of the report; name one with out")


def _with_images(
    tasks: Sequence[Task], state: PartialState
) -> list[tuple[Task, list[LabeledImage]]]:
    """The tasks, each over the classes that its images label, with these images."""
    images = [_images(task, state) for task in tasks]
    return [(task.labeled_in(found), found) for task, found in zip(tasks, images, strict=True)]


def _images(task: Task, state: PartialState) -> list[LabeledImage]:
    """The images to score; the main process goes first, because it prepares the cache of `datasets`."""
    tell = None
    if state.is_main_process:
        tell = _say
    with state.main_process_first():
        return task.images(tell)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _scored(
    network: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    task: Task,
    images: Sequence[LabeledImage],
    settings: EvaluationSettings,
) -> tuple[dict[str, Any], list[dict[str, np.ndarray]]]:
    """An entry of the report and its examples; prints the table of the labels first."""
    counts = task.label_counts(images)
    if PartialState().is_main_process:
        lines = [counts.table(task.name, task.label_set)]
        if task.scenario is None:  # scenarios have no flag to change it
            lines += fill_notices(task.name, images)
        print("\n".join(lines), file=sys.stderr)
    return _entry(network, processor, task, images, settings)


def _processes(device: str) -> tuple[PartialState, str]:
    """All participating processes, and the device of this one."""
    state = PartialState(cpu=device == "cpu" or parse_flag_from_env("ACCELERATE_USE_CPU"))
    if state.num_processes == 1:
        return state, device
    if state.device.type == "cpu":
        return state, "cpu"
    return state, str(state.device)


def _finished(
    report: ReportFolder, task: Task, settings: EvaluationSettings
) -> dict[str, Any] | None:
    return report.finished(
        task, resamples=settings.resamples, features=settings.features, examples=settings.examples
    )


def _check_data(entry: dict[str, Any], task: Task, images: Sequence[LabeledImage]) -> None:
    """Raises `InputError` if the data of a finished entry have changed."""
    now_there = fingerprint(
        label_digest(task.image_name(image), image.read()[1]) for image in images
    )
    if now_there != entry["data"]["fingerprint"]:
        raise InputError(
            f"the images or labels of {task.name} have changed since it was scored; add --overwrite to score it "
            "again, or name another report or entry"
        )


def _entry(
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    task: Task,
    images: Sequence[LabeledImage],
    settings: EvaluationSettings,
) -> tuple[dict[str, Any], list[dict[str, np.ndarray]]]:
    """An entry of the report and its examples."""
    started = time.monotonic()
    counts = count_images(
        model, processor, task, images, batch_size=settings.batch_size, examples=settings.examples
    )
    pixels = sum(int(each.confusion.counts.sum()) for each in counts)
    scored = [task.label_set.label2id[name] for name in task.scored]
    if not sum(int(each.confusion.counts[scored].sum()) for each in counts):
        raise InputError(
            f"{task.name} has no pixel with data of {', '.join(task.scored)} in {len(images)} images, so there is "
            "nothing to score"
        )
    scores = summarize(counts, task, settings.resamples)
    entry = {
        **_scenario_fields(task.scenario),
        **task.settings(),
        "colors": [list(color) for color in task.label_set.colors],
        "data": {
            "images": len(images),
            "pixels": pixels,
            "fingerprint": fingerprint(each.digest for each in counts),
            **_build_fields(task.build),
        },
        "created": now(),
        "software": software(),
        "seconds": round(time.monotonic() - started, 1),
        **scores,
        "published": {},
    }
    if task.scenario is not None:
        entry["published"] = dict(task.scenario.published)
    return entry, [each.example for each in counts if each.example is not None]


def _scenario_fields(scenario: Scenario | None) -> dict[str, Any]:
    """The fields of an entry about its scenario."""
    if scenario is None:
        return {
            "kind": "folder",
            "scenario": None,
            "benchmark_version": None,
            "ours": False,
            "source": None,
        }
    return {
        "kind": "scenario",
        "scenario": scenario.code,
        "benchmark_version": VERSION,
        "ours": scenario.ours,
        "source": scenario.source,
    }


def _build_fields(build: Build | None) -> dict[str, Any]:
    """The fields of an entry about the data set of its scenario."""
    if build is None:
        return {"incomplete": False, "layout": None, "build": None}
    return {"incomplete": build.incomplete, "layout": build.layout, "build": build.fingerprint}


def _features(
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    task: Task,
    images: Sequence[LabeledImage],
) -> dict[str, np.ndarray]:
    """Features of target and source domain; those of the source domain are empty if its images are unknown."""
    target, target_classes = domain_features(model, processor, task, images)
    source, source_classes = target[:0], target_classes[:0]
    if task.source_data is not None:
        with PartialState().main_process_first():
            of_source = task.source_images()
        source, source_classes = domain_features(model, processor, task, of_source)
    return {
        "source": source,
        "source_classes": source_classes,
        "target": target,
        "target_classes": target_classes,
    }
