"""The message if nothing names the classes; it lists what the data hold."""

from collections.abc import Sequence

from ..labels import IGNORE_INDEX
from ..raster.scene import Reading
from .hub_stream import HubStream
from .mask_values import ANY_IDS, named_flags
from .sources import load_source, polygon_class_names


def ask_for_classes(sources: Sequence[str], reading: Reading, silent: str) -> str:
    """Asks for the classes, and lists the values of masks or the classes of polygons.

    Args:
        sources: Data sources with labels.
        reading: Settings for reading the images.
        silent: The places without names of classes, such as "neither data nor model".
    """
    names = sorted({name for text in sources for name in polygon_class_names(text)})
    if names:
        return (
            f"{silent} give the classes an order, and the polygons name {', '.join(names)}: add --classes "
            f"{','.join(names)} in the order of your own, or --classes classes.yaml with names and colors"
        )
    found = _found_values(sources, reading)
    shown = ", ".join(map(str, sorted(found - {IGNORE_INDEX})))
    if IGNORE_INDEX in found:
        shown += " and 255"
    return (
        f"{silent} name the classes; the masks hold the values {shown}: add {named_flags(found)} in your own words, or "
        "--classes classes.yaml with names and colors"
    )


def _found_values(sources: Sequence[str], reading: Reading) -> set[int]:
    """All values of the masks of data sources, except streams."""
    found: set[int] = set()
    for text in sources:
        source = load_source(text, ANY_IDS.label_set, reading=reading)
        if isinstance(source, HubStream):
            continue
        for image in source:
            found |= set(image.label_counts() or ())
    return found
