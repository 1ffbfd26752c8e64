"""Parquet shards of images and label maps, written by several processes; each shard is complete or absent."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...data.record_values import PIXEL_SIZE_COLUMN
from ...errors import InputError
from ...files.digests import file_sha256
from ...labels import IGNORE_INDEX, LabelSet
from ...progress import progress_bar
from .archives import JSON_ERRORS
from .plan import BuildPlan, PlannedImage, Shard, process_context, worker_pool
from .rasters import encode_image, encode_labels, open_raster

ROW_GROUP_BYTES = 16 * 2**20
"""Least encoded bytes in a row group, the unit of streaming and of random access."""

_POLL_SECONDS = 0.2
_KEPT_SUFFIXES = (".png", ".jpg", ".jpeg")


_Row = tuple[dict[str, Any], np.ndarray]


class _StopError(Exception):
    """Another shard failed or the user interrupted: this one is given up."""


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard.

    Attributes:
        split: Its split.
        file: Its name.
        images: Rows.
        bytes: Size of the file.
        content_bytes: Of images, labels and names within it.
        sha256: Of the file.
        class_pixels: Pixels of each class, then of ignored ones.
    """

    split: str
    file: str
    images: int
    bytes: int
    content_bytes: int
    sha256: str
    class_pixels: list[int]


def features(is_plain: bool, *, with_pixel_size: bool = False) -> Any:
    """The columns as `datasets.Features`; images beyond 8-bit gray and RGB are handed out as bytes, undecoded.

    With `with_pixel_size` there is a column for meters on the ground per pixel, which may be unknown.

    Raises:
        InputError: `datasets` is missing.
    """
    try:
        import datasets  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            "a build needs the package 'datasets'; install it with pip install datasets"
        ) from error
    if is_plain:
        image = datasets.Image()
    else:
        image = datasets.Image(decode=False)
    columns = {"image": image, "label": datasets.Image(), "name": datasets.Value("string")}
    if with_pixel_size:
        columns[PIXEL_SIZE_COLUMN] = datasets.Value("float64")
    return datasets.Features(columns)


@dataclass(frozen=True)
class Written:
    """Counts of a Parquet file: rows, bytes of images, labels and names, and (256,) pixels of every id."""

    rows: int
    content_bytes: int
    pixels: np.ndarray


def write_rows(path: Path, rows: Iterable[_Row], schema: Any) -> Written:
    """Writes rows, each with its (256,) pixels of every id, as a Parquet file; raises `OSError` if the disk refuses."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    pixels, number, content, pending = np.zeros(256, np.int64), 0, 0, 0
    group: list[dict[str, Any]] = []
    # PNG and JPEG are already compressed.
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for row, counts in rows:
            group.append(row)
            pixels += counts
            size = len(row["image"]["bytes"]) + len(row["label"]["bytes"]) + len(row["name"])
            number, content, pending = number + 1, content + size, pending + size
            if pending >= ROW_GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group, pending = [], 0
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema))
    return Written(number, content, pixels)


def class_pixels(pixels: np.ndarray, label_set: LabelSet) -> list[int]:
    """Pixels of each class, then of ignored ones, of (256,) pixels of every id."""
    return [int(pixels[index]) for index in (*range(len(label_set.classes)), IGNORE_INDEX)]


def build_shards(plan: BuildPlan, folder: Path, workers: int) -> list[ShardRecord]:
    """Writes the shards that `folder` lacks.

    Args:
        plan: What to write.
        folder: Gets the shards in `data` and a record of each in `records`; what is there must stem from the same plan.
        workers: Processes; 1 works in this one.

    Raises:
        InputError: A raw file cannot be used, or the disk is full. Finished shards stay.
    """
    for name in ("data", "records"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    todo = [index for index, shard in enumerate(plan.shards) if _record(folder, shard) is None]
    total = sum(plan.counts.values())
    done = total - sum(plan.shards[index].rows for index in todo)
    with progress_bar(total=total, initial=done, desc=plan.domain.name, unit="image") as bar:
        if workers == 1 or len(todo) < 2:
            for index in todo:
                _write_shard(plan, plan.shards[index], folder, bar.update)
        else:
            _in_processes(plan, folder, todo, min(workers, len(todo)), bar)
    return [record for shard in plan.shards if (record := _record(folder, shard)) is not None]


def _in_processes(plan: BuildPlan, folder: Path, todo: list[int], workers: int, bar: Any) -> None:
    """Shards by a pool of processes, with one bar for all."""
    context = process_context()
    tiles, stop = context.Value("q", 0), context.Event()
    start = bar.n
    with worker_pool(workers, _start_worker, (plan, folder, tiles, stop, os.getpid())) as pool:
        try:
            pending: set[Future[None]] = {pool.submit(_work, index) for index in todo}
            while pending:
                done, pending = wait(pending, _POLL_SECONDS, return_when=FIRST_COMPLETED)
                bar.update(start + tiles.value - bar.n)
                for future in done:
                    future.result()
        except BrokenProcessPool as error:
            raise InputError(
                "a worker process died, perhaps for lack of memory; use fewer --workers and run the command again: "
                "finished shards are kept"
            ) from error
        finally:
            stop.set()


@dataclass(frozen=True)
class _Worker:
    plan: BuildPlan
    folder: Path
    on_tile: Callable[[], object]


_worker: _Worker | None = None  # of this process, if the pool started it


def _start_worker(plan: BuildPlan, folder: Path, tiles: Any, stop: Any, parent: int) -> None:
    global _worker  # noqa: PLW0603 - the way in which a pool hands state to its processes
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()

    def on_tile() -> None:
        if stop.is_set():
            raise _StopError
        with tiles.get_lock():
            tiles.value += 1

    _worker = _Worker(plan, folder, on_tile)


def _end_with(parent: int) -> None:
    """Ends this process after its parent was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _work(index: int) -> None:
    if _worker is not None:
        _write_shard(_worker.plan, _worker.plan.shards[index], _worker.folder, _worker.on_tile)


def _write_shard(
    plan: BuildPlan, shard: Shard, folder: Path, on_tile: Callable[[], object]
) -> None:
    """Writes a shard under a temporary name, renames it, and then writes its record, which marks it as finished."""
    stage = folder / "records" / f"{shard.file}.{os.getpid()}"
    try:
        rows = (row for image in shard.images for row in _counted(_rows(plan, image), on_tile))
        written = write_rows(stage, rows, features(plan.is_plain).arrow_schema)
        classes = class_pixels(written.pixels, plan.domain.labels)
        size, content = stage.stat().st_size, written.content_bytes
        record = ShardRecord(
            shard.split, shard.file, shard.rows, size, content, file_sha256(stage), classes
        )
        os.replace(stage, folder / "data" / shard.file)
        _write_json(folder / "records" / f"{shard.file}.json", vars(record))
    except OSError as error:
        raise InputError(
            f"{folder / 'data' / shard.file} cannot be written: {error.strerror or error}; finished shards are kept: "
            "free space and run the command again"
        ) from error
    finally:
        stage.unlink(missing_ok=True)


def _counted(rows: Iterator[_Row], on_tile: Callable[[], object]) -> Iterator[_Row]:
    """The same rows; each is told before it is handed on."""
    for row in rows:
        on_tile()
        yield row


def _rows(plan: BuildPlan, image: PlannedImage) -> Iterator[_Row]:
    """The rows of an image, each with its (256,) pixels per id."""
    pair = image.pair
    labels = plan.source.labels(pair)
    if labels.shape != image.size:
        raise InputError(
            f"{pair.image} is {image.size[1]}x{image.size[0]} pixels and its label {pair.label} "
            f"{labels.shape[1]}x{labels.shape[0]}; an image and its label must have the same size: download both again"
        )
    for (row, col, height, width), (content, suffix) in zip(
        image.tiles, _encoded_tiles(plan, image), strict=True
    ):
        if image.is_whole:
            name = pair.name
        else:
            name = f"{pair.name}_{col}_{row}_{col + width}_{row + height}"
        tile = np.ascontiguousarray(labels[row : row + height, col : col + width])
        counts = np.bincount(tile.ravel(), minlength=256)
        plan.domain.labels.check(np.flatnonzero(counts), str(pair.label))
        yield row_of(name, content, suffix, tile), counts


def row_of(name: str, content: bytes, suffix: str, labels: np.ndarray) -> dict[str, Any]:
    """A row of an image's bytes and its (H, W) uint8 ids."""
    return {
        "image": {"bytes": content, "path": name + suffix},
        "label": {"bytes": encode_labels(labels), "path": name + ".png"},
        "name": name,
    }


def _encoded_tiles(plan: BuildPlan, image: PlannedImage) -> Iterator[tuple[bytes, str]]:
    """Bytes and ending of every tile of an image."""
    file, bands = image.pair.image, plan.source.bands
    keep = image.is_whole and bands is None and file.suffix in _KEPT_SUFFIXES
    if keep:
        content = file.read_bytes()
    else:
        content = None
    with open_raster(file, content) as raster:
        if content is not None:
            raster.read(0, 0, *raster.size)  # refuses images that cannot be decoded
            yield content, file.suffix
            return
        rows = {row: height for row, _, height, _ in image.tiles}
        for row, height in rows.items():
            band = raster.read(row, 0, height, image.size[1], bands)  # files are stored by rows
            for _, col, _, width in (tile for tile in image.tiles if tile[0] == row):
                yield encode_image(band[:, col : col + width])


def _record(folder: Path, shard: Shard) -> ShardRecord | None:
    """The record of a finished shard; None if it has to be written."""
    try:
        record = ShardRecord(
            **json.loads((folder / "records" / f"{shard.file}.json").read_text(encoding="utf-8"))
        )
        if (folder / "data" / shard.file).stat().st_size == record.bytes:
            return record
        return None
    except (*JSON_ERRORS, TypeError):
        return None


def _remove_leftovers(folder: Path) -> None:
    """Deletes unfinished files of a killed run."""
    for path in (folder / "records").iterdir():
        if path.suffix != ".json":
            path.unlink()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    stage = path.with_suffix(f".{os.getpid()}")
    stage.write_text(json.dumps(content, indent=1), encoding="utf-8")
    os.replace(stage, path)
