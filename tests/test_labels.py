"""Names of classes out of configurations."""

from crossearth_hf.labels import get_label_set, label_set_for


def test_class_names_of_strangers_are_printable_and_short():
    names = {0: "\x1b[31mred\n\u202e", 1: "y" * 10**6, 2: "Gewässer"}
    classes = label_set_for(names).classes
    assert classes == (r"\x1b[31mred\n\u202e", "y" * 77 + "...", "Gewässer")


def test_own_classes_have_distinct_colors_and_known_names_keep_theirs():
    names = {index: f"kind {index}" for index in range(252)} | {252: "Water", 253: "water"}
    found = label_set_for(names)
    assert len(set(found.colors)) == 254
    land_cover = get_label_set("land-cover")
    assert found.colors[252] == land_cover.colors[land_cover.label2id["water"]]
    assert found.colors[0] == (230, 159, 0)
