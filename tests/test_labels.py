"""Names of classes out of configurations."""

from crossearth_hf.labels import label_set_for


def test_class_names_of_strangers_are_printable_and_short():
