"""`--classes`: names, files and known sets, and what is refused."""

import json

import pytest

from crossearth_hf.data.class_list import read_classes
from crossearth_hf.errors import InputError
from crossearth_hf.labels import LABEL_SETS, config_fields, label_set_for


def written(path, text):
    path.write_text(text)
    return str(path)


def test_names_in_every_spelling():
    for given in ("bare,roof", ["bare,roof"], ["bare", "roof"], " bare , roof "):
        assert read_classes(given).classes == ("bare", "roof")
    assert read_classes("land-cover") is LABEL_SETS["land-cover"]
    assert not read_classes("bare,roof").has_chosen_colors


def test_a_file_of_names_and_colors(tmp_path):
    text = 'classes:\n  bare: "#E4c478"\n  roof: [213, 94, 0]\nignored: [9, "#000000", [1, 2, 3]]\n'
    found = read_classes(written(tmp_path / "classes.yaml", text))
    assert found.classes == ("bare", "roof")
    assert found.colors == ((228, 196, 120), (213, 94, 0))
    assert found.ignored == (9, (0, 0, 0), (1, 2, 3))
    assert found.has_chosen_colors


def test_files_of_names_alone(tmp_path):
    listed = written(tmp_path / "a.yml", "classes: [bare, roof]\n")
    mapped = written(tmp_path / "b.yaml", "classes:\n  bare:\n  roof:\n")
    as_ids = written(tmp_path / "id2label.json", json.dumps({"1": "roof", "0": "bare"}))
    assert (
        read_classes(listed)
        == read_classes(mapped)
        == read_classes(as_ids)
        == read_classes("bare,roof")
    )


def test_known_names_in_other_colors_keep_these(tmp_path):
    lines = "".join(
        f"  {name}: [{index}, 1, 2]\n"
        for index, name in enumerate(LABEL_SETS["land-cover"].classes)
    )
    found = read_classes(written(tmp_path / "c.yaml", f"classes:\n{lines}"))
    assert (found.name, found.colors[3]) == ("land-cover", (3, 1, 2))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("classes: [bare]", "has 1 classes; give 2 to 255"),
        (f"classes: [{', '.join(f'c{i}' for i in range(256))}]", "has 256 classes"),
        ("classes: [bare, Bare]", "holds 'bare' and 'Bare', which differ only in case"),
        ("classes: [yes, no]", "holds True; a class has a name.* in quotes"),
        ("classes: [bare, '']", "holds ''; a class has a name"),
        (
            "classes: {bare: '#e4c478', roof: }",
            "gives no color to 'roof'; give every class one, or none to all",
        ),
        ("classes: {bare: '#e4c478', roof: '#e4c478'}", "gives 'bare' and 'roof' the same color"),
        ("classes:\n  bare: #e4c478\n  roof: #d55e00", "the color #e4c478 is not in quotes"),
        ("classes: {bare: '#e4c478', roof: '#d55e00', bare: '#000000'}", "it has 'bare' twice"),
        (
            "classes: {bare: red, roof: blue}",
            "has the color 'red'; write it as '#e4c478', in quotes",
        ),
        ("classes: {bare: [1, 2, 256], roof: [1, 2, 3]}", r"has the color \[1, 2, 256\]"),
        ("bare: '#e4c478'", "has the field 'bare'.*names stand under 'classes:'"),
        ("ignored: [0]", "has classes None; write a line for each class"),
        ("classes: [a, b]\nignored: 0", r"has ignored 0; write a list of values and colors"),
        ("classes: [a, b]\nignored: [256]", "ignored has the color 256"),
    ],
)
def test_files_that_are_refused(tmp_path, text, sentence):
    with pytest.raises(InputError, match=sentence):
        read_classes(written(tmp_path / "classes.yaml", text))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("moon", "'moon' is not a label set .*write two names or more"),
        ("bare,", "holds ''"),
        ("absent.yaml", "absent.yaml cannot be read"),
        ("a,b\x1b[1m", "printable"),
    ],
)
def test_lists_that_are_refused(given, sentence):
    with pytest.raises(InputError, match=sentence):
        read_classes(given)


@pytest.mark.parametrize("given", ["land-cover", "bare,roof", "file"])
def test_the_configuration_of_a_model_carries_names_and_colors(tmp_path, given):
    if given == "file":
        given = written(tmp_path / "c.yaml", "classes: {bare: '#010203', roof: '#040506'}\n")
    classes = read_classes(given)
    fields = json.loads(json.dumps(config_fields(classes)))
    names = {int(index): name for index, name in fields["id2label"].items()}
    assert label_set_for(names, fields["class_colors"]) == classes
