"""Published checkpoints and pretrained ViTs -> folders for `from_pretrained`."""

from .backbones import Backbone, read_backbone
from .published import ConversionReport, convert, describe, from_published

__all__ = ["Backbone", "ConversionReport", "convert", "describe", "from_published", "read_backbone"]
