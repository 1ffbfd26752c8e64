"""What the models are, what they learned from, and what they know: the first lines of the page."""

from html import escape

from ..inference.loading import BUNDLED_MODEL
from ..labels import label_set_of
from .settings import Model

LEARNED_FROM = (
    "Dubai",
    "Zanzibar",
    "Kampala",
    "Nairobi",
    "Banepa",
    "California",
)
"""Places whose labeled pictures the bundled model learned from, as its card names them."""

_BUNDLED = (
    "It learned from pictures of {places} and other places, and from drawn scenes; expect mistakes where the ground "
    "looks unfamiliar."
)
_OTHER = "Its model card says what it learned from.{pixels} Expect mistakes where the ground looks unfamiliar."


def about(name: str, model: Model) -> str:
    """Two paragraphs of HTML about a model: what it is, and what it learned from and knows."""
    network = model[0]
    *first, last = [
        class_name.replace("_", " ") for class_name in label_set_of(network.config).classes
    ]
    classes = escape(f"{', '.join(first)} and {last}" if first else last)
    millions = sum(weights.numel() for weights in network.parameters()) / 1e6
    what = (
        f"<b>{escape(name)}</b> is a neural network of {millions:.0f} million weights that finds {classes} in "
        "satellite, aerial and drone pictures."
    )
    if name == BUNDLED_MODEL.name:
        *places, end = LEARNED_FROM
        learned = _BUNDLED.format(places=f"{', '.join(places)}, {end}")
    else:
        meters = network.config.ground_sampling_distance
        pixels = ""
        if meters is not None:
            pixels = f" Its pictures had pixels of {meters:.3g} m."
        learned = _OTHER.format(pixels=pixels)
    return f"<p>{what}</p><p>{learned}</p>"
