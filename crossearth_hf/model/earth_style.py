"""Earth-Style Injection for tensors: the Earth style bank, block masks, and styled images.

It follows CrossEarth (Gong et al., TPAMI 2026), whose training code is not public. Our choices where the paper is
silent: each image is styled independently, with its own style and mask; masks have one block size; the networks run in
float32 in every precision of training.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .style_bank import StyleBank
from .style_files import packed, read_tensors, unpacked, write_tensors
from .style_networks import STYLE_SIZE, style_networks

STYLE_FILE = "earth_style.safetensors"

MOST_BLUR = 64
"""Pixels; our choice: a wider Gaussian leaves only the mean of a crop's change."""


@dataclass(frozen=True)
class StyleSettings:
    """Settings of styled images; the defaults come from the history of the original code, not from the paper.

    Attributes:
        probability: Share of the images that are styled.
        alpha: Weight of the Earth style against the image's own: 0 re-renders an image in its own style, 1 takes the
            whole style from the bank.
        mask_ratio: Probability of a block to show the styled image; other blocks do not change.
        block_size: Side of a block in pixels.
        residual: Whether only the change of style is added to the image: the new rendering minus the rendering in the
            image's own style, which loses detail of a few pixels. Twice the cost. Our choice.
        low_pass: Standard deviation in pixels of a Gaussian that smooths the change of the image: colors change and
            detail stays; 0 for the whole change. Our choice.
    """

    probability: float = 0.1
    alpha: float = 0.1
    mask_ratio: float = 0.7
    block_size: int = 64
    residual: bool = False
    low_pass: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.low_pass <= MOST_BLUR:
            raise ValueError(
                f"style low_pass {self.low_pass} is not a number from 0 to {MOST_BLUR} pixels; 4 keeps detail"
            )
        for name in ("probability", "alpha", "mask_ratio"):
            value, usual = getattr(self, name), getattr(StyleSettings, name)
            if not 0 <= value <= 1:
                raise ValueError(
                    f"style {name} {value} is not a number from 0 to 1; choose one such as {usual}"
                )
        if not isinstance(self.block_size, int | np.integer) or self.block_size < 1:
            raise ValueError(
                f"style block_size {self.block_size} is not a whole number of pixels above 0; choose one such as 64"
            )


@dataclass(frozen=True, eq=False)
class StyleDraw:
    """The random choices for one image; they depend only on its seed, not on batch or device.

    Attributes:
        fires: Whether the image is styled.
        noise: (100,) float32 of the standard normal distribution: the position of the style in the bank.
        keep: (H, W) bool, True where the image does not change.
    """

    fires: bool
    noise: Tensor
    keep: Tensor

    @classmethod
    def from_seed(cls, seed: int, settings: StyleSettings, height: int, width: int) -> "StyleDraw":
        """Draws for an image of `height` x `width` pixels. Raises `ValueError` for a block larger than the image."""
        size = settings.block_size
        if size > min(height, width):
            raise ValueError(
                f"style block_size {size} is larger than an image of {height} x {width} pixels; "
                f"choose at most {min(height, width)} or give larger images"
            )
        rng = np.random.default_rng(seed)
        fires = bool(rng.random() < settings.probability)
        noise = torch.from_numpy(rng.standard_normal(STYLE_SIZE, dtype=np.float32))
        blocks = torch.from_numpy(
            rng.random((-(-height // size), -(-width // size))) > settings.mask_ratio
        )
        keep = blocks.repeat_interleave(size, 0).repeat_interleave(size, 1)[:height, :width]
        return cls(fires, noise, keep)


def image_seed(*numbers: int) -> int:
    """One well-mixed seed from several numbers >= 0, such as a run's seed and the index of an image."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


class EarthStyle(nn.Module):
    """Both networks and the Earth style bank, frozen.

    Attributes:
        predictor: P_s, images (B, 3, H, W) to styles (B, 100).
        transfer: P_t, images and styles to images.
        provenance: License and origin of the networks, as their file states them.
        architecture: "mobile" or "original", see `style_networks`.
    """

    mean: Tensor
    covariance: Tensor
    factor: Tensor

    def __init__(
        self,
        bank: StyleBank,
        provenance: dict[str, str] | None = None,
        architecture: str = "mobile",
    ) -> None:
        super().__init__()
        # initial weights, which a file replaces, leave the global state alone
        with torch.random.fork_rng(devices=[]):
            self.predictor, self.transfer = style_networks(architecture)
        self.architecture, self.provenance = architecture, provenance or {}
        for name in ("mean", "covariance", "factor"):
            self.register_buffer(name, None, persistent=False)
        self._set_bank(bank)
        self.requires_grad_(False)
        # On a CPU a quarter faster; PyTorch's annotations do not know the argument.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def from_file(
        cls, path: str | Path | None = None, *, bank: str | Path | None = None
    ) -> "EarthStyle":
        """Reads networks and bank from a file of `save`.

        Args:
            path: By default the file in the package.
            bank: A file of `crossearth style-bank` that replaces the bank.

        Raises:
            ValueError: The file does not exist or holds something else.
        """
        if path is None:
            path = Path(__file__).with_name(STYLE_FILE)
        if bank is None:
            bank = path
        tensors, metadata = read_tensors(path)
        provenance: dict[str, str] = {
            name: metadata[name] for name in ("license", "origin") if name in metadata
        }
        style = cls(StyleBank.from_file(bank), provenance, metadata.get("architecture", "mobile"))
        state = {name: tensor for name, tensor in tensors.items() if not name.startswith("bank.")}
        try:
            style.load_state_dict(unpacked(state))
        except RuntimeError as error:
            raise ValueError(
                f"{path} holds other networks than the style predictor and transfer of crossearth_hf"
            ) from error
        return style

    def save(self, path: str | Path) -> None:
        """Writes networks and bank as a safetensors file; 8-bit weights stay 8-bit.

        Raises:
            ValueError: The name does not end in .safetensors.
        """
        tensors = {**packed(self.state_dict()), **self.bank.tensors()}
        write_tensors(path, tensors, {**self.provenance, **self.bank.metadata()})

    @property
    def bank(self) -> StyleBank:
        """The bank in use."""
        return StyleBank(
            self.mean.cpu(), self.covariance.cpu(), self._count, self._sources, self.architecture
        )

    def replace_bank(
        self, mean: Tensor, covariance: Tensor, *, count: int = 0, sources: Sequence[str] = ()
    ) -> None:
        """Replaces the bank; see `StyleBank` for shapes and errors."""
        self._set_bank(
            StyleBank(
                mean.float().cpu(),
                covariance.float().cpu(),
                count,
                tuple(sources),
                self.architecture,
            )
        )

    def _set_bank(self, bank: StyleBank) -> None:
        if bank.architecture != self.architecture:
            raise ValueError(
                f"a style bank of the {bank.architecture} networks means nothing to the {self.architecture} ones; "
                "compute it anew with these"
            )
        device = next(self.transfer.parameters()).device
        self._count, self._sources = bank.count, bank.sources
        self.mean, self.covariance, self.factor = (
            t.to(device) for t in (bank.mean, bank.covariance, bank.factor())
        )

    def render(
        self,
        images: Tensor,
        noise: Tensor,
        alpha: float,
        residual: bool = False,
        low_pass: float = 0.0,
    ) -> Tensor:
        """Whole images in the style alpha * s + (1 - alpha) * P_s(image), s = mean + U sqrt(S) noise; differentiable.

        Args:
            images: (B, 3, H, W) RGB in [0, 1].
            noise: (B, 100), standard normal.
            alpha: Weight of the bank's style, 0 to 1.
            residual, low_pass: As in `StyleSettings`.

        Returns:
            (B, 3, H, W) in [0, 1].
        """
        earth = self.mean + noise.to(self.factor) @ self.factor.T  # (B, 100)
        own = self.predictor(images)
        new = torch.lerp(own, earth, alpha)
        if residual:
            rendered, plain = self.transfer(
                torch.cat([images, images]), torch.cat([new, own])
            ).chunk(2)
        else:
            rendered, plain = self.transfer(images, new), images
            if not low_pass:
                return rendered
        change = rendered - plain
        if low_pass:
            change = blurred(change, low_pass)
        return (images + change).clamp(0, 1)

    @torch.no_grad()
    def inject(
        self, images: Tensor, settings: StyleSettings, seeds: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Styles some of the images in blocks; the others do not change and cost nothing.

        Args:
            images: (B, 3, H, W) RGB in [0, 1], not normalized, on the device of this module.
            settings: Settings of the styles.
            seeds: One number >= 0 per image (see `image_seed`), on which alone the choices for the image depend.

        Returns:
            (B, 3, H, W) in [0, 1] of the images' type, and (B,) bool: which images were styled.

        Raises:
            ValueError: A shape or the number of seeds is wrong, or a block is larger than the images.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"images of shape {tuple(images.shape)} cannot be styled; give (B, 3, H, W) RGB in [0, 1]"
            )
        if len(seeds) != len(images):
            raise ValueError(
                f"{len(seeds)} style seeds for {len(images)} images; give one for each"
            )
        draws = [StyleDraw.from_seed(seed, settings, *images.shape[-2:]) for seed in seeds]
        styled = torch.tensor([draw.fires for draw in draws], dtype=torch.bool).to(images.device)
        rows = [i for i, draw in enumerate(draws) if draw.fires]
        if not rows:
            return images, styled
        clean = images[rows]  # (b, 3, H, W)
        with torch.autocast(images.device.type, enabled=False):
            noise = torch.stack([draws[i].noise for i in rows])
            images_in = clean.to(self.mean.dtype)
            rendered = self.render(
                images_in, noise, settings.alpha, settings.residual, settings.low_pass
            )
            rendered = rendered.to(images.dtype)
        keep = torch.stack([draws[i].keep for i in rows])[:, None].to(images.device)  # (b, 1, H, W)
        mixed = images.clone()
        mixed[rows] = torch.where(keep, clean, rendered)
        return mixed, styled


def blurred(images: Tensor, deviation: float) -> Tensor:
    """(B, C, H, W) images through a Gaussian of `deviation` pixels, cut at three deviations; borders are repeated."""
    radius = math.ceil(3 * deviation)
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    weights = (-0.5 * (offsets / deviation) ** 2).exp()
    weights = weights / weights.sum()
    channels = images.shape[1]
    for kernel, padding in (
        (weights.view(1, 1, 1, -1), (radius, radius, 0, 0)),
        (weights.view(1, 1, -1, 1), (0, 0, radius, radius)),
    ):
        padded = F.pad(images, padding, mode="replicate")
        images = F.conv2d(padded, kernel.expand(channels, 1, -1, -1), groups=channels)
    return images


__all__ = ["EarthStyle", "StyleBank", "StyleDraw", "StyleSettings", "image_seed"]
