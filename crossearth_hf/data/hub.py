"""Labelled images of Hugging Face `datasets`: map-style ones, and streams that are read once through.

Columns: "image", and "label", "annotation" or "mask" with maps of class ids. Images and masks are `Image` features or
bytes of image files of any kind, 16-bit and multi-band rasters included; masks may also be two-dimensional arrays.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import fsspec
import numpy as np

from ..errors import InputError
from ..labels import LabelSet
from .image_files import File, as_ids, image_size, read_image, read_mask
from .labelled_images import ArrayPair, no_labels

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
        bands: One, three or more bands of the images, counted from 1; None for the choice of `geotiff.Scene`.
    """

    source: str
    label_column: str | None
    label_set: LabelSet
    bands: tuple[int, ...] | None

    def name(self, index: int) -> str:
        """What messages call record `index`."""
        return f"{self.source}[{index}]"

    def decode(self, record: Mapping[str, Any], index: int) -> ArrayPair:
        """The record in memory; `InputError` if it cannot be decoded or its labels do not fit."""
        name = self.name(index)
        pixels, valid = read_image(_file(record[IMAGE_COLUMN], name), name, self.bands)
        return ArrayPair(name, pixels, self._labels(record, name, pixels.shape[:2]), valid)

    def check(self, record: Mapping[str, Any], index: int) -> tuple[int, int]:
        """(height, width) of a record, from the image's header; raises as `decode` where the labels do not fit."""
        name = self.name(index)
        size = image_size(_file(record[IMAGE_COLUMN], name), name, self.bands)
        self._labels(record, name, size)
        return size

    def _labels(self, record: Mapping[str, Any], name: str, size: tuple[int, ...]) -> np.ndarray:
        """(H, W) uint8 ids that fit an image of `size`."""
        if self.label_column is None:
            return no_labels((size[0], size[1]))
        value = record[self.label_column]
        if isinstance(value, list | np.ndarray):
            labels = as_ids(np.asarray(value), name)
        else:
            labels = read_mask(_file(value, name), name)
        if labels.shape != size:
            raise InputError(
                f"{name} is {size[1]}x{size[0]} pixels and its {self.label_column} {labels.shape[1]}x{labels.shape[0]};"
                " an image and its mask must have the same size"
            )
        self.label_set.check(labels, name)
        return labels


@dataclass(frozen=True)
class HubImage:
    """One record of a map-style data set, decoded anew by every `decode`."""

    dataset: Any
    index: int
    size: tuple[int, int]
    reader: RecordReader
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
                    f"{self.name} broke off ({error}); check the network and go on with --resume"
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


def load_map(source: str, label_set: LabelSet, bands: tuple[int, ...] | None, labelled: bool) -> list[HubImage]:
    """The records of `hf:PATH_OR_ID[:CONFIG[:SPLIT]]`; every mask is decoded once to check it.

    Args:
        source: A folder written by `save_to_disk`, a folder that `load_dataset` knows (Parquet, ImageFolder), or a Hub
            id. SPLIT is "train" by default.
        label_set: Classes of the labels.
        bands: One, three or more bands of the images; None for the choice of `geotiff.Scene`.
        labelled: Whether labels are read; otherwise all are 255.

    Raises:
        InputError: `datasets` is missing; nothing there; columns of other names; records that do not fit.
    """
    dataset = _open(source, MAP_PREFIX, streaming=False)
    dataset, reader = _prepare(dataset, source, label_set, bands, labelled)
    if not len(dataset):
        raise InputError(f"{source} holds no record; name another data set, config or split")
    sizes = [reader.check(record, index) for index, record in enumerate(dataset)]
    return [HubImage(dataset, index, size, reader) for index, size in enumerate(sizes)]


def load_stream(source: str, label_set: LabelSet, bands: tuple[int, ...] | None, labelled: bool) -> HubStream:
    """The stream `hf-stream:PATH_OR_ID[:CONFIG[:SPLIT]]`; arguments and errors as in `load_map`."""
    dataset = _open(source, STREAM_PREFIX, streaming=True)
    return HubStream(*_prepare(dataset, source, label_set, bands, labelled))


def _open(source: str, prefix: str, *, streaming: bool) -> Any:
    """The split that `source` names, as a `Dataset` or, streaming, an `IterableDataset`."""
    datasets = _import_datasets(source)
    path, config, split = _parse(source, prefix)
    try:
        if not any((Path(path) / name).is_file() for name in ("state.json", "dataset_dict.json")):
            return datasets.load_dataset(path, config, split=split or "train", streaming=streaming)
        saved = datasets.load_from_disk(path)
        if isinstance(saved, datasets.DatasetDict):
            if (split or "train") not in saved:
                raise InputError(f"{source} has the splits {', '.join(saved)}; write hf:PATH::SPLIT")
            saved = saved[split or "train"]
        return saved.to_iterable_dataset() if streaming else saved
    except InputError:
        raise
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"the data set {source} cannot be opened: {reason}; check folder or id and split") from error


def _import_datasets(source: str) -> Any:
    try:
        import datasets  # noqa: PLC0415
    except ImportError as error:
        raise InputError(f"{source} needs the package 'datasets'; install it with pip install datasets") from error
    return datasets


def _parse(source: str, prefix: str) -> tuple[str, str | None, str | None]:
    """Path or id, config and split of a source's text; a local path may hold colons itself."""
    parts = source.removeprefix(prefix).split(":")
    for rest in range(3):
        path = ":".join(parts[: len(parts) - rest])
        if path and (Path(path).is_dir() or len(parts) - rest == 1):
            config, split = [*parts[len(parts) - rest :], "", ""][:2]
            return path, config or None, split or None
    raise InputError(f"'{source}' is no {prefix}PATH_OR_ID[:CONFIG[:SPLIT]]; leave the other colons out")


def _prepare(
    dataset: Any, source: str, label_set: LabelSet, bands: tuple[int, ...] | None, labelled: bool
) -> tuple[Any, RecordReader]:
    """The data set cut down to its image and label columns, undecoded, and the reader of its records."""
    datasets = _import_datasets(source)
    columns = dataset.column_names or list(next(iter(dataset), {}))
    features = dataset.features or {}
    maps = [name for name in LABEL_COLUMNS if name in columns and _may_hold_maps(features.get(name), datasets)]
    if IMAGE_COLUMN not in columns or (labelled and not maps):
        wanted = f"'{IMAGE_COLUMN}'" + (f" and one of {', '.join(LABEL_COLUMNS)} with maps of ids" if labelled else "")
        raise InputError(f"{source} has the columns {', '.join(columns)}; it needs {wanted}: rename_column does it")
    reader = RecordReader(source, maps[0] if labelled else None, label_set, bands)
    dataset = dataset.select_columns([IMAGE_COLUMN, *maps[: int(labelled)]])
    for name in dataset.column_names or ():
        if isinstance(features.get(name), datasets.Image):
            dataset = dataset.cast_column(name, datasets.Image(decode=False))  # it cannot decode every raster
    return dataset, reader


def _may_hold_maps(feature: Any, datasets: Any) -> bool:
    """Whether a column is more than a number or a word per image; True where its type is not known."""
    scalar = isinstance(feature, datasets.ClassLabel | datasets.Value)
    return not scalar or "binary" in str(getattr(feature, "dtype", ""))


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
