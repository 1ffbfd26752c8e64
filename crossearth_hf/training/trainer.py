"""The training loop of CrossEarth, on any number of processes.

A run depends only on its configuration. Crops, styles, masks and the loss's random points depend only on the seed and
the number of the crop. A resumed run therefore repeats the uninterrupted one bit for bit, and training on N processes
gives the same updates as one process with the same global batch, up to rounding: the loss averages over all processes
(`loss_crossearth`). There are two exceptions. Dropout is drawn for each pass and process (the published model has
none), and the Fourier style mix mixes images of the same process. Every image has its own random generator, so a run
draws other points than the original code, from the same distribution.

Accumulated gradients are the mean over the passes of a step, each averaged by its own counts. They equal the gradients
of one larger batch if all passes hold equal numbers of masks, matched queries and labeled pixels, and nearly equal them
otherwise.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import DistributedType
from accelerate.state import AcceleratorState
from accelerate.utils import convert_outputs_to_fp32, set_seed
from safetensors import SafetensorError
from torch import nn
from torch.utils.data import DataLoader

from ..data import source_folder
from ..errors import InputError, reason_of, shown
from ..evaluation.image_scores import confusion_scores, labeled_classes
from ..files.outputs import check_apart
from ..labels import IGNORE_INDEX
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..model.modeling_multitask import CrossEarthForMultiTaskTraining
from ..model.semantic_scores import semantic_scores
from ..progress import progress_bar, quiet_loaders
from .adaptation import describe_trainable
from .augmentation import TrainingCrops, shrink_notice
from .averaging import WeightAverage
from .config import TrainConfig
from .feature_objective import MaskedFeaturePrediction
from .inputs import InputMaker, crop_settings
from .model_writing import ModelWriter, is_of_the_disk
from .optimization import learning_rate_at, param_groups
from .processes import make_accelerator, scalars_to_vectors, seed_dropout
from .pseudo_labels import pseudo_labeled
from .run_classes import run_classes
from .run_data import batches_from, leave_out_open_pixels, load_data
from .run_folder import RunFolder
from .run_length import with_steps
from .run_log import RunLog, loss_parts, say
from .starting_model import build_model, build_processor
from .validation import confusion_of_all

Scorer = Callable[[CrossEarthForSemanticSegmentation, CrossEarthImageProcessor], dict[str, Any]]


def train(config: TrainConfig, scorer: Scorer | None = None) -> Path:
    """Runs `config`; the folder `config.output_dir` then holds model, processor, `log.jsonl` and the last checkpoint.

    With LoRA the model's weights include the updates, and the sub-folder `adapter` holds only what was trained. With
    `eval_data` the sub-folder `best` holds the model with the highest score.

    Args:
        config: The run.
        scorer: Replaces `eval_data`: takes model and processor and returns scores, which the log holds as "eval".

    Raises:
        InputError: Data, model or folder do not fit, the folder holds another run, or no crop has a labeled pixel.
        TypeError: The config has another type.
        FloatingPointError: The loss or its gradient is not finite; the message names the last checkpoint.
    """
    if not isinstance(config, TrainConfig):
        raise TypeError(f"config is {shown(config)}; give a TrainConfig")
    # The state of another accelerator in this process would forbid a run of another precision.
    others = dict(AcceleratorState._shared_state)
    AcceleratorState._reset_state()
    try:
        with quiet_loaders():
            return Trainer(config, scorer).run()
    except (OSError, SafetensorError) as error:
        if not is_of_the_disk(error):
            raise
        raise InputError(
            f"{config.output_dir} cannot be written: {error}; free space and use --resume_from_checkpoint"
        ) from error
    finally:
        AcceleratorState._reset_state()
        AcceleratorState._shared_state.update(others)


class Trainer:
    """One training run: everything is built from its configuration; `run` trains."""

    def __init__(self, config: TrainConfig, scorer: Scorer | None = None) -> None:
        self.config, self.scorer = config, scorer
        data_sources = (*config.train_data, *config.unlabeled_data, *config.eval_data)
        folders = map(source_folder, data_sources)
        check_apart([folder for folder in folders if folder is not None], config.output_dir)
        self.folder = RunFolder(config.output_dir)
        self.accelerator = make_accelerator(config)
        self.folder.prepare(resume=config.resume_from_checkpoint)
        self.log = RunLog(self.accelerator, self.folder)
        self.label_set = run_classes(config)
        set_seed(config.seed)
        self.segmentation = build_model(config, self.label_set, tell=self.accelerator.print)
        self.writer = ModelWriter(self.segmentation)
        network: nn.Module = self.segmentation
        if config.objective == "features":
            network = MaskedFeaturePrediction(self.segmentation)
        self.processor = build_processor(config)
        model_config = self.segmentation.config
        self.crop_size = config.crop_size or model_config.image_size
        if self.crop_size < model_config.least_side:
            raise InputError(
                f"crop_size {self.crop_size} is below the least side of the model, "
                f"{model_config.least_side} pixels; choose that or more"
            )
        self.inputs = InputMaker(config, self.processor, self.crop_size, self.accelerator.device)
        tell = None
        if self.accelerator.is_main_process:
            tell = say
        data = load_data(config, self.label_set, self.folder, tell)
        self.sources, self.unlabeled, self.eval_images = (
            data.sources,
            data.unlabeled,
            data.eval_images,
        )
        if data.leaves_open:
            self.accelerator.print(leave_out_open_pixels(config, model_config))
        distance, processes = model_config.ground_sampling_distance, self.accelerator.num_processes
        self.config = with_steps(config, self.sources, self.crop_size, distance, processes)
        self.accelerator.print(describe_trainable(network, config.adaptation))
        self._prepare(network)
        self.step, self.best, self.skipped = 0, -math.inf, 0
        self.stale = 0  # evaluations since the best one
        self.waited = 0.0  # seconds for batches since the last line of the log

    def _prepare(self, network: nn.Module) -> None:
        """Makes the optimizer, and distributes the network over the processes."""
        config = self.config
        self.sharded = self.accelerator.distributed_type in (
            DistributedType.FSDP,
            DistributedType.DEEPSPEED,
        )
        self.scalars = set()
        if self.sharded:
            self.scalars = scalars_to_vectors(network)
        groups = param_groups(
            network, config.weight_decay, config.backbone_lr_multiplier, config.backbone_layer_decay
        )
        optimizer = torch.optim.AdamW(
            groups, lr=config.learning_rate, betas=(0.9, 0.999), eps=1e-8, fused=True
        )
        self.model, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.average = None
        if config.ema_decay:
            self.average = WeightAverage(network, config.ema_decay)
            self.accelerator.register_for_checkpointing(self.average)

    def run(self) -> Path:
        """Trains to the last step and saves the model; returns its folder."""
        if not self.accelerator.is_main_process:
            return self._run()
        with self.folder.alone():
            return self._run()

    def _run(self) -> Path:
        if self.accelerator.is_main_process:
            self.folder.recover()
        self.accelerator.wait_for_everyone()
        if self.config.resume_from_checkpoint and self.folder.checkpoint.is_dir():
            self._load_checkpoint()
        if self.accelerator.is_main_process:
            self.folder.keep_log_until(self.step)
        # Hides what a killed run wrote after its checkpoint; the log's lines are dropped likewise.
        options = {"tensorboard": {"purge_step": self.step + 1}}
        self.accelerator.init_trackers("tensorboard", init_kwargs=options)
        try:
            self._loop()
            with self._averaged():
                self._save_model(self.folder.path)
        finally:
            for tracker in self.accelerator.trackers:
                tracker.finish()
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return self.folder.path

    def _loop(self) -> None:
        config = self.config
        is_shown = self.accelerator.is_local_main_process
        bar = progress_bar(
            desc="training", unit="step", total=config.max_steps, initial=self.step, shown=is_shown
        )
        self.model.train()
        started, losses, self.waited = time.monotonic(), [], 0.0
        for batches in self._batches():
            if self._has_stalled():
                break
            losses += self._train_step(batches)
            self.step += 1
            bar.update()
            if self._is_due(config.logging_steps):
                bar.set_postfix(self._log_losses(losses, started))
                started, losses, self.waited = time.monotonic(), [], 0.0
            if self.skipped == config.max_steps:
                bar.close()
                raise InputError(
                    f"all {self.skipped} steps were skipped, as no crop of train_data held a labeled pixel, and no "
                    "model is written; check masks, nodata and scale_range"
                )
            if self._is_due(config.eval_steps):
                with self._averaged():
                    self._evaluate()
            if self._is_due(config.save_steps):
                self._save_checkpoint()
        bar.close()

    def _is_due(self, interval: int) -> bool:
        """Whether something that happens every `interval` steps, and after the last one, happens now."""
        return self.step % interval == 0 or self.step == self.config.max_steps

    def _log_losses(self, losses: list[dict[str, torch.Tensor]], started: float) -> dict[str, Any]:
        """Logs the mean losses since `started`; returns what the progress bar shows."""
        values = self.log.mean(losses)
        waiting = round(self.waited / (time.monotonic() - started), 4)
        state = {
            "lr": self.optimizer.param_groups[0]["lr"],
            "skipped": self.skipped,
            "waiting": waiting,
        }
        self.log.write(self.step, {"train": values | state}, started)
        if not values:
            return {"skipped": self.skipped}
        return {"loss": f"{values['loss']:.3f}"}

    def _has_stalled(self) -> bool:
        """Whether the run ends early because its scores no longer rise; if so, tells it and saves the state."""
        patience = self.config.early_stopping_patience
        if patience is None or self.stale < patience:
            return False
        if self.accelerator.is_main_process:
            say(
                f"stopped at step {self.step}: {self.stale} evaluations without a higher mean IoU; see best/"
            )
        self._save_checkpoint()
        return True

    def _train_step(self, batches: list[dict[str, torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
        """One optimizer step on the batches of its forward passes; returns the losses of each pass."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.step, self.config) * group["lr_multiplier"]
        if self._nothing_to_learn(batches):
            self.skipped += 1
            return []
        first = self.step * len(batches)
        return [self._forward_backward(batch, first + index) for index, batch in enumerate(batches)]

    def _nothing_to_learn(self, batches: list[dict[str, torch.Tensor]]) -> bool:
        """Whether the loss ignores unlabeled pixels and no process has a labeled pixel in this step."""
        counts = self.config.needs_labels and self.segmentation.config.ignore_unlabelled_pixels
        if not counts or self.config.pseudo_label_threshold is not None:
            return False
        labeled = torch.stack([(batch["labels"] != IGNORE_INDEX).any() for batch in batches]).any()
        return not bool(self.accelerator.reduce(labeled.float(), "sum"))

    def _forward_backward(
        self, batch: dict[str, torch.Tensor], forward_pass: int
    ) -> dict[str, torch.Tensor]:
        """One forward and backward pass, and an optimizer step once the gradients are complete; returns the losses."""
        seed_dropout(self.config.seed, forward_pass, self.accelerator.process_index)
        with self.accelerator.accumulate(self.model):
            output = self.model(**self.inputs(self._with_pseudo_labels(batch)))
            self.accelerator.backward(output.loss)
            self._require_finite(output.loss, "loss")
            if self.accelerator.sync_gradients:
                norm = self.accelerator.clip_grad_norm_(
                    self.model.parameters(), self.config.max_grad_norm or math.inf
                )
                # fp16's scaler skips infinite gradients
                if norm is not None and self.config.mixed_precision != "fp16":
                    self._require_finite(torch.as_tensor(norm), "gradient")
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.average is not None and self.accelerator.sync_gradients:
                self.average.update()
        return {"loss": output.loss.detach()} | loss_parts(output.loss_dict)

    def _with_pseudo_labels(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The batch with labels by the moving average of the weights, if the run uses them."""
        threshold, average = self.config.pseudo_label_threshold, self.average
        if threshold is None or average is None or "unlabeled_classes" not in batch:
            return batch
        teacher = self._scored_network()
        teacher.eval()
        with average.applied(), torch.no_grad():
            output = teacher(pixel_values=batch["pixel_values"])
        teacher.train()
        size = (batch["labels"].shape[-2], batch["labels"].shape[-1])
        scores = semantic_scores(output.class_queries_logits, output.masks_queries_logits, size)
        return batch | {"labels": pseudo_labeled(batch, scores, threshold)}

    def _batches(self) -> Iterator[list[dict[str, torch.Tensor]]]:
        """For each remaining step, the batches of its forward passes."""
        loader = iter(self._loader())
        while True:
            started = time.monotonic()
            batches = list(islice(loader, self.config.gradient_accumulation_steps))
            self.waited += time.monotonic() - started
            if not batches:
                return
            yield batches

    def _loader(self) -> DataLoader:
        """Batches of the remaining crops."""
        config, processor = self.config, self.processor
        per_pass = config.per_device_train_batch_size * self.accelerator.num_processes
        per_step = per_pass * config.gradient_accumulation_steps
        settings = crop_settings(config, processor, self.segmentation.config, self.crop_size)
        notice = shrink_notice(self.sources, settings)
        if notice is not None and self.accelerator.is_main_process:
            say(notice)
        length, num_classes = per_step * config.max_steps, len(self.label_set.classes)
        crops = TrainingCrops(
            self.sources,
            config.train_weights,
            settings,
            config.seed,
            length,
            num_classes,
            self.unlabeled,
        )
        return self.accelerator.prepare(batches_from(self.step * per_step, crops, config))

    def _evaluate(self) -> None:
        """Scores the model; if it is scored on validation images, the best model is saved too."""
        started, network = time.monotonic(), self._scored_network()
        scores: dict[str, Any]
        if self.scorer is not None:
            scores = {}
            if self.accelerator.is_main_process or self.sharded:
                scores = self.scorer(network, self.processor)
            self.log.write(self.step, {"eval": scores}, started)
            self.accelerator.wait_for_everyone()
        elif self.eval_images:
            confusion = confusion_of_all(
                network, self.processor, self.eval_images, self.label_set, self.accelerator,
                sharded=self.sharded, window=self.segmentation.config.image_size,
                stride=self.segmentation.config.window_stride, scale=self.config.eval_scale,
            )  # fmt: skip
            classes = labeled_classes(self.eval_images, self.label_set)
            scores = confusion_scores(confusion, self.label_set, classes)
            self.log.write(self.step, {"eval": scores}, started)
            score = scores["mean_iou"]
            self.stale += 1
            if score is not None and score > self.best:
                self.best, self.stale = score, 0
                self._save_model(self.folder.path / "best")

    def _averaged(self) -> AbstractContextManager[None]:
        """A block in which the model's weights are their moving average, if the run keeps one."""
        if self.average is None:
            return nullcontext()
        return self.average.applied()

    def _scored_network(self) -> CrossEarthForSemanticSegmentation:
        """The model for inference in the precision of the run."""
        if not isinstance(self.segmentation, CrossEarthForMultiTaskTraining):
            if self.sharded:
                return self.model
            return self.segmentation
        network = self.segmentation.segmentation_model()
        # accelerate wraps the forward method of the training model in the same way.
        network.forward = convert_outputs_to_fp32(self.accelerator.autocast()(network.forward))
        return network

    def _require_finite(self, value: torch.Tensor, what: str) -> None:
        if torch.isfinite(value):
            return
        saved = "nothing was saved yet"
        if self.folder.checkpoint.is_dir():
            saved = f"the last good state is {self.folder.checkpoint}"
        raise FloatingPointError(
            f"the {what} of step {self.step + 1} is {value.item()}; {saved}: train again in another output_dir with a "
            "lower learning_rate or with max_grad_norm"
        )

    def _save_checkpoint(self) -> None:
        """Replaces the last checkpoint; a complete one is on disk at every moment."""
        if self.accelerator.is_main_process:
            self.folder.open_incoming()
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(self.folder.incoming), safe_serialization=True)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            state = {
                "step": self.step,
                "best": self.best,
                "skipped": self.skipped,
                "stale": self.stale,
            }
            run = {
                "processes": self.accelerator.num_processes,
                "classes": list(self.label_set.classes),
            }
            self.folder.commit(self.config, state | run)
        self.accelerator.wait_for_everyone()

    def _load_checkpoint(self) -> None:
        state = self.folder.saved_state(self.config, self.accelerator.num_processes)
        saved, now = state.get("classes"), list(self.label_set.classes)
        if saved is not None and saved != now:  # a file of classes can change under its name
            raise InputError(
                f"{self.folder.checkpoint} was trained with the classes {shown(saved)}, not {self.label_set.listed}; "
                "name them as before or start in another output_dir"
            )
        try:
            self.accelerator.load_state(str(self.folder.checkpoint))
        except (
            Exception
        ) as error:  # loading damaged files, or files of another model, can raise anything
            raise InputError(
                f"{self.folder.checkpoint} does not fit the model that '{self.config.model}' names now, or is damaged "
                f"({reason_of(error)}); restore that model or start in another output_dir"
            ) from error
        self.step, self.best, self.skipped = state["step"], state["best"], state["skipped"]
        self.stale = state["stale"]

    def _save_model(self, folder: Path) -> None:
        """Writes the model to `folder`, see `ModelWriter`."""
        gathered = self.accelerator.get_state_dict(self.model)  # whole tensors, also with FSDP
        if not self.accelerator.is_main_process:
            return
        state = self.segmentation.state_dict()
        # The objective "features" trains a part of the model, under a head that is discarded.
        state |= {name: value for name, value in gathered.items() if name in state}
        state |= {name: state[name].reshape(()) for name in self.scalars}
        self.writer.write(folder, state, self.processor, self.config)
