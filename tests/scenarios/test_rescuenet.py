"""RescueNet: eleven ids become five classes; other versions are refused."""

import numpy as np
import pytest
from miniature_others import rescuenet

from crossearth_hf.errors import InputError
from crossearth_hf.scenarios.build.archives import RawFolder
from crossearth_hf.scenarios.build.readers.rescuenet import MAPPING, read
from crossearth_hf.scenarios.domains import DOMAINS

DOMAIN = DOMAINS["rescuenet"]


def test_ids_become_the_classes_shared_with_potsdam(tmp_path):
    truth = rescuenet(tmp_path)
    source = read(RawFolder.open(tmp_path), DOMAIN, {})
    assert {(pair.split, pair.name) for pair in source.pairs} == truth.keys()
    assert {pair.split for pair in source.pairs} == set(DOMAIN.counts)
    for pair in source.pairs:
        np.testing.assert_array_equal(source.labels(pair), truth[pair.split, pair.name])


def test_the_mapping_is_complete_and_told(tmp_path):
    assert len(MAPPING) == 11
    assert set(MAPPING.values()) == set(DOMAIN.labels.classes)
    rescuenet(tmp_path)
    (note,) = read(RawFolder.open(tmp_path), DOMAIN, {}).notes
    assert "our choice" in note
    assert "pool -> clutter" in note


def test_the_first_version_with_its_twelve_classes_is_refused(tmp_path):
    rescuenet(tmp_path, highest=11)
    source = read(RawFolder.open(tmp_path), DOMAIN, {})
    with pytest.raises(
        InputError,
        match=r"_lab\.png has \d+ pixels of ids that are not a class, the first 11 at row",
    ):
        source.labels(source.pairs[0])
