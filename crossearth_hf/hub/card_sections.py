"""The generated parts of a model card: Markdown from a configuration, a training recipe and reports only."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..conversion.backbones import family_of
from ..errors import InputError
from ..evaluation.numbers import ABSENT, percent, percent_interval
from ..evaluation.report_file import METRICS, Entry, Report, class_key
from ..model.configuration_crossearth import CrossEarthConfig
from ..reporting.comparison import NOTES, Comparison
from ..scenarios.domains import DOMAINS
from ..scenarios.source_datasets import DATASETS
from ..training import TrainConfig, build_train_config
from ..training.recipe import with_new_names


@dataclass(frozen=True)
class CardFacts:
    """The facts in a card.

    Attributes:
        name: The model's folder or repository, for the examples of its use.
        config: The model's configuration.
        weight_bytes: Size of its weights' file.
        training: Settings of its training; None if unknown.
        report: The report on this model.
        seeds: That report and those of runs with other seeds, as one model.
        license: License of the weights; None if not stated.
    """

    name: str
    config: CrossEarthConfig
    weight_bytes: int
    training: Mapping[str, Any] | None
    report: Report
    seeds: Comparison
    license: str | None

    @property
    def entries(self) -> list[Entry]:
        """The entries of the report, in the benchmark's order, without those that only runs with other seeds have."""
        return [
            self.report.entries[name] for name in self.seeds.names if name in self.report.entries
        ]

    @property
    def oracle(self) -> bool:
        """Whether the checkpoint was chosen by its score on the target."""
        return self.seeds.models[0].oracle


def card_sections(facts: CardFacts) -> dict[str, str]:
    """The Markdown of each generated part, by the name in its mark."""
    return {
        "model": _model(facts),
        "training": _training(facts.training),
        "scores": _scores(facts),
        "limits": _limits(facts),
        "use": _use(facts.name, facts.config.ground_sampling_distance),
        "licenses": _licenses(facts),
    }


def dataset_of(entry: Entry) -> str | None:
    """The key in `DATASETS` of the data of an entry; None for a folder."""
    domain = DOMAINS.get(entry.target)
    if domain is not None and entry.scenario is not None:
        return domain.dataset
    return None


def _model(facts: CardFacts) -> str:
    config = facts.config
    backbone, resolution = config.backbone_config, config.ground_sampling_distance
    if config.convolutional_stem:
        stem = "convolutional stem, "
    else:
        stem = ""
    network = (
        f"{stem}ViT of width {backbone.hidden_size} with {backbone.num_hidden_layers} blocks, {config.rein_num_tokens} "
        f"Rein tokens a block, Mask2Former head with {config.num_queries} queries"
    )
    if resolution:
        trained_at = f", trained at {resolution:g} m per pixel"
    else:
        trained_at = ""
    rows = [
        ["classes", _classes_in_words(config.id2label[index] for index in sorted(config.id2label))],
        [
            "input",
            f"{_channels(config.num_channels)}, windows of {config.image_size} px{trained_at}",
        ],
        ["network", network],
        [
            "size",
            f"{facts.report.parameters / 1e6:.1f} M parameters in {facts.weight_bytes / 1e6:.1f} MB",
        ],
        ["weights", f"SHA-256 `{facts.report.sha256}`"],
    ]
    return _table(["", ""], rows)


def _training(training: Mapping[str, Any] | None) -> str:
    if not training:
        return "Neither the model's folder nor its report states how it was trained."
    try:
        rows = _method(build_train_config({"output_dir": "-"} | with_new_names(training)))
    except InputError:  # of another version, or written by a person: shown unchanged
        rows = [[key, _shown(value)] for key, value in training.items()]
    return _table(["", ""], rows)


def _method(config: TrainConfig) -> list[list[str]]:
    """A run in the words of the paper."""
    style, fourier, tasks = "not used", "not used", "not used"
    if config.style_probability:
        style = (
            f"{config.style_probability:.0%} of the images, alpha {config.style_alpha:g}, "
            f"{config.style_mask_ratio:.0%} of the blocks of {config.style_block_size} px"
        )
        if config.style_residual:
            style += ", residual"
        if config.style_low_pass:
            style += f", changes above {config.style_low_pass:g} px"
    if config.fourier_probability:
        fourier = f"{config.fourier_probability:.0%} of the images"
    if config.objective == "multitask":
        tasks = "masked image modeling beside segmentation"
    start, shares = [config.model], "every image the same"
    if config.backbone is not None:
        start.append(config.backbone)
    if config.train_weights:
        shares = _shown(config.train_weights)
    crops = config.per_device_train_batch_size * config.gradient_accumulation_steps
    steps = f"{config.max_steps} of {crops} crops a process"
    if config.crop_size:
        steps += f" of {config.crop_size} px"
    low, high = config.scale_range
    precision = config.mixed_precision
    if precision == "no":
        precision = "float32"
    return [
        ["started from", _shown(start)],
        ["data", _shown(config.train_data)],
        ["shares of the data", shares],
        ["adaptation", config.adaptation],
        ["Earth-Style Injection", style],
        ["Fourier styles", fourier],
        ["Multi-Task Training", tasks],
        ["objective", config.objective],
        ["steps", steps],
        [
            "optimizer",
            f"AdamW, learning rate {config.learning_rate:g}, warm-up of {config.warmup_steps} steps",
        ],
        [
            "scales",
            f"{low:g} to {high:g}"
            + " of the crop" * config.relative_to_crop
            + ", turned" * config.rotate,
        ],
        ["precision", f"{precision} in training, {config.save_dtype} in the file"],
        ["seed", str(config.seed)],
    ]


def _shown(value: Any) -> str:
    """A setting for readers elsewhere: only the last part of absolute paths."""
    if isinstance(value, list | tuple):
        items = value
    else:
        items = [value]
    return ", ".join(
        f"`{re.sub(r'(?:(?<=^)|(?<=:))/(?:[^/:]*/)*', '', str(item))}`" for item in items
    )


def _scores(facts: CardFacts) -> str:
    unseen = [entry for entry in facts.entries if facts.seeds.is_unseen(entry.name)]
    known = [entry for entry in facts.entries if entry not in unseen]
    parts = [_protocol(facts)]
    if unseen:
        parts += ["### Unseen targets" + " (oracle)" * facts.oracle, _overall(facts, unseen)]
    shared = [name for name in facts.seeds.shared if name in facts.report.entries]
    average = facts.seeds.mean(facts.seeds.models[0])
    if len(shared) > 1 and average is not None:
        parts.append(f"Mean over {', '.join(shared)}: mean IoU {average}.")
    if known:
        parts += ["### In-domain (not a measure of generalization)", _overall(facts, known)]
    return "\n\n".join([*parts, "### Classes", *_class_tables(facts.entries)])


def _protocol(facts: CardFacts) -> str:
    lines = [f"In percent. Checkpoint: {facts.report.selection}."]
    if facts.oracle:
        lines.append(f"**{NOTES['oracle']}**")
    if any(entry.intervals["mean_iou"] for entry in facts.entries):
        level = facts.entries[0].level
        lines.append(
            f"In brackets: {level:.0%} intervals of this checkpoint's score, by resampling the images."
        )
    software = facts.report.software.get("crossearth_hf", "")
    lines.append(
        "Windows overlap and weigh the same; pixels without a label are left out; computed in "
        f"{facts.report.dtype} by crossearth_hf {software}."
    )
    if any(entry.published for entry in facts.entries):
        lines.append(
            "Published scores were read from the paper's figures and come from another harness."
        )
    return "\n".join(lines)


def _overall(facts: CardFacts, entries: Sequence[Entry]) -> str:
    """One row per entry; empty columns are left out."""
    columns: dict[str, Callable[[Entry], str]] = {
        "target": _title,
        "images": lambda entry: str(entry.images),
        "window, stride, scale": lambda entry: f"{entry.window}, {entry.stride}, {entry.scale:g}",
    }
    for key, metric in METRICS.items():
        columns[metric.title] = partial(_score, key=key)
        if key == "mean_iou":
            columns["over seeds"] = partial(_over_seeds, facts.seeds)
    columns["published"] = lambda entry: _published(entry.published)
    cells = {title: [cell(entry) for entry in entries] for title, cell in columns.items()}
    kept = {title: column for title, column in cells.items() if set(column) != {ABSENT}}
    return _table(list(kept), list(zip(*kept.values(), strict=True)))


def _title(entry: Entry) -> str:
    """An entry's name with remarks, such as the domains of a scenario."""
    remarks = []
    if entry.scenario:
        remarks.append(f"{entry.source} → {entry.target}")
    if entry.ours:
        remarks.append("ours, not the paper's")
    if entry.incomplete:
        remarks.append("incomplete")
    if not remarks:
        return entry.name
    return f"{entry.name} ({'; '.join(remarks)})"


def _score(entry: Entry, key: str) -> str:
    value = entry.scores[key]
    if value is None:
        return ABSENT
    return percent_interval(value, entry.intervals[key])


def _published(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{method} {score:.1f}" for method, score in scores.items()) or ABSENT


def _over_seeds(seeds: Comparison, entry: Entry) -> str:
    """Mean and deviation of the mean IoU over the runs that were scored on this target."""
    count = len(seeds.models[0].entries(entry.name))
    if count > 1:
        return f"{seeds.score(seeds.models[0], entry.name)} ({count} runs)"
    return ABSENT


def _class_tables(entries: Sequence[Entry]) -> list[str]:
    """IoU per class: a table for each set of classes."""
    tables = []
    for classes in dict.fromkeys(entry.classes for entry in entries):
        rows = []
        for entry in entries:
            if entry.classes == classes:
                shown = {
                    name: percent(entry.scores[class_key(name)]) for name in entry.scored_classes
                }
                rows.append([entry.name, *(shown.get(name, ABSENT) for name in classes)])
        tables.append(_table(["IoU", *(name.replace("_", " ") for name in classes)], rows))
    return tables


def _limits(facts: CardFacts) -> str:
    points = [
        "Only the targets above were measured. Scores for other regions, seasons and sensors are unknown."
    ]
    if not any(facts.seeds.is_unseen(entry.name) for entry in facts.entries):
        points.append(
            "No unseen target was scored, so nothing here shows how the model generalizes."
        )
    if len(facts.seeds.models[0].reports) == 1:
        points.append("There is one training run, so the variation between seeds is unknown.")
    for entry in facts.entries:
        notes = [
            NOTES[key]
            for key in facts.seeds.notes[entry.name]
            if key in ("incomplete", "assumed", "binary")
        ]
        if set(entry.scored_classes) != set(entry.classes):
            notes.append(
                f"means over the labeled classes only ({_classes_in_words(entry.scored_classes)})."
            )
        points += [f"{entry.name}: {note}" for note in notes]
    return "\n".join(f"- {point}" for point in points)


def _licenses(facts: CardFacts) -> str:
    """Licenses of the weights, of the code and of each benchmark data set used in training or scores."""
    rows = [
        ["weights", facts.license or "not stated", ""],
        ["code in this folder", "apache-2.0", ""],
    ]
    family = family_of(facts.config)
    if family is not None:
        name = facts.config.pretrained_backbone or "not named"
        rows.append(
            [f"pretrained ViT: {family.title} ({name})", family.license, family.license_source]
        )
    trained = _training_datasets(facts.training)
    targets = {dataset_of(entry) for entry in facts.entries} - {None}
    for name, dataset in DATASETS.items():
        use = " and ".join(["training"] * (name in trained) + ["scores"] * (name in targets))
        if use:
            rows.append(
                [
                    f"[{dataset.title}]({dataset.homepage}), {use}",
                    dataset.license,
                    dataset.license_source,
                ]
            )
    folders = [entry.name for entry in facts.entries if dataset_of(entry) is None]
    if folders:
        rows.append([", ".join(folders), "as stated by their owners: not benchmark data sets", ""])
    table = _table(["", "license", "stated at"], rows)
    if family is not None and family.notice is not None:
        return f"{table}\n\n{family.notice}. A copy of the {family.title} License goes with the weights."
    return table


def _training_datasets(training: Mapping[str, Any] | None) -> set[str]:
    """Benchmark data sets in the training data of a run: hf:PATH:CONFIG[:SPLIT] where CONFIG is a domain."""
    sources = (training or {}).get("train_data") or []
    if not isinstance(sources, list):
        sources = [sources]
    fields = [str(source).split(":") for source in sources]
    configs = {
        config for prefix, *rest in fields if prefix in ("hf", "hf-stream") for config in rest[-2:]
    }
    return {DOMAINS[config].dataset for config in configs if config in DOMAINS}


def _use(name: str, resolution: float | None) -> str:
    scaled = ""
    if resolution:
        scaled = f" --resolution {resolution:g}"
    return f"""\
`{name}` stands for the path of this folder, or for OWNER/{name} on the Hub.

```bash
crossearth predict SCENE.tif MAP.tif --model {name}{scaled}
```

```python
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

model = AutoModelForSemanticSegmentation.from_pretrained("{name}", trust_remote_code=True)
processor = AutoImageProcessor.from_pretrained("{name}", trust_remote_code=True)
```"""


def _channels(number: int) -> str:
    if number == 3:
        return "RGB"
    return f"{number} bands, red, green and blue first"


def _classes_in_words(names: Any) -> str:
    return ", ".join(name.replace("_", " ") for name in names)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )
