"""What is told of fill that the images of a source do not declare."""

import numpy as np
import pytest
from benchmark_data import write_pair
from rasters import write_raster

from crossearth_hf.data import load_source, load_sources
from crossearth_hf.data.fill_notices import SAMPLED, fill_notices
from crossearth_hf.labels import get_label_set
from crossearth_hf.raster.fill import Fill
from crossearth_hf.raster.scene import Reading

LAND_COVER = get_label_set("land-cover")


def write_filled(folder, name, fill, rows, dtype=np.float32):
    """An image of 80 rows, of which the first few hold `fill` and no file says so; the mask is class 1."""
    image = np.random.default_rng(0).integers(300, 700, (3, 80, 80)).astype(dtype)
    image[:, :rows] = fill
    for part, values in (("images", image), ("masks", np.ones((1, 80, 80), np.uint8))):
        (folder / part).mkdir(parents=True, exist_ok=True)
        write_raster(folder / part / f"{name}.tif", values)


@pytest.fixture
def folder(tmp_path):
    """Fill in two of four images."""
    for name, rows in (("a", 8), ("b", 20), ("c", 0)):
        write_filled(tmp_path / "town", name, -9999, rows)
    write_pair(tmp_path / "town", "d", np.zeros((80, 80, 3), np.uint8), np.ones((80, 80), np.uint8))
    return tmp_path / "town"


FOUND = "-9999 is held by 2 of 4 images, in up to 25.0% of their pixels, and taken as no data; --nodata none keeps"


def test_a_source_is_told_in_one_line(folder):
    told = []
    load_sources(
        [str(folder), f"{folder}:[cd]", "synth:desert-city:1"], LAND_COVER, tell=told.append
    )
    assert told == [f"{folder}: {FOUND} it as data"]


@pytest.mark.parametrize("nodata", [(), (-9999.0,)])
def test_nothing_is_told_where_a_person_has_decided(folder, nodata):
    assert (
        fill_notices(
            "town", load_source(f"{folder}:[abc]", LAND_COVER, reading=Reading(nodata=nodata))
        )
        == []
    )


def test_values_that_stay_data_are_told_with_all_that_are_to_be_named(tmp_path):
    write_filled(tmp_path, "a", -9999, 8)
    write_filled(tmp_path, "b", 10_000, 8)
    left_out, kept = fill_notices("town", load_source(str(tmp_path), LAND_COVER))
    assert "-9999 is held by 1 of 2 images" in left_out
    assert kept.endswith(
        "10.0% of their pixels, and taken as data; --nodata=-9999,10000 leaves it out"
    )


def test_of_many_images_some_are_looked_at(tmp_path):
    write_filled(tmp_path, "a", -9999, 8)
    (image,) = load_source(str(tmp_path), LAND_COVER)
    (line,) = fill_notices("town", [image] * (3 * SAMPLED - 1))
    assert f"is held by {SAMPLED} of {SAMPLED} images" in line


@pytest.mark.parametrize("prefix", ["hf", "hf-stream"])
def test_records_and_streams_are_told_too(folder, tmp_path, prefix):
    datasets = pytest.importorskip("datasets")
    names = ["a", "b", "c"]
    columns = {
        "image": [(folder / "images" / f"{name}.tif").read_bytes() for name in names],
        "label": [(folder / "masks" / f"{name}.tif").read_bytes() for name in names],
    }
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "set")
    (line,) = fill_notices("set", load_source(f"{prefix}:{tmp_path / 'set'}", LAND_COVER))
    assert line.startswith("set: -9999 is held by 2 of 3 images")


def test_the_hint_names_all_values_that_are_left_out():
    class Image:
        def undeclared_fills(self):
            left_out = [
                Fill(float(-value), 0, 0.01, certain=True) for value in (1000, 2000, 3000, 4000)
            ]
            return [*left_out, Fill(10_000.0, 0, 0.01, certain=False)]

    kept = fill_notices("x", [Image()])[1]
    assert kept.endswith("--nodata=-1000,-2000,-3000,-4000,10000 leaves it out")
