"""What an exported file computes: the model's network, and what comes before and after it."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..inference.shares import class_shares
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..model.semantic_scores import semantic_scores

INPUT = "pixel_values"
"""Name of the input."""

SCORES = "scores"
"""Name of the output of a file."""

CLASSES, MASKS = "class_queries_logits", "masks_queries_logits"
"""Names of the outputs of `LogitsNetwork`."""

PATCH = 16
"""Heights and widths are multiples of this number of pixels."""

_MASK_PIXELS = 4  # of the image, along a side of a pixel of a mask


class LogitsNetwork(nn.Module):
    """Normalized images (B, C, H, W) to logits of the queries: masks (B, Q, H/4, W/4) and classes (B, Q, K+1)."""

    def __init__(self, model: CrossEarthForSemanticSegmentation) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of a batch."""
        outputs = self.model(pixel_values, return_dict=True)
        return outputs.masks_queries_logits, outputs.class_queries_logits


class Normalization(nn.Module):
    """Images of values in 0..1 to normalized ones, (B, C, H, W) each."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, processor: CrossEarthImageProcessor) -> None:
        super().__init__()
        factor = 255 * processor.rescale_factor
        self.register_buffer("mean", torch.tensor(processor.image_mean).view(-1, 1, 1) / factor)
        self.register_buffer("deviation", torch.tensor(processor.image_std).view(-1, 1, 1) / factor)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Normalized images."""
        return (pixel_values - self.mean) / self.deviation


class Scores(nn.Module):
    """Logits of the queries to class scores (B, K, H/4, W/4), or (B, K, H, W) at full resolution.

    The scores are those that maps are made of, `semantic_scores`.
    """

    def __init__(self, *, full_resolution: bool) -> None:
        super().__init__()
        self.scale = _MASK_PIXELS if full_resolution else 1

    def forward(self, masks: Tensor, classes: Tensor) -> Tensor:
        """Scores of a batch."""
        height, width = masks.shape[-2:]
        return semantic_scores(classes, masks, (height * self.scale, width * self.scale))


class Shares(nn.Module):
    """Logits of the queries to shares (B, K, H, W) that sum to 1, those of `crossearth predict --probabilities`."""

    def __init__(self, temperature: float | None) -> None:
        super().__init__()
        self.scores, self.temperature = Scores(full_resolution=True), temperature

    def forward(self, masks: Tensor, classes: Tensor) -> Tensor:
        """Shares of a batch."""
        scores = self.scores(masks, classes).transpose(0, 1)  # classes first
        return class_shares(scores, self.temperature).transpose(0, 1)


class Form(NamedTuple):
    """What goes into a file and what comes out.

    Attributes:
        input, output: Names, ranges and units in a sentence each.
        before: From the file's input to the network's; None where they are the same.
        after: From the logits of the queries to the file's output.
        side: Of square images that come one at a time; None where batch, height and width are free.
        output_sides: Names of the free sides of the scores.
    """

    input: str
    output: str
    before: Normalization | None
    after: Scores | Shares
    side: int | None = None
    output_sides: tuple[str, str] = ("height", "width")


def scores_form(model: CrossEarthForSemanticSegmentation, *, full_resolution: bool) -> Form:
    """Normalized images in, scores out; the classes' factors are in them."""
    if full_resolution:
        sides, resolution = ("height", "width"), "as high and wide as the images"
    else:
        sides = ("height/4", "width/4")
        resolution = "a quarter as high and wide as the images, bilinear interpolation brings them to full size"
    return Form(
        input=f"{INPUT} (batch, channels, height, width) float32: (pixels in 0..255 * rescale_factor - image_mean) / "
        f"image_std by channel; height and width are multiples of {PATCH}, at least {model.config.least_side}",
        output=f"{SCORES} (batch, classes, ...) float32: sums over the queries, neither log-odds nor probabilities; "
        f"the largest names the class; {resolution}",
        before=None,
        after=Scores(full_resolution=full_resolution),
        output_sides=sides,
    )


def tile_form(
    model: CrossEarthForSemanticSegmentation, processor: CrossEarthImageProcessor
) -> Form:
    """Square tiles of values in 0..1 in, shares of the classes out, as QGIS's Deepness wants."""
    return Form(
        input=f"{INPUT} (1, channels, side, side) float32: pixels / 255; the file normalizes them itself",
        output=f"{SCORES} (1, classes, side, side) float32: the share of each class in all scores",
        before=Normalization(processor),
        after=Shares(model.config.confidence_temperature),
        side=int(model.config.image_size),
    )
