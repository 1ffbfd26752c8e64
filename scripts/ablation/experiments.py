"""The evidence: variants of the method x seeds, on real imagery of domains unseen in training, in one harness.

All variants of an experiment see the same crops and make the same steps, in bfloat16 where the machine multiplies it in
hardware; those of CrossEarth start from the same weights. Scores are taken at a few checkpoints on the way: the last
one is the headline; beside it stand the checkpoint chosen on the source's validation images and, labeled as an oracle,
the one chosen on the target.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from crossearth_hf.data import all_images, load_source
from crossearth_hf.errors import InputError
from crossearth_hf.evaluation.image_scores import labeled_scores, predict_confusion
from crossearth_hf.files.digests import file_sha256
from crossearth_hf.files.outputs import staged
from crossearth_hf.inference.loading import fastest_dtype, resolve_device
from crossearth_hf.labels import get_label_set
from crossearth_hf.model.earth_style import EarthStyle, StyleBank
from crossearth_hf.model.image_processing_crossearth import CrossEarthImageProcessor
from crossearth_hf.model.modeling_crossearth import CrossEarthForSemanticSegmentation
from crossearth_hf.styles.bank import embed_rasters, find_rasters
from crossearth_hf.training import TrainConfig, build_train_config
from crossearth_hf.training.recipe import RENAMED, defaults, old_name, to_json
from crossearth_hf.training.run_folder import HARMLESS_ON_RESUME
from crossearth_hf.training.trainer import train

LABELS = get_label_set("land-cover")
_OF_THE_MACHINE = {"model", "train_data", "style_bank", "mixed_precision"}  # paths, and how fast it computes
_WEIGHTS = "model.safetensors"
CHECKPOINTS = 2  # scored on the way, at equal distances; the last one included


@dataclass(frozen=True)
class Target:
    """A domain that is scored.

    Attributes:
        name: How tables call it.
        source: Where its images are, under the folder of the data sets.
        classes: The classes that are labeled; other predictions count as the first class, the mean is over these.
        scale: Factor that brings its images near the ground sampling distance of the source.
    """

    name: str
    source: str
    classes: tuple[str, ...]
    scale: float = 1.0


@dataclass(frozen=True)
class Experiment:
    """A source domain and what is asked of a model trained on it.

    Attributes:
        name: Key in `ALL_EXPERIMENTS`.
        train: Sources of the training crops and their shares.
        validation: The source's own validation images, which choose a checkpoint and enter no mean.
        targets: Domains unseen in training; the headline is the mean over those named in `headline`.
        headline: Names of the targets whose mean is the generalization score.
        max_steps: Optimizer steps of every run: so many that a run takes some 20 minutes on two CPU cores.
        settings: Fields of `TrainConfig` that all variants share.
    """

    name: str
    train: tuple[tuple[str, float], ...]
    validation: Target
    targets: tuple[Target, ...]
    headline: tuple[str, ...]
    max_steps: int
    settings: dict[str, Any]


LAND_COVER = ("land", "building", "road", "water", "vegetation")
OBJECTS = LAND_COVER[1:]
_SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-3,
    "backbone_lr_multiplier": 0.1,
    "max_grad_norm": 1.0,
    "crop_size": 256,
    "relative_to_crop": False,
    "rotate": True,
}
# Streets follow a city's grid, and every city's lies at another angle.
_ROADS: dict[str, Any] = _SETTINGS | {
    "per_device_train_batch_size": 4,
    "scale_range": [0.6, 1.6],
    "rotation_degrees": 45.0,
}
_DRAWN = (
    ("synth:desert-city:24", 0.06),
    ("synth:mediterranean-coast:24", 0.04),
    ("synth:coarse-hazy:24", 0.04),
    ("synth:temperate-summer:24", 0.04),
    ("synth:tropical-town:24", 0.03),
    ("synth:river-delta:24", 0.03),
)
EPFL = Target("EPFL", "epfl_roads", ("road",))
CIL = Target("CIL", "cil_roads", ("road",))

EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            name="dubai",
            # The ninth part of every tile is kept for validation.
            train=(("dubai:tile[1-6]_part00[1-8]", 0.76), *_DRAWN),
            validation=Target("Dubai 1-6, part 9", "dubai:tile[1-6]_part009", LAND_COVER),
            targets=(
                Target("Dubai 7-8", "dubai:tile[78]_*", LAND_COVER),
                Target("Harvey 1/4", "harvey_uav", OBJECTS, 0.25),
                Target("Harvey 1/2", "harvey_uav", OBJECTS, 0.5),
                Target("Indonesia 1/2", "indonesia_bt", ("building", "vegetation"), 0.5),
            ),
            headline=("Dubai 7-8", "Harvey 1/4", "Indonesia 1/2"),
            max_steps=300,
            settings=_SETTINGS | {"scale_range": [0.6, 3.0]},
        ),
        Experiment(
            name="epfl",
            train=(("epfl_roads:0[0-8]*", 1.0),),
            validation=dataclasses.replace(EPFL, name="EPFL 90-99", source="epfl_roads:09*"),
            targets=(CIL,),
            headline=("CIL",),
            max_steps=180,
            settings=_ROADS,
        ),
        Experiment(
            name="cil",
            train=(("cil_roads:0*", 0.7), ("cil_roads:1[0-2]*", 0.3)),
            validation=dataclasses.replace(CIL, name="CIL 130-143", source="cil_roads:1[3-4]*"),
            targets=(EPFL,),
            headline=("EPFL",),
            max_steps=180,
            settings=_ROADS,
        ),
    )
}
PRELIMINARY = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            name="choice",
            train=(("dubai:tile[1-3]_part00[1-8]", 0.76), *_DRAWN),
            validation=Target("Dubai 1-3, part 9", "dubai:tile[1-3]_part009", LAND_COVER),
            targets=(Target("Dubai 4-6", "dubai:tile[4-6]_*", LAND_COVER),),
            headline=("Dubai 4-6",),
            max_steps=300,
            settings=_SETTINGS | {"scale_range": [0.6, 3.0]},
        ),
        Experiment(
            name="epfl-right-angles",  # crops turned as in the other experiments, tried and not kept for roads
            train=(("epfl_roads:0[0-8]*", 1.0),),
            validation=dataclasses.replace(EPFL, name="EPFL 90-99", source="epfl_roads:09*"),
            targets=(CIL,),
            headline=("CIL",),
            max_steps=150,
            settings=_ROADS | {"per_device_train_batch_size": 8, "rotation_degrees": 0.0},
        ),
    )
}
"""Experiments that settings were tried with: `choice` on the source alone."""
ALL_EXPERIMENTS = EXPERIMENTS | PRELIMINARY


@dataclass(frozen=True)
class Variant:
    """A way of training.

    Attributes:
        name: How tables call it.
        settings: Fields of `TrainConfig` in which it differs.
        peer: Whether it is the convolutional peer rather than CrossEarth.
    """

    name: str
    settings: dict[str, Any]
    peer: bool = False


# The authors' strength: of those tried on the source alone (experiment "choice") no stronger one did better.
STYLE: dict[str, Any] = {"style_probability": 0.1, "style_alpha": 0.1}
STRONG: dict[str, Any] = {"style_probability": 0.5, "style_alpha": 0.5}
RESIDUAL: dict[str, Any] = {"style_residual": True}
# The package's bank: other regions and sensors, no target of `EXPERIMENTS` among them.
OPEN: dict[str, Any] = {"style_bank": None}
FULL: dict[str, Any] = {"adaptation": "full"}
REIN: dict[str, Any] = {"adaptation": "rein"}
MIM: dict[str, Any] = {"objective": "multitask"}
FOURIER: dict[str, Any] = {"fourier_probability": 0.5}
VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("frozen", {"adaptation": "frozen"}),
        Variant("lora", {"adaptation": "lora"}),
        Variant("rein", REIN),
        Variant("full", FULL),
        Variant("full+fourier", FULL | FOURIER),
        Variant("full+esi", FULL | STYLE),
        Variant("full+mim", FULL | MIM),
        Variant("crossearth", FULL | MIM | STYLE),
        Variant("efficientnet-fpn", FULL, peer=True),
    )
}
TRIED = {
    variant.name: variant
    for variant in (
        Variant("rein+fourier", REIN | FOURIER),
        Variant("rein+esi-strong", REIN | STRONG),
        Variant("rein+esi-residual-whole", REIN | STRONG | RESIDUAL | {"style_alpha": 1.0}),
        Variant("rein+mim", REIN | MIM),
        Variant("rein+esi-strong+mim", REIN | STRONG | MIM),
        Variant("full+esi-residual", FULL | STRONG | RESIDUAL),
        Variant("full+esi-residual-quarter", FULL | STRONG | RESIDUAL | {"style_probability": 0.25}),
        Variant("full+esi-open", FULL | STRONG | RESIDUAL | OPEN),
        Variant("full+esi-residual-whole", FULL | STRONG | RESIDUAL | {"style_alpha": 1.0}),
        Variant("full+mim-few", FULL | MIM | {"mim_mask_ratio": 0.3}),
        Variant("full+mim-weak", FULL | MIM | {"mim_weight": 0.1}),
    )
}
"""Variants that were tried and not taken."""


@dataclass(frozen=True)
class Run:
    """One cell of the ablation."""

    experiment: Experiment
    variant: Variant
    seed: int

    def folder(self, output: Path) -> Path:
        """Where its model, log and result lie."""
        return output / self.experiment.name / self.variant.name / f"seed{self.seed}"


def plan(experiments: Sequence[str], variants: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """Every combination, seeds outermost, so that an unfinished table holds whole rounds.

    Raises:
        InputError: an unknown name.
    """
    every = VARIANTS | TRIED
    for names, known, what in ((experiments, ALL_EXPERIMENTS, "experiment"), (variants, every, "variant")):
        for name in names:
            if name not in known:
                raise InputError(f"unknown {what} '{name}'; the known ones are {', '.join(known)}")
    return [
        Run(ALL_EXPERIMENTS[experiment], every[variant], seed)
        for seed in seeds
        for experiment in experiments
        for variant in variants
    ]


def run_config(
    run: Run, *, data: Path, output: Path, start: Path, peer: Path, max_steps: int | None = None
) -> TrainConfig:
    """The training run of a cell.

    Args:
        run: The cell.
        data: Folder of the data sets.
        output: Folder of the whole ablation.
        start: Model that all variants of CrossEarth start from.
        peer: Model that the convolutional peer starts from.
        max_steps: Optimizer steps; by default those of the experiment.
    """
    max_steps = max_steps or run.experiment.max_steps
    every = -(-max_steps // CHECKPOINTS)
    values: dict[str, Any] = run.experiment.settings | run.variant.settings
    values |= {
        "mixed_precision": "bf16" if fastest_dtype(resolve_device("auto")) is torch.bfloat16 else "no",
        "model": str(peer if run.variant.peer else start),
        "output_dir": str(run.folder(output)),
        "train_data": [located(source, data) for source, _ in run.experiment.train],
        "train_weights": [weight for _, weight in run.experiment.train],
        "max_steps": max_steps,
        "warmup_steps": max_steps // 10,
        "seed": run.seed,
        "logging_steps": 10,
        "eval_steps": every,
        "save_steps": 10 * -(-every // 10),
        "resume_from_checkpoint": True,
    }
    if values.get("style_probability") and "style_bank" not in values:
        values["style_bank"] = str(output / run.experiment.name / "style_bank.safetensors")
    return build_train_config(values)


def prepare_banks(experiments: Iterable[str], data: Path, output: Path) -> None:
    """Computes the style bank of each experiment from the imagery it trains on, where it is not there yet.

    No target and no drawing is in it: it is to know what real sensors see.
    """
    for name in experiments:
        path = output / name / "style_bank.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            sources = [source for source, _ in ALL_EXPERIMENTS[name].train if not _is_drawn(source)]
            rasters = [path for source in sources for path in _rasters(source, data)]
            embeddings = embed_rasters(rasters, EarthStyle.from_file().predictor)
            StyleBank.from_embeddings(embeddings, sources).save(path)


def _rasters(source: str, data: Path) -> list[Path]:
    """Image files of a source of an experiment."""
    folder, _, pattern = source.partition(":")
    return find_rasters(f"{data / folder / 'images'}:{pattern or '*'}")


def _is_drawn(source: str) -> bool:
    return source.startswith("synth:")


def located(source: str, data: Path) -> str:
    """A source of an experiment with the folder of the data sets before it; generated scenes need none."""
    return source if _is_drawn(source) else str(data / source)


def execute(run: Run, config: TrainConfig, data: Path) -> dict[str, Any]:
    """Trains and scores one cell, or reads the result of one that is finished; goes on where a killed one stopped.

    Returns:
        What `result.json` in the run's folder holds: the configuration, SHA-256 of the weights that it started from
        ("start"), and per scored checkpoint its step and, for the validation images and every target, the scores of
        `labeled_scores`.

    Raises:
        InputError: as `train`; a finished run that had other settings or started from other weights.
        FloatingPointError: the loss is not a number.
    """
    folder = Path(config.output_dir)
    path, start = folder / "result.json", _digest(config)
    if path.exists():
        result = json.loads(path.read_text(encoding="utf-8"))
        _require_same_settings(result, config, start, path)
        return result
    targets = (run.experiment.validation, *run.experiment.targets)

    def scorer(model: CrossEarthForSemanticSegmentation, processor: CrossEarthImageProcessor) -> dict[str, Any]:
        return {target.name: score(model, processor, target, data) for target in targets}

    train(config, scorer=scorer)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    result = {
        "experiment": run.experiment.name,
        "variant": run.variant.name,
        "seed": run.seed,
        "start": start,
        "config": dataclasses.asdict(config),
        "training_seconds": round(sum(line["seconds"] for line in lines if "loss" in line), 1),
        "checkpoints": [{"step": line["step"], "scores": line["eval"]} for line in lines if "eval" in line],
    }
    with staged([path]) as (temporary,):
        temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def _digest(config: TrainConfig) -> str | None:
    """SHA-256 of the weights that a run starts from; None for one from scratch."""
    weights = Path(config.model) / _WEIGHTS
    return file_sha256(weights) if weights.is_file() else None


def _require_same_settings(finished: dict[str, Any], config: TrainConfig, start: str | None, path: Path) -> None:
    now = json.loads(to_json(config)) | {"start": start}
    old = old_name(finished["config"])
    if old is not None:
        raise InputError(
            f"{path} is of an earlier release: '{old}' is now '{RENAMED[old]}'; remove it or choose another --out"
        )
    before = defaults() | finished["config"] | {"start": finished.get("start")}
    for name in sorted(set(now) - HARMLESS_ON_RESUME - _OF_THE_MACHINE):
        if before[name] != now[name]:
            raise InputError(
                f"{path} is a finished run with {name} {before[name]} where {now[name]} is asked for; remove it or "
                "choose another --out"
            )


def finished_results(output: Path) -> list[dict[str, Any]]:
    """The results of all finished runs in the folder of an ablation, in the order of their paths.

    Raises:
        InputError: there is none.
    """
    paths = sorted(output.glob("*/*/seed*/result.json"))
    if not paths:
        raise InputError(f"{output} holds no finished run; leave --table out to make them")
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def score(
    model: CrossEarthForSemanticSegmentation, processor: CrossEarthImageProcessor, target: Target, data: Path
) -> dict[str, Any]:
    """Scores of `model` on one target: windows side by side without overlap, uniform; see `labeled_scores`."""
    window = model.config.image_size
    images = all_images([load_source(located(target.source, data), LABELS)])
    confusion = predict_confusion(
        model, processor, images, LABELS, window=window, stride=window, scale=target.scale, progress=False
    )
    return labeled_scores(confusion, LABELS, target.classes)
