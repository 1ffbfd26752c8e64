"""Supervised training of CrossEarth: optimiser, schedule and the loop, on any number of processes.

A run is a pure function of its configuration and of the number of processes: crops depend on (seed, index), the loss's
random points on (seed, forward pass, process). A resumed run therefore repeats the uninterrupted one.
"""

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from . import metrics
from .augmentation import CropSettings, TrainingCrops
from .configuration_crossearth import PRESETS, CrossEarthConfig
from .data import LabelledImage, load_sources
from .errors import InputError
from .evaluation import predict_confusion, report
from .image_processing_crossearth import CrossEarthImageProcessor
from .labels import LabelSet, get_label_set
from .modeling_crossearth import CrossEarthForSemanticSegmentation
from .patch_objective import PatchClassifier
from .train_config import TrainConfig, to_json

WARMUP_START = 1e-6
POLY_POWER = 0.9
CHECKPOINT = "checkpoint"
HARMLESS_ON_RESUME = {
    "resume",
    "output_dir",
    "eval_data",
    "eval_scale",
    "num_workers",
    "log_every",
    "eval_every",
    "save_every",
}
"""Fields that may change between a run and its continuation, since no training step depends on them."""


def param_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups of the trainable parameters: those that decay and those that do not.

    The published rule (CrossEarth's configs): no decay for norms, query embeddings, the transformer decoder's level
    embedding, Rein's tokens and scale; decay for all others, biases and the pixel decoder's level encoding too. The
    published runs freeze the ViT; for one that is trained, no decay of the class token, registers, position table and
    LayerScale is our choice.
    """
    exempt = {id(parameter) for module in model.modules() for parameter in _exempt(module)}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trainable if id(p) not in exempt], "weight_decay": weight_decay},
        {"params": [p for p in trainable if id(p) in exempt], "weight_decay": 0.0},
    ]


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Learning rate of optimiser step `step` (from 0): linear warm-up from a millionth, then polynomial decay to 0."""
    if step < config.warmup_steps:
        return config.learning_rate * (WARMUP_START + (1 - WARMUP_START) * step / config.warmup_steps)
    progress = (step - config.warmup_steps) / (config.total_steps - config.warmup_steps)
    return config.learning_rate * (1 - progress) ** POLY_POWER


def build_model(config: TrainConfig, label_set: LabelSet) -> CrossEarthForSemanticSegmentation:
    """The model that `config.model` names, with the classes of `label_set`; parameters in float32.

    A model with other classes is loaded with a new classifier; nothing else may be missing or misshapen.

    Raises:
        InputError: no such preset, file, folder or Hub id; weights that do not fit.
    """
    labels = {"id2label": label_set.id2label, "label2id": label_set.label2id}
    if _from_scratch(config):
        model = CrossEarthForSemanticSegmentation(_scratch_config(config, labels))
    else:
        model = _pretrained(config, labels)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model


def build_processor(config: TrainConfig) -> CrossEarthImageProcessor:
    """The image processor saved beside the model that `config` starts from; the default one where there is none."""
    if _from_scratch(config):
        return CrossEarthImageProcessor()
    try:
        return CrossEarthImageProcessor.from_pretrained(config.model)
    except OSError:
        return CrossEarthImageProcessor()


def train(config: TrainConfig) -> Path:
    """Runs `config`; the folder `config.output_dir` then holds model, processor, `log.jsonl` and the last checkpoint.

    With `eval_data`, its sub-folder `best` holds the model that scored highest on it.

    Raises:
        InputError: data, model or folder that do not fit (see the functions used); a folder that holds another run.
        FloatingPointError: the loss or its gradient is no finite number; the last checkpoint is named.
    """
    trainer = Trainer(config)
    try:
        return trainer.run()
    except OSError as error:
        raise InputError(
            f"{config.output_dir} cannot be written: {error}; make room and go on with --resume"
        ) from error


class Trainer:
    """One training run: builds everything from its configuration, then `run` steps through it."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.output = Path(config.output_dir)
        self.label_set = get_label_set(config.label_set)
        self.accelerator = Accelerator(
            mixed_precision=config.mixed_precision, gradient_accumulation_steps=config.gradient_accumulation_steps
        )
        self.checkpoint = self.output / CHECKPOINT
        self._prepare_output()
        set_seed(config.seed)
        self.segmentation = build_model(config, self.label_set)
        network = PatchClassifier(self.segmentation) if config.objective == "patches" else self.segmentation
        self.processor = build_processor(config)
        self.crop_size = config.crop_size or self.segmentation.config.image_size
        self.sources = load_sources(config.train_data, self.label_set)
        self.eval_images = [image for source in load_sources(config.eval_data, self.label_set) for image in source]
        groups = param_groups(network, config.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.999), eps=1e-8)
        self.model, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.step, self.best = 0, -math.inf

    def run(self) -> Path:
        """Trains to the last step and saves the model; returns its folder."""
        if self.accelerator.is_main_process and not self.checkpoint.exists() and _old(self.checkpoint).is_dir():
            os.replace(_old(self.checkpoint), self.checkpoint)  # a run was killed while it exchanged the two
        self.accelerator.wait_for_everyone()
        if self.config.resume and self.checkpoint.is_dir():
            self._load_checkpoint()
        if self.accelerator.is_main_process:
            _keep_log_until(self.output / "log.jsonl", self.step)
        self._loop()
        if self.accelerator.is_main_process:
            self._save_model(self.output)
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return self.output

    def _loop(self) -> None:
        config, accumulation = self.config, self.config.gradient_accumulation_steps
        loader = self._loader()
        bar = tqdm(
            total=config.steps, initial=self.step, desc="training", unit="step",
            disable=not self.accelerator.is_local_main_process,
        )  # fmt: skip
        self.model.train()
        started, losses = time.monotonic(), []
        for forward_pass, batch in enumerate(loader, start=self.step * accumulation):
            losses.append(self._forward_backward(batch, forward_pass))
            if not self.accelerator.sync_gradients:
                continue
            self.step += 1
            bar.update()
            if self.step % config.log_every == 0 or self.step == config.steps:
                self._log(self._mean(losses) | {"lr": self.optimizer.param_groups[0]["lr"]}, started)
                bar.set_postfix(loss=f"{float(losses[-1]['loss']):.3f}")
                started, losses = time.monotonic(), []
            if self.step % config.eval_every == 0 or self.step == config.steps:
                self._evaluate()
            if self.step % config.save_every == 0 or self.step == config.steps:
                self._save_checkpoint()
        bar.close()

    def _forward_backward(self, batch: dict[str, torch.Tensor], forward_pass: int) -> dict[str, torch.Tensor]:
        """One forward and backward pass; steps the optimiser when the gradients are complete. Returns the losses."""
        _seed_pass(self.config.seed, forward_pass, self.accelerator.process_index)
        with self.accelerator.accumulate(self.model):
            output = self.model(**batch)
            self.accelerator.backward(output.loss)
            self._require_finite(output.loss, "loss")
            if self.accelerator.sync_gradients:
                norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm or math.inf)
                if self.config.mixed_precision != "fp16":  # there the scaler skips steps that overflow
                    self._require_finite(norm, "gradient")
                for group in self.optimizer.param_groups:
                    group["lr"] = learning_rate_at(self.step, self.config)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return {"loss": output.loss.detach()} | _loss_parts(output.loss_dict)

    def _loader(self) -> DataLoader:
        """Batches of the crops that are still to be seen."""
        config, processor = self.config, self.processor
        per_step = config.batch_size * config.gradient_accumulation_steps * self.accelerator.num_processes
        settings = CropSettings(
            size=self.crop_size,
            scale_range=(config.scale_range[0], config.scale_range[1]),
            relative_to_crop=config.relative_to_crop,
            rotate=config.rotate,
            mean=tuple(processor.image_mean),
            std=tuple(processor.image_std),
        )
        crops = TrainingCrops(self.sources, config.train_weights, settings, config.seed, per_step * config.steps)
        remaining = range(self.step * per_step, len(crops))
        # A generator of its own, so that starting the loader draws nothing from the global one.
        loader = DataLoader(
            crops, config.batch_size, sampler=remaining, num_workers=config.num_workers, generator=torch.Generator(),
        )  # fmt: skip
        return self.accelerator.prepare(loader)

    def _evaluate(self) -> None:
        """Scores the model on the validation images, shared among processes; keeps the best."""
        if not self.eval_images:
            return
        started, network = time.monotonic(), self.segmentation
        share: list[LabelledImage] = self.eval_images[self.accelerator.process_index :: self.accelerator.num_processes]
        confusion = predict_confusion(
            network, self.processor, share, self.label_set,
            window=network.config.image_size, stride=network.config.window_stride, scale=self.config.eval_scale,
            progress=self.accelerator.is_local_main_process,
        )  # fmt: skip
        total = self.accelerator.reduce(torch.from_numpy(confusion).to(self.accelerator.device), "sum").cpu().numpy()
        scores = report(total, self.label_set)
        self._log({"eval": scores}, started)
        if metrics.mean_iou(total) > self.best:
            self.best = metrics.mean_iou(total)
            if self.accelerator.is_main_process:
                self._save_model(self.output / "best")

    def _mean(self, losses: list[dict[str, torch.Tensor]]) -> dict[str, float]:
        """Mean of each loss over the passes and the processes."""
        stacked = torch.stack([torch.stack(list(loss.values())) for loss in losses]).mean(0)
        return dict(zip(losses[0], self.accelerator.reduce(stacked, "mean").tolist(), strict=True))

    def _log(self, values: dict[str, Any], started: float) -> None:
        if self.accelerator.is_main_process:
            line = {"step": self.step} | values | {"seconds": round(time.monotonic() - started, 3)}
            with open(self.output / "log.jsonl", "a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")

    def _require_finite(self, value: torch.Tensor, what: str) -> None:
        if not bool(torch.isfinite(value)):
            saved = f"the last good state is {self.checkpoint}" if self.checkpoint.is_dir() else "nothing was saved yet"
            raise FloatingPointError(
                f"the {what} of step {self.step + 1} is {value.item()}; {saved}: lower learning_rate or set "
                "max_grad_norm, then go on with --resume"
            )

    def _prepare_output(self) -> None:
        """Makes the folder, before anything is loaded; raises `InputError` if that fails or it holds another run."""
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.output):
                pass
        except OSError as error:
            raise InputError(f"output_dir {self.output} cannot be written: {error.strerror}; name another") from error
        if (self.checkpoint.exists() or _old(self.checkpoint).exists()) and not self.config.resume:
            raise InputError(f"{self.output} already holds a run; continue it with --resume or name another output_dir")

    def _save_checkpoint(self) -> None:
        """Replaces the last checkpoint; at every moment a complete one is on disk."""
        temporary = self.output / f".{CHECKPOINT}.tmp"
        if self.accelerator.is_main_process:
            shutil.rmtree(temporary, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(temporary), safe_serialization=True)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            state = {"step": self.step, "best": self.best, "processes": self.accelerator.num_processes}
            (temporary / "run.json").write_text(json.dumps(state), encoding="utf-8")
            (temporary / "config.json").write_text(to_json(self.config), encoding="utf-8")
            _replace_folder(temporary, self.checkpoint)
        self.accelerator.wait_for_everyone()

    def _load_checkpoint(self) -> None:
        state = json.loads((self.checkpoint / "run.json").read_text(encoding="utf-8"))
        saved = json.loads((self.checkpoint / "config.json").read_text(encoding="utf-8"))
        now = json.loads(to_json(self.config))
        for fields in (saved, now):  # a run may be prolonged where that leaves the learning rates as they were
            fields["schedule_steps"] = fields["schedule_steps"] or fields.pop("steps")
            fields.pop("steps", None)
        saved["processes"], now["processes"] = state["processes"], self.accelerator.num_processes
        for name in sorted(set(now) - HARMLESS_ON_RESUME):
            if saved.get(name) != now[name]:
                raise InputError(
                    f"{name} is {now[name]!r} but {self.checkpoint} was trained with {saved.get(name)!r}; resume with "
                    "the same value or start in another output_dir"
                )
        self.accelerator.load_state(str(self.checkpoint))
        self.step, self.best = state["step"], state["best"]

    def _save_model(self, folder: Path) -> None:
        """Writes model and processor to `folder`; every file is replaced at once, complete."""
        folder.mkdir(parents=True, exist_ok=True)
        dtype = getattr(torch, self.config.save_dtype)
        weights = {name: value.to(dtype) for name, value in self.segmentation.state_dict().items()}
        with _staging(folder) as temporary:
            self.segmentation.save_pretrained(temporary, state_dict=weights)
            self.processor.save_pretrained(temporary)
            # safetensors lets only the owner read
            shutil.copymode(temporary / "config.json", temporary / "model.safetensors")


def _from_scratch(config: TrainConfig) -> bool:
    """Whether `config.model` names a configuration, not weights."""
    return config.model in PRESETS or config.model.endswith(".json")


def _scratch_config(config: TrainConfig, labels: dict[str, Any]) -> CrossEarthConfig:
    """Configuration of a new model, from a preset or a .json file."""
    overrides = dict(labels)
    if config.freeze_backbone is not None:
        overrides["freeze_backbone"] = config.freeze_backbone
    if config.model in PRESETS:
        return CrossEarthConfig.from_preset(config.model, **overrides)
    try:
        values = json.loads(Path(config.model).read_text(encoding="utf-8"))
        return CrossEarthConfig(**(values | overrides))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{config.model} is no CrossEarth configuration ({error}); correct the file") from error


def _pretrained(config: TrainConfig, labels: dict[str, Any]) -> CrossEarthForSemanticSegmentation:
    """A saved model in float32, its classifier made anew where the classes differ."""
    try:
        model, info = CrossEarthForSemanticSegmentation.from_pretrained(
            config.model, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True, **labels
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"'{config.model}' is neither a preset ({', '.join(PRESETS)}) nor a folder or Hub id of a CrossEarth model "
            f"({str(error).splitlines()[0]})"
        ) from error
    misshapen = {str(entry[0] if isinstance(entry, tuple) else entry) for entry in info["mismatched_keys"]}
    wrong = sorted({key for key in misshapen if not key.startswith("class_predictor.")} | set(info["missing_keys"]))
    if wrong:
        raise InputError(
            f"the weights of '{config.model}' do not fit its config at {wrong[:3]}; repair or convert it again"
        )
    if config.freeze_backbone is not None:
        model.config.freeze_backbone = config.freeze_backbone
        model.model.backbone.requires_grad_(not config.freeze_backbone)
    return model


def _exempt(module: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters of `module` itself, not of its children, that never decay."""
    # nn.Embedding: learned queries and the transformer decoder's level embedding.
    whole = isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.Embedding)
    for name, parameter in module.named_parameters(recurse=False):
        if whole or name in _EXEMPT_NAMES:
            yield parameter


_EXEMPT_NAMES = {
    "scale", "tokens", "tokens_a", "tokens_b",  # Rein
    "cls_token", "register_tokens", "position_embeddings", "lambda1",  # the ViT, where it is trained
}  # fmt: skip


def _loss_parts(losses: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
    """Class, mask and dice losses, each summed over the decoder's outputs."""
    parts: dict[str, torch.Tensor] = {}
    for name, value in (losses or {}).items():
        part = name.rpartition("_")[0]
        parts[part] = parts.get(part, 0) + value.detach()
    return parts


def _seed_pass(seed: int, forward_pass: int, process: int) -> None:
    """Seeds the random points and dropout of one forward pass."""
    torch.manual_seed(int(np.random.SeedSequence((seed, forward_pass, process)).generate_state(1)[0]))


def _step_of(line: str) -> float:
    """Step of a log line; infinity for one that a kill cut short."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return math.inf


def _keep_log_until(path: Path, step: int) -> None:
    """Drops the lines of `path` beyond `step`: a resumed run writes them again."""
    if path.exists():
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        os.replace(temporary, path)


def _old(folder: Path) -> Path:
    """Where the former version of `folder` lies while the new one takes its place."""
    return folder.with_name(f".{folder.name}.old")


def _replace_folder(new: Path, target: Path) -> None:
    """Puts the folder `new` in the place of `target`."""
    old = _old(target)
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(new, target)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A temporary folder inside `folder` whose files move to `folder` at the end."""
    temporary = folder / ".saving.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for path in temporary.iterdir():
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
