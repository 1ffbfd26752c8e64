"""Endless, shuffled streams of the records of Hugging Face `datasets`."""

import os
from collections.abc import Iterable, Iterator
from itertools import count, islice
from typing import Any

import numpy as np

from ..errors import InputError
from ..labels import IGNORE_INDEX
from ..raster.fill import Fill
from .hub_records import RecordReader
from .labeled_images import ArrayPair
from .mask_values import check_masks

SHUFFLE_BUFFER = 128
"""Records in the buffer that shuffles a stream, after its shards are shuffled."""


class HubStream:
    """An endless, shuffled stream of records, addressed by position and best read forward.

    The record at a position depends only on the seed and the position: every pass through the data takes the shards in
    another order and shuffles the records in a buffer of `SHUFFLE_BUFFER`. The crops of a run are therefore the same
    for any number of workers and processes and after a resume. The price: each worker of each process reads the whole
    stream (it decodes only its own records), and a resumed run reads the earlier records again without decoding them.
    If that is too slow, use a map-style data set.

    Records are checked while they are read, not before the run.
    """

    def __init__(self, dataset: Any, reader: RecordReader) -> None:
        self.dataset, self.reader = dataset, reader
        self._restart(seed=0)

    @property
    def name(self) -> str:
        """Name of the data set in messages."""
        return self.reader.source

    def __reduce__(self) -> tuple[Any, ...]:
        return HubStream, (self.dataset, self.reader)

    def first_counts(self, records: int) -> list[dict[int, int]]:
        """Pixels of every id in the masks of the first `records` records, in the order of the data set.

        Raises:
            InputError: A record cannot be read, or the mask values look wrong, see `check_masks`. Masks without any
                labeled pixel are fine here, because other records may have labels.
        """
        reader, counted = self.reader, []
        for index, record in enumerate(islice(_records(self.dataset), records)):
            counted.append((reader.name(index), reader.check(record, index)[1]))
        if not any(pixels[:IGNORE_INDEX].any() for _, pixels in counted):
            return [{IGNORE_INDEX: int(pixels.sum())} for _, pixels in counted]
        return check_masks(f"the first records of {self.name}", counted, reader.masks)

    def first_fills(self, records: int) -> list[tuple[Fill, ...]]:
        """Undeclared fill of each of the first `records` records; raises `InputError` if one cannot be decoded."""
        numbered = enumerate(islice(_records(self.dataset), records))
        return [self.reader.undeclared_fills(record, index) for index, record in numbered]

    def image(self, position: int, seed: int) -> ArrayPair:
        """The record at `position` (from 0) in the order of `seed`.

        Raises:
            InputError: The record cannot be decoded, its labels do not fit, or the stream is empty or broke off.
        """
        if position < self._position or seed != self._seed or os.getpid() != self._process:
            self._restart(seed)
        while self._position < position:
            try:
                self._record = next(self._records)
            except OSError as error:
                raise InputError(
                    f"{self.name} stopped ({error}); check the network and resume with --resume_from_checkpoint"
                ) from error
            self._position += 1
        return self.reader.decode(self._record, position)

    def _restart(self, seed: int) -> None:
        """Goes back to the start; a forked worker must not share open files with its parent."""
        self._seed, self._process, self._position = seed, os.getpid(), -1
        self._records, self._record = self._endless(seed), {}

    def _endless(self, seed: int) -> Iterator[dict[str, Any]]:
        """Pass after pass over the data, each in another order."""
        number = self.dataset.num_shards
        for epoch in count():
            rng = np.random.default_rng((seed, epoch))
            shards = [self.dataset.shard(number, index) for index in range(number)]
            empty = True
            # The shuffling of `datasets` changes with its version, and plain iteration would divide the shards among
            # torch's workers.
            ordered = (
                record for index in rng.permutation(number) for record in _records(shards[index])
            )
            for record in shuffled(ordered, rng):
                empty = False
                yield record
            if empty:
                raise InputError(
                    f"{self.name} holds no record; name another data set, config or split"
                )


def shuffled(records: Iterable[Any], rng: np.random.Generator) -> Iterator[Any]:
    """All records, shuffled by a buffer of `SHUFFLE_BUFFER`: each new record replaces a random one."""
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
