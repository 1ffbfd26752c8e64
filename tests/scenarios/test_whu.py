"""WHU Building: two archives with the same file names, the benchmark's parts, other places by path."""

import numpy as np
import pytest
from miniature_others import blob, picture, save, whu

from crossearth_hf.errors import InputError
from crossearth_hf.scenarios.build.archives import RawFolder
from crossearth_hf.scenarios.build.readers.whu import PATHS, read
from crossearth_hf.scenarios.domains import DOMAINS


@pytest.mark.parametrize("domain", ["whu_aerial", "whu_satellite"])
@pytest.mark.parametrize("building", [255, 1])
def test_the_benchmarks_parts_of_both_archives(tmp_path, domain, building):
    truth = whu(tmp_path, building=building)
    source = read(RawFolder.open(tmp_path), DOMAINS[domain], {})
    assert {(f"{domain} {pair.split}", pair.name) for pair in source.pairs} == {
        key for key in truth if key[0].startswith(domain)
    }
    assert source.layout == "assumed"
    assert f"building is {building}" in source.notes[0]
    for pair in source.pairs:
        np.testing.assert_array_equal(
            source.labels(pair), truth[f"{domain} {pair.split}", pair.name]
        )


def test_a_path_names_another_place(tmp_path):
    for index, part in enumerate(("train", "val")):
        save(tmp_path / "mirror" / part / "image" / "a.tif", picture(index))
        save(tmp_path / "mirror" / part / "label" / "a.tif", blob(index) * np.uint8(255))
    (tmp_path / "raw").mkdir()
    raw, paths = (
        RawFolder.open(tmp_path / "raw"),
        {"whu_aerial": RawFolder.open(tmp_path / "mirror")},
    )
    assert set(paths) < PATHS.keys()
    source = read(raw, DOMAINS["whu_aerial"], paths)
    assert [(pair.split, pair.name) for pair in source.pairs] == [
        ("train", "train_a"),
        ("test", "val_a"),
    ]
    np.testing.assert_array_equal(source.labels(source.pairs[1]), blob(1))
    assert read(raw, DOMAINS["whu_satellite"], paths).pairs == ()


def test_labels_of_another_order_are_refused(tmp_path):
    whu(tmp_path, building=7)
    with pytest.raises(InputError, match="label files of whu_satellite hold the values 0, 7"):
        read(RawFolder.open(tmp_path), DOMAINS["whu_satellite"], {})
