"""Writes the model of a run as a folder that can be loaded."""

import errno
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..inference.loading import check_weights
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from .adaptation import lora_tensors, merged, save_adapter
from .config import TrainConfig
from .recipe import to_yaml
from .run_folder import staging
from .starting_model import lora_settings

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)


class ModelWriter:
    """Writes weights of a run's model.

    Args:
        network: The model at the start of the run, before it is distributed over processes.
    """

    def __init__(self, network: CrossEarthForSemanticSegmentation) -> None:
        self._lora_start = lora_tensors(network.state_dict())
        with torch.device("meta"):  # without LoRA layers and FSDP's class
            self._shell = type(network)(network.config)

    def write(
        self,
        folder: Path,
        state: dict[str, Tensor],
        processor: CrossEarthImageProcessor,
        config: TrainConfig,
    ) -> None:
        """Writes model, processor and recipe to `folder`, and LoRA's part to its sub-folder `adapter`.

        Args:
            folder: It is replaced as a whole.
            state: Whole tensors of the model, with LoRA's factors apart.
            processor: The image processor of the run.
            config: The run.

        Raises:
            InputError: Weights are not finite, in the number format of the saved model or at all.
        """
        dtype, lora = getattr(torch, config.save_dtype), lora_settings(config)
        weights = {name: value.to(dtype) for name, value in merged(state, lora).items()}
        check_weights(
            weights,
            "the trained model",
            "train again with a lower learning_rate, or save_dtype float32",
        )
        with staging(folder) as temporary:
            self._shell.save_pretrained(temporary, state_dict=weights)
            processor.save_pretrained(temporary)
            (temporary / "train.yaml").write_text(to_yaml(config), encoding="utf-8")
            # safetensors makes files that only the owner can read
            shutil.copymode(temporary / "config.json", temporary / "model.safetensors")
        if "lora" in config.adaptation:
            with staging(folder / "adapter") as temporary:
                save_adapter(temporary, self._shell, state, lora, config.model, self._lora_start)
                shutil.copymode(temporary / "config.json", temporary / "adapter_model.safetensors")


def is_of_the_disk(error: OSError | SafetensorError) -> bool:
    """Whether a write failed; safetensors gives the system's reason in words alone."""
    if isinstance(error, OSError):
        return error.errno in _DISK_ERRORS
    return "I/O error" in str(error)
