"""Labeled images of Hugging Face `datasets`: map-style data sets and streams.

Columns: "image", and "label", "annotation" or "mask" with maps of class ids. Images and masks are `Image` features or
bytes of image files of any kind, 16-bit and multi-band rasters included; masks may also be two-dimensional arrays.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError, reason_of
from ..files.downloads import check_repository, hub_dataset_file, is_online
from ..labels import LabelSet
from ..progress import quiet_loaders
from ..raster.scene import Reading
from .class_list import FEWEST, label_set_of_names, read_classes
from .hub_records import IMAGE_COLUMN, HubImage, RecordReader
from .hub_stream import HubStream
from .mask_values import MaskReading, check_masks
from .record_values import PIXEL_SIZE_COLUMN, pixel_size_of

MAP_PREFIX, STREAM_PREFIX = "hf:", "hf-stream:"
LABEL_COLUMNS = ("label", "annotation", "mask")
ID2LABEL = "id2label.json"
"""The file of class names beside a data set, as in transformers' examples."""


def load_map(source: str, masks: MaskReading, reading: Reading, labeled: bool) -> list[HubImage]:
    """Loads the records of `hf:PATH_OR_ID[:CONFIG[:SPLIT]]`; every mask is decoded once to check it.

    Args:
        source: A folder written by `save_to_disk`, a folder that `load_dataset` knows (Parquet, ImageFolder), or a Hub
            id. SPLIT is "train" by default.
        masks: Meaning of the mask values.
        reading: Bands of the images and no-data values.
        labeled: Whether labels are read; otherwise all are 255.

    Raises:
        InputError: `datasets` is missing, the data set does not exist or has other columns, or records or masks do not
            fit.
    """
    dataset = _open(source, MAP_PREFIX, streaming=False)
    dataset, reader = _prepare(dataset, source, masks, reading, labeled)
    if not len(dataset):
        raise InputError(f"{source} holds no record; name another data set, config or split")
    images, values = [], []
    for index, record in enumerate(dataset):
        size, pixels = reader.check(record, index)
        images.append(HubImage(dataset, index, size, reader, pixel_size=pixel_size_of(record)))
        values.append((reader.name(index), pixels))
    if not labeled:
        return images
    counts = check_masks(source, values, masks, in_color=reader.is_in_color(dataset[0], 0))
    return [replace(image, counts=held) for image, held in zip(images, counts, strict=True)]


def load_stream(source: str, masks: MaskReading, reading: Reading, labeled: bool) -> HubStream:
    """Opens the stream `hf-stream:PATH_OR_ID[:CONFIG[:SPLIT]]`; arguments and errors as in `load_map`."""
    dataset = _open(source, STREAM_PREFIX, streaming=True)
    return HubStream(*_prepare(dataset, source, masks, reading, labeled))


def named_classes(source: str, prefix: str) -> LabelSet | None:
    """The classes that a data set names: by the type of its labels (`ClassLabel`), or in an id2label.json beside it.

    Raises:
        InputError: The data set cannot be opened.
    """
    features = _open(source, prefix, streaming=prefix == STREAM_PREFIX).features or {}
    return _named_classes(features, parse_source(source, prefix))


def _named_classes(
    features: Mapping[str, Any], parts: tuple[str, str | None, str | None]
) -> LabelSet | None:
    for name in LABEL_COLUMNS:
        feature: Any = features.get(name)
        while getattr(feature, "feature", None) is not None:  # lists of lists of classes
            feature = feature.feature
            if len(getattr(feature, "names", None) or ()) >= FEWEST:
                return label_set_of_names(feature.names, f"the column {name}")
    path, config, _ = parts
    places = [ID2LABEL]
    if config:
        places.append(f"{config}/{ID2LABEL}")
    for place in places:
        file = _side_file(path, place)
        if file is not None:
            return read_classes(str(file))
    return None


def _side_file(path: str, name: str) -> Path | None:
    """A file of a data set, in its folder or on the Hub; None if it does not exist or the Hub does not answer."""
    if Path(path).exists():
        file = Path(path) / name
        if file.is_file():
            return file
        return None
    try:
        return hub_dataset_file(path, name)
    except InputError:
        return None


def _open(source: str, prefix: str, *, streaming: bool) -> Any:
    """The split that `source` names, as a `Dataset`, or as an `IterableDataset` if `streaming`."""
    datasets = _import_datasets(source)
    path, config, split = parse_source(source, prefix)
    split = split or "train"
    try:
        if not any((Path(path) / name).is_file() for name in ("state.json", "dataset_dict.json")):
            with quiet_loaders(), _offline_if_needed(datasets, path):
                return datasets.load_dataset(path, config, split=split, streaming=streaming)
        saved = datasets.load_from_disk(path)
        if isinstance(saved, datasets.DatasetDict):
            if split not in saved:
                raise InputError(
                    f"{source} has the splits {', '.join(saved)}; write hf:PATH::SPLIT"
                )
            saved = saved[split]
        if streaming:
            return saved.to_iterable_dataset()
        return saved
    except InputError:
        raise
    except Exception as error:  # unknown files and the network make `datasets` raise anything
        raise InputError(
            f"the data set {source} cannot be opened: {reason_of(error)}; check folder or id and split"
        ) from error


@contextmanager
def _offline_if_needed(datasets: Any, name: str) -> Iterator[None]:
    """If the Hub does not answer, `datasets` looks for `name` only in its cache, at once and without retries."""
    if Path(name).exists():
        yield
        return
    check_repository(name)
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or not is_online()
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _import_datasets(source: str) -> Any:
    try:
        import datasets  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            f"{source} needs the package 'datasets'; install it with pip install datasets"
        ) from error
    return datasets


def parse_source(source: str, prefix: str) -> tuple[str, str | None, str | None]:
    """Path or id, config and split of a data source; a local path may itself hold colons."""
    parts = source.removeprefix(prefix).split(":")
    for rest in range(3):
        path = ":".join(parts[: len(parts) - rest])
        if path and (Path(path).is_dir() or len(parts) - rest == 1):
            config, split = [*parts[len(parts) - rest :], "", ""][:2]
            return path, config or None, split or None
    raise InputError(
        f"'{source}' is not of the form {prefix}PATH_OR_ID[:CONFIG[:SPLIT]]; leave the other colons out"
    )


def _prepare(
    dataset: Any, source: str, masks: MaskReading, reading: Reading, labeled: bool
) -> tuple[Any, RecordReader]:
    """The data set with only its image and label columns, undecoded, and the reader of its records."""
    datasets = _import_datasets(source)
    columns = dataset.column_names or list(next(iter(dataset), {}))
    features = dataset.features or {}
    label_column, wanted = None, f"'{IMAGE_COLUMN}'"
    if labeled:
        masks = _with_named_classes(masks, source, features)
        wanted += f" and one of {', '.join(LABEL_COLUMNS)} with maps of ids"
        maps = (
            name
            for name in LABEL_COLUMNS
            if name in columns and _may_hold_maps(features.get(name), datasets)
        )
        label_column = next(maps, None)
    if IMAGE_COLUMN not in columns or (labeled and label_column is None):
        raise InputError(
            f"{source} has the columns {', '.join(columns)}; it needs {wanted}; use rename_column"
        )
    used = (IMAGE_COLUMN, label_column, PIXEL_SIZE_COLUMN)
    dataset = dataset.select_columns([name for name in used if name in columns])
    for name in dataset.column_names or ():
        if isinstance(features.get(name), datasets.Image):
            # it cannot decode every raster
            dataset = dataset.cast_column(name, datasets.Image(decode=False))
    return dataset, RecordReader(source, label_column, masks, reading)


def _with_named_classes(
    masks: MaskReading, source: str, features: Mapping[str, Any]
) -> MaskReading:
    """The meaning of mask values by the classes that a data set names, if they are classes of the run."""
    if masks.of_masks is not None:
        return masks
    prefix = MAP_PREFIX
    if source.startswith(STREAM_PREFIX):
        prefix = STREAM_PREFIX
    named = _named_classes(features, parse_source(source, prefix))
    if named is None or not set(named.classes) <= set(masks.label_set.classes):
        return masks
    return replace(masks, of_masks=named).check()


def _may_hold_maps(feature: Any, datasets: Any) -> bool:
    """Whether a column holds more than a number or a word per image; True if its type is not known."""
    scalar = isinstance(feature, datasets.ClassLabel | datasets.Value)
    return not scalar or "binary" in str(getattr(feature, "dtype", ""))
