"""What enters a mean, what is marked and what is refused, on scores worked by hand."""

from statistics import stdev

import pytest
from report_folders import entry, pictures, scenario_entry, write_report

from crossearth_hf.errors import InputError
from crossearth_hf.reporting.comparison import compare

EXAMPLES = {
    name: pictures(name, 0.7, 0, images=1, side=32)
    for name in ("isprs", "loveda", "casid", "land-cover", "road")
}


def at(value, made):
    """An entry whose mean IoU is `value`."""
    made["scores"]["mean_iou"] = value
    made["intervals"]["mean_iou"] = [value - 0.01, value + 0.01]
    return made


def scenario(code, value, label_set="isprs", **changes):
    return at(value, scenario_entry(code, EXAMPLES[label_set], **changes))


def folder_entry(value, **changes):
    return at(value, entry("land-cover", EXAMPLES["land-cover"], **changes))


def report(tmp_path, name, **entries):
    names = {"P2V": "P(i)2V", "V2P": "V2P(i)"}
    return write_report(
        tmp_path / name, {names.get(key, key): value for key, value in entries.items()}, name=name
    )


def test_means_are_over_unseen_targets_that_all_have(tmp_path):
    first = report(
        tmp_path, "a", P2V=scenario("P(i)2V", 0.5), U2R=scenario("U2R", 0.3, "loveda"), mine=folder_entry(0.1),
        Sub2Sub=scenario("Sub2Sub", 0.9, "casid"),
    )  # fmt: skip
    second = report(
        tmp_path,
        "b",
        mine=folder_entry(0.4),
        P2V=scenario("P(i)2V", 0.6),
        Sub2Sub=scenario("Sub2Sub", 0.8, "casid"),
    )
    comparison = compare([first, second])
    assert comparison.names == (
        "P(i)2V",
        "U2R",
        "Sub2Sub",
        "mine",
    )  # the benchmark's order, then folders
    assert comparison.shared == ("P(i)2V", "mine")
    assert [comparison.mean(model).value for model in comparison.models] == pytest.approx(
        [0.3, 0.5]
    )
    assert comparison.score(comparison.models[1], "U2R") is None
    assert [comparison.is_unseen(name) for name in comparison.names] == [True, True, False, True]


def test_seeds_are_averaged_before_their_spread(tmp_path):
    values = [(0.50, 0.30), (0.56, 0.20), (0.62, 0.34)]
    seeds = [
        report(tmp_path, f"s{i}", P2V=scenario("P(i)2V", a), V2P=scenario("V2P(i)", b))
        for i, (a, b) in enumerate(values)
    ]
    comparison = compare([], {"mine": [str(seed) for seed in seeds]})
    (model,) = comparison.models
    score = comparison.score(model, "P(i)2V")
    assert (score.value, score.deviation, score.interval) == pytest.approx((0.56, 0.06, None))
    assert str(score) == "56.0 ± 6.0"
    per_seed = [(a + b) / 2 for a, b in values]
    assert comparison.mean(model).value == pytest.approx(sum(per_seed) / 3)
    assert comparison.mean(model).deviation == pytest.approx(stdev(per_seed))


def test_a_report_in_a_group_is_no_column_of_its_own(tmp_path):
    one, two, other = (
        report(tmp_path, name, P2V=scenario("P(i)2V", 0.5)) for name in ("one", "two", "other")
    )
    comparison = compare([one, other, two], {"both": [str(one), f"{tmp_path}/one/../two"]})
    assert [(model.name, len(model.reports)) for model in comparison.models] == [
        ("both", 2),
        ("other", 1),
    ]


def test_a_seed_that_lacks_a_target_keeps_it_out_of_the_mean(tmp_path):
    one = report(tmp_path, "one", P2V=scenario("P(i)2V", 0.5), V2P=scenario("V2P(i)", 0.2))
    two = report(tmp_path, "two", P2V=scenario("P(i)2V", 0.6))
    comparison = compare([], {"m": [str(one), str(two)]})
    assert comparison.shared == ("P(i)2V",)
    assert comparison.notes["V2P(i)"] == ("seeds",)
    lone = comparison.score(comparison.models[0], "V2P(i)")
    assert (lone.value, lone.deviation, lone.interval) == (0.2, None, None)


def data(made, **changes):
    return made["data"] | changes


@pytest.mark.parametrize(
    ("changes", "note", "in_mean"),
    [
        ({"ours": True}, "ours", True),
        ({"data": {"incomplete": True}}, "incomplete", True),
        ({"data": {"layout": "assumed"}}, "assumed", True),
        ({"data": {"layout": "confirmed"}}, None, True),
        ({"data": {"fingerprint": "0" * 64}}, "data", False),
        ({"stride": 512}, "windows", True),
        ({"class_map": {"tree": "tree"}}, "mapped", True),
        ({"unseen": False}, "seen", False),
    ],
)
def test_what_a_reader_must_know_is_noted(tmp_path, changes, note, in_mean):
    plain, special = scenario("P(i)2V", 0.5), scenario("P(i)2V", 0.6)
    special |= changes | ({"data": data(special, **changes["data"])} if "data" in changes else {})
    comparison = compare([report(tmp_path, "a", P2V=plain), report(tmp_path, "b", P2V=special)])
    assert comparison.notes["P(i)2V"] == ((note,) if note else ())
    assert comparison.shared == (("P(i)2V",) if in_mean else ())


def test_partial_labels_and_binary_sets_are_noted(tmp_path):
    partial = folder_entry(0.5, scored_classes=["building", "road"])
    binary = scenario("A2S", 0.5, "road", classes=["background", "building"])
    binary["scores"]["iou"] = {"background": 0.9, "building": 0.4}
    comparison = compare([report(tmp_path, "a", mine=partial, A2S=binary)])
    assert comparison.notes == {"mine": ("partial",), "A2S": ("binary",)}
    assert comparison.numbered() == {"partial": 1, "binary": 2}


def test_an_oracle_is_never_the_best(tmp_path):
    reports = [
        write_report(tmp_path / name, {"P(i)2V": scenario("P(i)2V", value)}, name=name, selection=selection)
        for name, value, selection in [
            ("cheat", 0.9, "chosen on the target (oracle)"), ("a", 0.5004, "last checkpoint"),
            ("b", 0.4996, "last checkpoint"), ("c", 0.4, "chosen on the source's validation split"),
        ]
    ]  # fmt: skip
    comparison = compare(reports)
    assert [model.oracle for model in comparison.models] == [True, False, False, False]
    scores = [comparison.score(model, "P(i)2V") for model in comparison.models]
    assert comparison.best(scores) == {1, 2}  # both print as 50.0
    assert comparison.numbered() == {"oracle": 1}


def test_a_lone_or_equal_score_is_not_the_best(tmp_path):
    comparison = compare(
        [report(tmp_path, name, P2V=scenario("P(i)2V", 0.5)) for name in ("a", "b")]
    )
    scores = [comparison.score(model, "P(i)2V") for model in comparison.models]
    assert comparison.best(scores) == comparison.best([scores[0], None]) == set()


def test_what_cannot_be_compared_is_refused(tmp_path):
    a = report(tmp_path, "a", P2V=scenario("P(i)2V", 0.5))
    same_name = write_report(tmp_path / "b", {"P(i)2V": scenario("P(i)2V", 0.6)}, name="a")
    oracle = write_report(
        tmp_path / "o",
        {"P(i)2V": scenario("P(i)2V", 0.6)},
        selection="chosen on the target (oracle)",
    )
    other_classes = report(tmp_path, "c", P2V=at(0.5, entry("casid", EXAMPLES["casid"])))
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "report.json").write_text((a / "report.json").read_text())
    for reports, groups, sentence in [
        ([], {}, "no report was given"),
        ([a, same_name], {}, "both of a model called 'a': give them different names, --group A="),
        ([a, other_classes], {}, "different classes in two reports"),
        ([], {"m": [a, copy]}, "the same weights twice"),
        ([], {"m": [a, oracle]}, "chose their checkpoints differently"),
        ([], {"m": [a], "n": [a]}, "is in two groups"),
        ([a, tmp_path / "none"], {}, r"no report\.json"),
    ]:
        with pytest.raises(InputError, match=sentence):
            compare(reports, groups)
    assert [model.name for model in compare([a], {"renamed": [str(same_name)]}).models] == [
        "a",
        "renamed",
    ]
