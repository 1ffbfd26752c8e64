"""The folder of the bundled model and of the cards' template: beside the package in a clone, inside it in a wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_IN_A_WHEEL = _PACKAGE / "hub_cards"

HUB_CARDS = _IN_A_WHEEL if _IN_A_WHEEL.is_dir() else _PACKAGE.parent / "hub_cards"
