"""Massachusetts Roads (Mnih 2013): aerial images of 1500 x 1500 pixels at 1 m, 1108 for training, 14 and 49 held out.

Layouts: `tiff/{train,val,test}` beside `tiff/{train,val,test}_labels`, as the benchmark has it, or
`{train,valid,test}/{sat,map}`, as on the data set's homepage. Road is 255.
"""

from collections.abc import Mapping
from types import MappingProxyType

from ...scenarios import Domain
from ..archives import RawFile, RawFolder
from ..pairs import DomainSource, RawPair, by_key, paired
from ..survey import binary_source

PATHS: Mapping[str, str] = MappingProxyType({})
_LAYOUTS = {
    "train": (("tiff/train", "tiff/train_labels"), ("train/sat", "train/map")),
    "validation": (("tiff/val", "tiff/val_labels"), ("valid/sat", "valid/map")),
    "test": (("tiff/test", "tiff/test_labels"), ("test/sat", "test/map")),
}


def read(raw: RawFolder, domain: Domain, paths: Mapping[str, RawFolder]) -> DomainSource:
    """Images and masks of the three splits; which value is road is taken from the masks."""
    pairs: tuple[RawPair, ...] = ()
    unpaired: tuple[str, ...] = ()
    for split, layouts in _LAYOUTS.items():
        for image_folder, mask_folder in layouts:
            found, lonely = paired(_rasters(raw, image_folder), _rasters(raw, mask_folder), split)
            pairs, unpaired = pairs + found, unpaired + lonely
            if found or lonely:
                break
    return binary_source(pairs, unpaired, domain)


def _rasters(raw: RawFolder, folder: str) -> dict[str, RawFile]:
    """.tif and .tiff files of a folder by their stems."""
    return by_key(raw.files(f"{folder}/*.tif*"), lambda file: file.stem)
