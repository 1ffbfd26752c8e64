"""`TrainConfig`: the settings of a training run and the rules for them."""

import math
import os
from dataclasses import dataclass, field, fields
from numbers import Real
from pathlib import Path

from ..data.class_list import read_classes
from ..data.mask_values import read_as
from ..errors import InputError, shown
from ..labels import LabelSet
from ..model.configuration_crossearth import PRESETS
from ..raster.scene import Reading
from .field_types import NO_OTHER, plain

ADAPTATIONS = ("frozen", "rein", "lora", "full", "rein+lora", "full+rein")
"""The parts of a model's features that can be trained; see the table in `adaptation`."""
LORA_INITS = ("default", "mica", "pissa", "olora")
"""Starts of LoRA's factors, see `adaptation`."""
MAX_STEPS = 30_000
"""Steps of the published runs."""


@dataclass(frozen=True)
class TrainConfig:
    """A training run; the defaults are the published recipe at 512 pixels, except for `schedule_steps`.

    Attributes:
        model: Folder or Hub id of a model to start from, or "bundled" for the model of the package. For a model from
            scratch, the name of a preset or a configuration's .json file.
        backbone: Folder or Hub id of a pretrained ViT (DINOv2, with or without registers, or DINOv3), or a file of
            DINOv2's weights, as the start of a model from scratch; adapters and head are new.
        backbone_blocks: Number of the backbone's blocks to use, from the first; all if not given.
        output_dir: Folder for the model, its checkpoints and the log.
        train_data: Data sources, see docs/train.md: FOLDER or FOLDER:GLOB with images/NAME.jpg (.png, .tif) and
            masks/NAME.png, hf:PATH_OR_ID and hf-stream:PATH_OR_ID for `datasets`, synth:DOMAIN[:COUNT] for generated
            scenes.
        unlabeled_data: Data sources whose labels are not read, such as images of the places to be mapped. They need
            `pseudo_label_threshold`.
        pseudo_label_threshold: Least share of the top one of its possible classes in the scores of a pixel for which
            the moving average of the weights (`ema_decay`) gives it a label: in `unlabeled_data` and where partly
            labeled data have none, see docs/train.md. By default no pixel gets one.
        train_weights: Share of each data source in the crops, those of train_data first and those of unlabeled_data
            after them; by default every image weighs the same.
        eval_data: Data sources to score during training, such as the validation split of the source domain.
        validation_fraction: Share of the images of train_data that is held out and scored instead of eval_data: by
            image, by the groups that a data source names, or by blocks of a single scene. 0 for none.
        early_stopping_patience: The run ends after this many evaluations without a higher mean IoU; never if not given.
        eval_scale: Factor by which images are enlarged for scoring.
        bands: Bands of raster images, counted from 1: one, three, or more with red, green and blue first. More than
            three bands extend a model of three channels (`training.adaptation.extend_channels`). Chosen as in
            `crossearth predict` if not given.
        nodata: Values that mean no data in the images, besides those that files declare, or "none" for no others. If
            not given, undeclared fill is detected as in `crossearth predict`.
        classes: Classes of the data and of the model: names, such as bare,roof,street,palm; a file of names and colors,
            such as classes.yaml; or a known set, such as land-cover. By default the classes that the data name, else
            those of a trained model.
        mask_values: Value of each class in the masks, in the order of the classes: "0,255" for two classes drawn in
            black and white. By default values are ids. 255 is ignored unless it is listed.
        mask_offset: Value of the first class in masks of ids; lower values are ignored. 1 for masks that count from 1.
        objective: "segmentation" trains with the Mask2Former loss; "multitask" adds masked image modeling (CrossEarth's
            Multi-Task Training). Two warm starts train the features alone, without labels or masks: "reconstruct",
            masked image modeling alone, and "features", see docs/train.md. A run with another objective continues
            from them (`model`).
        adaptation: Trained part of the features: "frozen", "rein" (published), "lora", "full", "rein+lora" or
            "full+rein", see docs/train.md.
        lora_rank, lora_alpha: LoRA's rank and alpha; alpha / rank scales its updates.
        lora_init: Start of LoRA: "default", "mica", "pissa" or "olora", see docs/train.md.
        lora_dropout: Probability of dropping an input of LoRA's updates.
        lora_targets: Names of the linear layers with LoRA, in every block of the ViT.
        style_probability: Share of the images that Earth-Style Injection restyles; 0 for none. Only the objectives
            "segmentation" and "multitask" use styles.
        style_alpha: Weight of the bank's style against the image's own.
        style_mask_ratio: Share of the blocks that show the restyled image.
        style_block_size: Side of a block in pixels.
        style_residual: Whether the style's change is added to the image, which keeps its finest detail.
        style_low_pass: Deviation in pixels of a Gaussian that smooths this change, so that detail stays; 0 for none.
        style_bank: File with the styles (`crossearth style-bank`); by default the styles in the file of the networks.
        style_networks: File with the style networks (`EarthStyle.save`); by default the package's networks.
        fourier_probability: Share of the images that get the low frequencies of another image of their batch, see
            docs/train.md; 0 for none.
        mim_mask_ratio, mim_block_size, mim_weight, mim_hidden_only: Settings of masked image modeling, see
            `CrossEarthConfig`, which gets these values; the model's own if not given.
        ignore_unlabelled_pixels: Whether the mask losses leave out pixels without a label (255); otherwise these are
            background of every class. If not given, they are left out as soon as the training data leave pixels open,
            see docs/train.md, and else the model's own setting holds.
        max_steps: Number of optimizer steps.
        num_train_epochs: Passes over train_data, instead of max_steps. A pass has as many crops as cover the pixels of
            the data once at scale 1, and at least one crop for each image.
        schedule_steps: Step at which the learning rate reaches 0 (`max_steps` if not given). The published runs
            stop at 30,000 of 40,000.
        per_device_train_batch_size: Crops per process and forward pass.
        gradient_accumulation_steps: Forward passes per optimizer step.
        learning_rate: Peak of the schedule.
        backbone_lr_multiplier: Factor of the learning rate for the ViT's own weights, if they are trained.
        backbone_layer_decay: Further factor for each block of a trained ViT between a weight and the ViT's end, such as
            0.75: the first blocks, whose features are general, change least.
        weight_decay: Weight decay of AdamW, see `training.optimization.param_groups`.
        warmup_steps: Steps of linear warm-up.
        ema_decay: Decay of a moving average of the trained weights, which is scored and saved instead of them, see
            docs/train.md; 0 for none.
        max_grad_norm: Limit of the gradient's norm; 0 for none.
        crop_size: Side of the crops in pixels; the model's `image_size` if not given.
        scale_range: Bounds of the random scale.
        relative_to_crop: Whether the image's longer side at scale 1 is the crop's (published); otherwise the image
            keeps its pixels.
        ground_sampling_distance: Meters per pixel of the crops at scale 1, written to the model's config. Images of
            known pixel size (georeferenced rasters, SynthEarth) are resampled to it; not with `relative_to_crop`. By
            default the model's, if it has one.
        rotate: Whether crops are also turned by multiples of 90 degrees.
        rotation_degrees: Crops are also turned by a random angle of up to this, in either direction; pixels outside the
            image are ignored. With `rotate`, 45 makes every direction equally likely.
        gradient_checkpointing: Saves memory at the price of time: blocks, adapters and pixel decoder layers are
            computed again in the backward pass.
        mixed_precision: "no", "bf16" or "fp16".
        frozen_dtype: Number format of frozen layers: "float32", or "bfloat16" with mixed_precision bf16, which computes
            in it anyway. The steps are then the same in half the memory, but the saved model holds rounded weights.
        save_dtype: Number format of the saved weights: "float32", "float16" or "bfloat16".
        seed: Seed of weights, crops, styles, masks and the loss's random points.
        dataloader_num_workers: Processes that prepare crops; 0 for none.
        logging_steps, eval_steps, save_steps: Steps between log lines, evaluations and checkpoints.
        report_to: "tensorboard" also writes the log to `output_dir`/tensorboard; "none" writes only `log.jsonl`.
        resume_from_checkpoint: Continue from the last checkpoint in `output_dir`, if there is one.
    """

    model: str
    output_dir: str
    train_data: list[str]
    backbone: str | None = None
    backbone_blocks: int | None = None
    unlabeled_data: list[str] = field(default_factory=list)
    pseudo_label_threshold: float | None = None
    train_weights: list[float] = field(default_factory=list)
    eval_data: list[str] = field(default_factory=list)
    validation_fraction: float = 0.0
    early_stopping_patience: int | None = None
    eval_scale: float = 1.0
    bands: list[int] = field(default_factory=list)
    nodata: list[float] | str = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    mask_values: list[int] = field(default_factory=list)
    mask_offset: int = 0
    objective: str = "segmentation"
    adaptation: str = "rein"
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_init: str = "default"
    lora_dropout: float = 0.0
    lora_targets: list[str] = field(default_factory=lambda: ["q_proj", "v_proj"])
    style_probability: float = 0.0
    style_alpha: float = 0.1
    style_mask_ratio: float = 0.7
    style_block_size: int = 64
    style_residual: bool = False
    style_low_pass: float = 0.0
    style_bank: str | None = None
    style_networks: str | None = None
    fourier_probability: float = 0.0
    mim_mask_ratio: float | None = None
    mim_block_size: int | None = None
    mim_weight: float | None = None
    mim_hidden_only: bool | None = None
    ignore_unlabelled_pixels: bool | None = None
    max_steps: int = MAX_STEPS
    num_train_epochs: float | None = None
    schedule_steps: int | None = None
    per_device_train_batch_size: int = 4
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1e-4
    backbone_lr_multiplier: float = 1.0
    backbone_layer_decay: float = 1.0
    weight_decay: float = 0.05
    warmup_steps: int = 0
    ema_decay: float = 0.0
    max_grad_norm: float = 0.0
    crop_size: int | None = None
    scale_range: list[float] = field(default_factory=lambda: [0.5, 2.0])
    relative_to_crop: bool = True
    ground_sampling_distance: float | None = None
    rotate: bool = False
    rotation_degrees: float = 0.0
    gradient_checkpointing: bool = False
    mixed_precision: str = "no"
    frozen_dtype: str = "float32"
    save_dtype: str = "float32"
    seed: int = 0
    dataloader_num_workers: int = 0
    logging_steps: int = 50
    eval_steps: int = 1000
    save_steps: int = 1000
    report_to: str = "none"
    resume_from_checkpoint: bool = False

    def __post_init__(self) -> None:
        self._take_plain_values()
        self._check_values()
        self._check_start()
        self._check_data()
        self._check_schedule()
        self._check_objective()
        self._check_validation()

    def _take_plain_values(self) -> None:
        """Converts every field to its annotated type, as recipes hold it, and a single class list or value to a list.

        Raises:
            TypeError: A field has another type.
        """
        for name in ("train_data", "unlabeled_data", "eval_data"):
            alone = isinstance(getattr(self, name), str | os.PathLike)
            self._require(name, not alone, "must be a list of sources")
        if isinstance(self.classes, str | os.PathLike):
            object.__setattr__(self, "classes", [self.classes])
        if isinstance(self.nodata, Real):
            object.__setattr__(self, "nodata", [self.nodata])
        for item in fields(self):
            value = plain(item.name, getattr(self, item.name), item.type)
            object.__setattr__(self, item.name, value)

    def _check_values(self) -> None:
        """Ranges of single fields."""
        if self.label_set is not None:
            read_as(self.label_set, self.mask_values, self.mask_offset)
        for name in _POSITIVE:
            self._require(
                name, getattr(self, name) is None or getattr(self, name) > 0, "must be positive"
            )
        for name in _NOT_NEGATIVE:
            self._require(name, (getattr(self, name) or 0) >= 0, "must not be negative")
        for name, choices in _CHOICES.items():
            self._require(
                name, getattr(self, name) in choices, f"must be one of {', '.join(choices)}"
            )
        for name in _PROBABILITIES:
            self._require(name, 0 <= (getattr(self, name) or 0) <= 1, "must lie between 0 and 1")
        self._require(
            "rotation_degrees", 0 <= self.rotation_degrees <= 180, "must lie between 0 and 180"
        )
        self._require(
            "ema_decay", 0 <= self.ema_decay < 1, "must be 0 or more and below 1, as 0.999"
        )
        self._require("crop_size", (self.crop_size or 16) % 16 == 0, "must be a multiple of 16")

    def _check_start(self) -> None:
        """The model to start from and the folder to write."""
        scratch = self.backbone is None or self.from_scratch
        rule = (
            "needs a model from scratch: set model to a preset or to a configuration's .json file"
        )
        self._require("backbone", scratch, rule)
        whole = self.backbone_blocks is None or self.backbone is not None
        self._require("backbone_blocks", whole, "needs a backbone")
        apart = not self.model or Path(self.model).resolve() != Path(self.output_dir).resolve()
        self._require(
            "output_dir", apart, "must be another folder than that of the model to start from"
        )

    def _check_data(self) -> None:
        """Training data and the scale of crops."""
        known = not isinstance(self.nodata, str) and all(map(math.isfinite, self.nodata))
        self._require(
            "nodata", known or self.nodata == NO_OTHER, "must be finite numbers or 'none'"
        )
        self._require("train_data", bool(self.train_data), "needs at least one source")
        weights, sources = self.train_weights, [*self.train_data, *self.unlabeled_data]
        fits = not weights or (
            len(weights) == len(sources) and min(weights) >= 0 and sum(weights) > 0
        )
        rule = "must hold one number, 0 or more, for each of train_data and unlabeled_data"
        self._require("train_weights", fits, rule)
        labeling = self.pseudo_label_threshold is not None
        self._require(
            "unlabeled_data", labeling or not self.unlabeled_data, "needs pseudo_label_threshold"
        )
        low_high = self.scale_range
        rising = len(low_high) == 2 and 0 < low_high[0] <= low_high[1]
        self._require("scale_range", rising, "must be two rising numbers")
        metric = self.ground_sampling_distance is None or not self.relative_to_crop
        self._require(
            "ground_sampling_distance",
            metric,
            "needs relative_to_crop to be false: it fixes the scale",
        )

    def _check_schedule(self) -> None:
        """Steps of the run."""
        whole_lines = self.save_steps % self.logging_steps == 0
        self._require(
            "save_steps", whole_lines, f"must be a multiple of logging_steps ({self.logging_steps})"
        )
        reached = self.total_steps >= self.max_steps
        self._require("schedule_steps", reached, f"must not be below max_steps ({self.max_steps})")
        self._require(
            "warmup_steps",
            self.warmup_steps < self.total_steps,
            f"must be below {self.total_steps}",
        )
        one_length = self.num_train_epochs is None or self.max_steps == MAX_STEPS
        self._require(
            "num_train_epochs",
            one_length,
            f"must be left out, or max_steps ({self.max_steps}) must be",
        )

    def _check_objective(self) -> None:
        """Settings that only some objectives and precisions allow."""
        partner = not self.fourier_probability or self.per_device_train_batch_size > 1
        rule = "needs a per_device_train_batch_size above 1: it mixes images of a batch"
        self._require("fourier_probability", partner, rule)
        alone = f"objective '{self.objective}'"
        for name in ("mim_mask_ratio", "mim_block_size", "mim_weight", "mim_hidden_only"):
            used = getattr(self, name) is None or self.hides_blocks
            self._require(name, used, f"must be left out with {alone}, which hides no blocks")
        styled = bool(self.style_probability) and self.num_channels > 3
        self._require(
            "style_probability",
            not styled,
            "must be 0 with more than three bands: Earth styles are of RGB",
        )
        computed = self.frozen_dtype == "float32" or self.mixed_precision == "bf16"
        self._require(
            "frozen_dtype",
            computed,
            "needs mixed_precision bf16: other products take float32 weights",
        )
        labeling = self.pseudo_label_threshold is not None
        self._require(
            "pseudo_label_threshold",
            not labeling or bool(self.ema_decay),
            "needs ema_decay, such as 0.999: the moving average of the weights gives the labels",
        )
        if self.needs_labels:
            return
        self._require(
            "pseudo_label_threshold",
            not labeling,
            f"must be left out with {alone}: it reads no labels",
        )
        self._require(
            "ignore_unlabelled_pixels",
            self.ignore_unlabelled_pixels is None,
            f"must be left out with {alone}: it reads no labels",
        )
        self._require(
            "eval_data", not self.eval_data, f"must be left out with {alone}, which trains no head"
        )
        for name in ("style_probability", "fourier_probability"):
            self._require(
                name, not getattr(self, name), f"must be 0 with {alone}: it knows no styles"
            )
        rule = f"must be another with {alone}: it keeps the features as they are"
        self._require("adaptation", self.adaptation != "frozen", rule)

    def _check_validation(self) -> None:
        """Images that are scored during the run."""
        share = 0 <= self.validation_fraction < 1
        self._require("validation_fraction", share, "must be 0 or more and below 1")
        one_of_both = not (self.validation_fraction and self.eval_data)
        self._require(
            "validation_fraction", one_of_both, "must be 0 with eval_data: one of both is scored"
        )
        labels = not self.validation_fraction or self.needs_labels
        self._require(
            "validation_fraction",
            labels,
            f"must be 0 with objective '{self.objective}': it reads no labels",
        )
        scored = self.early_stopping_patience is None or bool(
            self.validation_fraction or self.eval_data
        )
        self._require("early_stopping_patience", scored, "needs eval_data or validation_fraction")

    @property
    def from_scratch(self) -> bool:
        """Whether `model` names a configuration, not weights."""
        return self.model in PRESETS or self.model.endswith(".json")

    @property
    def label_set(self) -> LabelSet | None:
        """The given classes; None if data or model name them."""
        if not self.classes:
            return None
        return read_classes(self.classes)

    @property
    def needs_labels(self) -> bool:
        """Whether the objective reads labels."""
        return self.objective in ("segmentation", "multitask")

    @property
    def hides_blocks(self) -> bool:
        """Whether masked image modeling is part of the objective."""
        return self.objective in ("multitask", "reconstruct")

    @property
    def num_channels(self) -> int:
        """Channels of the images: the number of `bands`, but at least three."""
        return max(3, len(self.bands))

    @property
    def reading(self) -> Reading:
        """Settings for reading images."""
        values: tuple[float, ...] | None = ()
        if not isinstance(self.nodata, str):
            values = tuple(self.nodata) or None
        return Reading(tuple(self.bands) or None, values, self.num_channels)

    @property
    def total_steps(self) -> int:
        """Step at which the learning rate reaches 0."""
        return self.schedule_steps or self.max_steps

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise InputError(f"{name} is {shown(getattr(self, name))}; it {rule}")


_POSITIVE = (
    "max_steps", "schedule_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
    "crop_size", "eval_scale", "logging_steps", "eval_steps", "save_steps", "lora_rank", "lora_alpha",
    "num_train_epochs", "early_stopping_patience",
    "style_block_size", "mim_block_size", "backbone_blocks", "backbone_lr_multiplier", "ground_sampling_distance",
)  # fmt: skip
_NOT_NEGATIVE = (
    "mim_weight", "weight_decay", "warmup_steps", "max_grad_norm", "seed", "dataloader_num_workers", "mask_offset",
)  # fmt: skip
_PROBABILITIES = (
    "lora_dropout", "style_probability", "style_alpha", "style_mask_ratio", "fourier_probability", "mim_mask_ratio",
    "pseudo_label_threshold", "backbone_layer_decay",
)  # fmt: skip
MODEL_FIELDS = (
    "ground_sampling_distance",
    "mim_mask_ratio",
    "mim_block_size",
    "mim_weight",
    "mim_hidden_only",
    "ignore_unlabelled_pixels",
)
"""Fields that are written into the model's configuration if they are given."""
_CHOICES = {
    "objective": ("segmentation", "multitask", "reconstruct", "features"),
    "adaptation": ADAPTATIONS,
    "lora_init": LORA_INITS,
    "report_to": ("none", "tensorboard"),
    "mixed_precision": ("no", "bf16", "fp16"),
    "frozen_dtype": ("float32", "bfloat16"),
    "save_dtype": ("float32", "float16", "bfloat16"),
}
