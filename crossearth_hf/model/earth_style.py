"""Earth-Style Injection: Earth style bank, block masks, and what they do to images; tensors in, tensors out.

After CrossEarth (Gong et al., TPAMI 2026), whose training code is not public. Ours, where the paper is silent: every
image draws for itself whether it is styled, its style and its mask; masks have one block size; the networks run in
float32 whatever the training's precision.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from .style_networks import STYLE_SIZE, style_networks

STYLE_FILE = "earth_style.safetensors"

_INT8 = ".int8_scale"  # ending of the name under which a file keeps the scales of a weight stored as int8


@dataclass(frozen=True)
class StyleSettings:
    """How images are styled; the defaults were seen in the history of the original, no proof of what was published.

    Attributes:
        probability: Share of the images that are styled.
        alpha: Weight of the Earth style against the image's own: 0 re-renders an image in its own style, 1 takes the
            whole style from the bank.
        mask_ratio: Probability of a block of the mask to show the styled image; the others stay as they were.
        block_size: Side of a block in pixels.
        residual: What the style changes is added to the image: the rendering in its own style, which loses detail of a
            few pixels, is taken away from that in the new one. Twice the cost. Ours.
    """

    probability: float = 0.1
    alpha: float = 0.1
    mask_ratio: float = 0.7
    block_size: int = 64
    residual: bool = False

    def __post_init__(self) -> None:
        for name in ("probability", "alpha", "mask_ratio"):
            value, usual = getattr(self, name), getattr(StyleSettings, name)
            if not 0 <= value <= 1:
                raise ValueError(f"style {name} {value} is not a number from 0 to 1; choose one such as {usual}")
        if not isinstance(self.block_size, int | np.integer) or self.block_size < 1:
            raise ValueError(
                f"style block_size {self.block_size} is not a whole number of pixels above 0; choose one such as 64"
            )


@dataclass(frozen=True, eq=False)
class StyleDraw:
    """What chance decides for one image, a pure function of its seed: neither batch nor device change it.

    Attributes:
        fires: Whether the image is styled.
        noise: (100,) float32 of the standard normal distribution: where in the bank the style lies.
        keep: (H, W) bool, True where the image stays as it was.
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
        blocks = torch.from_numpy(rng.random((-(-height // size), -(-width // size))) > settings.mask_ratio)
        keep = blocks.repeat_interleave(size, 0).repeat_interleave(size, 1)[:height, :width]
        return cls(fires, noise, keep)


def image_seed(*numbers: int) -> int:
    """One well-mixed seed from several numbers >= 0, such as a run's seed and the index of an image."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


@dataclass(frozen=True, eq=False)
class StyleBank:
    """The styles of many images: mean and covariance of their embeddings, nothing of the images themselves.

    Attributes:
        mean: (100,) float32.
        covariance: (100, 100) float32, symmetric and positive semi-definite.
        count: Number of embeddings behind the two; 0 where unknown.
        sources: Where the images came from.
        architecture: The networks whose predictor embedded them, see `style_networks`.

    Raises:
        ValueError: wrong shapes, numbers that are not finite, an invalid covariance.
    """

    mean: Tensor
    covariance: Tensor
    count: int = 0
    sources: tuple[str, ...] = ()
    architecture: str = "mobile"

    def __post_init__(self) -> None:
        shapes = tuple(self.mean.shape), tuple(self.covariance.shape)
        if shapes != ((STYLE_SIZE,), (STYLE_SIZE, STYLE_SIZE)):
            raise ValueError(
                f"a style bank with mean {shapes[0]} and covariance {shapes[1]} does not fit; the shapes must be "
                f"({STYLE_SIZE},) and ({STYLE_SIZE}, {STYLE_SIZE}): compute it with `crossearth style-bank`"
            )
        if not (self.mean.isfinite().all() and self.covariance.isfinite().all()):
            raise ValueError(
                "a style bank holds numbers that are not finite; compute it anew with `crossearth style-bank`"
            )
        covariance = self.covariance.double()
        tolerance = 1e-5 * float(covariance.abs().max())
        if float((covariance - covariance.T).abs().max()) > tolerance:
            raise ValueError(
                "the covariance of a style bank is not symmetric; compute it anew with `crossearth style-bank`"
            )
        lowest = float(torch.linalg.eigvalsh(covariance).min())
        if lowest < -tolerance:
            raise ValueError(
                f"the covariance of a style bank has the eigenvalue {lowest:.3g}, so it is not positive semi-definite; "
                "compute it anew with `crossearth style-bank`"
            )

    @classmethod
    def from_embeddings(
        cls,
        embeddings: Tensor,
        sources: Sequence[str] = (),
        *,
        weights: Tensor | None = None,
        architecture: str = "mobile",
    ) -> "StyleBank":
        """The bank of (N, 100) embeddings, N >= 2, by default of the same weight; else with (N,) `weights` above 0."""
        if len(embeddings) < 2:
            raise ValueError(f"a style bank of {len(embeddings)} embeddings has no covariance; give at least 2")
        embeddings = embeddings.double().cpu()
        if weights is None:
            weights = torch.ones(len(embeddings))
        mean = weights.double() @ embeddings / weights.double().sum()
        covariance = embeddings.T.cov(aweights=weights.double())
        return cls(mean.float(), covariance.float(), len(embeddings), tuple(sources), architecture)

    @classmethod
    def from_file(cls, path: str | Path) -> "StyleBank":
        """Reads what `save` or `EarthStyle.save` wrote; `ValueError` for anything else."""
        tensors, metadata = _read(path)
        if not {"bank.mean", "bank.covariance"} <= tensors.keys():
            raise ValueError(f"{path} holds no style bank; compute one with `crossearth style-bank`")
        return cls(
            tensors["bank.mean"].float(),
            tensors["bank.covariance"].float(),
            int(metadata.get("bank_count", 0)),
            tuple(metadata.get("bank_sources", "").splitlines()),
            metadata.get("architecture", "mobile"),
        )

    def tensors(self) -> dict[str, Tensor]:
        """The arrays under the names that files use."""
        return {"bank.mean": self.mean, "bank.covariance": self.covariance}

    def metadata(self) -> dict[str, str]:
        """What files say of the bank beside its numbers."""
        sources = "\n".join(self.sources)
        return {"architecture": self.architecture, "bank_count": str(self.count), "bank_sources": sources}

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file of 41 kB; `ValueError` for a name without that ending."""
        _write(path, self.tensors(), self.metadata())

    def factor(self) -> Tensor:
        """(100, 100) U sqrt(S) of the covariance U S V', float32: it turns standard normal noise into styles.

        Every column's largest number is positive, so that a seed means the same style wherever it is drawn.
        """
        u, s, _ = torch.linalg.svd(self.covariance.double())
        signs = u.gather(0, u.abs().argmax(dim=0, keepdim=True)).sign()  # (1, 100)
        return (u * signs * s.sqrt()).float()


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

    def __init__(self, bank: StyleBank, provenance: dict[str, str] | None = None, architecture: str = "mobile") -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # numbers that a file replaces must not move anyone's random state
            self.predictor, self.transfer = style_networks(architecture)
        self.architecture, self.provenance = architecture, provenance or {}
        for name in ("mean", "covariance", "factor"):
            self.register_buffer(name, None, persistent=False)
        self._set_bank(bank)
        self.requires_grad_(False)
        # On a CPU a quarter faster; PyTorch's annotations do not know the argument.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def from_file(cls, path: str | Path | None = None, *, bank: str | Path | None = None) -> "EarthStyle":
        """Networks and bank from a file that `save` wrote.

        Args:
            path: By default the file that comes with the package.
            bank: A file of `crossearth style-bank` that replaces the bank.

        Raises:
            ValueError: no such file, or one that holds something else.
        """
        if path is None:
            path = Path(__file__).with_name(STYLE_FILE)
        tensors, metadata = _read(path)
        provenance: dict[str, str] = {name: metadata[name] for name in ("license", "origin") if name in metadata}
        architecture = metadata.get("architecture", "mobile")
        style = cls(StyleBank.from_file(path if bank is None else bank), provenance, architecture)
        state = {name: tensor for name, tensor in tensors.items() if not name.startswith("bank.")}
        try:
            style.load_state_dict(_unpacked(state))
        except RuntimeError as error:
            raise ValueError(
                f"{path} holds other networks than the style predictor and transfer of crossearth_hf"
            ) from error
        return style

    def save(self, path: str | Path) -> None:
        """Writes networks and bank as a safetensors file; weights that came as 8-bit numbers stay 8-bit numbers.

        Raises:
            ValueError: the name does not end in .safetensors.
        """
        tensors = {**_packed(self.state_dict()), **self.bank.tensors()}
        _write(path, tensors, {**self.provenance, **self.bank.metadata()})

    @property
    def bank(self) -> StyleBank:
        """The bank in use."""
        return StyleBank(self.mean.cpu(), self.covariance.cpu(), self._count, self._sources, self.architecture)

    def replace_bank(self, mean: Tensor, covariance: Tensor, *, count: int = 0, sources: Sequence[str] = ()) -> None:
        """Takes styles from another bank from now on; see `StyleBank` for shapes and errors."""
        self._set_bank(
            StyleBank(mean.float().cpu(), covariance.float().cpu(), count, tuple(sources), self.architecture)
        )

    def _set_bank(self, bank: StyleBank) -> None:
        if bank.architecture != self.architecture:
            raise ValueError(
                f"a style bank of the {bank.architecture} networks means nothing to the {self.architecture} ones; "
                "compute it anew with these"
            )
        device = next(self.transfer.parameters()).device
        self._count, self._sources = bank.count, bank.sources
        self.mean, self.covariance, self.factor = (t.to(device) for t in (bank.mean, bank.covariance, bank.factor()))

    def render(self, images: Tensor, noise: Tensor, alpha: float, residual: bool = False) -> Tensor:
        """Whole images under z = alpha * s + (1 - alpha) * P_s(image), with s = mean + U sqrt(S) noise; differentiable.

        Args:
            images: (B, 3, H, W) RGB in [0, 1].
            noise: (B, 100), standard normal.
            alpha: Weight of the bank's style, 0 to 1.
            residual: As in `StyleSettings`.

        Returns:
            (B, 3, H, W) in [0, 1].
        """
        earth = self.mean + noise.to(self.factor) @ self.factor.T  # (B, 100)
        own = self.predictor(images)
        new = torch.lerp(own, earth, alpha)
        if not residual:
            return self.transfer(images, new)
        rendered, plain = self.transfer(torch.cat([images, images]), torch.cat([new, own])).chunk(2)
        return (images + rendered - plain).clamp(0, 1)

    @torch.no_grad()
    def inject(self, images: Tensor, settings: StyleSettings, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Styles some of the images in blocks; the others are returned as they came and cost nothing.

        Args:
            images: (B, 3, H, W) RGB in [0, 1], not normalized, on the device of this module.
            settings: How.
            seeds: One number >= 0 per image (see `image_seed`): an image's draw depends on nothing else.

        Returns:
            (B, 3, H, W) in [0, 1] of the images' type, and (B,) bool: which images were styled.

        Raises:
            ValueError: other shapes, a number of seeds that does not fit, a block larger than the images.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images of shape {tuple(images.shape)} cannot be styled; give (B, 3, H, W) RGB in [0, 1]")
        if len(seeds) != len(images):
            raise ValueError(f"{len(seeds)} style seeds for {len(images)} images; give one for each")
        draws = [StyleDraw.from_seed(seed, settings, *images.shape[-2:]) for seed in seeds]
        styled = torch.tensor([draw.fires for draw in draws], dtype=torch.bool).to(images.device)
        rows = [i for i, draw in enumerate(draws) if draw.fires]
        if not rows:
            return images, styled
        clean = images[rows]  # (b, 3, H, W)
        with torch.autocast(images.device.type, enabled=False):
            noise = torch.stack([draws[i].noise for i in rows])
            rendered = self.render(clean.to(self.mean.dtype), noise, settings.alpha, settings.residual).to(images.dtype)
        keep = torch.stack([draws[i].keep for i in rows])[:, None].to(images.device)  # (b, 1, H, W)
        mixed = images.clone()
        mixed[rows] = torch.where(keep, clean, rendered)
        return mixed, styled


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    if not Path(path).is_file():
        raise ValueError(f"{path} does not exist or is not a file; give one that EarthStyle or StyleBank saved")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file ({error}); give one that crossearth_hf wrote") from error


def _write(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes a safetensors file through a temporary one: the old one may be mapped into memory, or a write may fail."""
    if Path(path).suffix.lower() != ".safetensors":
        raise ValueError(f"{path} must end in .safetensors, for that is what is written; choose another name")
    stage = Path(f"{path}.partial")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    stage.write_bytes(save(contiguous, {"format": "pt", **metadata}))
    stage.replace(path)


def _packed(state: dict[str, Any]) -> dict[str, Tensor]:
    """Weights that are 8-bit numbers times one scale per output channel, as such; the rest unchanged."""
    packed = {}
    for name, weight in state.items():
        packed[name] = weight
        if weight.ndim < 2:
            continue
        scale = weight.abs().flatten(1).amax(dim=1).div(127).view(-1, *[1] * (weight.ndim - 1))
        numbers = (weight / scale.clamp_min(1e-30)).round().to(torch.int8)
        if torch.equal(numbers * scale, weight):
            packed |= {name: numbers, name + _INT8: scale}
    return packed


def _unpacked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `_packed`, exact."""
    scales = {name: tensor for name, tensor in tensors.items() if name.endswith(_INT8)}
    weights = {name: tensor for name, tensor in tensors.items() if name not in scales}
    return {name: tensor * scales.get(name + _INT8, 1) for name, tensor in weights.items()}


__all__ = ["EarthStyle", "StyleBank", "StyleDraw", "StyleSettings", "image_seed"]
