"""The plan of a build, made before the long work: tiles, shards, and counts that must match the benchmark's."""

import hashlib
import json
import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from ...errors import InputError
from ...progress import progress_bar
from ..domains import Domain
from ..scenarios import VERSION
from ..source_datasets import PROCESSED_HOMEPAGE, get_dataset
from .archives import RawFile
from .pairs import DomainSource, RawPair
from .rasters import LABEL_OPTIONS, PNG_OPTIONS, Header, read_header
from .tiling import Tile, windows

SHARD_PIXELS = 2**27
"""Pixels of images in a shard, unless one image has more: three of Potsdam or 128 of LoveDA, about 200 MB."""

_ENDING = {signal.SIGINT, signal.SIGTERM}
_FEW = 16  # headers that are read before processes have started
_FORMAT = 1  # of shards; rises when the same raw files give other shards


@dataclass(frozen=True)
class PlannedImage:
    """A pair, the (height, width) of its image and the tiles to cut."""

    pair: RawPair
    size: tuple[int, int]
    tiles: tuple[Tile, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the only tile is the image itself."""
        return self.tiles == ((0, 0, *self.size),)


@dataclass(frozen=True)
class Shard:
    """One Parquet file: its split, name and images."""

    split: str
    file: str
    images: tuple[PlannedImage, ...]

    @property
    def rows(self) -> int:
        """Tiles in it."""
        return sum(len(image.tiles) for image in self.images)


@dataclass(frozen=True)
class BuildPlan:
    """A domain's build.

    Attributes:
        domain: What is built.
        source: Where from.
        shards: Files to write, in order.
        is_plain: Whether the images are 8-bit gray or RGB, which every reader of pictures knows.
        incomplete: Whether images are missing, which the user has allowed.
    """

    domain: Domain
    source: DomainSource
    shards: tuple[Shard, ...]
    is_plain: bool
    incomplete: bool

    @property
    def counts(self) -> dict[str, int]:
        """Tiles per split."""
        counts: Counter[str] = Counter()
        for shard in self.shards:
            counts[shard.split] += shard.rows
        return dict(counts)

    @cached_property
    def identity(self) -> str:
        """SHA-256 of all that decides what the shards hold: only shards of the same identity are resumed or kept."""
        facts = [
            _FORMAT,
            PNG_OPTIONS,
            LABEL_OPTIONS,
            VERSION,
            self.domain.name,
            self.domain.tile,
            self.domain.labels.classes,
        ]
        facts += [self.source.bands, self.source.notes, self.is_plain]
        for shard in self.shards:
            for image in shard.images:
                files = (image.pair.image, image.pair.label)
                facts += [shard.file, image.pair.name, image.tiles]
                facts += [(file.relative, file.size, file.modified()) for file in files]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def read_headers(sources: Iterable[DomainSource], workers: int) -> dict[RawFile, Header]:
    """The headers of all images, by several processes; raises as `read_header`."""
    files = list(dict.fromkeys(pair.image for source in sources for pair in source.pairs))
    bar = partial(progress_bar, total=len(files), desc="headers", unit="image")
    if workers == 1 or len(files) < _FEW:
        return dict(zip(files, bar(map(read_header, files)), strict=True))
    with worker_pool(workers) as pool:
        chunk = max(1, min(32, len(files) // (4 * workers)))
        return dict(zip(files, bar(pool.map(read_header, files, chunksize=chunk)), strict=True))


def process_context() -> Any:
    """How processes start: forked if the system can, because importing torch again takes seconds."""
    method = "spawn"
    if "fork" in multiprocessing.get_all_start_methods():
        method = "fork"
    return multiprocessing.get_context(method)


@contextmanager
def worker_pool(
    workers: int, start: Callable[..., object] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes, each started with `start(*arguments)`; Ctrl-C may end it at any moment.

    A terminal sends Ctrl-C to all processes; the pool's processes ignore it, and print nothing when they are ended.
    """
    pool = ProcessPoolExecutor(workers, process_context(), _begin, (start, arguments))
    try:
        with _held_signals():  # a freshly forked process would handle them like this one
            pool.submit(int)
        yield pool
    finally:
        try:
            pool.shutdown(cancel_futures=True)
        except RuntimeError:  # interrupted before the thread that ends the processes was started
            for process in multiprocessing.active_children():
                process.terminate()


@contextmanager
def _held_signals() -> Iterator[None]:
    """Delays signals that end a job until after the block."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(start: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    """The first thing that a process of a pool does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    if start is not None:
        start(*arguments)


def plan_domain(
    domain: Domain,
    source: DomainSource,
    headers: Mapping[RawFile, Header],
    *,
    allow_incomplete: bool,
) -> BuildPlan:
    """Plans a domain from its raw files' names and image headers.

    Args:
        domain: What to build.
        source: What the data set's reader found.
        headers: Of its images.
        allow_incomplete: Whether fewer images than the benchmark counts, and images without a partner, are accepted.

    Raises:
        InputError: Partners are missing, the counts differ from those of the benchmark, or images are of mixed kinds.
            The message gives the likely cause.
    """
    is_plain = _check_kinds(source, headers)
    sizes = [headers[pair.image].size for pair in source.pairs]
    images = [
        PlannedImage(pair, size, tuple(windows(*size, domain.tile)))
        for pair, size in zip(source.pairs, sizes, strict=True)
    ]
    shards = tuple(_shards(images))
    plan = BuildPlan(domain, source, shards, is_plain, incomplete=False)
    differences = list(_differences(domain, plan.counts, source.splits or tuple(domain.counts)))
    surplus = [text for text, is_surplus in differences if is_surplus]
    if surplus or ((differences or source.unpaired) and not allow_incomplete):
        raise InputError(_mismatch(domain, source, surplus or [text for text, _ in differences]))
    return BuildPlan(
        domain, source, shards, is_plain, incomplete=bool(differences or source.unpaired)
    )


def check_found(domain: Domain, source: DomainSource) -> None:
    """Raises `InputError` saying what to download if the reader found no pair."""
    if not source.pairs:
        dataset = get_dataset(domain.dataset)
        wanted = ", ".join(dataset.archives) or "the files that its authors publish"
        if source.unpaired:
            cause = f"; {source.unpaired[0]}"
        else:
            cause = ""
        if dataset.processed:
            wanted += f" from {dataset.homepage}, or {dataset.processed} from {PROCESSED_HOMEPAGE}"
        else:
            wanted += f" from {dataset.homepage}"
        keys = f"{domain.name}.test.images=FOLDER and {domain.name}.test.labels=FOLDER"
        raise InputError(
            f"no pair of image and label for {domain.name} in the raw folder{cause}: download {wanted}, choose other "
            f"--domains, or name folders with --path {keys}"
        )


def _check_kinds(source: DomainSource, headers: Mapping[RawFile, Header]) -> bool:
    """Whether all images are plain, as `BuildPlan` says; raises `InputError` if some are and some are not."""
    first = source.pairs[0].image
    for pair in source.pairs:
        if _is_plain(source, headers[pair.image]) != _is_plain(source, headers[first]):
            kinds = [
                f"{file} has {headers[file].bands} bands of {headers[file].dtype}"
                for file in (pair.image, first)
            ]
            raise InputError(
                f"{' and '.join(kinds)}; the images of a domain are of one kind: download both again"
            )
    return _is_plain(source, headers[first])


def _is_plain(source: DomainSource, header: Header) -> bool:
    if source.bands is None:
        bands = header.bands
    else:
        bands = len(source.bands)
    return header.dtype == np.uint8 and bands in (1, 3)


def _shards(images: Sequence[PlannedImage]) -> Iterator[Shard]:
    """Images in their order, by split, in shards of `SHARD_PIXELS`."""
    for split in dict.fromkeys(image.pair.split for image in images):
        groups: list[list[PlannedImage]] = [[]]
        pixels = 0
        for image in (image for image in images if image.pair.split == split):
            if groups[-1] and pixels + image.size[0] * image.size[1] > SHARD_PIXELS:
                groups.append([])
                pixels = 0
            groups[-1].append(image)
            pixels += image.size[0] * image.size[1]
        for index, group in enumerate(groups):
            yield Shard(split, f"{split}-{index:05d}-of-{len(groups):05d}.parquet", tuple(group))


def _differences(
    domain: Domain, counts: dict[str, int], splits: Sequence[str]
) -> Iterator[tuple[str, bool]]:
    """A phrase for each of the splits whose count is not the benchmark's, and whether it has too many."""
    for split, expected in domain.counts.items():
        if split not in splits:
            continue
        count = counts.get(split, 0)
        if expected is not None and count not in (expected, domain.archive_counts.get(split)):
            yield f"{split} has {count} images where the benchmark has {expected}", count > expected


def _mismatch(domain: Domain, source: DomainSource, differences: list[str]) -> str:
    what = "; ".join(differences) or "images and labels do not pair up"
    if source.unpaired:
        if len(source.unpaired) > 1:
            more = f" and {len(source.unpaired) - 1} more"
        else:
            more = ""
        cause = f"{source.unpaired[0]}{more}"
    else:
        archives = ", ".join(get_dataset(domain.dataset).archives)
        cause = f"an archive of {archives} may be missing, cut off or another one"
    return f"{domain.name}: {what} ({cause}); complete the download, or add --allow-incomplete to build what is there"
