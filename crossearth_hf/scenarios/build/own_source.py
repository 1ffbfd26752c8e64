"""`build_own_dataset`: a person's own images and labels -> what `datasets.load_dataset` reads."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ... import arguments
from ...data import Source, load_source, source_classes, source_folder
from ...data.class_list import as_hex, read_classes
from ...data.class_question import ask_for_classes
from ...data.hub import ID2LABEL
from ...data.hub_stream import HubStream
from ...data.image_blocks import ImageBlock
from ...data.label_counts import count_labels
from ...data.labeled_images import LabeledImage
from ...data.record_values import PIXEL_SIZE_COLUMN
from ...data.validation_split import hold_out
from ...errors import InputError
from ...files.digests import file_sha256
from ...files.outputs import check_outside, check_place, staged
from ...labels import IGNORE_INDEX, LabelSet
from ...progress import progress_bar
from ...raster.scene import Reading
from .built import BUILD_FILE, software
from .dataset_card import CARD_FILE, PICTURE_FILE
from .own_card import DATA_FOLDER, title_of, write_own_card
from .plan import SHARD_PIXELS
from .rasters import encode_image
from .shards import ShardRecord, class_pixels, features, row_of, write_rows

CLASSES_FILE = "classes.yaml"
TRAIN, VALIDATION = "train", "validation"
DEFAULT_TILE = 512
_WRITTEN = {CARD_FILE, PICTURE_FILE, DATA_FOLDER, ID2LABEL, CLASSES_FILE}

_Row = tuple[dict[str, Any], np.ndarray]


@dataclass(frozen=True)
class OwnDataset:
    """The result of a build of a person's own data.

    Attributes:
        out_dir: Its folder.
        build: The content of build.json.
    """

    out_dir: Path
    build: Mapping[str, Any]

    def table(self) -> str:
        """Lines for a terminal."""
        splits = ", ".join(
            f"{split} {facts['images']}" for split, facts in self.build["splits"].items()
        )
        counts = f"{splits} tiles"
        if self.build["left_out"]:
            counts += f" ({self.build['left_out']} without labels left out)"
        return f"{counts}\nWrote {self.out_dir}; train on it with --train_data hf:{self.out_dir}"


def build_own_dataset(
    source: str,
    out_dir: str | os.PathLike[str],
    *,
    classes: str | Sequence[str] | None = None,
    mask_values: Sequence[int] | None = None,
    mask_offset: int = 0,
    bands: Sequence[int] | None = None,
    nodata: Sequence[float] | float | str | None = None,
    tile: int = DEFAULT_TILE,
    validation_fraction: float = 0.0,
    seed: int = 0,
    overwrite: bool = False,
    tell: Callable[[str], object] | None = None,
) -> OwnDataset:
    """Builds a data set of a person's own images and labels as Parquet shards with a card.

    Images are what training sees: 8 bits per band, in the bands asked for, 0 without data.

    Args:
        source: As `data.load_source` takes it: a folder, a YAML file, a manifest.
        out_dir: Folder to write; afterwards `hf:OUT_DIR` and `hf:OUT_DIR::validation` are sources.
        classes: As `read_classes` takes them; by default those that the source names.
        mask_values, mask_offset: See `load_source`.
        bands, nodata: Of the images, see `Reading`.
        tile: Longest side in pixels; larger images are cut. Tiles without labels are left out.
        validation_fraction: Share of the images in the split "validation", see `hold_out`; 0 for no such split.
        seed: Of that choice.
        overwrite: Replace a data set that was built there.
        tell: Takes lines on the data and the table of labels.

    Raises:
        InputError: The source cannot be read or divided (see `load_source` and `hold_out`), it is a stream, some of its
            images label only some of the classes, the folder exists or holds something else, or it cannot be written.
    """
    _check_numbers(tile, validation_fraction)
    tell = tell or (lambda line: None)
    chosen = arguments.band_numbers(bands)
    channels = max(3, len(chosen or ()))
    reading = Reading(bands=chosen, nodata=arguments.nodata_values(nodata), num_channels=channels)
    schema = features(channels == 3, with_pixel_size=True).arrow_schema
    label_set = _classes(source, classes, reading)
    target = _check_target(source, out_dir, overwrite=overwrite)
    options: dict[str, Any] = {
        "mask_values": mask_values,
        "mask_offset": mask_offset,
        "reading": reading,
    }
    images = load_source(source, label_set, tell=tell, **options)
    _check_images(
        source, images, label_set, tell, counts_from_zero=not (mask_values or mask_offset)
    )
    splits = _splits(source, images, validation_fraction, seed, tell)
    with staged([target]) as (stage,):
        (stage / DATA_FOLDER).mkdir(parents=True)
        tiles = _Tiles(tile)
        records = [
            record
            for split, own in splits.items()
            for record in _write_split(
                stage / DATA_FOLDER, split, tiles.rows(own, split), schema, label_set
            )
        ]
        build = _build_facts(source, label_set, records, splits, tiles, is_plain=channels == 3)
        (stage / DATA_FOLDER / BUILD_FILE).write_text(
            json.dumps(build, indent=1) + "\n", encoding="utf-8"
        )
        _write_classes(stage, label_set)
        write_own_card(stage, title_of(source), label_set, build)
    return OwnDataset(target, build)


class _Tiles:
    """Rows of images cut into tiles; counts those that are left out."""

    def __init__(self, side: int) -> None:
        self.side, self.left_out = side, 0

    def rows(self, images: Iterable[LabeledImage], split: str) -> Iterator[_Row]:
        """The rows of the tiles that hold labels, each with its (256,) pixels of every id."""
        for image in progress_bar(images, desc=split, unit="image"):
            yield from self._rows(image)

    def _rows(self, image: LabeledImage) -> Iterator[_Row]:
        height, width = image.size
        windows, (name, top, left) = image.open(), _place(image)
        down, across = _edges(height, self.side), _edges(width, self.side)
        for row, bottom in pairwise(down):
            for col, right in pairwise(across):
                window = (row, col, bottom - row, right - col)
                labels = windows.read_labels(*window)
                if (labels != IGNORE_INDEX).any():
                    pixels, valid = windows.read_pixels(*window)
                    if valid is not None:
                        labels = np.where(valid, labels, np.uint8(IGNORE_INDEX))
                if (labels == IGNORE_INDEX).all():
                    self.left_out += 1
                    continue
                content, suffix = encode_image(pixels)
                tile_name = name
                if (len(down), len(across)) != (2, 2) or isinstance(image, ImageBlock):
                    tile_name += f"_{left + col}_{top + row}_{left + right}_{top + bottom}"
                tile = row_of(tile_name, content, suffix, labels)
                yield (
                    tile | {PIXEL_SIZE_COLUMN: image.pixel_size},
                    np.bincount(labels.ravel(), minlength=256),
                )


def _edges(length: int, side: int) -> list[int]:
    """Edges of tiles of nearly equal length, none longer than `side`."""
    parts = -(-length // side)
    return [round(length * part / parts) for part in range(parts + 1)]


def _place(image: LabeledImage) -> tuple[str, int, int]:
    """Name of the image that a person knows, and the row and column of it at which this one starts."""
    if isinstance(image, ImageBlock):
        return image.whole.name, image.window[0], image.window[1]
    return image.name, 0, 0


def _write_split(
    folder: Path, split: str, rows: Iterator[_Row], schema: Any, label_set: LabelSet
) -> list[ShardRecord]:
    """Writes the rows in shards of about `SHARD_PIXELS`; raises `InputError` if there are none."""
    written = []
    for index, shard in enumerate(_shards(rows)):
        written.append(write_rows(folder / f"{index}.unnamed", shard, schema))
    if not written:
        raise InputError(
            f"no tile of the split {split} holds a label where its image has data; check masks and nodata"
        )
    records = []
    for index, content in enumerate(written):
        path = folder / f"{split}-{index:05d}-of-{len(written):05d}.parquet"
        os.replace(folder / f"{index}.unnamed", path)
        pixels = class_pixels(content.pixels, label_set)
        size, digest = path.stat().st_size, file_sha256(path)
        records.append(
            ShardRecord(split, path.name, content.rows, size, content.content_bytes, digest, pixels)
        )
    return records


def _shards(rows: Iterator[_Row]) -> Iterator[Iterator[_Row]]:
    """The rows in parts, each of which is to be read to its end before the next one."""
    for first in rows:
        yield chain([first], _until_full(rows, int(first[1].sum())))


def _until_full(rows: Iterator[_Row], pixels: int) -> Iterator[_Row]:
    while pixels < SHARD_PIXELS:
        row = next(rows, None)
        if row is None:
            return
        pixels += int(row[1].sum())
        yield row


def _check_numbers(tile: int, validation_fraction: float) -> None:
    if tile < 1:
        raise InputError(
            f"tile {tile} is not above 0; it is the longest side of a tile in pixels, such as 512"
        )
    if not 0 <= validation_fraction < 1:
        raise InputError(
            f"validation_fraction {validation_fraction} is not from 0 to below 1; 0.1 holds out a tenth"
        )


def _classes(source: str, given: str | Sequence[str] | None, reading: Reading) -> LabelSet:
    if given is not None:
        return read_classes(given)
    named = source_classes(source)
    if named is None:
        raise InputError(ask_for_classes([source], reading, "the data do not"))
    return named


def _check_target(source: str, out_dir: str | os.PathLike[str], *, overwrite: bool) -> Path:
    target = check_place(out_dir, overwrite=overwrite, parents=True)
    if target.exists() and not (target / DATA_FOLDER / BUILD_FILE).is_file():
        raise InputError(
            f"{out_dir} exists and was not written by build-dataset; move it away or choose another name"
        )
    strangers = {path.name for path in target.glob("*")} - _WRITTEN
    if strangers:
        raise InputError(
            f"{target / min(strangers)} would be lost, as {out_dir} is replaced as a whole; move it away"
        )
    folder = source_folder(source)
    if folder is not None:
        check_outside([folder, folder / "any"], target)
    return target


def _check_images(
    source: str,
    images: Source,
    label_set: LabelSet,
    tell: Callable[[str], object],
    *,
    counts_from_zero: bool,
) -> None:
    if isinstance(images, HubStream):
        raise InputError(f"{source} is a stream and cannot be built; use hf:")
    if any(image.partial is not None for image in images):
        raise InputError(
            f"{source} labels only some classes, which a built data set cannot record; train from the source itself"
        )
    counts = count_labels([images])
    counts.check(source, label_set.classes, label_set)
    if counts_from_zero:
        counts.check_from_zero(source, label_set)
    tell(counts.table(source, label_set))


def _splits(
    source: str, images: Source, fraction: float, seed: int, tell: Callable[[str], object]
) -> dict[str, Sequence[LabeledImage]]:
    if not fraction:
        return {TRAIN: list(images)}  # type: ignore[arg-type] # no stream
    split = hold_out([source], [images], fraction, seed)
    tell(split.line)
    return {TRAIN: list(split.train[0]), VALIDATION: split.validation}  # type: ignore[arg-type]


def _build_facts(
    source: str,
    label_set: LabelSet,
    records: Sequence[ShardRecord],
    splits: Mapping[str, Sequence[LabeledImage]],
    tiles: _Tiles,
    *,
    is_plain: bool,
) -> dict[str, Any]:
    """The content of build.json."""
    hashes = "".join(record.sha256 for record in records)
    return {
        "dataset": title_of(source),
        "classes": list(label_set.classes),
        "splits": {split: _split_facts(split, records, label_set) for split in splits},
        "incomplete": False,
        "tile": tiles.side,
        "left_out": tiles.left_out,
        "plain_images": is_plain,
        "shards": [vars(record) for record in records],
        "fingerprint": hashlib.sha256(hashes.encode()).hexdigest(),
        "software": software(),
    }


def _split_facts(split: str, records: Sequence[ShardRecord], label_set: LabelSet) -> dict[str, Any]:
    own = [record for record in records if record.split == split]
    pixels = [sum(counts) for counts in zip(*(record.class_pixels for record in own), strict=True)]
    return {
        "images": sum(record.images for record in own),
        "bytes": sum(record.content_bytes for record in own),
        "class_pixels": dict(zip((*label_set.classes, "ignored"), pixels, strict=True)),
    }


def _write_classes(folder: Path, label_set: LabelSet) -> None:
    """Writes the names in the form of transformers' examples, and chosen colors in a file for `--classes`."""
    names = json.dumps(label_set.id2label, indent=1, ensure_ascii=False)
    (folder / ID2LABEL).write_text(names + "\n", encoding="utf-8")
    if label_set.has_chosen_colors:
        colors = {
            name: as_hex(color)
            for name, color in zip(label_set.classes, label_set.colors, strict=True)
        }
        text = json.dumps({"classes": colors}, indent=1, ensure_ascii=False)  # which YAML holds too
        (folder / CLASSES_FILE).write_text(text + "\n", encoding="utf-8")
