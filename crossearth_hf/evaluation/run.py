"""A model on targets: each is scored once and joins the report, on one process or several."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from ..data.fill_notices import fill_notices
from ..data.labelled_images import LabelledImage
from ..errors import InputError
from ..files.outputs import check_apart
from ..inference.loading import load_model
from ..model.configuration_crossearth import CrossEarthConfig
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..scenarios.scenarios import VERSION
from .bootstrap import RESAMPLES
from .features import domain_features
from .report_file import Report, read_report
from .report_folder import SELECTIONS, Protocol, ReportFolder, identify, now, software
from .target_scores import count_images, fingerprint, label_digest, summarize
from .targets import Task

Plan = Callable[[CrossEarthConfig], Sequence[Task]]
"""What to score, given the configuration of the model."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How to score, apart from what belongs to a target.

    Attributes:
        batch_size: Windows per forward pass.
        device, dtype: As in `inference.load_model`; of several processes each takes its own device.
        examples: Images to keep per target, with truth and prediction.
        features: Whether to keep features of class regions, see `domain_features`.
        selection: Key of `SELECTIONS`: how the checkpoint was chosen.
        resamples: Of the bootstrap.
        overwrite: Whether entries that are finished are scored again.

    Raises:
        InputError: a number or name that is none.
    """

    batch_size: int = 4
    device: str = "auto"
    dtype: str = "float32"
    examples: int = 8
    features: bool = False
    selection: str = "last"
    resamples: int = RESAMPLES
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("examples", 0), ("resamples", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name.replace('_', ' ')} {getattr(self, name)} must be at least {least}")
        if self.selection not in SELECTIONS:
            raise InputError(f"'{self.selection}' is no way of choosing; the known ones are {', '.join(SELECTIONS)}")


def evaluate(
    model: str | os.PathLike[str], plan: Plan, out: str | os.PathLike[str], settings: EvaluationSettings
) -> Report:
    """Scores a model on targets and adds them to the report folder `out`; a finished entry is not scored again.

    An entry appears complete or not at all, as soon as its target is done: a killed call goes on with the next one.
    Under `accelerate launch` or `torchrun` the images of a target are shared among the processes; the numbers are
    those of one process with as many threads.

    Args:
        model: Folder or Hub id of a CrossEarth model.
        plan: Makes the targets, see `scenario_task` and `folder_task`.
        out: Folder of the report; made if it is not there, added to if it is the same model's.
        settings: The rest.

    Returns:
        The report with all its entries.

    Raises:
        InputError: a model or data that do not fit; a report among their files, or of another model, protocol or
            version of the benchmark; an entry that was scored in another way or on other data, without `overwrite`; a
            target without labels.
    """
    state, device = _processes(settings.device)
    network, processor = load_model(model, device=device, dtype=settings.dtype)
    protocol = Protocol(SELECTIONS[settings.selection], settings.dtype, network.device.type)
    tasks = plan(network.config)
    data = {task.root for task in tasks if task.root is not None}
    check_apart([*([model] if os.path.isdir(model) else []), *sorted(data)], out)
    report = ReportFolder(out, identify(os.fspath(model), network), protocol)
    _check_names(tasks)
    done = {} if settings.overwrite else {task.name: _finished(report, task, settings) for task in tasks}
    for task in tasks:
        with state.main_process_first():  # it prepares what `datasets` keeps on disk
            images = task.images()
        if finished := done.get(task.name):
            _check_data(finished, task, images)
            continue
        counts = task.label_counts(images)
        if state.is_main_process:
            # Scenarios take no flag by which a person could say otherwise.
            lines = fill_notices(task.name, images) if task.scenario is None else []
            print("\n".join([counts.table(task.name, task.label_set), *lines]), file=sys.stderr)
        entry, examples = _entry(network, processor, task, images, settings)
        features = _features(network, processor, task, images) if settings.features else None
        if state.is_main_process:
            report.add(task.name, entry, examples, features)
        state.wait_for_everyone()
    return read_report(out)


def _processes(device: str) -> tuple[PartialState, str]:
    """The processes that take part, and the device of this one."""
    state = PartialState(cpu=device == "cpu" or parse_flag_from_env("ACCELERATE_USE_CPU"))
    if state.num_processes == 1:
        return state, device
    return state, "cpu" if state.device.type == "cpu" else str(state.device)


def _check_names(tasks: Sequence[Task]) -> None:
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name} is named {names.count(name)} times; once is enough")


def _finished(report: ReportFolder, task: Task, settings: EvaluationSettings) -> dict[str, Any] | None:
    return report.finished(task, resamples=settings.resamples, features=settings.features, examples=settings.examples)


def _check_data(entry: dict[str, Any], task: Task, images: Sequence[LabelledImage]) -> None:
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
    images: Sequence[LabelledImage],
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
    images: Sequence[LabelledImage],
) -> dict[str, np.ndarray]:
    """Features of target and source, the latter without any where its images are not known."""
    target, target_classes = domain_features(model, processor, task, images)
    source, source_classes = target[:0], target_classes[:0]
    if task.source_data is not None:
        with PartialState().main_process_first():
            of_source = task.source_images()
        source, source_classes = domain_features(model, processor, task, of_source)
    return {"source": source, "source_classes": source_classes, "target": target, "target_classes": target_classes}
