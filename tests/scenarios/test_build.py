"""From archives to `load_dataset`: nothing changes on the way, and nothing half-written is ever left."""

import dataclasses
import io
import json
import multiprocessing
import os
import resource
import signal
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from miniature_archives import (
    ISPRS_COLORS,
    class_map,
    encoded,
    loveda,
    picture,
    potsdam,
    tiff,
    write_archive,
)
from PIL import Image
from rasterio.io import MemoryFile

from crossearth_hf.errors import InputError
from crossearth_hf.scenarios.build import build_dataset, plan
from crossearth_hf.scenarios.build.archives import RawFolder
from crossearth_hf.scenarios.build.label_values import mapped_ids
from crossearth_hf.scenarios.build.pairs import DomainSource, by_key, paired
from crossearth_hf.scenarios.build.readers import READERS
from crossearth_hf.scenarios.build.readers import loveda as loveda_reader
from crossearth_hf.scenarios.domains import DOMAINS

LOVEDA = {"Train/Rural": ("1", "2", "3", "4"), "Val/Rural": ("5", "6")}


def build_loveda(raw, out, **options):
    return build_dataset(
        "loveda", raw, out, domains=["loveda_rural"], allow_incomplete=True, **options
    )


@pytest.fixture
def several_shards(monkeypatch):
    monkeypatch.setattr(plan, "SHARD_PIXELS", 64 * 64)


def load(out, config, split, tmp_path, **options):
    return datasets.load_dataset(
        str(out), config, split=split, cache_dir=str(tmp_path / "cache"), **options
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_tiles_and_labels_arrive_as_published(tmp_path):
    content = potsdam(tmp_path / "raw", tiles=("2_10", "2_13"))
    report = build_dataset(
        "potsdam",
        tmp_path / "raw",
        tmp_path / "out",
        domains=["potsdam_irrg"],
        allow_incomplete=True,
        workers=1,
    )
    assert report.table().startswith("potsdam_irrg: train 4, test 4 images (INCOMPLETE)")
    # of ISPRS_COLORS: the classes in the benchmark's order, then the boundary
    ids = np.array([*range(6), 255])
    corners = [
        (0, 0),
        (0, 188),
        (88, 0),
        (88, 188),
    ]  # of 600 x 700 pixels, the last ones shifted to the border
    for split, tile, streaming in (
        ("train", "2_10", False),
        ("train", "2_10", True),
        ("test", "2_13", True),
    ):
        rows = list(load(tmp_path / "out", "potsdam_irrg", split, tmp_path, streaming=streaming))
        assert [row["name"] for row in rows] == [
            f"{tile}_{c}_{r}_{c + 512}_{r + 512}" for r, c in corners
        ]
        for record, (row, col) in zip(rows, corners, strict=True):
            part = slice(row, row + 512), slice(col, col + 512)
            assert (np.array(record["image"]) == content[tile][1][part]).all()
            assert (np.array(record["label"]) == ids[content[tile][2][part]]).all()


def test_potsdam_in_the_classes_of_rescuenet(tmp_path):
    content = potsdam(tmp_path / "raw", tiles=("2_10",), size=(40, 50), zipped=False)
    build_dataset(
        "potsdam",
        tmp_path / "raw",
        tmp_path / "out",
        domains=["potsdam_rgb_res"],
        allow_incomplete=True,
    )
    [row] = load(tmp_path / "out", "potsdam_rgb_res", "train", tmp_path)
    assert row["name"] == "2_10"  # smaller than a tile: whole
    assert (np.array(row["image"]) == content["2_10"][0]).all()
    classes = ["impervious_surface", "building", "vegetation", "car", "clutter"]
    merged = ["vegetation" if name in ("low_vegetation", "tree") else name for name in ISPRS_COLORS]
    ids = np.array([classes.index(name) if name in classes else 255 for name in merged])
    assert (np.array(row["label"]) == ids[content["2_10"][2]]).all()


def test_whole_pictures_keep_their_bytes(tmp_path):
    loveda(tmp_path / "raw", LOVEDA)
    build_loveda(tmp_path / "raw", tmp_path / "out")
    [published] = RawFolder.open(tmp_path / "raw").files("Train/Rural/images_png/2.png")
    rows = load(tmp_path / "out", "loveda_rural", "train", tmp_path).cast_column(
        "image", datasets.Image(decode=False)
    )
    assert [row["name"] for row in rows] == ["1", "2", "3", "4"]
    assert rows[1]["image"] == {"bytes": published.read_bytes(), "path": "2.png"}


def test_processes_change_nothing(tmp_path, several_shards):
    loveda(tmp_path / "raw", LOVEDA)
    builds = [
        build_loveda(tmp_path / "raw", tmp_path / f"out{n}", workers=n).builds["loveda_rural"]
        for n in (1, 2)
    ]
    assert builds[0] == builds[1]
    assert [shard["images"] for shard in builds[0]["shards"]] == [1] * 6
    assert (
        names(tmp_path / "out1")
        == names(tmp_path / "out2")
        == ["README.md", "loveda_rural", "preview.png"]
    )


def broken_off_at(number, error):
    """A `labels` that fails at one pair."""

    def labels(pair, classes, real=loveda_reader._labels):
        if pair.name == number:
            raise error
        return real(pair, classes)

    return labels


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, InputError("3.png is damaged"), OSError(28, "No space left")]
)
def test_an_interrupted_build_goes_on(tmp_path, several_shards, monkeypatch, error):
    loveda(tmp_path / "raw", LOVEDA)
    whole = build_loveda(tmp_path / "raw", tmp_path / "whole", workers=1).builds
    with monkeypatch.context() as patch:
        patch.setattr(loveda_reader, "_labels", broken_off_at("3", error))
        with pytest.raises((KeyboardInterrupt, InputError)):
            build_loveda(tmp_path / "raw", tmp_path / "out", workers=1)
    unfinished = tmp_path / "out/.loveda_rural-unfinished"
    assert names(tmp_path / "out") == [unfinished.name]
    assert names(unfinished / "data") == [f"train-0000{index}-of-00004.parquet" for index in (0, 1)]
    assert [name for name in names(unfinished / "records") if not name.endswith(".json")] == []
    kept = (unfinished / "data/train-00000-of-00004.parquet").stat().st_ino
    assert build_loveda(tmp_path / "raw", tmp_path / "out", workers=1).builds == whole
    assert (tmp_path / "out/loveda_rural/train-00000-of-00004.parquet").stat().st_ino == kept
    assert names(tmp_path / "out") == ["README.md", "loveda_rural", "preview.png"]


def test_shards_of_other_raw_files_are_not_resumed(tmp_path, several_shards, monkeypatch):
    loveda(tmp_path / "raw", LOVEDA)
    with monkeypatch.context() as patch:
        patch.setattr(loveda_reader, "_labels", broken_off_at("3", KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build_loveda(tmp_path / "raw", tmp_path / "out", workers=1)
    loveda(tmp_path / "raw", LOVEDA, size=32)
    build_loveda(tmp_path / "raw", tmp_path / "out", workers=1)
    assert np.array(
        load(tmp_path / "out", "loveda_rural", "train", tmp_path)[0]["label"]
    ).shape == (32, 32)


def test_a_killed_build_goes_on(tmp_path, several_shards, monkeypatch):
    loveda(tmp_path / "raw", LOVEDA)
    monkeypatch.setattr(loveda_reader, "_labels", slow_labels)
    process = multiprocessing.get_context("fork").Process(
        target=build_loveda, args=(tmp_path / "raw", tmp_path / "out"), kwargs={"workers": 2}
    )
    process.start()
    records = tmp_path / "out/.loveda_rural-unfinished/records"
    while not list(records.glob("*.json")):
        assert process.is_alive(), "the build ended before it was killed"
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    deadline = time.monotonic() + 10
    while (
        any(Path(f"/proc/{child}/fd/0").exists() for child in children)
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert not any(Path(f"/proc/{child}/fd/0").exists() for child in children)  # nobody works on
    assert not (tmp_path / "out/loveda_rural").exists()
    monkeypatch.undo()
    done = build_loveda(tmp_path / "raw", tmp_path / "out", workers=2).builds["loveda_rural"]
    assert sum(shard["images"] for shard in done["shards"]) == 6
    assert names(tmp_path / "out/loveda_rural") == sorted(
        ["build.json", *(shard["file"] for shard in done["shards"])]
    )


def test_one_build_at_a_time_writes_a_folder(tmp_path, several_shards, monkeypatch):
    loveda(tmp_path / "raw", LOVEDA)
    monkeypatch.setattr(loveda_reader, "_labels", slow_labels)
    monkeypatch.setattr("crossearth_hf.scenarios.build.build._LOCK_SECONDS", 0.1)
    first = multiprocessing.get_context("fork").Process(
        target=build_loveda, args=(tmp_path / "raw", tmp_path / "out"), kwargs={"workers": 1}
    )
    first.start()
    while not list(tmp_path.glob("out/.loveda_rural-unfinished/records/*.json")):
        assert first.is_alive(), "the build ended before the second began"
        time.sleep(0.02)
    loveda(tmp_path / "others", LOVEDA, size=32)
    with pytest.raises(
        InputError, match=r"another build is writing .*out; wait for it or name another folder"
    ):
        build_loveda(tmp_path / "others", tmp_path / "out", overwrite=True)
    first.join()
    assert first.exitcode == 0
    assert build_loveda(tmp_path / "raw", tmp_path / "out").kept == ("loveda_rural",)
    assert names(tmp_path / "out") == ["README.md", "loveda_rural", "preview.png"]


def slow_labels(pair, classes, real=loveda_reader._labels):
    time.sleep(0.5)
    return real(pair, classes)


def test_a_full_disk_is_one_sentence(tmp_path):
    """A limit on the size of files refuses as a full disk does: while the shard is written."""
    loveda(tmp_path / "raw", LOVEDA)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(
            InputError,
            match=r"train-00000-of-00001.parquet cannot be written: .*free space and run",
        ):
            build_loveda(tmp_path / "raw", tmp_path / "out", workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path / "out/.loveda_rural-unfinished/data") == []
    assert names(tmp_path / "out/.loveda_rural-unfinished/records") == []


def test_existing_domains_are_kept_or_replaced_on_request(tmp_path):
    loveda(tmp_path / "raw", LOVEDA)
    first = build_loveda(tmp_path / "raw", tmp_path / "out")
    again = build_loveda(tmp_path / "raw", tmp_path / "out")
    assert (first.kept, again.kept) == ((), ("loveda_rural",))
    assert "there already" in again.table()
    loveda(tmp_path / "raw", LOVEDA, size=32)
    with pytest.raises(InputError, match="exists already, built from other files"):
        build_loveda(tmp_path / "raw", tmp_path / "out")
    assert (
        json.loads((tmp_path / "out/loveda_rural/build.json").read_text())
        == first.builds["loveda_rural"]
    )
    other = build_loveda(tmp_path / "raw", tmp_path / "out", overwrite=True)
    assert (
        other.builds["loveda_rural"]["fingerprint"] != first.builds["loveda_rural"]["fingerprint"]
    )
    assert names(tmp_path / "out") == ["README.md", "loveda_rural", "preview.png"]


@pytest.mark.parametrize("content", ["{no json", '{"a":' * 100_000])
def test_a_build_that_cannot_be_told_is_one_sentence(tmp_path, content):
    loveda(tmp_path / "raw", LOVEDA)
    (tmp_path / "out/loveda_rural").mkdir(parents=True)
    (tmp_path / "out/loveda_rural/build.json").write_text(content)
    with pytest.raises(InputError, match=r"build.json cannot be read .*; build the domain again"):
        build_loveda(tmp_path / "raw", tmp_path / "out")


def test_a_damaged_image_is_named(tmp_path):
    loveda(tmp_path / "raw", LOVEDA, zipped=False)
    path = tmp_path / "raw/x/Train/Rural/images_png/3.png"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"images_png/3.png is damaged or cut off"):
        build_loveda(tmp_path / "raw", tmp_path / "out")
    assert not (tmp_path / "out/loveda_rural").exists()


def test_image_and_label_of_two_sizes(tmp_path):
    loveda(tmp_path / "raw", LOVEDA, zipped=False)
    (tmp_path / "raw/x/Train/Rural/masks_png/3.png").write_bytes(
        encoded(class_map(0, 32, 48, 8), "PNG")
    )
    with pytest.raises(
        InputError, match=r"3.png is 64x64 pixels and its label .*3.png 48x32; .* the same size"
    ):
        build_loveda(tmp_path / "raw", tmp_path / "out")


@pytest.fixture
def any_reader(monkeypatch):
    """Lets "spacenet-roads" read images/* and labels/*.png with ids as they are."""

    def read(raw, domain, paths, bands=None):
        images = by_key(raw.files("images/*"), lambda file: file.stem)
        labels = by_key(raw.files("labels/*.png"), lambda file: file.stem)
        return DomainSource(
            paired(images, labels, "train")[0], label_ids, bands=bands, notes=("a note",)
        )

    reader = SimpleNamespace(PATHS={"images": "folder of images"}, read=read)
    monkeypatch.setitem(READERS, "spacenet-roads", reader)
    return reader


def label_ids(pair):
    return mapped_ids(pair.label, {0: 0, 1: 1})


def write_pairs(root, images):
    write_archive(root / "images.zip", images, zipped=False)
    masks = {f"{Path(name).stem}.png": encoded(class_map(0, 40, 60, 2), "PNG") for name in images}
    write_archive(root / "labels.zip", masks, zipped=False)


@pytest.mark.parametrize(("bands", "dtype"), [(4, "uint8"), (4, "uint16"), (8, "uint16")])
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_rasters_of_more_bands_and_bits_survive(tmp_path, any_reader, bands, dtype, streaming):
    pixels = picture(0, 40, 60, bands, dtype)
    write_pairs(tmp_path / "raw", {"a.tif": tiff(pixels)})
    build_dataset("spacenet-roads", tmp_path / "raw", tmp_path / "out")
    [row] = load(tmp_path / "out", "spacenet_road", "train", tmp_path, streaming=streaming)
    with MemoryFile(row["image"]["bytes"]) as memory, memory.open() as source:
        assert (source.read().transpose(1, 2, 0) == pixels).all()
    assert (np.array(row["label"]) == class_map(0, 40, 60, 2)).all()


def test_chosen_bands(tmp_path, any_reader):
    pixels = picture(0, 40, 60, 8)
    write_pairs(tmp_path / "raw", {"a.tif": tiff(pixels)})
    any_reader.read = partial(any_reader.read, bands=(5, 3, 2))
    build_dataset("spacenet-roads", tmp_path / "raw", tmp_path / "out")
    [row] = load(tmp_path / "out", "spacenet_road", "train", tmp_path)
    assert (np.array(row["image"]) == pixels[..., [4, 2, 1]]).all()


def test_images_of_mixed_kinds(tmp_path, any_reader):
    images = {"a.tif": tiff(picture(0, 40, 60)), "b.tif": tiff(picture(0, 40, 60, 4, "uint16"))}
    write_pairs(tmp_path / "raw", images)
    with pytest.raises(
        InputError,
        match=r"b.tif has 4 bands of uint16 and .*a.tif has 3 bands of uint8; .* of one kind",
    ):
        build_dataset("spacenet-roads", tmp_path / "raw", tmp_path / "out")


def test_labels_beyond_the_classes(tmp_path, any_reader):
    write_pairs(tmp_path / "raw", {"a.png": encoded(picture(0, 40, 60), "PNG")})
    (tmp_path / "raw/labels/a.png").write_bytes(encoded(class_map(0, 40, 60, 3), "PNG"))
    with pytest.raises(
        InputError, match=r"a.png has \d+ pixels of ids that are not a class, the first 2 at row"
    ):
        build_dataset("spacenet-roads", tmp_path / "raw", tmp_path / "out")


def test_a_rebuild_is_not_served_from_the_cache_of_the_old_one(tmp_path, any_reader):
    """Uncompressed pictures: two builds that agree in names, counts and bytes, and differ in pixels alone."""
    sizes = []
    for seed in (0, 1):
        pixels = picture(seed, 40, 60)
        write_pairs(tmp_path / "raw", {"a.png": encoded(pixels, "PNG", compress_level=0)})
        report = build_dataset("spacenet-roads", tmp_path / "raw", tmp_path / "out", overwrite=True)
        [shard] = report.builds["spacenet_road"]["shards"]
        sizes.append((shard["file"], shard["bytes"], shard["content_bytes"]))
        [row] = load(tmp_path / "out", "spacenet_road", "train", tmp_path)
        assert (np.array(row["image"]) == pixels).all()
    assert sizes[0] == sizes[1]
    # and an unchanged build is read from there
    assert len(list((tmp_path / "cache").glob("**/*.arrow"))) == 2
    load(tmp_path / "out", "spacenet_road", "train", tmp_path)
    assert len(list((tmp_path / "cache").glob("**/*.arrow"))) == 2


def test_row_groups_are_small_enough_for_streams(tmp_path, any_reader, monkeypatch):
    monkeypatch.setattr("crossearth_hf.scenarios.build.shards.ROW_GROUP_BYTES", 10_000)
    write_pairs(
        tmp_path / "raw",
        {f"{index}.png": encoded(picture(index, 40, 60), "PNG") for index in range(9)},
    )
    build_dataset("spacenet-roads", tmp_path / "raw", tmp_path / "out")
    with pq.ParquetFile(tmp_path / "out/spacenet_road/train-00000-of-00001.parquet") as file:
        assert file.metadata.num_rows == 9
        assert file.num_row_groups > 2


def test_build_facts(tmp_path):
    loveda(tmp_path / "raw", LOVEDA)
    build = build_loveda(tmp_path / "raw", tmp_path / "out").builds["loveda_rural"]
    published = RawFolder.open(tmp_path / "raw").files("Val/Rural/masks_png/*.png")
    masks = np.stack([np.array(Image.open(io.BytesIO(file.read_bytes()))) for file in published])
    counted = np.bincount(masks.ravel(), minlength=8).tolist()
    facts = build["splits"]["test"]
    assert (facts["images"], facts["expected"]) == (2, DOMAINS["loveda_rural"].counts["test"])
    assert list(facts["class_pixels"].values()) == [*counted[1:], counted[0]]  # 0 is without data
    assert [(source["file"], source["files"]) for source in build["sources"]] == [
        ("Train.zip", 8),
        ("Val.zip", 4),
    ]
    assert build["incomplete"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "lovedda"}, "unknown data set 'lovedda'"),
        (
            {"domains": ["potsdam_rgb"]},
            "'potsdam_rgb' is not a domain of loveda; choose from loveda_urban, loveda_rural",
        ),
        ({"domains": []}, "is not a domain of loveda"),
        (
            {"paths": {"images": "x"}},
            "'images' is not a path of loveda; its keys are loveda_urban.train.images, ",
        ),
        ({"workers": 0}, "the number of workers, 0, must be at least 1"),
        ({"raw_dir": "none"}, "is not a folder"),
        ({"out_dir": "raw"}, "is the raw folder itself"),
        ({"out_dir": "raw/Train.zip"}, "is a file"),
        ({"out_dir": "raw/Train.zip/out"}, "does not exist; create it first"),
    ],
)
def test_mistakes_are_found_before_the_work(tmp_path, options, message):
    loveda(tmp_path / "raw", LOVEDA)
    paths = {
        "raw_dir": tmp_path / options.pop("raw_dir", "raw"),
        "out_dir": tmp_path / options.pop("out_dir", "out"),
    }
    with pytest.raises(InputError, match=message):
        build_dataset(**{"name": "loveda", **paths, **options})
    assert not (tmp_path / "out").exists()


def test_archives_that_cannot_be_read_in_place_are_mentioned(tmp_path):
    (tmp_path / "LoveDA.tar.gz").write_bytes(b"x")
    with pytest.raises(
        InputError, match=r"no pair .*; LoveDA.tar.gz is in the same folder: unpack it first"
    ):
        build_loveda(tmp_path, tmp_path / "out")


def test_counts_that_agree_need_no_flag(tmp_path, monkeypatch):
    loveda(tmp_path / "raw", LOVEDA)
    domain = dataclasses.replace(DOMAINS["loveda_rural"], counts={"train": 4, "test": 2})
    monkeypatch.setitem(DOMAINS, "loveda_rural", domain)
    report = build_dataset("loveda", tmp_path / "raw", tmp_path / "out", domains=["loveda_rural"])
    assert not report.builds["loveda_rural"]["incomplete"]
    assert "**Incomplete**" not in (tmp_path / "out/README.md").read_text()
