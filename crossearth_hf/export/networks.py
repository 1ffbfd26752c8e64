"""What an exported file computes: from pixels to scores of the classes."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..inference.shares import class_shares
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..model.semantic_scores import semantic_scores

INPUT = "pixel_values"
"""Name of the input."""

CLASSES, MASKS = "class_queries_logits", "masks_queries_logits"
"""Names of the outputs of `LogitsNetwork`."""

PATCH = 16
"""Heights and widths are multiples of this number of pixels."""


class Form(NamedTuple):
    """What goes into a file and what comes out.

    Attributes:
        input, output: Names, ranges and units in a sentence each.
        sides: Height and width of images that come one at a time; None where batch, height and width are free.
        output_sides: Names of the free sides of the scores.
        outputs: Names of what comes out.
    """

    input: str
    output: str
    sides: tuple[int, int] | None = None
    output_sides: tuple[str, str] = ("height", "width")
    outputs: tuple[str, ...] = ("scores",)


class Traceable(nn.Module):
    """A network that becomes a graph."""

    @property
    def form(self) -> Form:
        """What goes into its file and what comes out."""
        raise NotImplementedError


class ScoringNetwork(Traceable):
    """Normalized images (B, C, H, W) to class scores (B, K, H/4, W/4), or (B, K, H, W) at full resolution.

    The scores are those that maps are made of, `semantic_scores`: the classes' factors are in them.
    """

    def __init__(self, model: CrossEarthForSemanticSegmentation, *, full_resolution: bool) -> None:
        super().__init__()
        self.model, self.full_resolution = model, full_resolution

    @property
    def form(self) -> Form:
        """What the file's own description says."""
        sides, resolution = ("height", "width"), "as high and wide as the images"
        if not self.full_resolution:
            sides = ("height/4", "width/4")
            resolution = "a quarter as high and wide as the images, bilinear interpolation brings them to full size"
        least = self.model.config.least_side
        return Form(
            input="pixel_values (batch, channels, height, width) float32: (pixels in 0..255 * rescale_factor - "
            f"image_mean) / image_std by channel; height and width are multiples of {PATCH}, at least {least}",
            output="scores (batch, classes, ...) float32: sums over the queries, neither log-odds nor probabilities; "
            f"the largest names the class; {resolution}",
            output_sides=sides,
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Scores of a batch."""
        outputs = self.model(pixel_values, return_dict=True)
        masks = outputs.masks_queries_logits
        if self.full_resolution:
            height, width = pixel_values.shape[-2:]
        else:
            height, width = masks.shape[-2:]
        return semantic_scores(outputs.class_queries_logits, masks, (height, width))


class LogitsNetwork(Traceable):
    """Normalized images (B, C, H, W) to logits of the queries: masks (B, Q, H/4, W/4) and classes (B, Q, K+1)."""

    def __init__(self, model: CrossEarthForSemanticSegmentation) -> None:
        super().__init__()
        self.model = model

    @property
    def form(self) -> Form:
        """Input and output as the model has them."""
        sides = ("height/4", "width/4")
        return Form("normalized images", "logits of the queries", None, sides, (MASKS, CLASSES))

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of a batch."""
        outputs = self.model(pixel_values, return_dict=True)
        return outputs.masks_queries_logits, outputs.class_queries_logits


class TileNetwork(Traceable):
    """Square tiles (1, C, S, S) of values in 0..1 to shares (1, K, S, S) that sum to 1, as QGIS's Deepness wants.

    Shares are those of `crossearth predict --probabilities`.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, model: CrossEarthForSemanticSegmentation, processor: CrossEarthImageProcessor
    ) -> None:
        super().__init__()
        self.network = ScoringNetwork(model, full_resolution=True)
        self.side = int(model.config.image_size)
        factor = 255 * processor.rescale_factor
        self.register_buffer("mean", torch.tensor(processor.image_mean).view(-1, 1, 1) / factor)
        self.register_buffer("deviation", torch.tensor(processor.image_std).view(-1, 1, 1) / factor)

    @property
    def form(self) -> Form:
        """What the file's own description says."""
        return Form(
            input="pixel_values (1, channels, side, side) float32: pixels / 255; the file normalizes them itself",
            output="scores (1, classes, side, side) float32: the share of each class in all scores",
            sides=(self.side, self.side),
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Shares of a tile."""
        scores = self.network((pixel_values - self.mean) / self.deviation)
        return class_shares(scores[0], self.network.model.config.confidence_temperature)[None]
