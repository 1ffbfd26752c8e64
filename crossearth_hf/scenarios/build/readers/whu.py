"""WHU Building (Ji et al. 2019): aerial tiles at 0.3 m and satellite tiles (II, East Asia) at 0.45 m, 512 x 512 pixels.

Both archives hold `PART/image/N.tif` beside `PART/label/N.tif`, building 255. The benchmark tests on the aerial part
`val`, as its count of 1036 shows, and counts the satellite's tiles with few or no buildings (`train_no`, `test_no`).
The layout is what users of the archives report, not a statement of the authors: `--path` names other places.
"""

from collections.abc import Mapping
from types import MappingProxyType

from ...scenarios import Domain
from ..archives import RawFolder
from ..pairs import DomainSource, RawPair, by_key, paired
from ..survey import binary_source

PATHS: Mapping[str, str] = MappingProxyType(
    {
        "whu_aerial": "folder or zip with train/image, train/label, val/image, val/label",
        "whu_satellite": "folder or zip with image and label in each of train, train_no, test, test_no",
    }
)
_FOLDERS = {
    "whu_aerial": "3. The cropped image tiles and raster labels/",
    "whu_satellite": "1. The cropped image data and raster labels/",
}
_PARTS = {
    "whu_aerial": {"train": "train", "val": "test"},
    "whu_satellite": {"train": "train", "train_no": "train", "test": "test", "test_no": "test"},
}


def read(raw: RawFolder, domain: Domain, paths: Mapping[str, RawFolder]) -> DomainSource:
    """Tiles and labels of the benchmark's two splits; which value is building is taken from the labels."""
    place, folder = (paths[domain.name], "") if domain.name in paths else (raw, _FOLDERS[domain.name])
    pairs: tuple[RawPair, ...] = ()
    unpaired: tuple[str, ...] = ()
    for part, split in _PARTS[domain.name].items():
        images = by_key(place.files(f"{folder}{part}/image/*.tif"), lambda file: file.stem)
        labels = by_key(place.files(f"{folder}{part}/label/*.tif"), lambda file: file.stem)
        found, lonely = paired(images, labels, split)
        pairs += tuple(RawPair(f"{part}_{pair.name}", split, pair.image, pair.label) for pair in found)
        unpaired += lonely
    return binary_source(pairs, unpaired, domain, layout="assumed")
