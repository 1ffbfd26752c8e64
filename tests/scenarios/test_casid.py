"""CASID: climates by the names of folders, the base of the labels by their values."""

import numpy as np
import pytest
from miniature_others import casid, save, zipped

from crossearth_hf.errors import InputError
from crossearth_hf.scenarios.build.archives import RawFolder
from crossearth_hf.scenarios.build.readers.casid import PATHS, climate, label_base, read
from crossearth_hf.scenarios.domains import DOMAINS, domains_of

CLIMATES = [domain.name for domain in domains_of("casid")]


@pytest.mark.parametrize("domain", CLIMATES)
@pytest.mark.parametrize("base", [0, 1])
def test_each_climate_with_either_base(tmp_path, domain, base):
    truth = casid(tmp_path, base)
    source = read(RawFolder.open(tmp_path), DOMAINS[domain], {})
    assert {(f"{domain} {pair.split}", pair.name) for pair in source.pairs} == {
        key for key in truth if key[0].startswith(domain)
    }
    assert source.layout == "assumed"
    assert f"labels start at {base}" in source.notes[0]
    for pair in source.pairs:
        np.testing.assert_array_equal(
            source.labels(pair), truth[f"{domain} {pair.split}", pair.name]
        )


def test_zips_of_climates_with_long_names(tmp_path):
    names = (
        "subtropical_monsoon",
        "Temperate Monsoon",
        "tropical_monsoon",
        "tropical [rainforest]",
    )
    truth = casid(tmp_path, folders=dict(zip(CLIMATES, names, strict=True)))
    zipped(tmp_path / "tropical_monsoon")
    for domain, folder in zip(CLIMATES, names, strict=True):
        source = read(RawFolder.open(tmp_path), DOMAINS[domain], {})
        assert len(source.pairs) == 4
        assert all(folder in str(pair.image) for pair in source.pairs)
        np.testing.assert_array_equal(
            source.labels(source.pairs[0]),
            truth[f"{domain} {source.pairs[0].split}", source.pairs[0].name],
        )


def test_a_path_names_a_climate(tmp_path):
    truth = casid(tmp_path / "raw", folders={"casid_tem": "north"})
    raw = RawFolder.open(tmp_path / "raw")
    assert read(raw, DOMAINS["casid_tem"], {}).pairs == ()
    source = read(
        raw, DOMAINS["casid_tem"], {"casid_tem": RawFolder.open(tmp_path / "raw" / "north")}
    )
    assert len(source.pairs) == len(truth)
    assert PATHS.keys() == set(CLIMATES)


@pytest.mark.parametrize(
    ("folder", "domain"),
    [
        ("SubMs", "casid_sub"),
        ("sub", "casid_sub"),
        ("Subtropical monsoon", "casid_sub"),
        ("TemMs", "casid_tem"),
        ("TroMs", "casid_tms"),
        ("tms", "casid_tms"),
        ("tropical_monsoon", "casid_tms"),
        ("TroRf", "casid_trf"),
        ("trf", "casid_trf"),
        ("Tropical Rainforest", "casid_trf"),
        ("tropical", None),
        ("CASID", None),
    ],
)
def test_folders_tell_climates(folder, domain):
    assert climate(folder) == domain


def counts(*values):
    return np.isin(np.arange(256), values) * 10


@pytest.mark.parametrize(
    ("values", "base"), [((0, 1, 4), 0), ((0,), 0), ((5,), 1), ((1, 2, 3, 4, 5), 1)]
)
def test_the_deciding_values(values, base):
    assert label_base(counts(*values), DOMAINS["casid_sub"]) == base


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((1, 2, 3, 4), "hold the values 1, 2, 3, 4, which fit both 0..4 and 1..5"),
        ((0, 1, 5), "fit neither of 0..4 and 1..5"),
        ((0, 255), "fit neither of"),
    ],
)
def test_ambiguous_labels_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        label_base(counts(*values), DOMAINS["casid_sub"])


def test_one_strange_file_among_all_is_found(tmp_path):
    casid(tmp_path)
    save(
        tmp_path / "SubMs" / "all_test" / "label" / "1_test-label.png",
        np.full((24, 32), 5, np.uint8),
    )
    with pytest.raises(
        InputError, match=r"casid_sub hold the values 0, 1, 2, 3, 4, 5, which fit neither"
    ):
        read(RawFolder.open(tmp_path), DOMAINS["casid_sub"], {})
