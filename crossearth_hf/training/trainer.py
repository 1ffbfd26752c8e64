"""Training of CrossEarth: the loop, on any number of processes.

A run is a pure function of its configuration. Crops, styles, masks and the loss's random points depend on the seed and
on the number of the crop alone: a resumed run repeats the uninterrupted one to the last bit, and several processes make
the steps that one would make on the same global batch. Their losses agree up to rounding, since the loss averages over
all processes (`loss_crossearth`). Two things are exceptions: dropout, drawn per pass and process (the published model
has none), and the Fourier style mix, whose partners are images of the same process.
The price is a generator per image instead of one for all: a run draws other points than the original's would, from the
same distribution, and they cost some kernel launches more.

Accumulated gradients are the mean over a step's passes, each averaged by its own counts. They equal those of one larger
batch where its passes hold equal numbers of masks, matched queries and labeled pixels, and nearly so elsewhere.
"""

import errno
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedType
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin, convert_outputs_to_fp32, is_tensorboard_available, set_seed
from torch import nn
from torch.utils.data import DataLoader

from ..data import Source, all_images, load_sources, source_folder
from ..data.label_counts import count_labels
from ..errors import InputError, reason_of
from ..evaluation import metrics
from ..evaluation.image_scores import predict_confusion, report
from ..files.outputs import check_apart
from ..inference.loading import check_weights
from ..labels import IGNORE_INDEX, get_label_set
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..model.modeling_multitask import CrossEarthForMultiTaskTraining
from ..progress import progress_bar, quiet_loaders
from .adaptation import describe_trainable, merged, save_adapter
from .augmentation import CropSettings, TrainingCrops
from .config import TrainConfig
from .feature_objective import MaskedFeaturePrediction
from .inputs import InputMaker
from .optimization import learning_rate_at, param_groups
from .recipe import to_yaml
from .run_folder import RunFolder, staging
from .starting_model import build_model, build_processor, lora_settings

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)


Scorer = Callable[[CrossEarthForSemanticSegmentation, CrossEarthImageProcessor], dict[str, Any]]


def train(config: TrainConfig, scorer: Scorer | None = None) -> Path:
    """Runs `config`; the folder `config.output_dir` then holds model, processor, `log.jsonl` and the last checkpoint.

    With LoRA the model is the plain one, updates merged, and `adapter` holds what was trained alone. With `eval_data`,
    the sub-folder `best` holds the model that scored highest on it.

    Args:
        config: The run.
        scorer: Takes the place of `eval_data`: what it makes of model and processor is written to the log as "eval".

    Raises:
        InputError: data, model or folder that do not fit (see the functions used); a folder that holds another run; no
            labeled pixel in any crop.
        FloatingPointError: the loss or its gradient is not a finite number; the last checkpoint is named.
    """
    owns_state = not AcceleratorState._shared_state
    try:
        with quiet_loaders():
            return Trainer(config, scorer).run()
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise InputError(
            f"{config.output_dir} cannot be written: {error}; make room and go on with --resume_from_checkpoint"
        ) from error
    finally:
        if owns_state:  # else the next run of this process could not have another precision
            AcceleratorState._reset_state()


class Trainer:
    """One training run: builds everything from its configuration, then `run` steps through it."""

    def __init__(self, config: TrainConfig, scorer: Scorer | None = None) -> None:
        self.config, self.scorer = config, scorer
        data = map(source_folder, (*config.train_data, *config.eval_data))
        check_apart([folder for folder in data if folder is not None], config.output_dir)
        self.folder = RunFolder(config.output_dir)
        self.label_set = get_label_set(config.label_set)
        self.accelerator = _accelerator(config)
        self.folder.prepare(resume=config.resume_from_checkpoint)
        set_seed(config.seed)
        self.segmentation = build_model(config, self.label_set, tell=self.accelerator.print)
        with torch.device("meta"):  # without LoRA layers and FSDP's class, for saving
            self.shell = type(self.segmentation)(self.segmentation.config)
        network = _network(self.segmentation, config.objective)
        self.processor = build_processor(config)
        self.crop_size = config.crop_size or self.segmentation.config.image_size
        if self.crop_size < self.segmentation.config.least_side:
            raise InputError(
                f"crop_size {self.crop_size} is below the least side of the model, "
                f"{self.segmentation.config.least_side} pixels; choose that or more"
            )
        self.inputs = InputMaker(config, self.processor, self.crop_size, self.accelerator.device)
        options: dict[str, Any] = {
            "reading": config.reading,
            "mask_values": config.mask_values or None,
            "tell": _say if self.accelerator.is_main_process else None,
        }
        self.sources = load_sources(config.train_data, self.label_set, labeled=config.needs_labels, **options)
        self.eval_images = all_images(load_sources(config.eval_data, self.label_set, **options))
        if config.needs_labels:
            self._tell_labels("train_data", self.sources)
            self._tell_labels("eval_data", [self.eval_images] if self.eval_images else [])
        self.accelerator.print(describe_trainable(network, config.adaptation))
        self.sharded = self.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        if self.sharded:
            self.scalars = _scalars_to_vectors(network)
        else:
            self.scalars = set()
        groups = param_groups(network, config.weight_decay, config.backbone_lr_multiplier)
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.999), eps=1e-8, fused=True)
        self.model, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.step, self.best, self.skipped = 0, -math.inf, 0
        self.waited = 0.0  # seconds for batches since the last line of the log

    def run(self) -> Path:
        """Trains to the last step and saves the model; returns its folder."""
        with self.folder.alone() if self.accelerator.is_main_process else nullcontext():
            return self._run()

    def _run(self) -> Path:
        if self.accelerator.is_main_process:
            self.folder.recover()
        self.accelerator.wait_for_everyone()
        if self.config.resume_from_checkpoint and self.folder.checkpoint.is_dir():
            self._load_checkpoint()
        if self.accelerator.is_main_process:
            self.folder.keep_log_until(self.step)
        # What a killed run wrote beyond its checkpoint is hidden, as the log's lines are dropped.
        options = {"tensorboard": {"purge_step": self.step + 1}}
        self.accelerator.init_trackers("tensorboard", init_kwargs=options)
        try:
            self._loop()
            self._save_model(self.folder.path)
        finally:
            for tracker in self.accelerator.trackers:
                tracker.finish()
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return self.folder.path

    def _tell_labels(self, what: str, sources: Sequence[Source]) -> None:
        """Shows what the images hold; `InputError` where that is nothing to learn or to score."""
        if not sources:
            return
        counts = count_labels(sources)
        counts.check(what, self.label_set.classes, self.label_set)
        if self.accelerator.is_main_process:
            _say(counts.table(what, self.label_set))

    def _loop(self) -> None:
        config = self.config
        shown = self.accelerator.is_local_main_process
        bar = progress_bar(desc="training", unit="step", total=config.max_steps, initial=self.step, shown=shown)
        self.model.train()
        started, losses, self.waited = time.monotonic(), [], 0.0
        for batches in self._batches():
            losses += self._train_step(batches)
            self.step += 1
            bar.update()
            if self.step % config.logging_steps == 0 or self.step == config.max_steps:
                values = self._mean(losses)
                waiting = round(self.waited / (time.monotonic() - started), 4)
                state = {"lr": self.optimizer.param_groups[0]["lr"], "skipped": self.skipped, "waiting": waiting}
                self._log({"train": values | state}, started)
                bar.set_postfix({"loss": f"{values['loss']:.3f}"} if values else {"skipped": self.skipped})
                started, losses, self.waited = time.monotonic(), [], 0.0
            if self.skipped == config.max_steps:
                bar.close()
                raise InputError(
                    f"all {self.skipped} steps were skipped, as no crop of train_data held a labeled pixel, and no "
                    "model is written; check masks, nodata and scale_range"
                )
            if self.step % config.eval_steps == 0 or self.step == config.max_steps:
                self._evaluate()
            if self.step % config.save_steps == 0 or self.step == config.max_steps:
                self._save_checkpoint()
        bar.close()

    def _train_step(self, batches: list[dict[str, torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
        """One optimizer step on its forward passes' batches; returns the losses of each."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.step, self.config) * group["lr_multiplier"]
        if self._nothing_to_learn(batches):
            self.skipped += 1
            return []
        first = self.step * len(batches)
        return [self._forward_backward(batch, first + index) for index, batch in enumerate(batches)]

    def _nothing_to_learn(self, batches: list[dict[str, torch.Tensor]]) -> bool:
        """Whether no process has a labeled pixel in this step, and the loss leaves out pixels without labels."""
        if not (self.config.needs_labels and self.segmentation.config.ignore_unlabelled_pixels):
            return False
        labeled = torch.stack([(batch["labels"] != IGNORE_INDEX).any() for batch in batches]).any()
        return not bool(self.accelerator.reduce(labeled.float(), "sum"))

    def _forward_backward(self, batch: dict[str, torch.Tensor], forward_pass: int) -> dict[str, torch.Tensor]:
        """One forward and backward pass; steps the optimizer when the gradients are complete. Returns the losses."""
        _seed_dropout(self.config.seed, forward_pass, self.accelerator.process_index)
        with self.accelerator.accumulate(self.model):
            output = self.model(**self.inputs(batch))
            self.accelerator.backward(output.loss)
            self._require_finite(output.loss, "loss")
            if self.accelerator.sync_gradients:
                norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm or math.inf)
                if norm is not None and self.config.mixed_precision != "fp16":  # its scaler skips steps that overflow
                    self._require_finite(torch.as_tensor(norm), "gradient")
            self.optimizer.step()
            self.optimizer.zero_grad()
        return {"loss": output.loss.detach()} | _loss_parts(output.loss_dict)

    def _batches(self) -> Iterator[list[dict[str, torch.Tensor]]]:
        """For every step that is still to be made, the batches of its forward passes."""
        loader = iter(self._loader())
        while True:
            started = time.monotonic()
            batches = list(islice(loader, self.config.gradient_accumulation_steps))
            self.waited += time.monotonic() - started
            if not batches:
                return
            yield batches

    def _loader(self) -> DataLoader:
        """Batches of the crops that are still to be seen."""
        config, processor = self.config, self.processor
        per_pass = config.per_device_train_batch_size * self.accelerator.num_processes
        per_step = per_pass * config.gradient_accumulation_steps
        settings = CropSettings(
            size=self.crop_size,
            scale_range=(config.scale_range[0], config.scale_range[1]),
            relative_to_crop=config.relative_to_crop,
            ground_sampling_distance=self.segmentation.config.ground_sampling_distance,
            rotate=config.rotate,
            rotation_degrees=config.rotation_degrees,
            mean=tuple(processor.image_mean),
            std=tuple(processor.image_std),
            rescale_factor=processor.rescale_factor,
        )
        crops = TrainingCrops(self.sources, config.train_weights, settings, config.seed, per_step * config.max_steps)
        remaining = range(self.step * per_step, len(crops))
        # A generator of its own, so that starting the loader draws nothing from the global one.
        loader = DataLoader(
            crops,
            config.per_device_train_batch_size,
            sampler=remaining,
            num_workers=config.dataloader_num_workers,
            generator=torch.Generator(),
        )
        return self.accelerator.prepare(loader)

    def _evaluate(self) -> None:
        """Scores the model; on the validation images of `eval_data`, shared among processes, it also keeps the best."""
        started, network, alone = time.monotonic(), self._scored_network(), self.accelerator.is_main_process
        if self.scorer is not None:
            self._log({"eval": self.scorer(network, self.processor) if alone or self.sharded else {}}, started)
            self.accelerator.wait_for_everyone()
        elif self.eval_images:
            confusion = self._confusion(network)
            self._log({"eval": report(confusion, self.label_set)}, started)
            if metrics.mean_iou(confusion) > self.best:
                self.best = metrics.mean_iou(confusion)
                self._save_model(self.folder.path / "best")

    def _scored_network(self) -> CrossEarthForSemanticSegmentation:
        """The model for inference, in the precision of the run."""
        if not isinstance(self.segmentation, CrossEarthForMultiTaskTraining):
            if self.sharded:
                return self.model
            return self.segmentation
        network = self.segmentation.segmentation_model()
        # As accelerate does with the model that it prepared.
        network.forward = convert_outputs_to_fp32(self.accelerator.autocast()(network.forward))
        return network

    def _confusion(self, network: CrossEarthForSemanticSegmentation) -> np.ndarray:
        """Confusion matrix over all validation images."""
        images = self.eval_images
        if not self.sharded:  # else every process holds a part of the weights: all must make the same passes
            images = images[self.accelerator.process_index :: self.accelerator.num_processes]
        confusion = predict_confusion(
            network, self.processor, images, self.label_set,
            window=self.segmentation.config.image_size, stride=self.segmentation.config.window_stride,
            scale=self.config.eval_scale, progress=self.accelerator.is_local_main_process,
        )  # fmt: skip
        if self.sharded:
            return confusion
        counts = torch.from_numpy(confusion).to(self.accelerator.device)
        return self.accelerator.reduce(counts, "sum").cpu().numpy()

    def _mean(self, losses: list[dict[str, torch.Tensor]]) -> dict[str, float]:
        """Mean of each loss over the passes and the processes; nothing where every step was skipped."""
        if not losses:
            return {}
        stacked = torch.stack([torch.stack(list(loss.values())) for loss in losses]).mean(0)
        return dict(zip(losses[0], self.accelerator.reduce(stacked, "mean").tolist(), strict=True))

    def _log(self, values: dict[str, dict[str, Any]], started: float) -> None:
        """A line of the log, losses as they are and scores under "eval"; the tracker gets the plain numbers."""
        seconds = {"seconds": round(time.monotonic() - started, 3)}
        if self.accelerator.is_main_process:
            self.folder.log({"step": self.step} | values.get("train", {"eval": values.get("eval")}) | seconds)
        numbers = {f"{group}/{name}": value for group, scores in values.items() for name, value in scores.items()}
        self.accelerator.log({k: v for k, v in numbers.items() if isinstance(v, int | float)}, step=self.step)

    def _require_finite(self, value: torch.Tensor, what: str) -> None:
        if not bool(torch.isfinite(value)):
            saved, kept = self.folder.checkpoint, self.folder.checkpoint.is_dir()
            raise FloatingPointError(
                f"the {what} of step {self.step + 1} is {value.item()}; "
                f"{f'the last good state is {saved}' if kept else 'nothing was saved yet'}: train again in "
                "another output_dir with a lower learning_rate or with max_grad_norm"
            )

    def _save_checkpoint(self) -> None:
        """Replaces the last checkpoint; at every moment a complete one is on disk."""
        if self.accelerator.is_main_process:
            self.folder.open_incoming()
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(self.folder.incoming), safe_serialization=True)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            state = {"step": self.step, "best": self.best, "skipped": self.skipped}
            self.folder.commit(self.config, state | {"processes": self.accelerator.num_processes})
        self.accelerator.wait_for_everyone()

    def _load_checkpoint(self) -> None:
        state = self.folder.saved_state(self.config, self.accelerator.num_processes)
        try:
            self.accelerator.load_state(str(self.folder.checkpoint))
        except Exception as error:  # files of another model, or damaged ones, make their readers fail in any way
            raise InputError(
                f"{self.folder.checkpoint} does not fit the model that '{self.config.model}' names now, or is damaged "
                f"({reason_of(error)}); restore that model or start in another output_dir"
            ) from error
        self.step, self.best, self.skipped = state["step"], state["best"], state["skipped"]

    def _save_model(self, folder: Path) -> None:
        """Writes model, processor and recipe to `folder`, what LoRA trained to its `adapter`; every file complete."""
        names = self.segmentation.state_dict().keys()
        gathered = self.accelerator.get_state_dict(self.model)  # whole tensors, also where processes share them
        if not self.accelerator.is_main_process:
            return
        # The objective "features" trains a part of the model under a head that is thrown away.
        state = self.segmentation.state_dict() | {name: gathered[name] for name in names if name in gathered}
        state |= {name: state[name].reshape(()) for name in self.scalars}
        dtype, lora = getattr(torch, self.config.save_dtype), lora_settings(self.config)
        weights = {name: value.to(dtype) for name, value in merged(state, lora).items()}
        check_weights(weights, "the trained model", "train again with a lower learning_rate, or save_dtype float32")
        with staging(folder) as temporary:
            self.shell.save_pretrained(temporary, state_dict=weights)
            self.processor.save_pretrained(temporary)
            (temporary / "train.yaml").write_text(to_yaml(self.config), encoding="utf-8")
            # safetensors lets only the owner read
            shutil.copymode(temporary / "config.json", temporary / "model.safetensors")
        if "lora" in self.config.adaptation:
            with staging(folder / "adapter") as temporary:
                save_adapter(temporary, self.shell, state, lora, self.config.model)
                shutil.copymode(temporary / "config.json", temporary / "adapter_model.safetensors")


def _accelerator(config: TrainConfig) -> Accelerator:
    if config.report_to == "tensorboard" and not is_tensorboard_available():
        raise InputError(
            "report_to 'tensorboard' needs the package tensorboard; install it with pip install "
            '"crossearth-hf[train]" or set report_to to none'
        )
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        # A step's batches are fetched together: the loader's end says nothing about the last pass.
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=config.gradient_accumulation_steps, sync_with_dataloader=False
        ),
        log_with=None if config.report_to == "none" else config.report_to,
        project_dir=config.output_dir,
    )
    sharded = accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    if sharded and config.objective == "multitask" and config.eval_data:
        raise InputError("eval_data is given, but sharded multi-task training cannot score: leave it out, score later")
    if sharded and config.frozen_dtype != "float32":
        raise InputError("frozen_dtype is bfloat16, but sharding wants one number format in a layer: leave it out")
    if accelerator.distributed_type == DistributedType.DEEPSPEED:  # it asks, since the loader is prepared later
        settings = accelerator.state.deepspeed_plugin.deepspeed_config
        settings["train_micro_batch_size_per_gpu"] = config.per_device_train_batch_size
    return accelerator


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _scalars_to_vectors(network: nn.Module) -> set[str]:
    """Gives parameters without dimension one, since FSDP shards no scalars; returns their names."""
    scalars = set()
    for prefix, module in network.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.ndim == 0:
                setattr(module, name, nn.Parameter(parameter.detach().view(1), parameter.requires_grad))
                scalars.add(f"{prefix}.{name}")
    return scalars


def _network(segmentation: CrossEarthForSemanticSegmentation, objective: str) -> nn.Module:
    """What the objective trains: the model itself, or a part of it under another head."""
    if objective == "features":
        return MaskedFeaturePrediction(segmentation)
    return segmentation


def _loss_parts(losses: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
    """Losses of one kind, each summed over the decoder's outputs."""
    parts: dict[str, torch.Tensor] = {}
    for name, value in (losses or {}).items():
        part = name.rstrip("0123456789").rstrip("_")
        parts[part] = parts.get(part, 0) + value.detach()
    return parts


def _seed_dropout(seed: int, forward_pass: int, process: int) -> None:
    """Seeds the global generator for one forward pass: what still draws from it is dropout."""
    torch.manual_seed(int(np.random.SeedSequence((seed, forward_pass, process)).generate_state(1)[0]))
