"""One run of the ablation: trained, calibrated on left-out regions, scored on every target."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from score_targets import TARGETS
from torch.utils.data import default_collate

from ablation.protocol import (
    BANK_PICTURES,
    GRADIENT_SHARE,
    LEFT_OUT,
    PEER,
    ROWS,
    SCORED,
    SOURCES,
    Cell,
)
from crossearth_hf.data import all_images, load_source, load_sources
from crossearth_hf.errors import InputError
from crossearth_hf.evaluation import metrics
from crossearth_hf.evaluation.image_scores import predict_image, scored_ids
from crossearth_hf.evaluation.read_out import choose_factors, score_pixels
from crossearth_hf.files.digests import file_sha256
from crossearth_hf.files.outputs import staged
from crossearth_hf.inference.loading import fastest_dtype, load_model, resolve_device
from crossearth_hf.inference.windows import resolve_window
from crossearth_hf.labels import get_label_set
from crossearth_hf.model.earth_style import EarthStyle
from crossearth_hf.model.image_processing_crossearth import CrossEarthImageProcessor
from crossearth_hf.model.modeling_crossearth import CrossEarthForSemanticSegmentation
from crossearth_hf.model.style_bank import StyleBank
from crossearth_hf.styles.bank import embed_rasters, find_rasters
from crossearth_hf.training import TrainConfig, build_train_config
from crossearth_hf.training.augmentation import TrainingCrops
from crossearth_hf.training.inputs import InputMaker, crop_settings
from crossearth_hf.training.recipe import to_json
from crossearth_hf.training.run_folder import HARMLESS_ON_RESUME
from crossearth_hf.training.starting_model import build_model, build_processor
from crossearth_hf.training.trainer import train

LABELS = get_label_set("land-cover")
BATCHES_WEIGHED = 8
_PATHS = {"model", "train_data", "style_bank", "output_dir"}  # results may be published
_OF_THE_MACHINE = _PATHS | {"mixed_precision", "frozen_dtype"}


@dataclasses.dataclass(frozen=True)
class Places:
    """Where a run finds and puts its files.

    Attributes:
        data: Folder of the data sets.
        out: Folder of the ablation.
        starts: One or two models that the rows start from.
        peer: Model that the convolutional peer starts from.
    """

    data: Path
    out: Path
    starts: tuple[Path, ...]
    peer: Path

    @property
    def bank(self) -> Path:
        """File of the style bank."""
        return self.out / "style_bank.safetensors"


def located(source: str, data: Path) -> str:
    """A source with the folder of the data sets before it; drawn scenes need none."""
    return source if source.startswith("synth:") else str(data / source)


def prepare_bank(places: Places) -> None:
    """Computes the style bank from pictures worldwide, where it is not there yet."""
    if places.bank.exists():
        return
    pictures = [path for name in BANK_PICTURES for path in find_rasters(str(places.data / name))]
    places.out.mkdir(parents=True, exist_ok=True)
    embeddings = embed_rasters(pictures, EarthStyle.from_file().predictor)
    StyleBank.from_embeddings(embeddings, list(BANK_PICTURES)).save(places.bank)


def cell_config(cell: Cell, places: Places, max_steps: int, mim_weight: float) -> TrainConfig:
    """The training run of a cell.

    Args:
        cell: The run.
        places: Its files.
        max_steps: Optimizer steps.
        mim_weight: Weight of masked image modeling, see `weigh_mim`.
    """
    precision, frozen = "no", "float32"
    if fastest_dtype(resolve_device("auto")) is torch.bfloat16:
        precision, frozen = "bf16", "bfloat16"
    model = cell.start(places.starts)
    if cell.row == PEER:
        model = places.peer
    values = cell.settings() | {
        "mixed_precision": precision,
        "frozen_dtype": frozen,
        "model": str(model),
        "output_dir": str(places.out / cell.name),
        "train_data": [located(source, places.data) for source, _ in SOURCES],
        "train_weights": [weight for _, weight in SOURCES],
        "max_steps": max_steps,
        "warmup_steps": max_steps // 30,
        "seed": cell.seed,
        "logging_steps": 25,
        "eval_steps": max_steps,
        "save_steps": 100,
        "resume_from_checkpoint": True,
    }
    if "style_probability" in values:
        values["style_bank"] = str(places.bank)
    if values.get("objective") == "multitask":
        values["mim_weight"] = mim_weight
    return build_train_config(values)


def weigh_mim(places: Places, regime: str) -> float:
    """The weight with which masked image modeling has `GRADIENT_SHARE` of segmentation's gradient at the start.

    Norms are those over the parameters that both tasks train, of the mean gradient over `BATCHES_WEIGHED` batches. The
    number is kept in a file of the ablation's folder.
    """
    path = places.out / f"mim_weight_{regime}.json"
    if path.exists():
        return float(json.loads(path.read_text(encoding="utf-8")))
    config = cell_config(Cell(regime, "mim", 0), places, BATCHES_WEIGHED, 1.0)
    network = build_model(dataclasses.replace(config, frozen_dtype="float32"), LABELS).train()
    processor = build_processor(config)
    size = config.crop_size or network.config.image_size
    sources = load_sources(config.train_data, LABELS)
    count = BATCHES_WEIGHED * config.per_device_train_batch_size
    settings = crop_settings(config, processor, network.config, size)
    crops = TrainingCrops(
        sources, config.train_weights, settings, config.seed, count, len(LABELS.classes)
    )
    make = InputMaker(config, processor, size, torch.device("cpu"))
    shared = [
        parameter
        for parameter in network.segmentation_model().parameters()
        if parameter.requires_grad
    ]
    sums = {
        True: [torch.zeros_like(p) for p in shared],
        False: [torch.zeros_like(p) for p in shared],
    }
    for first in range(0, count, config.per_device_train_batch_size):
        batch = default_collate(
            [crops[first + index] for index in range(config.per_device_train_batch_size)]
        )
        losses = network(**make(batch)).loss_dict
        for is_mim, gradients in sums.items():
            part = [
                loss
                for name, loss in losses.items()
                if name.startswith("loss_reconstruct") is is_mim
            ]
            found = torch.autograd.grad(
                torch.stack(part).sum(), shared, retain_graph=True, allow_unused=True
            )
            for total, gradient in zip(gradients, found, strict=True):
                if gradient is not None:
                    total += gradient
    reached = [bool(total.any()) for total in sums[True]]  # MIM does not train the head
    norms = {
        is_mim: torch.stack(
            [t.norm() for t, both in zip(totals, reached, strict=True) if both]
        ).norm()
        for is_mim, totals in sums.items()
    }
    weight = float(GRADIENT_SHARE * norms[False] / norms[True])
    with staged([path]) as (temporary,):
        temporary.write_text(json.dumps(weight), encoding="utf-8")
    return weight


def left_out_mean(result: dict[str, Any]) -> float:
    """Mean over the left-out regions of the mean IoU with the factors."""
    return float(np.mean([values["factors"] for values in result["left_out"].values()]))


def execute(cell: Cell, config: TrainConfig, data: Path) -> dict[str, Any]:
    """Trains and scores one cell, or reads the result of one that is finished; goes on where a killed one stopped.

    Returns:
        What `result.json` in the run's folder holds, see `score` for the last three: "regime", "row", "seed",
        "start" (SHA-256 of the weights), "config" (without paths), "training_seconds", "factors", "left_out",
        "targets".

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
    train(config)
    lines = [
        json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    model, processor = load_model(folder, dtype="auto")
    settings = dataclasses.asdict(config)
    result = {
        "regime": cell.regime,
        "row": cell.row,
        "seed": cell.seed,
        "start": start,
        "config": {name: value for name, value in settings.items() if name not in _PATHS},
        "training_seconds": round(sum(line["seconds"] for line in lines if "loss" in line), 1),
        **score(model, processor, data),
    }
    with staged([path]) as (temporary,):
        temporary.write_text(json.dumps(result), encoding="utf-8")
    return result


def score(
    model: CrossEarthForSemanticSegmentation, processor: CrossEarthImageProcessor, data: Path
) -> dict[str, Any]:
    """What a model reaches, by the top score and with the factors that left-out regions ask for.

    Returns:
        "factors" (K); "left_out": region -> {"top", "factors"}, mean IoU; "targets": name -> {"classes" (labeled),
        "top", "factors"}, the last two with a (K, K) confusion matrix for each image, rows true.
    """
    window, _ = resolve_window(model.config, None, None)
    windows = {"window": window, "stride": window}
    regions = {}
    for name, source in LEFT_OUT.items():
        images = all_images([load_source(located(source, data), LABELS)])
        regions[name] = score_pixels(model, processor, images, LABELS, progress=False, **windows)
    factors = choose_factors(regions, LABELS)
    ways = {"top": np.ones_like(factors), "factors": factors}
    targets = {}
    for name in SCORED:
        fields = TARGETS[name]
        images = all_images(
            [load_source(str(data / fields["path"]), LABELS, mask_values=fields.get("mask_values"))]
        )
        classes = tuple(fields.get("labeled", LABELS.classes))
        table = scored_ids(LABELS, classes)
        found: dict[str, list[Any]] = {way: [] for way in ways}
        for image in images:
            predicted = predict_image(
                model, processor, image, scale=fields.get("scale", 1.0), **windows
            )
            scores, truth = predicted.scores.cpu().numpy(), table[predicted.labels]
            for way, values in ways.items():
                top = (scores * values[:, None, None]).argmax(0)
                found[way].append(
                    metrics.confusion_matrix(table[top], truth, len(LABELS.classes)).tolist()
                )
        targets[name] = {"classes": list(classes), **found}
    left_out = {
        name: {way: pixels.mean_iou(values, LABELS) for way, values in ways.items()}
        for name, pixels in regions.items()
    }
    return {"factors": factors.round(4).tolist(), "left_out": left_out, "targets": targets}


def finished_results(out: Path) -> list[dict[str, Any]]:
    """The results of all finished runs, in the order of their paths."""
    paths = [path for row in ROWS for path in sorted(out.glob(f"*/{row}/seed*/result.json"))]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _digest(config: TrainConfig) -> str | None:
    """SHA-256 of the weights that a run starts from; None for one from scratch."""
    weights = Path(config.model) / "model.safetensors"
    return file_sha256(weights) if weights.is_file() else None


def _require_same_settings(
    finished: dict[str, Any], config: TrainConfig, start: str | None, path: Path
) -> None:
    now = json.loads(to_json(config)) | {"start": start}
    before = finished["config"] | {"start": finished["start"]}
    for name in sorted(set(now) - HARMLESS_ON_RESUME - _OF_THE_MACHINE):
        if before.get(name) != now[name]:
            raise InputError(
                f"{path} is a finished run with {name} {before.get(name)} where {now[name]} is asked for; remove it or "
                "choose another --out"
            )
