"""What is told of fill that the images of a source do not declare."""

from collections import Counter
from collections.abc import Sequence

from ..raster.fill import Fill
from .hub import HubStream
from .labeled_images import LabeledImage

SAMPLED, STREAMED = 64, 16
"""Images of a source, and records of a stream, that are looked at. Our choice."""
SHOWN = 3
"""Values that a line names as found."""


def fill_notices(what: str, source: Sequence[LabeledImage] | HubStream) -> list[str]:
    """A line on fill that is taken as no data, and one on values that stay data; each only where there are some.

    Args:
        what: What the lines call the source.
        source: Its images; of many, some are looked at, spread evenly.

    Raises:
        InputError: an image cannot be decoded.
    """
    if isinstance(source, HubStream):
        found = source.first_fills(STREAMED)
    else:
        step = max(1, -(-len(source) // SAMPLED))
        found = [image.undeclared_fills() for image in source[::step]]
    left_out = [[fill for fill in fills if fill.certain] for fills in found]
    kept = [[fill for fill in fills if not fill.certain] for fills in found]
    lines = []
    if any(left_out):
        lines.append(f"{what}: {_held(left_out)}, and taken as no data; --nodata none keeps it as data")
    if any(kept):
        values = ",".join(_values(left_out) + _values(kept))  # naming some ends the search for the others
        lines.append(f"{what}: {_held(kept)}, and taken as data; --nodata={values} leaves it out")
    return lines


def _held(fills_of_images: Sequence[Sequence[Fill]]) -> str:
    """Which values are held by how many images, and by how many of their pixels at most."""
    images = sum(bool(fills) for fills in fills_of_images)
    share = max(fill.share for fills in fills_of_images for fill in fills)
    values = " or ".join(_values(fills_of_images)[:SHOWN])
    return f"{values} is held by {images} of {len(fills_of_images)} images, in up to {share:.1%} of their pixels"


def _values(fills_of_images: Sequence[Sequence[Fill]]) -> list[str]:
    """All values as text, those first that most images hold."""
    counts = Counter(value for fills in fills_of_images for value in {fill.value for fill in fills})
    return [f"{value:.9g}" for value, _ in counts.most_common()]
