"""The benchmark as text."""

import re

import pytest

from crossearth_hf.errors import InputError
from crossearth_hf.scenarios.domains import DOMAINS
from crossearth_hf.scenarios.scenarios import SCENARIOS
from crossearth_hf.scenarios.table import describe_scenario, scenario_table


def test_the_table_has_a_line_per_scenario():
    lines = scenario_table().splitlines()
    rows = {line.split()[0]: line for line in lines[2:] if line}
    assert SCENARIOS.keys() <= rows.keys()
    assert re.search(
        r"region +potsdam_irrg -> vaihingen +6 +3456 -> 398 +512 +67\.5 +authors$", rows["P(i)2V"]
    )
    assert re.search(r"deepglobe_road -> spacenet_road +2 +6226 -> \? +1024 +- +ours$", rows["D2S"])
    assert "29 scenarios as the authors list them, 3 of our own (ours)" in scenario_table()
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("code", SCENARIOS)
def test_a_scenario_in_full(code):
    text, scenario = describe_scenario(code), SCENARIOS[code]
    assert text.startswith(f"{code}: {scenario.gap}")
    assert ("ours, not of the paper" in text) == scenario.ours
    assert ("in-domain: reported apart" in text) == scenario.in_domain
    for method, score in scenario.published.items():
        assert f"{method} {score:.1f}" in text
    for name in (scenario.source, scenario.target):
        assert name in text
        assert f"crossearth build-dataset {DOMAINS[name].dataset}" in text
    assert text.count("@") >= len(
        {DOMAINS[scenario.source].dataset, DOMAINS[scenario.target].dataset}
    )
    assert "license" in text


def test_forbidden_sharing_is_told():
    assert "must not be shared" in describe_scenario("P(i)2V")
    assert "must not be shared" not in describe_scenario("U2R")


@pytest.mark.parametrize(
    ("code", "training", "test"),
    [
        (
            "P(i)2V",
            "crops of 512 px, learning rate 0.0001, 0 steps of warm-up",
            "windows of 512 px, a step of 341 px\n",
        ),
        (
            "U2R",
            "crops of 1024 px, learning rate 6e-05, 10000 steps",
            "windows of 1024 px, a step of 683 px\n",
        ),
        ("D2M", "crops of 1024 px", "windows of 1504 px"),
        ("P(r)2Res", "crops of 512 px", "a step of 341 px, after resizing to fit 512 px"),
    ],
)
def test_recipes_are_told(code, training, test):
    assert training in describe_scenario(code)
    assert test in describe_scenario(code)


def test_a_wrong_code_gets_the_closest():
    with pytest.raises(InputError, match=r"did you mean Sub2Tem"):
        describe_scenario("Sub2Temp")
