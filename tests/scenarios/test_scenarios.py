"""The benchmark's literals against the facts they were written from, and against one another."""

import json

import pytest

from crossearth_hf.errors import InputError
from crossearth_hf.labels import get_label_set
from crossearth_hf.scenarios.domains import DOMAINS, domains_of
from crossearth_hf.scenarios.scenarios import RECIPES, SCENARIOS, get_scenario
from crossearth_hf.scenarios.source_datasets import DATASETS, NOT_STATED, get_dataset

TITLES = {  # as the facts call the data sets
    "ISPRS Potsdam": "potsdam",
    "ISPRS Vaihingen": "vaihingen",
    "LoveDA": "loveda",
    "DeepGlobe road extraction": "deepglobe-roads",
    "Massachusetts Roads": "massachusetts-roads",
    "RescueNet": "rescuenet",
    "WHU Building, aerial": "whu-building",
    "WHU Building, satellite II (East Asia)": "whu-building",
    "CASID": "casid",
    "SpaceNet roads": "spacenet-roads",
    "SpaceNet buildings": "spacenet-buildings",
}


@pytest.fixture(scope="module")
def facts(shared):
    return json.loads((shared / "benchmarks" / "scenarios.json").read_text())


def test_every_scenario_is_as_documented(facts):
    assert [scenario["code"] for scenario in facts["scenarios"]] == list(SCENARIOS)
    for known in facts["scenarios"]:
        scenario = SCENARIOS[known["code"]]
        assert scenario.code == known["code"]
        assert scenario.gap == known["gap"]
        assert (scenario.source, scenario.target) == (known["source"], known["target"])
        assert scenario.recipe == known["crop"]
        assert scenario.ours == (known["status"] == "ours")
        assert scenario.published == known.get("published_miou", {})
        assert scenario.in_domain == (known["gap"] == "in-domain")


def test_every_domain_is_as_documented(facts):
    assert list(facts["domains"]) == list(DOMAINS)
    for name, known in facts["domains"].items():
        domain, base = DOMAINS[name], facts["domains"].get(known.get("same_images_as"), {})
        known = base | known
        assert domain.name == name
        assert domain.dataset == TITLES[known["dataset"]]
        assert domain.label_set == known["labels"]
        assert domain.tile == known.get("tile")
        assert domain.ground_sampling_distance == known.get(
            "gsd_m", domain.ground_sampling_distance
        )
        assert domain.bands.startswith(known.get("bands", "R,G,B"))
        for split in ("train", "test"):
            if known.get(split) is not None:
                assert domain.counts[split] == known[split], (name, split)


def test_recipes_and_label_sets_are_as_documented(facts):
    for side, known in facts["recipes"].items():
        recipe = RECIPES[int(side)]
        assert (recipe.learning_rate, recipe.warmup_steps) == (known["lr"], known["warmup"])
        assert (recipe.window, recipe.stride) == (known["window"], known["stride"])
        assert recipe.window == known["crop"]
    for name, known in facts["label_sets"].items():
        label_set = get_label_set(name)
        assert list(label_set.classes) == known["classes"]
        assert [list(color) for color in label_set.colors] == known["palette"]


def test_29_documented_and_3_of_our_own():
    assert sum(not scenario.ours for scenario in SCENARIOS.values()) == 29
    assert [code for code, scenario in SCENARIOS.items() if scenario.ours] == ["D2S", "A2SN", "M2D"]
    assert sum(scenario.in_domain for scenario in SCENARIOS.values()) == 4
    assert not [
        code for code, scenario in SCENARIOS.items() if scenario.ours and scenario.published
    ]


def test_the_mean_over_unseen_targets_is_the_known_one():
    """The published scores over the 19 scenarios with an unseen target: 58.3 of CrossEarth against 55.5 of Rein."""
    unseen = [s.published for s in SCENARIOS.values() if s.published and not s.in_domain]
    assert len(unseen) == 19
    assert sum(scores["CrossEarth"] for scores in unseen) / 19 == pytest.approx(58.3, abs=0.05)
    assert sum(scores["Rein"] for scores in unseen) / 19 == pytest.approx(55.5, abs=0.05)


def test_keys_fit_together():
    for scenario in SCENARIOS.values():
        source, target = DOMAINS[scenario.source], DOMAINS[scenario.target]
        assert source.labels == target.labels == scenario.label_set
        assert scenario.recipe in RECIPES
        assert "train" in source.counts
        assert "test" in target.counts
    assert {domain.dataset for domain in DOMAINS.values()} == DATASETS.keys()
    assert sorted(domain.name for name in DATASETS for domain in domains_of(name)) == sorted(
        DOMAINS
    )
    used = {name for scenario in SCENARIOS.values() for name in (scenario.source, scenario.target)}
    assert used == DOMAINS.keys()
    for domain in DOMAINS.values():
        assert set(domain.counts) <= {"train", "validation", "test"}
        assert domain.archive_counts.keys() <= domain.counts.keys()


@pytest.mark.parametrize("name", DATASETS)
def test_data_sets_are_described(name):
    dataset = get_dataset(name)
    assert dataset.name == name
    assert dataset.homepage.startswith("https://")
    assert dataset.license
    assert dataset.license_source
    assert (dataset.license == NOT_STATED) == (dataset.may_be_shared is None)
    assert dataset.layout in ("confirmed", "assumed")
    assert dataset.layout_source
    assert dataset.archives
    assert dataset.citation.count("{") == dataset.citation.count("}")
    for entry in dataset.citation.split("\n\n"):
        assert entry.startswith("@")
        assert all(f"{field} " in entry for field in ("title", "author", "year"))


def test_unknown_names_get_the_closest():
    with pytest.raises(InputError, match=r"unknown scenario 'P\(i\)2v'; did you mean P\(i\)2V"):
        get_scenario("P(i)2v")
    with pytest.raises(InputError, match="unknown data set 'casd'; choose one of potsdam,"):
        get_dataset("casd")
