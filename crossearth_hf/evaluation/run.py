"""A model on targets: each is scored once and joins the report, on one process or several."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from ..data.fill_notices import fill_notices
from ..data.labeled_images import LabeledImage
from ..errors import InputError
from ..files.outputs import check_apart
from ..inference.loading import BUNDLED_MODEL, load_model
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..scenarios.scenarios import VERSION
from .bootstrap import RESAMPLES
from .features import domain_features
from .report_file import Report, read_report
from .report_folder import SELECTIONS, Protocol, ReportFolder, identify, now, report_in_memory, software
from .target_scores import count_images, fingerprint, label_digest, summarize
from .targets import Target, Task


@dataclass(frozen=True)
class EvaluationSettings:
    """How to score, apart from what belongs to a target: arguments of `evaluate`, checked."""

    batch_size: int
    examples: int
    features: bool
    resamples: int
    overwrite: bool

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("examples", 0), ("resamples", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name.replace('_', ' ')} {getattr(self, name)} must be at least {least}")


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
    """Scores a model on targets, and adds them to the report folder `out`; a finished entry is not scored again.

    An entry appears complete or not at all, as soon as its target is done: a killed call goes on with the next one.
    Under `accelerate launch` or `torchrun` the images of a target are shared among the processes; the numbers are
    those of one process with as many threads.

    Args:
        model: Folder or Hub id of a CrossEarth model; None for the bundled one.
        targets: What to score on, by the names of their entries: `FolderTarget` and `ScenarioTarget`, which
            `crossearth_hf` calls `folder` and `scenario`.
        out: Folder of the report; made if it is not there, added to if it is the same model's. None writes nothing.
        batch_size: Windows per forward pass.
        device, dtype: As in `load_model`; of several processes each takes its own device.
        examples: Images to keep per target, with truth and prediction, in `out`.
        features: Whether to keep features of class regions in `out`, see `domain_features`.
        selection: How the checkpoint was chosen: "last", "source" (on the source's validation split) or "oracle" (on
            the target).
        resamples: Of the bootstrap behind the confidence intervals.
        overwrite: Whether entries that are finished are scored again.

    Returns:
        The report with all its entries: `report["Harvey"]["mean_iou"]` is a fraction, or None where it is undefined.

    Raises:
        InputError: a model or data that do not fit; an invalid number or name; a report among their files, or of
            another model, protocol or version of the benchmark; an entry that was scored in another way or on other
            data, without `overwrite`; a target without labels.
    """
    if selection not in SELECTIONS:
        raise InputError(f"'{selection}' is not a way of choosing; the known ones are {', '.join(SELECTIONS)}")
    if not targets:
        raise InputError("targets is empty, and there is nothing to score; name a folder or a scenario")
    if features and out is None:
        raise InputError("features are kept in the folder of the report; name one")
    settings = EvaluationSettings(batch_size, 0 if out is None else examples, features, resamples, overwrite)
    state, own_device = _processes(device)
    network, processor = load_model(model, device=own_device, dtype=dtype)
    precision = str(network.dtype).removeprefix("torch.")
    protocol = Protocol(SELECTIONS[selection], precision, network.device.type)
    tasks = [target.task(name, network.config, with_source=features) for name, target in targets.items()]
    identity = identify(os.fspath(model or BUNDLED_MODEL), network)
    if out is None:
        scored = {task.name: _scored(network, processor, task, _images(task, state), settings)[0] for task in tasks}
        return report_in_memory(identity, protocol, scored)
    data = {task.root for task in tasks if task.root is not None}
    check_apart([*([model] if model is not None and os.path.isdir(model) else []), *sorted(data)], out)
    report = ReportFolder(out, identity, protocol)
    report.check_free(task.name for task in tasks)
    if overwrite:
        done = {}
    else:
        done = {task.name: _finished(report, task, settings) for task in tasks}
    for task in tasks:
        images = _images(task, state)
        if finished := done.get(task.name):
            _check_data(finished, task, images)
            continue
        entry, kept = _scored(network, processor, task, images, settings)
        if features:
            of_regions = _features(network, processor, task, images)
        else:
            of_regions = None
        if state.is_main_process:
            report.add(task.name, entry, kept, of_regions)
        state.wait_for_everyone()
    return read_report(out)


def _images(task: Task, state: PartialState) -> list[LabeledImage]:
    """The images to score; the main process comes first, for it prepares what `datasets` keeps on disk."""
    with state.main_process_first():
        return task.images()


def _scored(
    network: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    task: Task,
    images: Sequence[LabeledImage],
    settings: EvaluationSettings,
) -> tuple[dict[str, Any], list[dict[str, np.ndarray]]]:
    """An entry of the report and its examples; the table of the labels is shown first."""
    counts = task.label_counts(images)
    if PartialState().is_main_process:
        # Scenarios take no flag by which a person could say otherwise.
        if task.scenario is None:
            lines = fill_notices(task.name, images)
        else:
            lines = []
        print("\n".join([counts.table(task.name, task.label_set), *lines]), file=sys.stderr)
    return _entry(network, processor, task, images, settings)


def _processes(device: str) -> tuple[PartialState, str]:
    """The processes that take part, and the device of this one."""
    state = PartialState(cpu=device == "cpu" or parse_flag_from_env("ACCELERATE_USE_CPU"))
    if state.num_processes == 1:
        return state, device
    return state, "cpu" if state.device.type == "cpu" else str(state.device)


def _finished(report: ReportFolder, task: Task, settings: EvaluationSettings) -> dict[str, Any] | None:
    return report.finished(task, resamples=settings.resamples, features=settings.features, examples=settings.examples)


def _check_data(entry: dict[str, Any], task: Task, images: Sequence[LabeledImage]) -> None:
    """Refuses a finished entry of data that have changed since."""
    now_there = fingerprint(label_digest(task.image_name(image), image.read()[1]) for image in images)
    if now_there != entry["data"]["fingerprint"]:
        raise InputError(
            f"the images or labels of {task.name} are others than when it was scored; add --overwrite to score it "
            "again, or name another report or entry"
        )


def _entry(
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    task: Task,
    images: Sequence[LabeledImage],
    settings: EvaluationSettings,
) -> tuple[dict[str, Any], list[dict[str, np.ndarray]]]:
    """An entry of the report and the examples that belong to it."""
    started = time.monotonic()
    counts = count_images(model, processor, task, images, batch_size=settings.batch_size, examples=settings.examples)
    pixels = sum(int(each.confusion.counts.sum()) for each in counts)
    scored = [task.label_set.label2id[name] for name in task.scored]
    if not sum(int(each.confusion.counts[scored].sum()) for each in counts):
        raise InputError(
            f"{task.name} has no pixel with data of {', '.join(task.scored)} in {len(images)} images; nothing can be "
            "scored"
        )
    scores = summarize(counts, task, settings.resamples)
    scenario, build = task.scenario, task.build
    entry = {
        "kind": "folder" if scenario is None else "scenario",
        "scenario": None if scenario is None else scenario.code,
        "benchmark_version": None if scenario is None else VERSION,
        "ours": scenario is not None and scenario.ours,
        "source": None if scenario is None else scenario.source,
        **task.settings(),
        "colors": [list(color) for color in task.label_set.colors],
        "data": {
            "images": len(images),
            "pixels": pixels,
            "fingerprint": fingerprint(each.digest for each in counts),
            "incomplete": build is not None and build.incomplete,
            "layout": None if build is None else build.layout,
            "build": None if build is None else build.fingerprint,
        },
        "created": now(),
        "software": software(),
        "seconds": round(time.monotonic() - started, 1),
        **scores,
        "published": {} if scenario is None else dict(scenario.published),
    }
    return entry, [each.example for each in counts if each.example is not None]


def _features(
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    task: Task,
    images: Sequence[LabeledImage],
) -> dict[str, np.ndarray]:
    """Features of target and source, the latter without any where its images are not known."""
    target, target_classes = domain_features(model, processor, task, images)
    source, source_classes = target[:0], target_classes[:0]
    if task.source_data is not None:
        with PartialState().main_process_first():
            of_source = task.source_images()
        source, source_classes = domain_features(model, processor, task, of_source)
    return {"source": source, "source_classes": source_classes, "target": target, "target_classes": target_classes}
