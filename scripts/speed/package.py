"""The jobs of this package and of its previous release, which is imported from another folder.

They go through what both have in common: `load_model`, `sliding_window_scores`, `Trainer` and the `crossearth` command.
"""

import math
from contextlib import suppress
from importlib import import_module
from typing import Any

import rasterio
import torch
from PIL import Image
from torch import Tensor

from .jobs import Job, Setup, image_of, labels_of

# What `TrainConfig` is told for the options of the training case.
TRAINING: dict[str, dict[str, Any]] = {
    "fast": {},
    "fast-bf16": {"mixed_precision": "bf16"},
    "lean": {"gradient_checkpointing": True},
    "lean-bf16": {"gradient_checkpointing": True, "mixed_precision": "bf16"},
}
ENGINES = ("onnxruntime", "openvino")
"""Options of predict beside precisions."""

BATCH = 4
"""Windows at a time in the forward passes that predict is compared with: predict's own default."""


def build(setup: Setup) -> Job:
    """The job of the imported `crossearth_hf` in the case."""
    jobs = {"scores": scores_job, "training": training_job}
    return jobs.get(setup.case.kind, predict_job)(setup)


def scores_job(setup: Setup) -> Job:
    """Scores of an image as evaluation computes them; the option is a precision."""
    from crossearth_hf.inference import load_model, sliding_window_scores  # noqa: PLC0415

    keep_freed_memory()
    model, _ = load_model(setup.model, device=setup.device, dtype=setup.option)
    case, pixels = setup.case, image_of(setup.case, setup.device)
    first = pixels[:, :, : case.window, : case.window]
    return Job(
        lambda: sliding_window_scores(model, pixels, case.window, case.stride),
        lambda: sliding_window_scores(model, first, case.window, case.stride),
    )


def keep_freed_memory() -> None:
    """Does as the `crossearth` command does with memory; the previous release does nothing."""
    with suppress(ModuleNotFoundError):
        import_module("crossearth_hf.inference.memory").keep_freed_memory()


def training_job(setup: Setup) -> Job:
    """A step with the trainer's model, precision and optimizer; the option is a key of `TRAINING`."""
    training: Any = import_module("crossearth_hf.training")
    if hasattr(training, "__path__"):  # in the previous release all of it is this module
        training = import_module("crossearth_hf.training.trainer")

    # The trainer asks for a source and never reads it: every contestant learns from the same image, by `image_of`.
    source = setup.folder / "data"
    for name, mode in (("images", "RGB"), ("masks", "L")):
        (source / name).mkdir(parents=True, exist_ok=True)
        Image.new(mode, (32, 32)).save(source / name / "unread.png")
    classes = "label_set"  # in the previous release
    if hasattr(training.TrainConfig, "mask_offset"):
        classes = "classes"
    data = {classes: "isprs", "train_data": [str(source)]}
    folders = {"model": str(setup.model), "output_dir": str(setup.folder / "run")}
    trainer = training.Trainer(training.TrainConfig(**(data | folders | TRAINING[setup.option])))
    trainer.model.train()
    classes = trainer.segmentation.config.num_labels
    pixels, labels = (
        image_of(setup.case, setup.device),
        labels_of(setup.case, classes, setup.device),
    )
    losses: list[float] = []

    def step() -> list[float]:
        torch.manual_seed(len(losses))
        loss = trainer.model(pixel_values=pixels, labels=labels).loss
        trainer.accelerator.backward(loss)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        losses.append(loss.item())
        return losses

    return Job(step, step)


def predict_job(setup: Setup) -> Job:
    """`crossearth predict` from its arguments to the map, loading included; the option is a precision or an engine."""
    from crossearth_hf.cli import main  # noqa: PLC0415

    how = "--engine" if setup.option in ENGINES else "--dtype"

    def predict(scene: str) -> Tensor:
        output = str(setup.folder / "map.tif")
        windows = ["--window", str(setup.case.window), "--stride", str(setup.case.stride)]
        command = [
            "predict",
            scene,
            output,
            "--model",
            str(setup.model),
            how,
            setup.option,
            "--overwrite",
        ]
        if main([*command, *windows, "--device", setup.device]) != 0:
            raise RuntimeError(f"crossearth predict failed; its log is in {setup.folder}")
        with rasterio.open(output) as source:
            return torch.from_numpy(source.read(1))

    return Job(lambda: predict(str(setup.scene)), lambda: predict(str(setup.corner)))


def build_forward(setup: Setup) -> Job:
    """The bare forward passes of as many windows as the case's scene has, in batches, on random pixels.

    The option says how far they go: "logits" to the model's output, "scores" to every class's score at every pixel.
    """
    from crossearth_hf.inference import load_model  # noqa: PLC0415
    from crossearth_hf.model.semantic_scores import semantic_scores  # noqa: PLC0415

    keep_freed_memory()
    model, _ = load_model(setup.model, device=setup.device, dtype="float32")
    case = setup.case
    count = (math.ceil((case.size - case.window) / case.stride) + 1) ** 2
    pixels = torch.randn(BATCH, 3, case.window, case.window, device=setup.device)

    @torch.inference_mode()
    def run(windows: int) -> list[float]:
        for done in range(0, windows, BATCH):
            outputs = model(pixel_values=pixels[: windows - done])
            if setup.option == "scores":
                size = (case.window, case.window)
                semantic_scores(outputs.class_queries_logits, outputs.masks_queries_logits, size)
        return []

    return Job(lambda: run(count), lambda: run(BATCH))
