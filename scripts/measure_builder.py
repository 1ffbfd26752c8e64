"""What the builder costs beside plain reading and PNG-encoding of the same tiles on the same cores.

`python scripts/measure_builder.py WORK_DIR --tiles TILE.png LABEL.png --images 2 --workers 2` writes Potsdam-sized
archives (6000 x 6000 pixels, zipped TIFFs) made of one real tile and its ids, turned and mirrored, then takes turns:

- builder: `build_dataset` from zips to Parquet shards with card;
- plain: zips to PNG tiles in memory, nothing else: Pillow opens both files, cuts 512 x 512 tiles of the image and of
  one channel of the label and encodes them with the builder's options. No ids, no checks, no file.

Printed: seconds on the clock, CPU seconds of all processes (which other work on the machine hardly touches), ratios,
and the MiB of the largest process, of which Python with all imports takes some hundreds.
"""

import argparse
import io
import json
import multiprocessing
import resource
import shutil
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import datasets  # noqa: F401 - imports are not part of what is compared
import numpy as np
import pyarrow.parquet  # noqa: F401
from PIL import Image

from crossearth_hf.labels import get_label_set
from crossearth_hf.scenarios.build import build_dataset
from crossearth_hf.scenarios.build.rasters import LABEL_OPTIONS, PNG_OPTIONS
from crossearth_hf.scenarios.build.readers.potsdam import SPLITS
from crossearth_hf.scenarios.build.tiling import windows

SIDE, TILE = 6000, 512


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "work_dir", type=Path, help="folder for archives and builds; they are deleted at the end"
    )
    parser.add_argument(
        "--tiles",
        type=Path,
        nargs=2,
        required=True,
        help="RGB tile and its ids: 0 boundary, 1 to 6",
    )
    parser.add_argument("--images", type=int, default=2, help="6000 x 6000 images (default: 2)")
    parser.add_argument("--workers", type=int, default=2, help="processes of either (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (default: 3)")
    return parser.parse_args(arguments)


def write_archives(folder: Path, tiles: tuple[Path, Path], count: int) -> None:
    """Potsdam's RGB and label archives with the first `count` training images."""
    folder.mkdir(parents=True)
    palette = np.array([(0, 0, 0), *get_label_set("isprs").colors], np.uint8)
    image, label = (
        np.array(Image.open(tiles[0]).convert("RGB")),
        palette[np.array(Image.open(tiles[1]))],
    )
    rng = np.random.default_rng(0)
    names = {"3_Ortho_RGB.zip": "2_Ortho_RGB/top_potsdam_{}_RGB.tif"}
    names["5_Labels_all_noBoundary.zip"] = "top_potsdam_{}_label_noBoundary.tif"
    for name in SPLITS["train"][:count]:
        turns = rng.integers(0, 8, (SIDE // TILE + 1, SIDE // TILE + 1))
        for (archive, member), tile in zip(names.items(), (image, label), strict=True):
            rows = [np.concatenate([_turned(tile, turn) for turn in row], axis=1) for row in turns]
            buffer = io.BytesIO()
            Image.fromarray(np.concatenate(rows)[:SIDE, :SIDE]).save(buffer, "TIFF")
            with zipfile.ZipFile(folder / archive, "a", zipfile.ZIP_DEFLATED) as target:
                target.writestr(member.format(name), buffer.getvalue())


def _turned(tile: np.ndarray, turn: int) -> np.ndarray:
    return np.rot90(tile if turn < 4 else tile[:, ::-1], turn % 4)


def encode_plainly(folder: Path, name: str) -> int:
    """Bytes of the PNG tiles of one image and of one channel of its label."""
    size = 0
    for path in sorted(folder.glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            [member] = [member for member in archive.namelist() if f"_{name}_" in member]
            pixels = np.array(Image.open(io.BytesIO(archive.read(member))))
        for row, col, height, width in windows(SIDE, SIDE, TILE):
            tile = pixels[row : row + height, col : col + width]
            options = PNG_OPTIONS
            if "label" in member:
                tile, options = tile[..., 0], LABEL_OPTIONS
            buffer = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(tile)).save(buffer, "PNG", **options)
            size += buffer.tell()
    return size


def plain(folder: Path, names: list[str], workers: int) -> None:
    """The comparison, by as many processes as the builder has."""
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        list(pool.map(encode_plainly, [folder] * len(names), names))


def cost_of(work: Callable[[], object]) -> dict[str, float]:
    """Seconds on the clock and CPU seconds of `work`, run in a process of its own, and MiB of its largest process."""
    process = multiprocessing.get_context("fork").Process(
        target=_measured, args=(work, queue := _queue())
    )
    process.start()
    result = queue.get()
    process.join()
    return result


def _queue() -> "multiprocessing.Queue[dict[str, float]]":
    return multiprocessing.get_context("fork").Queue()


def _measured(work: Callable[[], object], queue: "multiprocessing.Queue[dict[str, float]]") -> None:
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(part.ru_utime + part.ru_stime for part in usage)
    queue.put({"seconds": seconds, "cpu": cpu, "mib": max(part.ru_maxrss for part in usage) / 1024})


def main(arguments: list[str]) -> None:
    """Writes archives, measures both in turns, prints medians and ratios."""
    args = parse(arguments)
    raw, out = args.work_dir / "raw", args.work_dir / "out"
    write_archives(raw, tuple(args.tiles), args.images)
    options = {"domains": ["potsdam_rgb"], "allow_incomplete": True, "workers": args.workers}
    runs: dict[str, list[dict[str, float]]] = {"builder": [], "plain": []}
    try:
        for _ in range(args.rounds):
            runs["builder"].append(cost_of(lambda: build_dataset("potsdam", raw, out, **options)))
            shutil.rmtree(out)
            runs["plain"].append(
                cost_of(lambda: plain(raw, SPLITS["train"][: args.images], args.workers))
            )
    finally:
        shutil.rmtree(raw)
        shutil.rmtree(out, ignore_errors=True)
    medians = {
        name: {key: round(median(r[key] for r in costs), 2) for key in costs[0]}
        for name, costs in runs.items()
    }
    ratios = {
        key: round(medians["builder"][key] / medians["plain"][key], 2) for key in ("seconds", "cpu")
    }
    print(
        json.dumps(
            {
                **medians,
                "builder / plain": ratios,
                "images": args.images,
                "tiles": 144 * args.images,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
