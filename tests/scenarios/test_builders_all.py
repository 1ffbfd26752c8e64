"""All 32 scenarios from miniature archives: built, opened by `datasets`, read by what evaluates and trains."""

from collections.abc import Callable
from pathlib import Path

import datasets
import miniature_archives
import miniature_others
import numpy as np
import pytest
import rasterio
from rasterio.io import MemoryFile

from crossearth_hf.data.hub import load_map
from crossearth_hf.data.mask_values import MaskReading
from crossearth_hf.raster.scene import DEFAULT_READING
from crossearth_hf.scenarios.build import build_dataset
from crossearth_hf.scenarios.build.readers import READERS
from crossearth_hf.scenarios.domains import DOMAINS, domains_of
from crossearth_hf.scenarios.scenarios import SCENARIOS
from crossearth_hf.scenarios.source_datasets import DATASETS

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

LOVEDA = {
    f"{part}/{scene}": ("1", "2") for part in ("Train", "Val") for scene in ("Urban", "Rural")
}
ARCHIVES: dict[str, Callable[[Path], object]] = {
    "potsdam": lambda root: miniature_archives.potsdam(root, size=(520, 100)),
    "vaihingen": lambda root: miniature_archives.vaihingen(
        root, {"area1": (60, 530), "area2": (60, 70)}
    ),
    "loveda": lambda root: miniature_archives.loveda(root, LOVEDA),
    "deepglobe-roads": miniature_others.deepglobe,
    "massachusetts-roads": miniature_others.massachusetts,
    "rescuenet": miniature_others.rescuenet,
    "whu-building": miniature_others.whu,
    "casid": miniature_others.casid,
    "spacenet-roads": miniature_others.spacenet_roads,
    "spacenet-buildings": miniature_others.spacenet_buildings,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Every data set, built once: the folder that `crossearth evaluate --data` takes."""
    raw, built = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("data")
    for name, write in ARCHIVES.items():
        (raw / name).mkdir()
        write(raw / name)
        build_dataset(name, raw / name, built / name, allow_incomplete=True, workers=1)
    return raw, built


def test_every_data_set_has_a_reader_and_a_miniature():
    assert READERS.keys() == DATASETS.keys() == ARCHIVES.keys()


@pytest.mark.parametrize("code", SCENARIOS)
def test_source_and_target_are_built(data, code):
    scenario = SCENARIOS[code]
    for name, split in ((scenario.source, "train"), (scenario.target, "test")):
        domain = DOMAINS[name]
        shards = sorted((data[1] / domain.dataset / name).glob(f"{split}-*.parquet"))
        rows = datasets.Dataset.from_parquet(
            [str(shard) for shard in shards], cache_dir=str(data[0] / "cache")
        )
        assert len(rows) >= 1
        assert {"image", "label", "name"} == set(rows.column_names)
        for row in rows.cast_column("label", datasets.Image()).select_columns(["label"]):
            label = np.asarray(row["label"])
            scenario.label_set.check(label, name)
            assert len(np.unique(label)) > 1 or name == "whu_satellite"


@pytest.mark.parametrize("name", DATASETS)
def test_the_rest_of_the_package_reads_them(data, name):
    folder = data[1] / name
    for domain in domains_of(name)[:2]:
        images = load_map(
            f"hf:{folder}:{domain.name}:test",
            MaskReading(domain.labels),
            DEFAULT_READING,
            labeled=True,
        )
        pixels, labels = images[0].read()
        assert pixels.shape == (*labels.shape, 3)


def test_sixteen_bits_survive(data):
    raw, built = data
    rows = datasets.load_dataset(str(built / "spacenet-roads"), "spacenet_road", split="test")
    assert len(rows) == 4
    for row in rows.cast_column("image", datasets.Image(decode=False)):
        city, number = row["name"].rsplit("_", 1)
        (path,) = raw.rglob(f"*{city}_PS-RGB_{number}.tif")
        with (
            rasterio.open(path) as known,
            MemoryFile(row["image"]["bytes"]) as memory,
            memory.open() as image,
        ):
            assert image.dtypes == ("uint16",) * 3
            np.testing.assert_array_equal(image.read(), known.read())


def test_pictures_keep_their_bytes(data):
    raw, built = data
    rows = datasets.load_dataset(str(built / "rescuenet"), "rescuenet", split="test")
    (row,) = rows.cast_column("image", datasets.Image(decode=False))
    assert row["image"]["bytes"] == next(raw.rglob(f"{row['name']}.jpg")).read_bytes()


def test_cards_tell_what_was_decided(data):
    for name, words in {
        "deepglobe-roads": ("every fifth",),
        "rescuenet": ("our choice", "pool -> clutter"),
        "whu-building": ("assumed", "building is 255"),
        "casid": ("assumed", "labels start at 0"),
        "spacenet-roads": ("assumed", "4 m wide"),
    }.items():
        card = (data[1] / name / "README.md").read_text(encoding="utf-8")
        assert not [word for word in words if word not in card], name
