"""Which module reads which data set: the one table."""

from ..pairs import Reader
from . import casid, deepglobe, loveda, massachusetts, potsdam, rescuenet, spacenet, vaihingen, whu

READERS: dict[str, Reader] = {
    "potsdam": potsdam,
    "vaihingen": vaihingen,
    "loveda": loveda,
    "deepglobe-roads": deepglobe,
    "massachusetts-roads": massachusetts,
    "rescuenet": rescuenet,
    "whu-building": whu,
    "casid": casid,
    "spacenet-roads": spacenet,
    "spacenet-buildings": spacenet,
}
"""Keys are those of `source_datasets.DATASETS`."""
