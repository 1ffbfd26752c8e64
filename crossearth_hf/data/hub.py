"""Labeled images of Hugging Face `datasets`: map-style ones, and streams that are read once through.

Columns: "image", and "label", "annotation" or "mask" with maps of class ids. Images and masks are `Image` features or
bytes of image files of any kind, 16-bit and multi-band rasters included; masks may also be two-dimensional arrays.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import fsspec
import numpy as np

from ..errors import InputError, reason_of
from ..files.downloads import check_repository, is_online
from ..labels import IGNORE_INDEX, LabelSet
from ..progress import quiet_loaders
from ..raster.fill import Fill
from ..raster.scene import DEFAULT_READING, Reading
from .image_files import File, as_values, image_size, mask_palette, read_image, read_mask_values, undeclared_fills
from .labeled_images import ArrayPair, no_labels
from .mask_values import MaskValues, check_masks, check_palette, to_ids

MAP_PREFIX, STREAM_PREFIX = "hf:", "hf-stream:"
IMAGE_COLUMN = "image"
LABEL_COLUMNS = ("label", "annotation", "mask")
SHUFFLE_BUFFER = 128
"""Records among which the order of a stream is mixed, after the order of its shards."""


@dataclass(frozen=True)
class RecordReader:
    """How a record of a data set becomes an image with labels.

    Attributes:
        source: The data set, as messages name it.
        label_column: Column of the masks; without one every label is 255.
        label_set: Classes of the labels.
        reading: Bands of the images and values without data.
        mask_values: Values of the classes in the masks; None where they are ids.
    """

    source: str
    label_column: str | None
    label_set: LabelSet
    reading: Reading = DEFAULT_READING
    mask_values: MaskValues = None

    def name(self, index: int) -> str:
        """What messages call record `index`."""
        return f"{self.source}[{index}]"

    def decode(self, record: Mapping[str, Any], index: int) -> ArrayPair:
        """The record in memory; `InputError` if it cannot be decoded or its labels do not fit."""
        name = self.name(index)
        pixels, valid = read_image(_file(record[IMAGE_COLUMN], name), name, self.reading)
        return ArrayPair(name, pixels, self._labels(record, name, pixels.shape[:2]), valid)

    def undeclared_fills(self, record: Mapping[str, Any], index: int) -> tuple[Fill, ...]:
        """Values of the image that seem to mean no data although nobody names them; `InputError` as in `decode`."""
        name = self.name(index)
        return undeclared_fills(_file(record[IMAGE_COLUMN], name), name, self.reading)

    def check(self, record: Mapping[str, Any], index: int) -> tuple[tuple[int, int], np.ndarray]:
        """(height, width) of a record, from the image's header, and (256,) pixels of every value of its mask.

        Raises as `decode`, but for values without a class.
        """
        name = self.name(index)
        size = image_size(_file(record[IMAGE_COLUMN], name), name, self.reading)
        return size, np.bincount(self._values(record, name, size).ravel(), minlength=256)

    def _labels(self, record: Mapping[str, Any], name: str, size: tuple[int, ...]) -> np.ndarray:
        """(H, W) uint8 ids that fit an image of `size`."""
        labels = to_ids(self._values(record, name, size), self.mask_values, name)
        self.label_set.check(labels, name)
        return labels

    def _values(self, record: Mapping[str, Any], name: str, size: tuple[int, ...]) -> np.ndarray:
        """(H, W) uint8 values of the mask that belongs to an image of `size`."""
        if self.label_column is None:
            return no_labels((size[0], size[1]))
        value, palette = record[self.label_column], None
        if isinstance(value, list | np.ndarray):
            labels = as_values(_flat(np.asarray(value), size), name)
        else:
            file = _file(value, name)
            labels, palette = read_mask_values(file, name, self.mask_values), mask_palette(file, name)
        if labels.shape != size:
            raise InputError(
                f"{name} is {size[1]}x{size[0]} pixels and its {self.label_column} {labels.shape[1]}x{labels.shape[0]};"
                " an image and its mask must have the same size"
            )
        if palette is not None:
            check_palette(name, palette, np.unique(labels).tolist(), self.label_set, self.mask_values)
        return labels


@dataclass(frozen=True)
class HubImage:
    """One record of a map-style data set, decoded anew by every `decode`."""

    dataset: Any
    index: int
    size: tuple[int, int]
    reader: RecordReader
    counts: Mapping[int, int] | None = None
    pixel_size: float | None = None

    @property
    def name(self) -> str:
        """The data set and the record's number."""
        return self.reader.name(self.index)

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, C) uint8 and (H, W) uint8 ids; without data 0 and 255."""
        return self.decode().read()

    def decode(self) -> ArrayPair:
        """The record in memory; `InputError` if it cannot be decoded."""
        return self.reader.decode(self.dataset[self.index], self.index)

    open = decode

    def undeclared_fills(self) -> tuple[Fill, ...]:
        """Of the image, see `LabeledImage`; `InputError` if it cannot be decoded."""
        return self.reader.undeclared_fills(self.dataset[self.index], self.index)

    def label_counts(self) -> Mapping[int, int] | None:
        """Pixels of every id of the mask, whether the image has data there or not; None without labels."""
        return self.counts


class HubStream:
    """An endless, shuffled stream of records, addressed by position and best read forward.

    The record at a position is a function of the seed and the position alone: every pass through the data takes the
    shards in another order and mixes the records in a buffer of `SHUFFLE_BUFFER`. A run's crops are therefore the same
    for any number of workers and processes and after a resume. The price: each worker of each process reads the whole
    stream (it decodes only its own records), and a resumed run reads again, undecoded, what it had seen. Where that is
    too dear, use a map-style source.

    Records are checked when they come, not before the run.
    """

    def __init__(self, dataset: Any, reader: RecordReader) -> None:
        self.dataset, self.reader = dataset, reader
        self._restart(seed=0)

    @property
    def name(self) -> str:
        """The data set, as messages name it."""
        return self.reader.source

    def __reduce__(self) -> tuple[Any, ...]:
        return HubStream, (self.dataset, self.reader)

    def first_counts(self, records: int) -> list[dict[int, int]]:
        """Pixels of every id in the masks of the first so many records, in the order of the data set.

        Raises:
            InputError: a record cannot be read, or the masks cannot be meant, see `check_masks`; all of them being
                ignored is not a mistake in a part of the data.
        """
        reader, counted = self.reader, []
        for index, record in enumerate(islice(_records(self.dataset), records)):
            counted.append((reader.name(index), reader.check(record, index)[1]))
        if not any(pixels[:IGNORE_INDEX].any() for _, pixels in counted):
            return [{IGNORE_INDEX: int(pixels.sum())} for _, pixels in counted]
        return check_masks(f"the first records of {self.name}", counted, reader.label_set, reader.mask_values)

    def first_fills(self, records: int) -> list[tuple[Fill, ...]]:
        """Undeclared fill of each of the first so many records; `InputError` if one cannot be decoded."""
        numbered = enumerate(islice(_records(self.dataset), records))
        return [self.reader.undeclared_fills(record, index) for index, record in numbered]

    def image(self, position: int, seed: int) -> ArrayPair:
        """The record at `position` (from 0) in the order that `seed` gives.

        Raises:
            InputError: the record cannot be decoded or its labels do not fit; the stream is empty or broke off.
        """
        if position < self._position or seed != self._seed or os.getpid() != self._process:
            self._restart(seed)
        while self._position < position:
            try:
                self._record = next(self._records)
            except OSError as error:
                raise InputError(
                    f"{self.name} broke off ({error}); check the network and go on with --resume_from_checkpoint"
                ) from error
            self._position += 1
        return self.reader.decode(self._record, position)

    def _restart(self, seed: int) -> None:
        """Goes before the first record; a forked worker must not share the open files of its parent."""
        self._seed, self._process, self._position = seed, os.getpid(), -1
        self._records, self._record = self._endless(seed), {}

    def _endless(self, seed: int) -> Iterator[dict[str, Any]]:
        """Pass after pass over the data, each in an order of its own."""
        for epoch in count():
            rng = np.random.default_rng((seed, epoch))
            shards = [self.dataset.shard(self.dataset.num_shards, index) for index in range(self.dataset.num_shards)]
            empty = True
            # Not `datasets`' own shuffling, whose order is its version's, nor plain iteration, which would share the
            # shards out among torch's workers.
            for record in shuffled((r for index in rng.permutation(len(shards)) for r in _records(shards[index])), rng):
                empty = False
                yield record
            if empty:
                raise InputError(f"{self.name} holds no record; name another data set, config or split")


def shuffled(records: Iterable[Any], rng: np.random.Generator) -> Iterator[Any]:
    """All records in an order mixed by a buffer of `SHUFFLE_BUFFER`: each leaves it at random when another comes."""
    buffer: list[Any] = []
    for record in records:
        if len(buffer) < SHUFFLE_BUFFER:
            buffer.append(record)
            continue
        place = rng.integers(SHUFFLE_BUFFER)
        buffer[place], record = record, buffer[place]
        yield record
    yield from (buffer[place] for place in rng.permutation(len(buffer)))


def _records(dataset: Any) -> Iterator[dict[str, Any]]:
    for batch in dataset.iter(batch_size=1):
        yield {column: values[0] for column, values in batch.items()}


def load_map(
    source: str, label_set: LabelSet, reading: Reading, labeled: bool, mask_values: MaskValues = None
) -> list[HubImage]:
    """The records of `hf:PATH_OR_ID[:CONFIG[:SPLIT]]`; every mask is decoded once to check it.

    Args:
        source: A folder written by `save_to_disk`, a folder that `load_dataset` knows (Parquet, ImageFolder), or a Hub
            id. SPLIT is "train" by default.
        label_set: Classes of the labels.
        reading: Bands of the images and values without data.
        labeled: Whether labels are read; otherwise all are 255.
        mask_values: Values of the classes in the masks; None where they are ids.

    Raises:
        InputError: `datasets` is missing; nothing there; columns of other names; records or masks that do not fit.
    """
    dataset = _open(source, MAP_PREFIX, streaming=False)
    dataset, reader = _prepare(dataset, source, label_set, reading, labeled, mask_values)
    if not len(dataset):
        raise InputError(f"{source} holds no record; name another data set, config or split")
    checked = [reader.check(record, index) for index, record in enumerate(dataset)]
    counts: list[dict[int, int]] | list[None] = [None] * len(checked)
    if labeled:
        values = [(reader.name(index), pixels) for index, (_, pixels) in enumerate(checked)]
        counts = check_masks(source, values, label_set, mask_values)
    return [
        HubImage(dataset, i, size, reader, held)
        for i, ((size, _), held) in enumerate(zip(checked, counts, strict=True))
    ]


def load_stream(
    source: str, label_set: LabelSet, reading: Reading, labeled: bool, mask_values: MaskValues = None
) -> HubStream:
    """The stream `hf-stream:PATH_OR_ID[:CONFIG[:SPLIT]]`; arguments and errors as in `load_map`."""
    dataset = _open(source, STREAM_PREFIX, streaming=True)
    return HubStream(*_prepare(dataset, source, label_set, reading, labeled, mask_values))


def _open(source: str, prefix: str, *, streaming: bool) -> Any:
    """The split that `source` names, as a `Dataset` or, streaming, an `IterableDataset`."""
    datasets = _import_datasets(source)
    path, config, split = parse_source(source, prefix)
    try:
        if not any((Path(path) / name).is_file() for name in ("state.json", "dataset_dict.json")):
            with quiet_loaders(), nullcontext() if Path(path).exists() else _from_cache_alone(datasets, path):
                return datasets.load_dataset(path, config, split=split or "train", streaming=streaming)
        saved = datasets.load_from_disk(path)
        if isinstance(saved, datasets.DatasetDict):
            if (split or "train") not in saved:
                raise InputError(f"{source} has the splits {', '.join(saved)}; write hf:PATH::SPLIT")
            saved = saved[split or "train"]
        if streaming:
            return saved.to_iterable_dataset()
        return saved
    except InputError:
        raise
    except Exception as error:  # whatever files of a stranger and the network make its readers raise
        raise InputError(
            f"the data set {source} cannot be opened: {reason_of(error)}; check folder or id and split"
        ) from error


@contextmanager
def _from_cache_alone(datasets: Any, name: str) -> Iterator[None]:
    """Where the Hub does not answer, lets `datasets` look for `name` in its cache alone: without retries, at once."""
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
        raise InputError(f"{source} needs the package 'datasets'; install it with pip install datasets") from error
    return datasets


def parse_source(source: str, prefix: str) -> tuple[str, str | None, str | None]:
    """Path or id, config and split of a source's text; a local path may hold colons itself."""
    parts = source.removeprefix(prefix).split(":")
    for rest in range(3):
        path = ":".join(parts[: len(parts) - rest])
        if path and (Path(path).is_dir() or len(parts) - rest == 1):
            config, split = [*parts[len(parts) - rest :], "", ""][:2]
            return path, config or None, split or None
    raise InputError(f"'{source}' is not of the form {prefix}PATH_OR_ID[:CONFIG[:SPLIT]]; leave the other colons out")


def _prepare(
    dataset: Any,
    source: str,
    label_set: LabelSet,
    reading: Reading,
    labeled: bool,
    mask_values: MaskValues,
) -> tuple[Any, RecordReader]:
    """The data set cut down to its image and label columns, undecoded, and the reader of its records."""
    datasets = _import_datasets(source)
    columns = dataset.column_names or list(next(iter(dataset), {}))
    features = dataset.features or {}
    maps = [name for name in LABEL_COLUMNS if name in columns and _may_hold_maps(features.get(name), datasets)]
    if IMAGE_COLUMN not in columns or (labeled and not maps):
        wanted = f"'{IMAGE_COLUMN}'" + (f" and one of {', '.join(LABEL_COLUMNS)} with maps of ids" if labeled else "")
        raise InputError(f"{source} has the columns {', '.join(columns)}; it needs {wanted}: rename_column does it")
    reader = RecordReader(source, maps[0] if labeled else None, label_set, reading, mask_values)
    dataset = dataset.select_columns([IMAGE_COLUMN, *maps[: int(labeled)]])
    for name in dataset.column_names or ():
        if isinstance(features.get(name), datasets.Image):
            dataset = dataset.cast_column(name, datasets.Image(decode=False))  # it cannot decode every raster
    return dataset, reader


def _may_hold_maps(feature: Any, datasets: Any) -> bool:
    """Whether a column is more than a number or a word per image; True where its type is not known."""
    scalar = isinstance(feature, datasets.ClassLabel | datasets.Value)
    return not scalar or "binary" in str(getattr(feature, "dtype", ""))


def _flat(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(H, W) of an array that has an axis of one more; others as they are."""
    shapes = {(1, *size): (0,), (*size, 1): (-1,)}
    if values.shape in shapes:
        return np.squeeze(values, axis=shapes[values.shape])
    return values


def _file(value: Any, name: str) -> File:
    """Path or bytes of an undecoded value."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, Mapping) and value.get("bytes") is not None:
        return value["bytes"]
    if isinstance(value, Mapping) and value.get("path"):
        return _fetched(value["path"], name)
    raise InputError(f"{name} holds a {type(value).__name__} where an image is wanted; store it as an Image feature")


def _fetched(path: str, name: str) -> File:
    """A local path as it is, or the bytes of a remote file."""
    if os.path.isfile(path):
        return Path(path)
    try:
        with fsspec.open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise InputError(f"{name} cannot be fetched from {path} ({error}); check the network and go on") from error
