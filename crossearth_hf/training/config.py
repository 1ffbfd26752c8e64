"""`TrainConfig`: everything that decides a training run, and the rules that its fields keep."""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from ..data.mask_values import checked_values
from ..errors import InputError, shown
from ..labels import get_label_set
from ..raster.scene import Reading

ADAPTATIONS = ("frozen", "rein", "lora", "full", "rein+lora", "full+rein")
"""What of a model's features is trained; the table in `adaptation` says what each is."""
NO_OTHER = "none"
"""The word for no value without data beside what files declare."""


@dataclass(frozen=True)
class TrainConfig:
    """A training run; the defaults are the published recipe at 512 pixels, but for `schedule_steps`.

    Attributes:
        model: Folder or Hub id to start from; or, for a model from scratch, a preset's name or a config's .json file.
        output_dir: Folder for the model, its checkpoints and the log.
        train_data: Sources, see `data.load_source`: FOLDER or FOLDER:GLOB with images/NAME.jpg (.png, .tif) and
            masks/NAME.png, hf:PATH_OR_ID and hf-stream:PATH_OR_ID for `datasets`, synth:DOMAIN[:COUNT] for generated
            scenes.
        train_weights: Share of each source in the crops; by default every image weighs the same.
        eval_data: Sources to score during training: the SOURCE domain's validation split.
        eval_scale: Factor by which images are enlarged for scoring.
        bands: Bands of raster images, counted from 1: one, three, or more, red, green and blue first, to whose number
            a model is extended (`training.adaptation.extend_channels`); chosen as by `crossearth predict` if not given.
        nodata: Values that mean no data in the images, beside what files declare, or "none" for no other. Undeclared
            fill is looked for if not given, as by `crossearth predict`.
        label_set: Classes of the data.
        mask_values: Value of each class in the masks, in the order of the label set: "0,255" for two classes drawn in
            black and white. By default values are ids. 255 is ignored unless it is listed.
        objective: "segmentation" trains with the Mask2Former loss; "multitask" with masked image modeling beside it
            (CrossEarth's Multi-Task Training). Two warm starts train the features alone, and a run with another
            objective goes on from them (`model`), both without labels or masks: "reconstruct", masked image modeling
            alone; "features", see `feature_objective`.
        adaptation: What of the features is trained: "frozen", "rein" (published), "lora", "full", "rein+lora" or
            "full+rein", see `adaptation`.
        lora_rank, lora_alpha: Rank of LoRA's updates, and their weight times the rank.
        lora_dropout: Probability with which an input of LoRA's updates is dropped.
        lora_targets: Names of the linear layers that get LoRA, in every block of the ViT.
        style_probability: Share of the images that Earth-Style Injection restyles; 0 for none. Styles are for the
            objectives "segmentation" and "multitask".
        style_alpha: Weight of the bank's style against the image's own.
        style_mask_ratio: Share of the blocks that show the restyled image.
        style_block_size: Side of a block in pixels.
        style_residual: Whether what the style changes is added to the image, which keeps its finest detail.
        style_bank: File with the styles (`crossearth style-bank`); that in the file of the networks if not given.
        style_networks: File with the style networks (`EarthStyle.save`); those of the package if not given.
        fourier_probability: Share of the images that get the low frequencies of another of their batch, see
            `fourier_style`; 0 for none.
        mim_mask_ratio, mim_block_size, mim_weight: Of masked image modeling, see `CrossEarthConfig`, into which they
            are written; the model's own if not given.
        max_steps: Optimizer steps of this run.
        schedule_steps: Steps after which the learning rate reaches 0 (`max_steps` if not given). The published runs
            stop at 30,000 of 40,000.
        per_device_train_batch_size: Crops per process and forward pass.
        gradient_accumulation_steps: Forward passes per optimizer step.
        learning_rate: Peak of the schedule.
        backbone_lr_multiplier: Factor of the learning rate of the ViT's own weights, where they are trained.
        weight_decay: AdamW's, see `optimization.param_groups`.
        warmup_steps: Steps of linear warm-up.
        max_grad_norm: Clips the gradient's norm; 0 for never.
        crop_size: Side of the crops in pixels; the model's `image_size` if not given.
        scale_range: Bounds of the random scale.
        relative_to_crop: Whether scale 1 makes the image's longer side the crop's (published), or keeps its pixels.
        ground_sampling_distance: Meters per pixel of the crops at scale 1, written to the model's config. Images that
            know their own (georeferenced rasters, SynthEarth) are brought to it; not with `relative_to_crop`. By
            default that of the model, if it has one.
        rotate: Whether crops are also turned by multiples of 90 degrees.
        rotation_degrees: Crops are turned further by a random angle of up to this, either way; what lies outside the
            image is ignored. With `rotate`, 45 makes every direction equally likely.
        gradient_checkpointing: Trades time for memory: blocks, adapters and pixel decoder layers are computed again
            in the backward pass.
        mixed_precision: "no", "bf16" or "fp16".
        frozen_dtype: Number format in which layers that are not trained are kept: "float32", or "bfloat16" with
            mixed_precision bf16, which computes with these weights in it anyway: the steps are the same, in half the
            memory, but the saved model holds the rounded weights.
        save_dtype: Number format of the saved weights: "float32", "float16" or "bfloat16".
        seed: Of weights, crops, styles, masks and the loss's random points.
        dataloader_num_workers: Processes that prepare crops; 0 for none.
        logging_steps, eval_steps, save_steps: Steps between log lines, evaluations and checkpoints.
        report_to: "tensorboard" also writes the log to `output_dir`/tensorboard; "none" to `log.jsonl` alone.
        resume_from_checkpoint: Continue from the last checkpoint in `output_dir`, if there is one.
    """

    model: str
    output_dir: str
    train_data: list[str]
    train_weights: list[float] = field(default_factory=list)
    eval_data: list[str] = field(default_factory=list)
    eval_scale: float = 1.0
    bands: list[int] = field(default_factory=list)
    nodata: list[float] | str = field(default_factory=list)
    label_set: str = "land-cover"
    mask_values: list[int] = field(default_factory=list)
    objective: str = "segmentation"
    adaptation: str = "rein"
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.0
    lora_targets: list[str] = field(default_factory=lambda: ["q_proj", "v_proj"])
    style_probability: float = 0.0
    style_alpha: float = 0.1
    style_mask_ratio: float = 0.7
    style_block_size: int = 64
    style_residual: bool = False
    style_bank: str | None = None
    style_networks: str | None = None
    fourier_probability: float = 0.0
    mim_mask_ratio: float | None = None
    mim_block_size: int | None = None
    mim_weight: float | None = None
    max_steps: int = 30_000
    schedule_steps: int | None = None
    per_device_train_batch_size: int = 4
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1e-4
    backbone_lr_multiplier: float = 1.0
    weight_decay: float = 0.05
    warmup_steps: int = 0
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
        self._take_paths()
        checked_values(self.mask_values, get_label_set(self.label_set))
        for name in _POSITIVE:
            self._require(name, getattr(self, name) is None or getattr(self, name) > 0, "must be positive")
        for name in _NOT_NEGATIVE:
            self._require(name, (getattr(self, name) or 0) >= 0, "must not be negative")
        for name, choices in _CHOICES.items():
            self._require(name, getattr(self, name) in choices, f"must be one of {', '.join(choices)}")
        for name in _PROBABILITIES:
            self._require(name, 0 <= (getattr(self, name) or 0) <= 1, "must lie between 0 and 1")
        known = not isinstance(self.nodata, str) and all(math.isfinite(value) for value in self.nodata)
        self._require("nodata", known or self.nodata == NO_OTHER, "must be finite numbers or 'none'")
        apart = not self.model or Path(self.model).resolve() != Path(self.output_dir).resolve()
        self._require("output_dir", apart, "must be another folder than that of the model to start from")
        self._require("train_data", bool(self.train_data), "needs at least one source")
        weights = self.train_weights
        fits = not weights or (len(weights) == len(self.train_data) and min(weights) >= 0 and sum(weights) > 0)
        self._require("train_weights", fits, "must hold one number, 0 or more, for each of train_data")
        low_high = self.scale_range
        rising = len(low_high) == 2 and 0 < low_high[0] <= low_high[1]
        self._require("scale_range", rising, "must be two rising numbers")
        whole_lines = self.save_steps % self.logging_steps == 0
        self._require("save_steps", whole_lines, f"must be a multiple of logging_steps ({self.logging_steps})")
        metric = self.ground_sampling_distance is None or not self.relative_to_crop
        self._require("ground_sampling_distance", metric, "needs relative_to_crop to be false: it fixes the scale")
        half_turn = 0 <= self.rotation_degrees <= 180
        self._require("rotation_degrees", half_turn, "must lie between 0 and 180")
        self._require("crop_size", (self.crop_size or 16) % 16 == 0, "must be a multiple of 16")
        self._require(
            "schedule_steps", self.total_steps >= self.max_steps, f"must not be below max_steps ({self.max_steps})"
        )
        self._require("warmup_steps", self.warmup_steps < self.total_steps, f"must be below {self.total_steps}")
        partner = not self.fourier_probability or self.per_device_train_batch_size > 1
        rule = "needs a per_device_train_batch_size above 1: it mixes images of a batch"
        self._require("fourier_probability", partner, rule)
        for name in ("mim_mask_ratio", "mim_block_size", "mim_weight"):
            used = getattr(self, name) is None or self.hides_blocks
            self._require(name, used, f"must be left out with objective '{self.objective}', which hides no blocks")
        styled = bool(self.style_probability) and self.num_channels > 3
        self._require("style_probability", not styled, "must be 0 with more than three bands: Earth styles are of RGB")
        computed = self.frozen_dtype == "float32" or self.mixed_precision == "bf16"
        self._require("frozen_dtype", computed, "needs mixed_precision bf16: other products take float32 weights")
        self._check_warm_start()

    def _take_paths(self) -> None:
        """Makes text of paths, as files of runs hold them."""
        for name in ("model", "output_dir"):
            object.__setattr__(self, name, os.fspath(getattr(self, name)))
        for name in ("train_data", "eval_data"):
            sources = getattr(self, name)
            self._require(name, not isinstance(sources, str | os.PathLike), "must be a list of sources")
            object.__setattr__(self, name, [os.fspath(source) for source in sources])

    def _check_warm_start(self) -> None:
        """What the objectives that train the features alone leave no room for."""
        alone = f"objective '{self.objective}'"
        if self.objective not in ("segmentation", "multitask"):
            self._require("eval_data", not self.eval_data, f"must be left out with {alone}, which trains no head")
            for name in ("style_probability", "fourier_probability"):
                self._require(name, not getattr(self, name), f"must be 0 with {alone}: it knows no styles")
            rule = f"must be another with {alone}: it keeps the features as they are"
            self._require("adaptation", self.adaptation != "frozen", rule)

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
        """Channels of the images: those of `bands` where they are more than RGB."""
        return max(3, len(self.bands))

    @property
    def reading(self) -> Reading:
        """How images are read."""
        values = () if isinstance(self.nodata, str) else tuple(self.nodata) or None
        return Reading(tuple(self.bands) or None, values, self.num_channels)

    @property
    def total_steps(self) -> int:
        """Step at which the learning rate would reach 0."""
        return self.schedule_steps or self.max_steps

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise InputError(f"{name} is {shown(getattr(self, name))}; it {rule}")


_POSITIVE = (
    "max_steps", "schedule_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
    "crop_size", "eval_scale", "logging_steps", "eval_steps", "save_steps", "lora_rank", "lora_alpha",
    "style_block_size", "mim_block_size", "backbone_lr_multiplier", "ground_sampling_distance",
)  # fmt: skip
_NOT_NEGATIVE = ("mim_weight", "weight_decay", "warmup_steps", "max_grad_norm", "seed", "dataloader_num_workers")
_PROBABILITIES = (
    "lora_dropout", "style_probability", "style_alpha", "style_mask_ratio", "fourier_probability", "mim_mask_ratio",
)  # fmt: skip
MODEL_FIELDS = ("ground_sampling_distance", "mim_mask_ratio", "mim_block_size", "mim_weight")
"""Fields that are written into the model's configuration where they are given."""
_CHOICES = {
    "objective": ("segmentation", "multitask", "reconstruct", "features"),
    "adaptation": ADAPTATIONS,
    "report_to": ("none", "tensorboard"),
    "mixed_precision": ("no", "bf16", "fp16"),
    "frozen_dtype": ("float32", "bfloat16"),
    "save_dtype": ("float32", "float16", "bfloat16"),
}
