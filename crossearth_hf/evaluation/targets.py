"""Targets of an evaluation: scenarios of the benchmark or any labeled images, checked before the work."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import arguments
from ..data import all_images, load_source, source_classes, source_folder
from ..data.class_list import read_classes
from ..data.label_counts import LabelCounts, count_labels
from ..data.labeled_images import LabeledImage
from ..data.mask_values import read_as
from ..errors import InputError
from ..inference.windows import resolve_window
from ..labels import LabelSet, label_set_of
from ..model.configuration_crossearth import CrossEarthConfig
from ..raster.scene import DEFAULT_READING, Reading
from ..scenarios.build.built import read_build
from ..scenarios.domains import DOMAINS, Domain
from ..scenarios.scenarios import RECIPES, VERSION, Scenario, get_scenario
from .image_scores import labeled_classes, scored_ids

LARGEST_SCALE = 16
LONGEST_NAME = 100
TEST = "test"
"""The split that scenarios are scored on."""


@dataclass(frozen=True)
class Build:
    """Facts of `crossearth build-dataset` about a split: images, layout of the archives, hash of the shards."""

    images: int
    incomplete: bool
    layout: str
    fingerprint: str


@dataclass(frozen=True)
class Task:
    """A target that is ready to be scored.

    Attributes:
        name: Name of the report's entry.
        data: Source of the labeled images, see `data.load_source`.
        target: Name of the data in the report: a domain, or a folder and pattern without its path.
        label_set: Classes of the labels.
        scored: The labeled classes; all other classes count as the first one.
        model_classes: Classes of the model in the order of its ids.
        class_map: Class of the set for each class of the model; None if both have the same classes.
        window, stride: Of the sliding window in pixels.
        scale: Factor by which images are enlarged.
        unseen: Whether the model was trained on other domains only.
        fit: Pixels of the longer side to which images are resized; None for their own size.
        scenario: The scenario, for a target of the benchmark.
        build: How its data were built.
        source_data: Labeled images of the domain that the model was trained on, if requested.
        mask_values: Value of each class in the masks; None if the values are ids.
        mask_offset: Value of the first class in the masks, if the values are ids.
        reading: Bands of the images and values without data.
        root: Local folder that holds all its data; None for data from elsewhere.
    """

    name: str
    data: str
    target: str
    label_set: LabelSet
    scored: tuple[str, ...]
    model_classes: tuple[str, ...]
    class_map: dict[str, str] | None
    window: int
    stride: int
    scale: float
    unseen: bool
    fit: int | None = None
    scenario: Scenario | None = None
    build: Build | None = None
    source_data: str | None = None
    mask_values: tuple[int, ...] | None = None
    mask_offset: int = 0
    reading: Reading = DEFAULT_READING
    root: Path | None = None

    def images(self, tell: Callable[[str], object] | None = None) -> list[LabeledImage]:
        """The images to score; raises `InputError` if a file does not fit. `tell` takes lines on polygons left out."""
        images = self._load(self.data, tell)
        if self.build is not None and len(images) != self.build.images:
            raise InputError(
                f"{self.data} has {len(images)} images, but {self.build.images} were built; copy or build it again"
            )
        return images

    def labeled_in(self, images: Sequence[LabeledImage]) -> "Task":
        """The same task, scored over those of its classes that at least one of its images labels."""
        labeled = labeled_classes(images, self.label_set)
        scored = tuple(name for name in self.scored if name in labeled)
        return replace(self, scored=scored or self.scored)

    def source_images(self) -> list[LabeledImage]:
        """The images of the source; [] if they are unknown."""
        if self.source_data is None:
            return []
        return self._load(self.source_data)

    def label_counts(self, images: Sequence[LabeledImage]) -> LabelCounts:
        """The classes that the images hold; raises `InputError` if there is nothing to score."""
        counts = count_labels([images])
        counts.check(self.name, self.scored, self.label_set)
        return counts

    def _load(self, source: str, tell: Callable[[str], object] | None = None) -> list[LabeledImage]:
        # Data of `crossearth build-dataset` hold ids, so only 0 and 255 mean a split without the second class.
        options: dict[str, Any] = {"mask_values": range(len(self.label_set.classes))}
        if self.scenario is None:
            options = {"mask_values": self.mask_values, "mask_offset": self.mask_offset}
        return all_images(
            [load_source(source, self.label_set, reading=self.reading, tell=tell, **options)]
        )

    def image_name(self, image: LabeledImage) -> str:
        """Name of an image without the path that leads to its data set."""
        return image.name.replace(self.data, self.target)

    def scale_of(self, image: LabeledImage) -> float:
        """Factor by which an image is enlarged."""
        if self.fit is None:
            return self.scale
        return self.scale * (self.fit / max(image.size))

    def label_ids(self) -> np.ndarray:
        """(256,) uint8: the id as which each id of the labels counts."""
        return scored_ids(self.label_set, self.scored)

    def prediction_ids(self) -> np.ndarray:
        """(K,) uint8: the id as which each class of the model counts."""
        names = self.class_map or {}
        return self.label_ids()[
            [self.label_set.label2id[names.get(name, name)] for name in self.model_classes]
        ]

    def settings(self) -> dict[str, Any]:
        """The settings that determine its scores, besides model and data, as the report holds them."""
        return {
            "target": self.target,
            "unseen": self.unseen,
            "label_set": self.label_set.name,
            "classes": list(self.label_set.classes),
            "scored_classes": list(self.scored),
            "class_map": self.class_map,
            "mask_values": _as_list(self.mask_values),
            "mask_offset": self.mask_offset or None,
            "bands": _as_list(self.reading.bands),
            "nodata": _as_list(self.reading.nodata),
            "window": self.window,
            "stride": self.stride,
            "scale": self.scale,
            "fit": self.fit,
        }


@dataclass(frozen=True)
class FolderTarget:
    """Any labeled images as a target of `evaluate`.

    Args:
        path: `FOLDER` or `FOLDER:GLOB` with images and masks, or another source of `data.load_source`.
        classes: Of the masks, as `read_classes` takes them: names, a file of names and colors, the name of a known set;
            or a `LabelSet`. By default those that the data name themselves, else the model's.
        labeled: Those that are labeled, by default all; any other, labeled or predicted, counts as the first one.
        class_map: Class of the set for classes of the model, where the two differ.
        mask_values: Value of each class of the set in the masks, by default its id; 255 is ignored unless listed.
        mask_offset: Value of the first class in masks of ids; lower values are ignored.
        bands, nodata: How the images are read, see `Reading`.
        window, stride: Of the sliding window in pixels; by default the model's.
        scale: Factor by which images are enlarged.
        in_domain: Whether the model was trained on this domain; such a score is left out of means.

    Raises:
        TypeError: An argument has the wrong type.
        InputError: The scale or a no-data value is invalid.
    """

    path: str | os.PathLike[str]
    classes: str | Sequence[str] | LabelSet | None = None
    labeled: Sequence[str] | None = None
    class_map: Mapping[str, str] | None = None
    mask_values: Sequence[int] | None = None
    mask_offset: int = 0
    bands: Sequence[int] | None = None
    nodata: Sequence[float] | float | str | None = None
    window: int | None = None
    stride: int | None = None
    scale: float = 1.0
    in_domain: bool = False

    def __post_init__(self) -> None:
        arguments.check_paths(path=self.path)
        arguments.check_whole_numbers(window=self.window, stride=self.stride)
        arguments.check_numbers(scale=self.scale)
        arguments.check_flags(in_domain=self.in_domain)
        arguments.check_class_maps(class_map=self.class_map)
        if not isinstance(self.classes, str | LabelSet):
            arguments.check_lists(classes=self.classes)
        arguments.check_lists(labeled=self.labeled, mask_values=self.mask_values)
        arguments.band_numbers(self.bands)
        if not (math.isfinite(self.scale) and 0 < self.scale <= LARGEST_SCALE):
            raise InputError(
                f"scale {self.scale} must be above 0 and at most {LARGEST_SCALE}; 0.5 halves width and height"
            )
        for value in arguments.nodata_values(self.nodata) or ():
            if not math.isfinite(value):
                raise InputError(
                    f"no-data value {value:g} is not finite, and such pixels never count as data; leave it out"
                )

    def task(self, name: str, config: CrossEarthConfig, *, with_source: bool = False) -> Task:
        """The task for a model.

        Args:
            name: Name of the entry in the report.
            config: Configuration of the model.
            with_source: Has no effect, because the source of a folder is unknown.

        Raises:
            InputError: The name, a class or the window is invalid.
        """
        folder = os.fspath(self.path)
        of_model = label_set_of(config)
        if isinstance(self.classes, LabelSet):
            labels = self.classes
        elif self.classes is not None:
            labels = read_classes(self.classes)
        else:
            labels = source_classes(folder) or of_model
        side, step = resolve_window(config, self.window, self.stride)
        if not name.strip() or not name.isprintable() or len(name) > LONGEST_NAME:
            raise InputError(
                f"the name {name!r} must have 1 to {LONGEST_NAME} printable characters; choose another"
            )
        return Task(
            name=name,
            data=folder,
            target="".join(
                c if c.isprintable() else "?" for c in os.path.basename(os.path.abspath(folder))
            ),
            label_set=labels,
            scored=_labeled(self.labeled, labels),
            model_classes=of_model.classes,
            class_map=resolve_class_map(of_model.classes, labels, self.class_map, name),
            window=side,
            stride=step,
            scale=self.scale,
            unseen=not self.in_domain,
            mask_values=read_as(labels, self.mask_values, self.mask_offset).values,
            mask_offset=self.mask_offset,
            reading=Reading(
                bands=arguments.band_numbers(self.bands),
                nodata=arguments.nodata_values(self.nodata),
                num_channels=config.num_channels,
            ),
            root=source_folder(folder),
        )


@dataclass(frozen=True)
class ScenarioTarget:
    """A scenario of the benchmark as a target of `evaluate`.

    Args:
        code: Code of the scenario, such as "P(i)2V".
        data: Folder with a sub-folder per data set, as `crossearth build-dataset` writes them.
        class_map: Class of the label set for each class of the model, if the two differ.
        window, stride: Of the sliding window in pixels; by default those of the recipe or the domain.
    """

    code: str
    data: str | os.PathLike[str]
    class_map: Mapping[str, str] | None = None
    window: int | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        arguments.check_texts(code=self.code)
        arguments.check_paths(data=self.data)
        arguments.check_class_maps(class_map=self.class_map)
        arguments.check_whole_numbers(window=self.window, stride=self.stride)

    def task(self, name: str, config: CrossEarthConfig, *, with_source: bool = False) -> Task:
        """The task for a model.

        Args:
            name: Name of the entry in the report; must be the scenario's code, by which reports compare.
            config: Configuration of the model.
            with_source: Whether the source's images are needed too.

        Raises:
            InputError: The scenario is unknown, the name is another one, data are missing or belong to another version
                of the benchmark, the classes do not fit, or the window is invalid.
        """
        scenario, data = get_scenario(self.code), Path(self.data)
        if name != self.code:
            raise InputError(
                f"reports compare scenarios by name; call the entry {name!r} {self.code}"
            )
        domain, recipe = DOMAINS[scenario.target], RECIPES[scenario.recipe]
        asked = next(
            side for side in (self.window, domain.window, recipe.window) if side is not None
        )
        stride = self.stride
        if stride is None:
            stride = max(1, round(asked * recipe.stride / recipe.window))
        side, step = resolve_window(config, asked, stride)
        model_classes = label_set_of(config).classes
        text, build = _built(data, domain, TEST)
        if with_source:
            source = _built(data, DOMAINS[scenario.source], None)[0]
        else:
            source = None
        return Task(
            name=name,
            data=text,
            target=domain.name,
            label_set=scenario.label_set,
            scored=scenario.label_set.classes,
            model_classes=model_classes,
            class_map=resolve_class_map(model_classes, scenario.label_set, self.class_map, name),
            window=side,
            stride=step,
            scale=1.0,
            unseen=not scenario.in_domain,
            fit=domain.fit,
            scenario=scenario,
            build=build,
            source_data=source,
            reading=Reading(num_channels=config.num_channels),
            root=data,
        )


Target = FolderTarget | ScenarioTarget


def resolve_class_map(
    model_classes: Sequence[str], label_set: LabelSet, given: Mapping[str, str] | None, name: str
) -> dict[str, str] | None:
    """The class of `label_set` for each class of the model; None if both have the same classes.

    Args:
        model_classes: Classes of the model.
        label_set: Label set of the target.
        given: The map that a person gave, which may leave out names that both sets share.
        name: Name of the target, for messages.

    Raises:
        InputError: The sets differ and no map was given, or the map has unknown names or leaves classes out.
    """
    if tuple(model_classes) == label_set.classes:
        if given:
            raise InputError(
                f"model and {name} have the same classes, {', '.join(model_classes)}; leave the map out"
            )
        return None
    sets = f"the model's classes are {', '.join(model_classes)}, those of {name} are {', '.join(label_set.classes)}"
    given = given or {}
    for known, names in ((model_classes, given), (label_set.classes, given.values())):
        for unknown in set(names) - set(known):
            raise InputError(f"the class map names '{unknown}', but {sets}")
    resolved = {each: given.get(each, each) for each in model_classes}
    missing = [each for each, counted in resolved.items() if counted not in label_set.label2id]
    if missing and not given:
        if set(label_set.classes) < set(model_classes):
            more = f", or --labeled {','.join(label_set.classes)} if only these are labeled, in the model's ids"
        else:
            more = ""
        raise InputError(
            f'{sets}; say what each counts as, such as --class-map "{missing[0]}=..."{more}'
        )
    if missing:
        raise InputError(f"the class map leaves out {', '.join(missing)}: {sets}")
    return resolved


def _as_list(values: Sequence[Any] | None) -> list[Any] | None:
    if values is None:
        return None
    return list(values)


def _labeled(classes: Sequence[str] | None, label_set: LabelSet) -> tuple[str, ...]:
    """The labeled classes in the order of their ids."""
    for name in classes or ():
        if name not in label_set.classes:
            raise InputError(
                f"'{name}' is not a class of {label_set.title}; those are {', '.join(label_set.classes)}"
            )
    return tuple(name for name in label_set.classes if not classes or name in classes)


def _built(data: Path, domain: Domain, split: str | None) -> tuple[str, Build]:
    """Source text and build of a split of a built domain; by default the test split, or else the training split."""
    folder = data / domain.dataset
    content = read_build(folder / domain.name)
    remedy = f"build it again: crossearth build-dataset {domain.dataset} RAW_DIR {folder}"
    try:
        version, splits = content["benchmark_version"], content["splits"]
        counts = {name: int(splits[name]["images"]) for name in (TEST, "train") if name in splits}
        chosen = split or next((name for name, images in counts.items() if images), TEST)
        build = Build(
            counts.get(chosen, 0), content["incomplete"], content["layout"], content["fingerprint"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder / domain.name} has a damaged build.json ({error!r}); {remedy}"
        ) from error
    if version != VERSION:
        raise InputError(
            f"{folder} was built for version {version} of the benchmark, but this is version {VERSION}; {remedy}"
        )
    if not build.images:
        raise InputError(f"{folder} holds no image of {domain.name}, split '{chosen}'; {remedy}")
    # The domain's own folder: `datasets` would keep its cache of a folder with a card when the files change.
    return f"hf:{folder / domain.name}::{chosen}", build
