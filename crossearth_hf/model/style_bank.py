"""The Earth style bank: the distribution of the styles of many images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .style_files import read_tensors, write_tensors
from .style_networks import STYLE_SIZE


@dataclass(frozen=True, eq=False)
class StyleBank:
    """The styles of many images: mean and covariance of their embeddings, without the images themselves.

    Attributes:
        mean: (100,) float32.
        covariance: (100, 100) float32, symmetric and positive semi-definite.
        count: Number of embeddings; 0 if unknown.
        sources: Origins of the images.
        architecture: The networks of the embeddings, see `style_networks`.

    Raises:
        ValueError: A shape is wrong, a number is not finite, or the covariance is invalid.
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
        """The bank of (N, 100) embeddings, N >= 2, with (N,) `weights` above 0 or with equal weights."""
        if len(embeddings) < 2:
            raise ValueError(
                f"a style bank of {len(embeddings)} embeddings has no covariance; give at least 2"
            )
        embeddings = embeddings.double().cpu()
        if weights is None:
            weights = torch.ones(len(embeddings))
        mean = weights.double() @ embeddings / weights.double().sum()
        covariance = embeddings.T.cov(aweights=weights.double())
        return cls(mean.float(), covariance.float(), len(embeddings), tuple(sources), architecture)

    @classmethod
    def from_file(cls, path: str | Path) -> "StyleBank":
        """Reads a file of `save` or `EarthStyle.save`; raises `ValueError` for other files."""
        tensors, metadata = read_tensors(path)
        if not {"bank.mean", "bank.covariance"} <= tensors.keys():
            raise ValueError(
                f"{path} holds no style bank; compute one with `crossearth style-bank`"
            )
        return cls(
            tensors["bank.mean"].float(),
            tensors["bank.covariance"].float(),
            int(metadata.get("bank_count", 0)),
            tuple(metadata.get("bank_sources", "").splitlines()),
            metadata.get("architecture", "mobile"),
        )

    def tensors(self) -> dict[str, Tensor]:
        """The arrays under their names in files."""
        return {"bank.mean": self.mean, "bank.covariance": self.covariance}

    def metadata(self) -> dict[str, str]:
        """The metadata of the bank in files."""
        sources = "\n".join(self.sources)
        return {
            "architecture": self.architecture,
            "bank_count": str(self.count),
            "bank_sources": sources,
        }

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file of 41 kB; raises `ValueError` for a name without this ending."""
        write_tensors(path, self.tensors(), self.metadata())

    def factor(self) -> Tensor:
        """(100, 100) U sqrt(S) of the covariance U S V', float32: it turns standard normal noise into styles.

        The largest number of every column is positive, so a seed gives the same style on every machine.
        """
        u, s, _ = torch.linalg.svd(self.covariance.double())
        signs = u.gather(0, u.abs().argmax(dim=0, keepdim=True)).sign()  # (1, 100)
        return (u * signs * s.sqrt()).float()


__all__ = ["StyleBank"]
