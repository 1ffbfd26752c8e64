"""What a model is scored on: scenarios of the benchmark or any labeled images, checked before the work."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data import all_images, load_source, source_folder
from ..data.label_counts import LabelCounts, count_labels
from ..data.labeled_images import LabeledImage
from ..data.mask_values import MaskValues, checked_values
from ..errors import InputError
from ..inference.windows import resolve_window
from ..labels import LabelSet, get_label_set, label_set_for
from ..model.configuration_crossearth import CrossEarthConfig
from ..raster.scene import DEFAULT_READING, Reading
from ..scenarios.build.built import read_build
from ..scenarios.scenarios import DOMAINS, RECIPES, VERSION, Domain, Scenario, get_scenario
from .image_scores import scored_ids

LARGEST_SCALE = 16
LONGEST_NAME = 100
TEST = "test"
"""The split that scenarios are scored on."""


@dataclass(frozen=True)
class Build:
    """What `crossearth build-dataset` says of a split: its images, layout of the archives, hash of the shards."""

    images: int
    incomplete: bool
    layout: str
    fingerprint: str


@dataclass(frozen=True)
class Task:
    """A target that is ready to be scored.

    Attributes:
        name: Of the report's entry.
        data: Source of the labeled images, see `data.load_source`.
        target: How the report calls the data: a domain, or folder and pattern without the path that leads there.
        label_set: Classes of the labels.
        scored: The classes that are labeled; any other counts as the first one.
        model_classes: Classes of the model in the order of its ids.
        class_map: Class of the set for every class of the model; None where both are the same.
        window, stride: Of the sliding window in pixels.
        scale: Factor by which images are enlarged.
        unseen: Whether the model has learned from another domain.
        fit: Images are resized so that the longer side has this many pixels; None for their own size.
        scenario: The scenario, for one of the benchmark.
        build: How its data were built.
        source_data: Labeled images of the domain that the model learned from, where they are asked for.
        mask_values: Value of each class in the masks; None where values are ids.
        reading: Bands of the images and values without data.
        root: Folder of this machine that all its data are in; None for data from elsewhere.
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
    mask_values: MaskValues = None
    reading: Reading = DEFAULT_READING
    root: Path | None = None

    def images(self) -> list[LabeledImage]:
        """The images to score; `InputError` where a file does not fit."""
        images = self._load(self.data)
        if self.build is not None and len(images) != self.build.images:
            raise InputError(
                f"{self.data} has {len(images)} images, but {self.build.images} were built; copy it again, or build it "
                "again"
            )
        return images

    def source_images(self) -> list[LabeledImage]:
        """The images of the source; none where they are not known."""
        if self.source_data is None:
            return []
        return self._load(self.source_data)

    def label_counts(self, images: Sequence[LabeledImage]) -> LabelCounts:
        """What the images hold; `InputError` where that is nothing to score."""
        counts = count_labels([images])
        counts.check(self.name, self.scored, self.label_set)
        return counts

    def _load(self, source: str) -> list[LabeledImage]:
        # What `crossearth build-dataset` wrote holds ids: 0 and 255 alone are a split without the second class.
        built = tuple(range(len(self.label_set.classes)))
        if self.scenario is None:
            values = self.mask_values
        else:
            values = built
        return all_images([load_source(source, self.label_set, reading=self.reading, mask_values=values)])

    def image_name(self, image: LabeledImage) -> str:
        """Name of an image without the path that leads to its data set."""
        return image.name.replace(self.data, self.target)

    def scale_of(self, image: LabeledImage) -> float:
        """Factor by which an image is enlarged."""
        return self.scale * (1 if self.fit is None else self.fit / max(image.size))

    def label_ids(self) -> np.ndarray:
        """(256,) uint8: how ids of the labels are counted."""
        return scored_ids(self.label_set, self.scored)

    def prediction_ids(self) -> np.ndarray:
        """(K,) uint8: how the classes of the model are counted."""
        names = self.class_map or {}
        return self.label_ids()[[self.label_set.label2id[names.get(name, name)] for name in self.model_classes]]

    def settings(self) -> dict[str, Any]:
        """What decides its scores besides model and data, as the report holds it."""
        return {
            "target": self.target,
            "unseen": self.unseen,
            "label_set": self.label_set.name,
            "classes": list(self.label_set.classes),
            "scored_classes": list(self.scored),
            "class_map": self.class_map,
            "mask_values": None if self.mask_values is None else list(self.mask_values),
            "bands": None if self.reading.bands is None else list(self.reading.bands),
            "nodata": None if self.reading.nodata is None else list(self.reading.nodata),
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
        label_set: Name of the set whose ids the masks hold; by default the model's.
        classes: Those that are labeled, by default all; any other, labeled or predicted, counts as the first one.
        class_map: Class of the set for classes of the model, where the two differ.
        mask_values: Value of each class of the set in the masks, by default its id; 255 is ignored unless listed.
        bands, nodata: Of the images, see `Reading`.
        window, stride: Of the sliding window in pixels; by default the model's.
        scale: Factor by which images are enlarged.
        in_domain: Whether the model has learned from this domain: such a score enters no generalization mean.

    Raises:
        InputError: a scale or a value without data that is none.
    """

    path: str | os.PathLike[str]
    label_set: str | None = None
    classes: Sequence[str] | None = None
    class_map: Mapping[str, str] | None = None
    mask_values: Sequence[int] | None = None
    bands: Sequence[int] | None = None
    nodata: Sequence[float] | None = None
    window: int | None = None
    stride: int | None = None
    scale: float = 1.0
    in_domain: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and 0 < self.scale <= LARGEST_SCALE):
            raise InputError(
                f"scale {self.scale} is not above 0 and at most {LARGEST_SCALE}; 0.5 halves width and height"
            )
        for value in self.nodata or ():
            if not math.isfinite(value):
                raise InputError(f"no-data value {value:g} is not finite and never data; leave it out")

    def task(self, name: str, config: CrossEarthConfig, *, with_source: bool = False) -> Task:
        """The target for a model.

        Args:
            name: Of the entry in the report.
            config: Of the model.
            with_source: Without effect: nobody knows the source of a folder.

        Raises:
            InputError: a name, class or window that is none.
        """
        folder = os.fspath(self.path)
        of_model = label_set_for(config.id2label)
        if self.label_set is None:
            labels = of_model
        else:
            labels = get_label_set(self.label_set)
        side, step = resolve_window(config, self.window, self.stride)
        if not name.strip() or not name.isprintable() or len(name) > LONGEST_NAME:
            raise InputError(f"the name {name!r} is not 1 to {LONGEST_NAME} printable characters; choose another")
        return Task(
            name=name,
            data=folder,
            target="".join(c if c.isprintable() else "?" for c in os.path.basename(os.path.abspath(folder))),
            label_set=labels,
            scored=_labeled(self.classes, labels),
            model_classes=of_model.classes,
            class_map=resolve_class_map(of_model.classes, labels, self.class_map, name),
            window=side,
            stride=step,
            scale=self.scale,
            unseen=not self.in_domain,
            mask_values=checked_values(self.mask_values, labels),
            reading=Reading(
                bands=None if self.bands is None else tuple(self.bands),
                nodata=None if self.nodata is None else tuple(self.nodata),
                num_channels=config.num_channels,
            ),
            root=source_folder(folder),
        )


@dataclass(frozen=True)
class ScenarioTarget:
    """A scenario of the benchmark as a target of `evaluate`.

    Args:
        code: Of the scenario, such as "P(i)2V".
        data: Folder that holds a folder per data set, as `crossearth build-dataset` writes them.
        class_map: Class of the set for classes of the model, where the two differ.
        window, stride: Of the sliding window in pixels; by default the recipe's, or the domain's where it has its own.
    """

    code: str
    data: str | os.PathLike[str]
    class_map: Mapping[str, str] | None = None
    window: int | None = None
    stride: int | None = None

    def task(self, name: str, config: CrossEarthConfig, *, with_source: bool = False) -> Task:
        """The target for a model.

        Args:
            name: Of the entry in the report: the scenario's code, by which reports compare.
            config: Of the model.
            with_source: Whether the source's images are needed too.

        Raises:
            InputError: no such scenario, another name, data that are missing or of another version of the benchmark,
                classes that do not fit, an invalid window.
        """
        scenario, data = get_scenario(self.code), Path(self.data)
        if name != self.code:
            raise InputError(f"the entry {name!r} is the scenario {self.code}, by which reports compare; name it so")
        domain, recipe = DOMAINS[scenario.target], RECIPES[scenario.recipe]
        asked = next(side for side in (self.window, domain.window, recipe.window) if side is not None)
        default_stride = max(1, round(asked * recipe.stride / recipe.window))
        side, step = resolve_window(config, asked, default_stride if self.stride is None else self.stride)
        model_classes = label_set_for(config.id2label).classes
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
    """The class of `label_set` that every class of the model counts as; None where both know the same classes.

    Args:
        model_classes: Of the model.
        label_set: Of the target.
        given: What a person said; names that both sets share may be left out.
        name: Of the target, for messages.

    Raises:
        InputError: the sets differ and nothing was said, or what was said names no class or leaves some out.
    """
    if tuple(model_classes) == label_set.classes:
        if given:
            raise InputError(f"model and {name} have the same classes, {', '.join(model_classes)}; leave the map out")
        return None
    sets = f"the model's classes are {', '.join(model_classes)}, those of {name} are {', '.join(label_set.classes)}"
    if not given:
        raise InputError(f'{sets}; say what each counts as, such as --class-map "{model_classes[0]}=..."')
    for known, names in ((model_classes, given), (label_set.classes, given.values())):
        for unknown in set(names) - set(known):
            raise InputError(f"the class map names '{unknown}', but {sets}")
    resolved = {each: given.get(each, each) for each in model_classes}
    missing = [each for each, counted in resolved.items() if counted not in label_set.label2id]
    if missing:
        raise InputError(f"the class map leaves out {', '.join(missing)}: {sets}")
    return resolved


def _labeled(classes: Sequence[str] | None, label_set: LabelSet) -> tuple[str, ...]:
    """The labeled classes in the order of their ids."""
    for name in classes or ():
        if name not in label_set.classes:
            raise InputError(f"'{name}' is not a class of '{label_set.name}'; those are {', '.join(label_set.classes)}")
    return tuple(name for name in label_set.classes if not classes or name in classes)


def _built(data: Path, domain: Domain, split: str | None) -> tuple[str, Build]:
    """Source text of a split of a built domain, the test or else the training images if None; and how it was built."""
    folder = data / domain.dataset
    content = read_build(folder / domain.name)
    remedy = f"build it again: crossearth build-dataset {domain.dataset} RAW_DIR {folder}"
    try:
        version, splits = content["benchmark_version"], content["splits"]
        counts = {name: int(splits[name]["images"]) for name in (TEST, "train") if name in splits}
        chosen = split or next((name for name, images in counts.items() if images), TEST)
        build = Build(counts.get(chosen, 0), content["incomplete"], content["layout"], content["fingerprint"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / domain.name} has a damaged build.json ({error!r}); {remedy}") from error
    if version != VERSION:
        raise InputError(f"{folder} was built for version {version} of the benchmark, this is {VERSION}; {remedy}")
    if not build.images:
        raise InputError(f"{folder} holds no image of {domain.name}, split '{chosen}'; {remedy}")
    # The domain's own folder: what `datasets` keeps of a folder with a card stays when the files behind it change.
    return f"hf:{folder / domain.name}::{chosen}", build
