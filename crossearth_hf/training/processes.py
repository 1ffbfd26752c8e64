"""Device, precision and processes of a run."""

import numpy as np
import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import GradientAccumulationPlugin, is_tensorboard_available
from torch import nn

from ..errors import InputError
from .config import TrainConfig


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Device, precision and processes of a run.

    Args:
        config: The run.

    Raises:
        InputError: They do not support a setting of the run.
    """
    if config.report_to == "tensorboard" and not is_tensorboard_available():
        raise InputError(
            "report_to 'tensorboard' needs the package tensorboard; install it with pip install "
            '"crossearth-hf[train]" or set report_to to none'
        )
    tracker: str | None = config.report_to
    if tracker == "none":
        tracker = None
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        # A step's batches are fetched together, so the loader ends before the last pass.
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=config.gradient_accumulation_steps, sync_with_dataloader=False
        ),
        log_with=tracker,
        project_dir=config.output_dir,
    )
    sharded = accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    if sharded and config.objective == "multitask" and config.eval_data:
        raise InputError(
            "eval_data is given, but sharded multi-task training cannot score: leave it out, score later"
        )
    if sharded and config.ema_decay:
        raise InputError(
            "ema_decay is given, but sharded training keeps no average of whole weights: leave it out"
        )
    if sharded and config.frozen_dtype != "float32":
        raise InputError(
            "frozen_dtype is bfloat16, but sharding wants one number format in a layer: leave it out"
        )
    # needed here, as the loader is prepared later
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        settings = accelerator.state.deepspeed_plugin.deepspeed_config
        settings["train_micro_batch_size_per_gpu"] = config.per_device_train_batch_size
    return accelerator


def seed_dropout(seed: int, forward_pass: int, process: int) -> None:
    """Seeds the global generator, which only dropout uses, for one forward pass of a process."""
    torch.manual_seed(
        int(np.random.SeedSequence((seed, forward_pass, process)).generate_state(1)[0])
    )


def scalars_to_vectors(network: nn.Module) -> set[str]:
    """Makes scalar parameters vectors of length one, because FSDP cannot shard scalars; returns their names."""
    scalars = set()
    for prefix, module in network.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.ndim == 0:
                setattr(
                    module, name, nn.Parameter(parameter.detach().view(1), parameter.requires_grad)
                )
                scalars.add(f"{prefix}.{name}")
    return scalars
