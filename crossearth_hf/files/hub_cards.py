"""The folder of the bundled model and of the cards' template: beside the package in a clone, inside it in a wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]

HUB_CARDS = _PACKAGE / "hub_cards"
if not HUB_CARDS.is_dir():
    HUB_CARDS = _PACKAGE.parent / "hub_cards"
