"""Massachusetts Roads: both layouts, and which value is road."""

import numpy as np
import pytest
from miniature_others import massachusetts, save, zipped
from PIL import Image

from crossearth_hf.errors import InputError
from crossearth_hf.scenarios.build.archives import RawFolder
from crossearth_hf.scenarios.build.readers.massachusetts import read
from crossearth_hf.scenarios.domains import DOMAINS

DOMAIN = DOMAINS["massachusetts_road"]


@pytest.mark.parametrize("homepage", [False, True])
@pytest.mark.parametrize("road", [255, 1])
def test_both_layouts_and_both_encodings(tmp_path, homepage, road):
    truth = massachusetts(tmp_path, homepage=homepage, road=road)
    source = read(RawFolder.open(tmp_path), DOMAIN, {})
    assert {(pair.split, pair.name) for pair in source.pairs} == truth.keys()
    assert {pair.split for pair in source.pairs} == set(DOMAIN.counts)
    assert source.notes == (
        f"road is {road} in the label files, found by counting over all of them",
    )
    for pair in source.pairs:
        np.testing.assert_array_equal(source.labels(pair), truth[pair.split, pair.name])


def test_a_zip_is_read_in_place(tmp_path):
    truth = massachusetts(tmp_path / "massachusetts")
    zipped(tmp_path / "massachusetts")
    source = read(RawFolder.open(tmp_path), DOMAIN, {})
    np.testing.assert_array_equal(
        source.labels(source.pairs[3]), truth[source.pairs[3].split, source.pairs[3].name]
    )
    assert len(source.pairs) == len(truth)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 0), "hold the values 0;"),
        ((1, 2), "hold the values 1, 2;"),
        ((0, 200), "hold the values 0, 200;"),
        ((255, 0), r"'road' covers \d+\.\d %.*swapped"),
        ((0, 0, 1, 255), "hold the values 0, 1, 255;"),
    ],
)
def test_ambiguous_masks_are_refused(tmp_path, values, message):
    massachusetts(tmp_path)
    for index, path in enumerate(sorted((tmp_path / "tiff").glob("*_labels/*.tif"))):
        low, high = values[:2] if index % 2 == 0 else values[-2:]
        Image.fromarray(
            np.where(np.asarray(Image.open(path)) > 0, high, low).astype(np.uint8)
        ).save(path)
    with pytest.raises(InputError, match=message):
        read(RawFolder.open(tmp_path), DOMAIN, {})


def test_a_mask_changed_since_the_count_is_refused(tmp_path):
    massachusetts(tmp_path)
    source = read(RawFolder.open(tmp_path), DOMAIN, {})
    save(source.pairs[0].label.path, np.full((24, 32), 7, np.uint8))
    with pytest.raises(InputError, match="holds the values 7"):
        source.labels(source.pairs[0])
