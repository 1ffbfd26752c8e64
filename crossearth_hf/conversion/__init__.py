"""Published checkpoints -> folders for `from_pretrained`."""

from .published import ConversionReport, convert, describe, from_published

__all__ = ["ConversionReport", "convert", "describe", "from_published"]
