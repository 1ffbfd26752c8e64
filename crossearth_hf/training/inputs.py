"""From a batch of crops to the arguments of a forward pass: seeds, and Earth-Style Injection where the batch is."""

from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..model.earth_style import EarthStyle, StyleSettings, image_seed
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from .config import TrainConfig
from .fourier_style import mix_amplitudes

POINTS_AND_MASKS, STYLE = 1, 2  # what a crop's seeds are for; 0 would repeat the seed of the crop itself


class InputMaker:
    """Makes the arguments that the network of an objective takes.

    Args:
        config: The run.
        processor: The image processor, whose mean and deviation the crops were normalized with.
        crop_size: Side of the crops in pixels.
        device: Where the batches are.

    Raises:
        InputError: a style block larger than the crops; a file that holds no styles.
    """

    def __init__(
        self, config: TrainConfig, processor: CrossEarthImageProcessor, crop_size: int, device: torch.device
    ) -> None:
        self.config = config
        self.mean, self.std = processor.image_mean, processor.image_std
        self.settings = StyleSettings(
            config.style_probability,
            config.style_alpha,
            config.style_mask_ratio,
            config.style_block_size,
            config.style_residual,
        )
        self.style = _load_style(config, crop_size)
        if self.style is not None:
            self.style.to(device)

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        """Arguments of the forward pass.

        Args:
            batch: "pixel_values" (B, C, H, W) normalized, "labels" (B, H, W), "valid" (B, H, W) bool, and "index" (B,):
                the crops' numbers.
        """
        objective, crops = self.config.objective, batch["index"].tolist()
        inputs: dict[str, Any] = {"pixel_values": batch["pixel_values"]}
        if self.config.needs_labels:
            inputs["labels"] = batch["labels"]
        inputs["seeds"] = torch.tensor([self._seed(crop, POINTS_AND_MASKS) for crop in crops])
        if self.style is not None or self.config.fourier_probability:
            seeds = [self._seed(crop, STYLE) for crop in crops]
            mixed, styled = self._styled(batch["pixel_values"], batch["valid"], seeds)
            inputs["pixel_values"] = mixed
            if objective == "multitask":
                inputs |= {"clean_pixel_values": batch["pixel_values"], "styled": styled}
        return inputs

    def _styled(self, pixel_values: Tensor, valid: Tensor, seeds: list[int]) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) normalized images with styles, and (B,) which have one; the others do not change at all.

        Nor do pixels without data, which the style networks see as the mean color (ours).
        """
        mean, std = (pixel_values.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        pixels = mixed = (pixel_values * std + mean).clamp(0, 1)
        if self.style is not None:
            mixed, _ = self.style.inject(mixed, self.settings, seeds)
        if self.config.fourier_probability:
            mixed = mix_amplitudes(mixed, self.config.fourier_probability, seeds)
        changed = (mixed != pixels) & valid[:, None]
        styled = changed.flatten(1).any(dim=1)
        replaced = styled[:, None, None, None] & valid[:, None]
        return torch.where(replaced, (mixed - mean) / std, pixel_values), styled

    def _seed(self, crop: int, purpose: int) -> int:
        """A seed of 63 bits that only the run's seed, the crop's number and the purpose decide."""
        return image_seed(self.config.seed, crop, purpose) >> 1


def _load_style(config: TrainConfig, crop_size: int) -> EarthStyle | None:
    """The style networks with the bank that `config` names; `None` where nothing is styled."""
    if not config.style_probability:
        return None
    if config.style_block_size > crop_size:
        raise InputError(
            f"style_block_size is {config.style_block_size}; it must not exceed the crop's {crop_size} pixels"
        )
    try:
        return EarthStyle.from_file(config.style_networks, bank=config.style_bank)
    except ValueError as error:
        raise InputError(f"style_networks, style_bank: {error}") from error
