"""Turns a batch of crops into the arguments of a forward pass: adds seeds and Earth styles on the batch's device."""

from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..model.configuration_crossearth import CrossEarthConfig
from ..model.earth_style import EarthStyle, StyleSettings, image_seed
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from .augmentation import CropSettings
from .config import TrainConfig
from .fourier_style import mix_amplitudes

POINTS_AND_MASKS, STYLE = (
    1,
    2,
)  # purposes of a crop's seeds; 0 would repeat the seed of the crop itself


def crop_settings(
    config: TrainConfig,
    processor: CrossEarthImageProcessor,
    model_config: CrossEarthConfig,
    size: int,
) -> CropSettings:
    """How the crops of a run are cut, `size` pixels a side."""
    return CropSettings(
        size=size,
        scale_range=(config.scale_range[0], config.scale_range[1]),
        relative_to_crop=config.relative_to_crop,
        ground_sampling_distance=model_config.ground_sampling_distance,
        rotate=config.rotate,
        rotation_degrees=config.rotation_degrees,
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
        rescale_factor=processor.rescale_factor,
    )


class InputMaker:
    """Makes the arguments of an objective's network.

    Args:
        config: The run.
        processor: The image processor with the mean and deviation of the crops' normalization.
        crop_size: Side of the crops in pixels.
        device: Device of the batches.

    Raises:
        InputError: A style block is larger than the crops, or a file holds no styles.
    """

    def __init__(
        self,
        config: TrainConfig,
        processor: CrossEarthImageProcessor,
        crop_size: int,
        device: torch.device,
    ) -> None:
        self.config = config
        self.mean, self.std = processor.image_mean, processor.image_std
        self.settings = StyleSettings(
            config.style_probability,
            config.style_alpha,
            config.style_mask_ratio,
            config.style_block_size,
            config.style_residual,
            config.style_low_pass,
        )
        self.style = _load_style(config, crop_size)
        if self.style is not None:
            self.style.to(device)

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        """Arguments of the forward pass.

        Args:
            batch: "pixel_values" (B, C, H, W) normalized, "labels" (B, H, W), "valid" (B, H, W) bool, and "index" (B,):
                the crops' numbers; "unlabeled_classes" (B, K) bool with partly labeled images.
        """
        clean, crops = batch["pixel_values"], batch["index"].tolist()
        inputs: dict[str, Any] = {"pixel_values": clean}
        if self.config.needs_labels:
            inputs["labels"] = batch["labels"]
            if "unlabeled_classes" in batch:
                inputs["unlabeled_classes"] = batch["unlabeled_classes"]
        inputs["seeds"] = torch.tensor([self._seed(crop, POINTS_AND_MASKS) for crop in crops])
        if self.style is not None or self.config.fourier_probability:
            seeds = [self._seed(crop, STYLE) for crop in crops]
            inputs["pixel_values"], styled = self._styled(clean, batch["valid"], seeds)
            if self.config.objective == "multitask":
                inputs |= {"clean_pixel_values": clean, "styled": styled}
        return inputs

    def _styled(
        self, pixel_values: Tensor, valid: Tensor, seeds: list[int]
    ) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) normalized images with styles, and (B,) whether an image has one; the others stay the same.

        Pixels without data also stay the same; the style networks see them as the mean color (our choice).
        """
        mean = pixel_values.new_tensor(self.mean)[:, None, None]
        std = pixel_values.new_tensor(self.std)[:, None, None]
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
        """A seed of 63 bits; it depends only on the run's seed, the crop's number and the purpose."""
        return image_seed(self.config.seed, crop, purpose) >> 1


def _load_style(config: TrainConfig, crop_size: int) -> EarthStyle | None:
    """The style networks with the bank that `config` names; None for a run without styles."""
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
