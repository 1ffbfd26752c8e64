"""Data sources described by a YAML file: paths of images and labels, and the meaning of mask values.

A folder exported by CVAT ("Segmentation mask 1.1") is described by its labelmap.txt.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError, shown
from ..files.documents import read_yaml
from ..labels import IGNORE_INDEX, Color, LabelSet
from ..raster.scene import Reading
from .class_list import FEWEST, classes_of, label_set_of_names
from .class_masks import load_class_masks
from .file_patterns import keyed_files
from .image_files import IMAGE_SUFFIXES, MASK_SUFFIXES
from .labeled_images import FilePair, PartialLabels
from .mask_source import MaskSource
from .mask_values import MaskReading
from .pairs import checked_pairs, read_partly, unlabeled_image
from .panoptic import load_panoptic, read_panoptic
from .polygon_classes import IGNORED, OTHERS

FILE_SUFFIXES = (".yaml", ".yml")
FIELDS = (
    "images",
    "masks",
    "classes",
    "ignored",
    "mask_values",
    "mask_offset",
    "labeled",
    "complete",
    "group",
)
CLASS_MASK_FIELDS = ("images", "masks", "unlabeled", "group")
PANOPTIC_FIELDS = ("images", "masks", "panoptic", "ignored", "labeled", "complete", "group")
"""Fields of a file about masks of ids or colors, about a mask for each class, and about panoptic masks; `MaskSource`
documents them."""
LABEL_MAP = "labelmap.txt"
"""File that marks an export of CVAT."""

_REMEDY = "write fields such as 'images: images' and 'masks: masks'"


def is_described(source: str) -> bool:
    """Whether a data source is a YAML file or an export of CVAT."""
    path = Path(source)
    return (source.lower().endswith(FILE_SUFFIXES) and not path.is_dir()) or (
        path / LABEL_MAP
    ).is_file()


def described_source(source: str) -> MaskSource | Mapping[str, Any]:
    """Reads the description of a data source: images and masks, or the fields of a file about polygons.

    Raises:
        InputError: The file does not exist, or a field is missing, unknown or of another form.
    """
    path = Path(source)
    if path.is_dir():
        return _cvat_export(path)
    content = read_yaml(path, _REMEDY)
    if "polygons" in content:
        return content
    is_panoptic, by_class = "panoptic" in content, isinstance(content.get("masks"), Mapping)
    _check_fields(content, path, is_panoptic=is_panoptic, by_class=by_class)
    fields: dict[str, Any] = {
        "place": str(path),
        "images": content["images"],
        "masks": content["masks"],
        "folder": path.parent,
        "labeled": _names(content, "labeled", path),
        "complete": _truth(content, path),
        "group": _pattern(content, path),
    }
    if by_class:
        fields |= {
            "masks": "",
            "class_masks": _class_masks(content, path),
            "unlabeled": _unlabeled(content, path),
        }
    elif is_panoptic:
        fields["panoptic"] = path.parent / _text(content, "panoptic", path)
        fields["ignored"] = _names(content, "ignored", path) or ()
    else:
        fields["classes"] = _classes(content, path)
        fields["mask_values"] = _whole_numbers(content, "mask_values", path)
        offset = _whole_numbers(content, "mask_offset", path)
        if offset is not None:
            fields["mask_offset"] = offset[0]
    return MaskSource(**fields)


def named_classes(source: MaskSource) -> LabelSet | None:
    """The classes that a file names; None if it names no classes, or only those of a part of the labels.

    Raises:
        InputError: A panoptic file has another form.
    """
    if source.labeled is not None:
        return None
    if source.panoptic is not None:
        return read_panoptic(source.panoptic).classes(source.ignored)
    if not source.class_masks or source.unlabeled == OTHERS:
        return source.classes
    names = list(source.class_masks)
    if source.unlabeled.lower() != IGNORED:
        names = list(dict.fromkeys([source.unlabeled, *names]))
    if len(names) < FEWEST:
        return None
    return label_set_of_names(names, source.place)


def load_masks(
    source: MaskSource,
    masks: MaskReading,
    reading: Reading,
    labeled: bool,
    tell: Callable[[str], object] | None = None,
) -> list[FilePair]:
    """Loads the images and masks that a file describes.

    Args:
        source: The description.
        masks: Classes of the run, and the meaning of mask values if the file does not give it.
        reading: Bands of the images and no-data values.
        labeled: False for images alone.
        tell: Takes a line about overlapping masks.

    Raises:
        InputError: There are no images, or an image has no mask; see also `checked_pairs`, `load_class_masks` and
            `load_panoptic`.
    """
    if not labeled:
        images = keyed_files(source.place, source.folder, source.images, IMAGE_SUFFIXES)
        pairs = [unlabeled_image(path, reading) for path in images.values()]
    elif source.class_masks:
        pairs = load_class_masks(source, masks.label_set, reading, tell or (lambda line: None))
    else:
        pairs = _one_mask_each(source, masks, reading)
    named = zip(pairs, _distinct_names([pair.image for pair in pairs], source.folder), strict=True)
    return [replace(pair, name=name, group=_group(source, pair.image)) for pair, name in named]


def _one_mask_each(source: MaskSource, masks: MaskReading, reading: Reading) -> list[FilePair]:
    """The pairs of images and masks that show all classes."""
    files, partial = _paired(source), _partial(source, masks.label_set)
    if source.panoptic is not None:
        no_label = IGNORE_INDEX
        if partial is not None and partial.complete:
            partial = replace(partial, is_marked=True)
            no_label = partial.no_label
        pairs = load_panoptic(
            source.panoptic, source.ignored, files, masks.label_set, reading, no_label
        )
    else:
        own, partial = read_partly(source.reading(masks), partial)
        pairs = checked_pairs(source.place, files, own, reading, partly=partial is not None)
    return [replace(pair, partial=partial) for pair in pairs]


def _paired(source: MaskSource) -> list[tuple[Path, Path]]:
    """Every image with its mask."""
    images = keyed_files(source.place, source.folder, source.images, IMAGE_SUFFIXES)
    masks = keyed_files(source.place, source.folder, source.masks, MASK_SUFFIXES)
    missing = [path for key, path in images.items() if key not in masks]
    if missing:
        raise InputError(
            f"{source.place}: {missing[0]} has no mask among {source.masks} ({len(missing)} of {len(images)} images "
            f"have none); * must stand for the same text in '{source.images}' and '{source.masks}'"
        )
    return [(path, masks[key]) for key, path in images.items()]


def _distinct_names(paths: Sequence[Path], folder: Path) -> list[str]:
    """Names of files without their ending; with their folders if two names are equal."""
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    return [path.with_suffix("").relative_to(folder).as_posix() for path in paths]


def _group(source: MaskSource, image: Path) -> str | None:
    """The group that the pattern finds in an image's path; None without a pattern."""
    if source.group is None:
        return None
    found = source.group.search(image.relative_to(source.folder).as_posix())
    if found is None:
        raise InputError(
            f"{source.place}: group '{source.group.pattern}' finds nothing in {image}; write an expression such as "
            "'^(.+)_tile', whose part in brackets is the group"
        )
    return found.group(found.re.groups and 1)


def _partial(source: MaskSource, label_set: LabelSet) -> PartialLabels | None:
    if source.labeled is None:
        return None
    for name in source.labeled:
        if name not in label_set.label2id:
            raise InputError(
                f"{source.place}: labeled '{name}' is not one of {label_set.listed}; correct it"
            )
    labeled = tuple(label_set.label2id[name] for name in source.labeled)
    return PartialLabels(labeled, source.complete).checked(label_set, source.place)


def _check_fields(
    content: Mapping[str, Any], path: Path, *, is_panoptic: bool, by_class: bool
) -> None:
    """Raises `InputError` for fields of another kind of masks, and for missing images or masks."""
    known: tuple[str, ...] = FIELDS
    kind = "images and masks"
    if is_panoptic:
        known, kind = PANOPTIC_FIELDS, "panoptic masks"
    elif by_class:
        known, kind = CLASS_MASK_FIELDS, "a mask for each class"
    for name in content:
        if name not in known:
            raise InputError(
                f"{path} has the field {shown(name)}; those of {kind} are {', '.join(known)}, and a file on polygons "
                "has the field 'polygons'"
            )
    for name in ("images", "masks"):
        if name == "masks" and by_class:
            continue
        if not isinstance(content.get(name), str) or not content[name]:
            raise InputError(
                f"{path} has {name} {shown(content.get(name))}; {_REMEDY}, folders or patterns with *"
            )


def _class_masks(content: Mapping[str, Any], path: Path) -> dict[str, str]:
    masks = content["masks"]
    if not masks or not all(
        isinstance(text, str) and text for pair in masks.items() for text in pair
    ):
        raise InputError(
            f"{path} has masks {shown(masks)}; write 'CLASS: PATTERN' for each class, as texts"
        )
    return dict(masks)


def _unlabeled(content: Mapping[str, Any], path: Path) -> str:
    if content.get("unlabeled") is None:
        return IGNORED
    return _text(content, "unlabeled", path)


def _text(content: Mapping[str, Any], name: str, path: Path) -> str:
    value = content[name]
    if not isinstance(value, str) or not value:
        raise InputError(
            f"{path} has {name} {shown(value)}; write it as one text, in quotes where it is a number"
        )
    return value


def _classes(content: Mapping[str, Any], path: Path) -> LabelSet | None:
    if "classes" not in content:
        if "ignored" in content:
            raise InputError(
                f"{path} has ignored and no classes; name the classes of the masks too"
            )
        return None
    return classes_of(content["classes"], str(path), path.parent, content.get("ignored", ()))


def _whole_numbers(content: Mapping[str, Any], name: str, path: Path) -> tuple[int, ...] | None:
    value = content.get(name)
    if value is None:
        return None
    numbers = value
    if not isinstance(value, list):
        numbers = [value]
    if not numbers or not all(type(number) is int and number >= 0 for number in numbers):
        raise InputError(f"{path} has {name} {shown(value)}; write whole numbers, such as [0, 255]")
    if name == "mask_offset" and len(numbers) > 1:
        raise InputError(
            f"{path} has {name} {shown(value)}; write one number, the value of the first class"
        )
    return tuple(numbers)


def _names(content: Mapping[str, Any], field: str, path: Path) -> tuple[str, ...] | None:
    value = content.get(field)
    if value is None:
        return None
    if not (isinstance(value, list) and value and all(isinstance(name, str) for name in value)):
        raise InputError(f"{path} has {field} {shown(value)}; write a list of class names")
    return tuple(value)


def _truth(content: Mapping[str, Any], path: Path) -> bool:
    value = content.get("complete", False)
    if "complete" in content and content.get("labeled") is None:
        raise InputError(
            f"{path} has complete and no labeled; name the classes that the masks label"
        )
    if not isinstance(value, bool):
        raise InputError(f"{path} has complete {shown(value)}; write true or false")
    return value


def _pattern(content: Mapping[str, Any], path: Path) -> re.Pattern[str] | None:
    value = content.get("group")
    if value is None:
        return None
    try:
        return re.compile(value)
    except (re.error, TypeError) as error:
        raise InputError(
            f"{path}: group {shown(value)} is not a regular expression; write one such as '^(.+)_tile'"
        ) from error


def _cvat_export(folder: Path) -> MaskSource:
    """A folder with JPEGImages, SegmentationClass and a labelmap.txt."""
    for part, remedy in (
        ("JPEGImages", "export it with images"),
        ("SegmentationClass", "export 'Segmentation mask 1.1'"),
    ):
        if not (folder / part).is_dir():
            raise InputError(f"{folder} holds a {LABEL_MAP} and no folder {part}; {remedy}")
    names, colors = _label_map(folder / LABEL_MAP)
    classes = label_set_of_names(names, str(folder / LABEL_MAP), colors)
    return MaskSource(str(folder), "JPEGImages", "SegmentationClass", folder, classes=classes)


def _label_map(path: Path) -> tuple[list[str], list[Color]]:
    """Names and colors of the lines 'name:r,g,b:parts:actions'."""
    names: list[str] = []
    colors: list[Color] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        values = rest.partition(":")[0].split(",")
        if len(values) != 3 or not all(
            value.strip().isdecimal() and int(value) < 256 for value in values
        ):
            raise InputError(
                f"{path} has the line {shown(line)}; a line is name:red,green,blue:parts:actions"
            )
        red, green, blue = map(int, values)
        names.append(name)
        colors.append((red, green, blue))
    return names, colors
