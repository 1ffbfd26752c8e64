"""DeepGlobe roads (Demir et al. 2018): 6226 labeled satellite images of 1024 x 1024 pixels at 0.5 m.

Only the training images have public masks: `train/ID_sat.jpg` with `train/ID_mask.png`. The masks are RGB, 255 for
road; since compression leaves values in between, the description that comes with the data says to cut at 128. In the
archive that CrossEarth's authors publish anew, road is 1.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from ...domains import Domain
from ..archives import RawFolder
from ..pairs import DomainSource, by_key, paired
from ..processed import NOTE
from ..survey import check_share, count_values, table_ids, threshold, two_values

PATHS: Mapping[str, str] = {}
LEVEL = 128
"""Mask values from here on are road."""
TEST_STEP = 5
"""Every fifth labeled image, from the first in the order of the ids, is the test split: ours, see `Domain.note`."""


def read(raw: RawFolder, domain: Domain, paths: Mapping[str, RawFolder]) -> DomainSource:
    """All labeled images for training; every fifth of them also for tests of models that never saw DeepGlobe."""
    images = by_key(raw.files("train/*_sat.jpg"), lambda file: file.stem.removesuffix("_sat"))
    masks = by_key(raw.files("train/*_mask.png"), lambda file: file.stem.removesuffix("_mask"))
    train, unpaired = paired(images, masks, "train")
    test = tuple(replace(pair, split="test") for pair in train[::TEST_STEP])
    table = threshold(LEVEL)
    notes: tuple[str, ...] = ()
    if train:
        counts = count_values(train, domain)
        if not counts[2:].any():
            check_share(counts[1] / counts.sum(), domain)
            table, notes = two_values(1), (NOTE,)
        else:
            check_share(counts[LEVEL:].sum() / counts.sum(), domain)
    return DomainSource(
        (*train, *test), partial(table_ids, table=table), unpaired=unpaired, notes=notes
    )
