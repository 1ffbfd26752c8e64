"""WHU Building (Ji et al. 2019): aerial tiles at 0.3 m and satellite tiles (II, East Asia) at 0.45 m, 512 x 512 pixels.

Both archives hold `PART/image/N.tif` beside `PART/label/N.tif`, building 255. The benchmark tests on the aerial part
`val`, as its count of 1036 shows, and counts the satellite's tiles with few or no buildings (`train_no`, `test_no`).
The layout is what users of the archives report, not a statement of the authors: `--path` names other places.

CrossEarth's authors publish the tiles anew: aerial `{train,test}/image` with `label2`, satellite `{train_all,test_all}`
with `image` and `label`, building 1.
"""

from collections.abc import Mapping

from ...domains import Domain
from ..archives import RawFolder
from ..pairs import DomainSource, RawPair, found_pairs
from ..processed import id_source
from ..survey import binary_source

PATHS: Mapping[str, str] = {
    "whu_aerial": "folder or zip with train/image, train/label, val/image, val/label",
    "whu_satellite": "folder or zip with image and label in each of train, train_no, test, test_no",
}
_FOLDERS = {
    "whu_aerial": "3. The cropped image tiles and raster labels/",
    "whu_satellite": "1. The cropped image data and raster labels/",
}
_PARTS = {
    "whu_aerial": {"train": "train", "val": "test"},
    "whu_satellite": {"train": "train", "train_no": "train", "test": "test", "test_no": "test"},
}

_PROCESSED = {  # parts, and their folder of labels
    "whu_aerial": ({"train": "train", "test": "test"}, "label2"),
    "whu_satellite": ({"train_all": "train", "test_all": "test"}, "label"),
}


def read(raw: RawFolder, domain: Domain, paths: Mapping[str, RawFolder]) -> DomainSource:
    """Tiles and labels of the benchmark's two splits; which value is building is taken from the labels."""
    if domain.name in paths:
        place, folder = paths[domain.name], ""
    else:
        place, folder = raw, _FOLDERS[domain.name]
    pairs, unpaired = _tiles(place, folder, _PARTS[domain.name], "label")
    parts, labels = _PROCESSED[domain.name]
    if not (pairs or unpaired) and any(raw.files(f"{part}/{labels}/*") for part in parts):
        return id_source(*_tiles(raw, "", parts, labels), domain)
    return binary_source(pairs, unpaired, domain, layout="assumed")


def _tiles(
    place: RawFolder, folder: str, parts: Mapping[str, str], labels: str
) -> tuple[tuple[RawPair, ...], tuple[str, ...]]:
    """Pairs of the parts, named after part and tile, and what lacks its partner."""
    pairs: tuple[RawPair, ...] = ()
    unpaired: tuple[str, ...] = ()
    for part, split in parts.items():
        found, lonely = found_pairs(
            place, {split: (f"{folder}{part}/image/*.*", f"{folder}{part}/{labels}/*.*")}
        )
        pairs += tuple(
            RawPair(f"{part}_{pair.name}", split, pair.image, pair.label) for pair in found
        )
        unpaired += lonely
    return pairs, unpaired
