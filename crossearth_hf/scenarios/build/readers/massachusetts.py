"""Massachusetts Roads (Mnih 2013): aerial images of 1500 x 1500 pixels at 1 m, 1108 for training, 14 and 49 held out.

Layouts: `tiff/{train,val,test}` beside `tiff/{train,val,test}_labels`, as the benchmark has it, or
`{train,valid,test}/{sat,map}`, as on the data set's homepage. Road is 255. CrossEarth's authors publish them anew with
`train_labels_new` and `test_labels_new`, in which road is 1.
"""

from collections.abc import Mapping
from dataclasses import replace

from ...domains import Domain
from ..archives import RawFolder
from ..pairs import DomainSource, RawPair, found_pairs
from ..processed import id_source
from ..survey import binary_source

PATHS: Mapping[str, str] = {}
_PROCESSED = {part: (f"{part}/*.tif*", f"{part}_labels_new/*.tif*") for part in ("train", "test")}
_LAYOUTS = {
    "train": (("tiff/train", "tiff/train_labels"), ("train/sat", "train/map")),
    "validation": (("tiff/val", "tiff/val_labels"), ("valid/sat", "valid/map")),
    "test": (("tiff/test", "tiff/test_labels"), ("test/sat", "test/map")),
}


def read(raw: RawFolder, domain: Domain, paths: Mapping[str, RawFolder]) -> DomainSource:
    """Images and masks of the three splits; which value is road is taken from the masks."""
    # the authors have no such labels for the 14 validation images
    if raw.files(_PROCESSED["test"][1]):
        return replace(id_source(*found_pairs(raw, _PROCESSED), domain), splits=tuple(_PROCESSED))
    pairs: tuple[RawPair, ...] = ()
    unpaired: tuple[str, ...] = ()
    for split, layouts in _LAYOUTS.items():
        for image_folder, mask_folder in layouts:
            found, lonely = found_pairs(
                raw, {split: (f"{image_folder}/*.tif*", f"{mask_folder}/*.tif*")}
            )
            pairs += found
            unpaired += lonely
            if found or lonely:
                break
    return binary_source(pairs, unpaired, domain)
