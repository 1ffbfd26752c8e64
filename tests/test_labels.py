"""Names of classes out of configurations."""

from crossearth_hf.labels import label_set_for


def test_class_names_of_strangers_are_printable_and_short():
    names = {0: "\x1b[31mred\n\u202e", 1: "y" * 10**6, 2: "Gewässer"}
    classes = label_set_for(names).classes
    assert classes == (r"\x1b[31mred\n\u202e", "y" * 77 + "...", "Gewässer")
