"""`--classes`: classes from a list of names, the name of a known set, or a file."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import InputError, shown
from ..files import documents
from ..labels import IGNORE_INDEX, LABEL_SETS, LONGEST_CLASS_NAME, Color, LabelSet, label_set_for

FILE_SUFFIXES = (".yaml", ".yml", ".json")
FEWEST = 2
EXAMPLE = "bare: '#e4c478'"
"""Example line of a file of classes, for messages."""

_HEX = re.compile(r"#[0-9a-fA-F]{6}")
_FIELDS = ("classes", "ignored")


def read_classes(given: str | Sequence[str]) -> LabelSet:
    """Reads classes that a person named.

    Args:
        given: The name of a known set; names, one text each or separated by commas; or one file. A file holds
            `classes`, a list of names or names with their colors (`bare: '#e4c478'` or `bare: [228, 196, 120]`), and
            optionally `ignored`, a list of ignored values and colors of masks. A file of ids with names, like
            transformers' `id2label`, also works.

    Raises:
        InputError: It has another form; a name is empty, too long or repeated; there are fewer than two or more than
            255 classes; only some classes have colors, or two have the same color.
    """
    if isinstance(given, str):
        given = [given]
    if len(given) == 1 and given[0] in LABEL_SETS:
        return LABEL_SETS[given[0]]
    if len(given) == 1 and given[0].lower().endswith(FILE_SUFFIXES):
        return _from_file(Path(given[0]))
    names = [name.strip() for text in given for name in str(text).split(",")]
    if len(names) == 1:
        raise InputError(
            f"'{names[0]}' is not a label set ({', '.join(LABEL_SETS)}), a file of classes (such as classes.yaml) or a "
            "list of names; write two names or more, as bare,roof,street,palm"
        )
    return label_set_of_names(names, "the list of classes")


def classes_of(value: Any, place: str, folder: Path, ignored: Any = ()) -> LabelSet:
    """Reads classes in a field of a file: anything that `read_classes` takes, or names with their colors.

    Args:
        value: Value of the field.
        place: Name of the field in messages.
        folder: Folder of relative paths.
        ignored: Ignored values and colors of masks, as in a file.

    Raises:
        InputError: See `read_classes`.
    """
    if not isinstance(value, str):
        return _checked(value, ignored, place)
    if value.lower().endswith(FILE_SUFFIXES):
        value = str(folder / value)
    return read_classes(value)


def label_set_of_names(
    names: Sequence[str],
    place: str,
    colors: Sequence[Color] | None = None,
    ignored: Sequence[int | Color] = (),
) -> LabelSet:
    """A checked label set of names; raises `InputError` like `read_classes`.

    Args:
        names: Names of the classes in the order of their ids.
        place: Name of the list in messages.
        colors: Colors of all classes, or None.
        ignored: Ignored values and colors of masks.
    """
    for name in names:
        if not (
            isinstance(name, str)
            and name.strip()
            and name.isprintable()
            and len(name) <= LONGEST_CLASS_NAME
        ):
            raise InputError(
                f"{place} holds {shown(name)}; a class has a name of 1 to {LONGEST_CLASS_NAME} printable characters, "
                "in quotes where YAML takes it for something else"
            )
    twice = _first_pair([name.casefold() for name in names])
    if twice is not None:
        both = " and ".join(f"'{names[index]}'" for index in twice)
        raise InputError(
            f"{place} holds {both}, which differ only in case; give each class its own name"
        )
    if not FEWEST <= len(names) <= IGNORE_INDEX:
        raise InputError(
            f"{place} has {len(names)} classes; give {FEWEST} to {IGNORE_INDEX}, as ids have 8 bits; everything "
            "else is a class too, such as background"
        )
    twice = _first_pair(colors or ())
    if twice is not None:
        both = " and ".join(f"'{names[index]}'" for index in twice)
        raise InputError(f"{place} gives {both} the same color; give each class its own")
    found = label_set_for(dict(enumerate(names)), colors)
    if ignored:
        found = LabelSet(
            found.name, found.classes, found.colors, tuple(ignored), found.has_chosen_colors
        )
    return found


def color_of(value: Any, place: str) -> Color:
    """Reads a color of a file, '#rrggbb' or [red, green, blue]; raises `InputError` for anything else."""
    if isinstance(value, str) and _HEX.fullmatch(value):
        return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)
    if (
        isinstance(value, list)
        and len(value) == 3
        and all(type(v) is int and 0 <= v <= 255 for v in value)
    ):
        return value[0], value[1], value[2]
    raise InputError(
        f"{place} has the color {shown(value)}; write it as '#e4c478', in quotes, or as [228, 196, 120]"
    )


def as_hex(color: Sequence[int]) -> str:
    """A color as '#rrggbb'."""
    return "#" + "".join(f"{value:02x}" for value in color)


def _from_file(path: Path) -> LabelSet:
    content = documents.read_yaml(
        path, f"write 'classes:' and a line for each class, such as {EXAMPLE}"
    )
    names = {str(key): name for key, name in content.items()}
    ids = [str(index) for index in range(len(names))]
    if names.keys() == set(ids):  # transformers' id2label
        return label_set_of_names([names[index] for index in ids], str(path))
    for name in content:
        if name not in _FIELDS:
            raise InputError(
                f"{path} has the field {shown(name)}; a file of classes holds {' and '.join(_FIELDS)}, and the names "
                f"stand under 'classes:', such as {EXAMPLE}"
            )
    return _checked(content.get("classes"), content.get("ignored", ()), str(path))


def _checked(value: Any, ignored: Any, place: str) -> LabelSet:
    """The classes in the fields of a file."""
    colors = None
    if isinstance(value, Mapping):
        colors = _colors_of(value, place)
    elif not isinstance(value, list):
        raise InputError(
            f"{place} has classes {shown(value)}; write a line for each class under it, such as {EXAMPLE}"
        )
    if not isinstance(ignored, list | tuple):
        raise InputError(
            f"{place} has ignored {shown(ignored)}; write a list of values and colors, such as [0]"
        )
    return label_set_of_names(
        list(value), place, colors, [_ignored_of(item, place) for item in ignored]
    )


def _colors_of(classes: Mapping[Any, Any], place: str) -> list[Color] | None:
    """The colors of classes by name; None if no class has one."""
    without = [shown(name) for name, color in classes.items() if color is None]
    if len(without) == len(classes):
        return None
    if without:
        raise InputError(
            f"{place} gives no color to {', '.join(without)}; give every class one, or none to all"
        )
    return [color_of(color, f"{place}: {shown(name)}") for name, color in classes.items()]


def _ignored_of(value: Any, place: str) -> int | Color:
    if type(value) is int and 0 <= value <= IGNORE_INDEX:
        return value
    return color_of(value, f"{place}: ignored")


def _first_pair(keys: Sequence[Any]) -> tuple[int, int] | None:
    """Positions of two equal keys; None if all differ."""
    order = sorted(range(len(keys)), key=lambda index: keys[index])
    for first, second in pairwise(order):
        if keys[first] == keys[second]:
            return first, second
    return None
