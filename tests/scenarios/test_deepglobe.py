"""DeepGlobe: masks cut at 128, the test split of every fifth image, swapped masks refused."""

import numpy as np
import pytest
from miniature_others import deepglobe, picture, save
from PIL import Image

from crossearth_hf.errors import InputError
from crossearth_hf.scenarios.build.archives import RawFolder
from crossearth_hf.scenarios.build.readers.deepglobe import read
from crossearth_hf.scenarios.domains import DOMAINS

DOMAIN = DOMAINS["deepglobe_road"]


def test_masks_are_cut_at_128_and_every_fifth_image_is_for_tests(tmp_path):
    truth = deepglobe(tmp_path, count=11)
    source = read(RawFolder.open(tmp_path), DOMAIN, {})
    assert [pair.name for pair in source.pairs if pair.split == "test"] == ["107", "607", "1107"]
    assert len(source.pairs) == 11 + 3
    assert source.unpaired == ()
    assert source.layout == "confirmed"
    for pair in source.pairs:
        np.testing.assert_array_equal(source.labels(pair), truth[pair.split, pair.name])


def test_the_benchmark_counts_what_the_rule_gives():
    assert len(range(0, DOMAIN.counts["train"], 5)) == DOMAIN.counts["test"]


def test_unpaired_files_are_named(tmp_path):
    deepglobe(tmp_path)
    (tmp_path / "train" / "107_mask.png").unlink()
    (tmp_path / "train" / "207_sat.jpg").unlink()
    unpaired = " ".join(read(RawFolder.open(tmp_path), DOMAIN, {}).unpaired)
    assert "no label for" in unpaired
    assert "107_sat.jpg" in unpaired
    assert "no image for" in unpaired
    assert "207_mask.png" in unpaired


def test_swapped_masks_are_refused(tmp_path):
    deepglobe(tmp_path)
    for path in (tmp_path / "train").glob("*_mask.png"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    with pytest.raises(InputError, match=r"'road' covers \d+\.\d % of deepglobe_road.*swapped"):
        read(RawFolder.open(tmp_path), DOMAIN, {})


def test_colored_masks_are_refused(tmp_path):
    deepglobe(tmp_path)
    save(tmp_path / "train" / "307_mask.png", picture(5))
    with pytest.raises(InputError, match=r"307_mask\.png is in color"):
        read(RawFolder.open(tmp_path), DOMAIN, {})


def test_damaged_masks_are_refused(tmp_path):
    deepglobe(tmp_path)
    (tmp_path / "train" / "307_mask.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"307_mask\.png cannot be read"):
        read(RawFolder.open(tmp_path), DOMAIN, {})


def test_nothing_found(tmp_path):
    assert read(RawFolder.open(tmp_path), DOMAIN, {}).pairs == ()
