"""Loads the labeled images of a data source from its text, checked before training and scoring."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..labels import LABEL_SETS, LabelSet
from ..raster.scene import DEFAULT_READING, Reading
from ..synthetic import DOMAINS
from . import hub
from .described_sources import described_source, is_described, load_masks, named_classes
from .fill_notices import fill_notices
from .hub_stream import HubStream
from .labeled_images import ArrayPair, DrawnScene, LabeledImage
from .manifest import is_manifest, manifest_path
from .mask_source import MaskSource
from .mask_values import MaskReading, read_as
from .pairs import load_manifest, load_pairs, unlabeled_image

CACHE_BYTES = 1_000_000_000
"""Memory of a run for decoded images and masks."""
SYNTHETIC_LABELS, SYNTHETIC_COUNT = "land-cover", 64

Source = Sequence[LabeledImage] | HubStream


def load_sources(
    sources: Iterable[str],
    label_set: LabelSet,
    *,
    reading: Reading = DEFAULT_READING,
    labeled: bool = True,
    mask_values: Sequence[int] | None = None,
    mask_offset: int = 0,
    cache_bytes: int = CACHE_BYTES,
    tell: Callable[[str], object] | None = None,
) -> list[Source]:
    """Loads every data source, see `load_source`; images that fit into `cache_bytes` are decoded once and kept.

    The budget is for all data sources together, in their order. Other images are read again for every crop. `tell`
    takes lines about undeclared fill, see `fill_notices`.
    """
    loaded: list[Source] = []
    options: dict[str, Any] = {"mask_values": mask_values, "mask_offset": mask_offset}
    for text in sources:
        source = load_source(
            text, label_set, reading=reading, labeled=labeled, tell=tell, **options
        )
        if tell is not None:
            for line in fill_notices(text, source):
                tell(line)
        if not isinstance(source, HubStream):
            source, cache_bytes = in_memory(source, cache_bytes, reading.num_channels)
        loaded.append(source)
    return loaded


def all_images(sources: Iterable[Source]) -> list[LabeledImage]:
    """The images of several data sources in one list for scoring, large images in parts.

    Raises:
        InputError: A data source is a stream.
    """
    images: list[LabeledImage] = []
    for source in sources:
        if isinstance(source, HubStream):
            raise InputError(
                f"{source.name} is a stream and cannot be scored; use {hub.MAP_PREFIX}"
            )
        images += [part for image in source for part in image.parts()]
    return images


def load_source(
    source: str,
    label_set: LabelSet,
    *,
    reading: Reading = DEFAULT_READING,
    labeled: bool = True,
    mask_values: Sequence[int] | None = None,
    mask_offset: int = 0,
    tell: Callable[[str], object] | None = None,
) -> Source:
    """Loads the labeled images of a data source.

    Args:
        source: `FOLDER` or `FOLDER:GLOB` (a pattern for names), see `load_pairs`; `hf:PATH_OR_ID[:CONFIG[:SPLIT]]` or
            `hf-stream:` with the same, see `data.hub`; `synth:DOMAIN[:COUNT]`; `FILE.json[:SET[@REGION]]`, see
            `load_manifest`; `FILE.yaml`, which describes images and masks (`described_sources`) or rasters and
            polygons on them (`polygon_sources`); the folder of a CVAT export.
        label_set: Classes of the labels.
        reading: Bands of rasters and no-data values; by default as in `crossearth predict`.
        labeled: False for images alone: every label is 255, and a folder needs no masks.
        mask_values: Value of class 0, 1, ... in the masks; by default the ids. 255 is ignored unless it is listed.
        mask_offset: Value of class 0 in the masks, if values are ids; lower values are ignored.
        tell: Takes lines about polygons that are left out, repaired or overlap, and about overlapping masks.

    Raises:
        InputError: There are no images, a file does not fit, or masks hold no labels, see `mask_values.check_masks`.
    """
    masks = read_as(label_set, mask_values, mask_offset)
    if source.startswith("synth:"):
        if reading.num_channels > 3:
            channels = reading.num_channels
            raise InputError(
                f"'{source}' is drawn in three bands, not {channels}; leave it out or give three bands"
            )
        return _synthetic(source, label_set, labeled)
    if source.startswith(hub.MAP_PREFIX):
        return hub.load_map(source, masks, reading, labeled)
    if source.startswith(hub.STREAM_PREFIX):
        return hub.load_stream(source, masks, reading, labeled)
    if is_manifest(source):
        return load_manifest(source, masks, reading=reading, labeled=labeled)
    if is_described(source):
        return _load_described(source, masks, reading, labeled, tell)
    folder, pattern = _folder_and_pattern(source)
    return load_pairs(folder, pattern, masks, reading=reading, labeled=labeled)


def source_classes(source: str) -> LabelSet | None:
    """The classes that a data source names, without reading its images; None if it names none.

    Raises:
        InputError: A description is wrong, or a data set cannot be opened.
    """
    if source.startswith("synth:"):
        return LABEL_SETS[SYNTHETIC_LABELS]
    for prefix in (hub.MAP_PREFIX, hub.STREAM_PREFIX):
        if source.startswith(prefix):
            return hub.named_classes(source, prefix)
    if not is_manifest(source) and is_described(source):
        described = described_source(source)
        if isinstance(described, MaskSource):
            return named_classes(described)
    return None


def polygon_class_names(source: str) -> list[str]:
    """The classes that polygons of a data source name, or nothing; raises `InputError` like `load_source`."""
    if is_manifest(source) or not is_described(source):
        return []
    described = described_source(source)
    if isinstance(described, MaskSource):
        return []
    polygon_source, polygon_sources = _polygon_modules(source)
    return polygon_sources.class_names(polygon_source(described, Path(source)))


def _polygon_modules(source: str) -> tuple[Any, Any]:
    """The modules for polygons; raises `InputError` if packages of the extras are missing."""
    try:
        from . import polygon_sources  # noqa: PLC0415 - needs packages of the extras
        from .polygon_files import polygon_source  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise InputError(
            f"{source} needs the package {error.name}; install it with pip install 'crossearth-hf[train]'"
        ) from error
    return polygon_source, polygon_sources


def _load_described(
    source: str,
    masks: MaskReading,
    reading: Reading,
    labeled: bool,
    tell: Callable[[str], object] | None,
) -> Sequence[LabeledImage]:
    """The images of a file that describes images and masks, or rasters and polygons."""
    described = described_source(source)
    if isinstance(described, MaskSource):
        return load_masks(described, masks, reading, labeled, tell)
    return _load_polygons(source, described, masks.label_set, reading, labeled, tell)


def _load_polygons(
    source: str,
    fields: Mapping[str, Any],
    label_set: LabelSet,
    reading: Reading,
    labeled: bool,
    tell: Callable[[str], object] | None,
) -> Sequence[LabeledImage]:
    """The images of a file that names rasters and polygons."""
    polygon_source, polygon_sources = _polygon_modules(source)
    described = polygon_source(fields, Path(source))
    if labeled:
        return polygon_sources.load_polygons(described, label_set, reading=reading, tell=tell)
    return [unlabeled_image(path, reading) for path in described.images]


def source_folder(source: str) -> Path | None:
    """The local folder or file of a data source; None for drawn scenes and data sets of the Hub."""
    if source.startswith("synth:"):
        return None
    for prefix in (hub.MAP_PREFIX, hub.STREAM_PREFIX):
        if source.startswith(prefix):
            path, _, _ = hub.parse_source(source, prefix)
            if Path(path).is_dir():
                return Path(path)
            return None
    if is_manifest(source):
        return manifest_path(source).parent
    return Path(_folder_and_pattern(source)[0])


def _folder_and_pattern(source: str) -> tuple[str, str]:
    """The two parts of `FOLDER:GLOB`."""
    folder, colon, pattern = source.rpartition(":")
    if colon and not Path(source).is_dir():
        return (folder, pattern)
    return (source, "*")


def in_memory(
    images: Sequence[LabeledImage], cache_bytes: int, num_channels: int = 3
) -> tuple[list[LabeledImage], int]:
    """The same images, decoded in their order until `cache_bytes` are used up, and the remaining bytes."""
    kept: list[LabeledImage] = []
    for image in images:
        height, width = image.size
        if (num_channels + 1) * height * width <= cache_bytes and not isinstance(image, ArrayPair):
            image = replace(image.decode(), group=image.group, file=image.file)
            cache_bytes -= image.image.nbytes + image.labels.nbytes
            if image.valid is not None:
                cache_bytes -= image.valid.nbytes
        kept.append(image)
    return kept, max(cache_bytes, 0)


def _synthetic(source: str, label_set: LabelSet, labeled: bool) -> list[DrawnScene]:
    """Scenes of `synth:DOMAIN[:COUNT]`, seeds 0 to COUNT-1."""
    _, domain, *rest = source.split(":")
    if domain not in DOMAINS:
        raise InputError(
            f"'{source}' names no SynthEarth domain; write synth: and one of {', '.join(DOMAINS)}"
        )
    if len(rest) > 1 or not all(text.isdecimal() and int(text) > 0 for text in rest):
        raise InputError(
            f"'{source}' is not of the form synth:DOMAIN[:COUNT]; COUNT is a whole number above 0"
        )
    if labeled and label_set.name != SYNTHETIC_LABELS:
        raise InputError(
            f"'{source}' has the label set '{SYNTHETIC_LABELS}', not '{label_set.name}'; train them apart"
        )
    count = SYNTHETIC_COUNT
    if rest:
        count = int(rest[0])
    return [DrawnScene(domain, seed, labeled=labeled) for seed in range(count)]
