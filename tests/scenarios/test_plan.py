"""A build knows its tiles and shards before the work, and refuses counts that are not the benchmark's."""

import dataclasses
import warnings
from functools import partial

import numpy as np
import pytest
import rasterio
from miniature_archives import encoded, loveda, picture, potsdam, tiff, write_archive
from rasterio.errors import NotGeoreferencedWarning
from vaihingen_areas import VAIHINGEN

from crossearth_hf.errors import InputError
from crossearth_hf.scenarios.build import plan
from crossearth_hf.scenarios.build.archives import RawFolder
from crossearth_hf.scenarios.build.pairs import DomainSource, by_key, paired
from crossearth_hf.scenarios.build.plan import check_found, read_headers
from crossearth_hf.scenarios.build.readers import potsdam as potsdam_reader
from crossearth_hf.scenarios.build.readers import vaihingen as vaihingen_reader
from crossearth_hf.scenarios.build.readers.loveda import read as read_loveda
from crossearth_hf.scenarios.domains import DOMAINS


def hollow_tiff(path, width, height):
    """A TIFF of full size with no pixel stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=width,
            height=height,
            count=3,
            dtype="uint8",
            SPARSE_OK=True,
            blockysize=512,
        ).close()


def plan_domain(domain, source, workers=1, **options):
    return plan.plan_domain(
        domain, source, read_headers([source], workers), **{"allow_incomplete": False, **options}
    )


def planned(root, domain, reader, **options):
    return plan_domain(domain, reader.read(RawFolder.open(root), domain, {}), **options)


def test_the_official_lists_give_the_counts_of_potsdam(tmp_path):
    for tiles in potsdam_reader.SPLITS.values():
        for tile in tiles:
            hollow_tiff(tmp_path / f"3_Ortho_IRRG/top_potsdam_{tile}_IRRG.tif", 6000, 6000)
            (tmp_path / f"top_potsdam_{tile}_label_noBoundary.tif").touch()  # not read yet
    result = planned(tmp_path, DOMAINS["potsdam_irrg"], potsdam_reader)
    assert result.counts == {"train": 3456, "test": 2016}
    assert not result.incomplete
    assert [shard.rows for shard in result.shards] == [432] * 8 + [432] * 4 + [288]
    assert result.shards[8].file == "test-00000-of-00005.parquet"
    assert len({image.pair.name for shard in result.shards for image in shard.images}) == 38


def test_the_official_lists_give_the_counts_of_vaihingen(tmp_path):
    for area, size in VAIHINGEN.items():
        hollow_tiff(tmp_path / f"top/top_mosaic_09cm_{area}.tif", *size)
        (tmp_path / f"top_mosaic_09cm_{area}_noBoundary.tif").touch()
    hollow_tiff(tmp_path / "top/top_mosaic_09cm_area9.tif", 600, 600)  # on no list
    result = planned(tmp_path, DOMAINS["vaihingen"], vaihingen_reader, workers=2)
    assert result.counts == {"train": 344, "test": 398}


def test_a_missing_tile_is_named_with_both_counts(tmp_path):
    potsdam(tmp_path)
    domain = dataclasses.replace(DOMAINS["potsdam_rgb"], counts={"train": 96, "test": 4})
    with pytest.raises(InputError) as error:
        planned(tmp_path, domain, potsdam_reader)
    assert (
        "train has 8 images where the benchmark has 96 (no image and no label for 2_11 of train"
        in str(error.value)
    )
    assert "test has" not in str(error.value)
    result = planned(tmp_path, domain, potsdam_reader, allow_incomplete=True)
    assert result.incomplete
    assert result.counts == {"train": 8, "test": 4}


def test_images_without_labels_are_an_error(tmp_path):
    loveda(tmp_path, {"Train/Urban": ("1", "2"), "Val/Urban": ("3",)}, zipped=False)
    (tmp_path / "x/Train/Urban/masks_png/2.png").unlink()
    domain = dataclasses.replace(DOMAINS["loveda_urban"], counts={"train": None, "test": 1})
    source = read_loveda(RawFolder.open(tmp_path), domain, {})
    with pytest.raises(
        InputError, match=r"images and labels do not pair up \(no label for .*images_png/2.png\)"
    ):
        plan_domain(domain, source)
    assert plan_domain(domain, source, allow_incomplete=True).incomplete


def test_too_many_images_are_never_accepted(tmp_path):
    loveda(tmp_path, {"Train/Urban": ("1", "2"), "Val/Urban": ("3",)})
    domain = dataclasses.replace(DOMAINS["loveda_urban"], counts={"train": 1, "test": 1})
    source = read_loveda(RawFolder.open(tmp_path), domain, {})
    with pytest.raises(InputError, match="train has 2 images where the benchmark has 1"):
        plan_domain(domain, source, allow_incomplete=True)
    # as published, though not as the paper counts
    archive = dataclasses.replace(domain, archive_counts={"train": 2})
    assert not plan_domain(archive, source).incomplete


def test_nothing_found_says_what_to_download(tmp_path):
    with pytest.raises(
        InputError,
        match=r"no pair .* for potsdam_rgb .* download 3_Ortho_RGB.zip, 3_Ortho_IRRG.zip",
    ):
        check_found(
            DOMAINS["potsdam_rgb"],
            potsdam_reader.read(RawFolder.open(tmp_path), DOMAINS["potsdam_rgb"], {}),
        )


def source_of(tmp_path, images):
    write_archive(tmp_path / "i.zip", {f"i/{name}": content for name, content in images.items()})
    write_archive(tmp_path / "l.zip", {f"l/{name}": b"" for name in images})
    raw = RawFolder.open(tmp_path)
    files = [by_key(raw.files(f"{folder}/*"), lambda file: file.name) for folder in "il"]
    return DomainSource(paired(*files, "train")[0], partial(np.zeros, 1))


FREE = dataclasses.replace(DOMAINS["spacenet_road"], counts={})


def test_shards_hold_whole_images_up_to_a_number_of_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "SHARD_PIXELS", 2000)
    images = {
        f"{index}.png": encoded(picture(0, 20, 40 if index != 3 else 400), "PNG")
        for index in range(6)
    }
    result = plan_domain(FREE, source_of(tmp_path, images))
    names = [[image.pair.name for image in shard.images] for shard in result.shards]
    assert names == [["0.png", "1.png"], ["2.png"], ["3.png"], ["4.png", "5.png"]]
    assert [shard.file for shard in result.shards] == [
        f"train-0000{index}-of-00004.parquet" for index in range(4)
    ]


def test_the_identity_follows_the_raw_files(tmp_path):
    images = {
        "1.png": encoded(picture(0, 20, 40), "PNG"),
        "2.png": encoded(picture(1, 20, 40), "PNG"),
    }
    first = plan_domain(FREE, source_of(tmp_path, images))
    assert plan_domain(FREE, first.source).identity == first.identity
    noted = dataclasses.replace(first.source, notes=("base 1",))
    other = source_of(tmp_path, images | {"2.png": encoded(picture(2, 20, 40), "PNG")})
    assert len({plan_domain(FREE, source).identity for source in (noted, other)}) == 2
    assert plan_domain(FREE, other).identity != first.identity


@pytest.mark.parametrize(
    ("pixels", "bands", "is_plain"),
    [
        (picture(0, 8, 8), None, True),
        (picture(0, 8, 8, 1), None, True),
        (picture(0, 8, 8, 4), None, False),
        (picture(0, 8, 8, 8), (5, 3, 2), True),
        (picture(0, 8, 8, 3, "uint16"), None, False),
    ],
)
def test_plain_images_are_told_from_others(tmp_path, pixels, bands, is_plain):
    source = dataclasses.replace(source_of(tmp_path, {"1.tif": tiff(pixels)}), bands=bands)
    assert plan_domain(FREE, source).is_plain == is_plain
