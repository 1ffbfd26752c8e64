"""Lines for a person about undeclared fill in the images of a data source."""

from collections import Counter
from collections.abc import Sequence

from ..raster.fill import Fill
from .hub_stream import HubStream
from .labeled_images import LabeledImage

SAMPLED, STREAMED = 64, 16
"""Number of inspected images of a data source, and of inspected records of a stream. Our choice."""
SHOWN = 3
"""Number of values that a line names."""


def fill_notices(what: str, source: Sequence[LabeledImage] | HubStream) -> list[str]:
    """A line about fill that counts as no data, and a line about values that stay data; each only if there are any.

    Args:
        what: Name of the data source in the lines.
        source: Its images; of many images, an even sample is inspected.

    Raises:
        InputError: An image cannot be decoded.
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
        lines.append(
            f"{what}: {_held(left_out)}, and taken as no data; --nodata none keeps it as data"
        )
    if any(kept):
        # explicit values end the search for others
        values = ",".join(_values(left_out) + _values(kept))
        lines.append(f"{what}: {_held(kept)}, and taken as data; --nodata={values} leaves it out")
    return lines


def _held(fills_of_images: Sequence[Sequence[Fill]]) -> str:
    """The values, the number of images that hold them, and the largest share of an image's pixels."""
    images = sum(bool(fills) for fills in fills_of_images)
    share = max(fill.share for fills in fills_of_images for fill in fills)
    values = " or ".join(_values(fills_of_images)[:SHOWN])
    return f"{values} is held by {images} of {len(fills_of_images)} images, in up to {share:.1%} of their pixels"


def _values(fills_of_images: Sequence[Sequence[Fill]]) -> list[str]:
    """All values as text, the most frequent first."""
    counts = Counter(value for fills in fills_of_images for value in {fill.value for fill in fills})
    return [f"{value:.9g}" for value, _ in counts.most_common()]
