"""What is held out: a function of images and seed, never a part of a group, never one that is trained on."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rasters import write_raster

from crossearth_hf.data import load_source, load_sources
from crossearth_hf.data.image_blocks import blocks_of
from crossearth_hf.data.labeled_images import ArrayPair
from crossearth_hf.data.validation_split import hold_out
from crossearth_hf.errors import InputError
from crossearth_hf.labels import get_label_set

LAND_COVER = get_label_set("land-cover")


def image(name, group=None, ids=(0, 1), size=(8, 8)):
    labels = np.resize(np.array(ids, np.uint8), size)
    return ArrayPair(name, np.zeros((*size, 3), np.uint8), labels, group=group)


def names(images):
    return {each.name for each in images}


def test_a_tenth_of_the_images_is_held_out_and_none_is_in_both():
    images = [image(f"i{index}") for index in range(40)]
    split = hold_out(["a"], [images], 0.1, seed=0)
    assert len(split.validation) == 4
    assert names(split.validation) | names(split.train[0]) == names(images)
    assert not names(split.validation) & names(split.train[0])
    assert [e["image"] for e in split.record["validation"]] == [
        each.name for each in split.validation
    ]
    assert split.line == "4 of 40 images are held out for validation"


def test_the_seed_alone_decides():
    images = [image(f"i{index}") for index in range(40)]
    held = [names(hold_out(["a"], [images], 0.2, seed=seed).validation) for seed in (0, 0, 1)]
    assert held[0] == held[1] != held[2]


def test_groups_stay_together_over_sources():
    first = [image(f"a{index}", group=f"town {index % 5}") for index in range(20)]
    second = [image(f"b{index}", group=f"town {index % 5}") for index in range(10)]
    split = hold_out(["a", "b"], [first, second], 0.2, seed=3)
    (town,) = {each.group for each in split.validation}
    assert len(split.validation) == 6
    assert all(each.group != town for part in split.train for each in part)
    assert town in split.line
    assert {entry["group"] for entry in split.record["validation"]} == {town}


def test_a_large_group_is_held_out_only_where_no_smaller_one_is_there():
    images = [image(f"a{index}", group="large") for index in range(8)] + [image("b", group="small")]
    for seed in range(6):
        assert names(hold_out(["a"], [images], 0.1, seed).validation) == {"b"}
    two = [image(f"a{index}", group=f"{index % 2}") for index in range(8)]
    assert len(hold_out(["a"], [two], 0.1, seed=0).validation) == 4


def test_images_without_labels_are_not_held_out():
    images = [image(f"i{index}", ids=(255,)) for index in range(9)] + [
        image("labeled"),
        image("also"),
    ]
    for seed in range(5):
        assert names(hold_out(["a"], [images], 0.4, seed).validation) < {"labeled", "also"} | names(
            images
        )
        assert all(
            (each.labels < 255).any() for each in hold_out(["a"], [images], 0.4, seed).validation
        )


def test_every_source_keeps_an_image():
    for seed in range(5):
        split = hold_out(
            ["a", "b"], [[image("a0")], [image(f"b{index}") for index in range(5)]], 0.5, seed
        )
        assert [len(part) > 0 for part in split.train] == [True, True]


def test_images_that_all_belong_together_are_refused():
    images = [image(f"i{index}", group="x") for index in range(3)]
    with pytest.raises(
        InputError, match=r"validation_fraction 0\.3 holds out nothing: the 3 images"
    ):
        hold_out(["a"], [images], 0.3, 0)
    rest = image("rest", ids=(255,))
    assert names(hold_out(["a"], [[*images, rest]], 0.3, 0).validation) == names(images)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_scene_that_stands_alone_is_split_into_blocks(tmp_path, suffix):
    rng = np.random.default_rng(0)
    pixels, ids = (
        rng.integers(0, 255, (120, 200, 3), dtype=np.uint8),
        rng.integers(0, 5, (120, 200)).astype(np.uint8),
    )
    for part, values in (("images", pixels), ("masks", ids)):
        (tmp_path / part).mkdir()
        if suffix == "png":
            Image.fromarray(values).save(tmp_path / part / "scene.png")
        else:
            write_raster(tmp_path / part / "scene.tif", np.atleast_3d(values).transpose(2, 0, 1))
    for cache in (0, 10**9):
        sources = load_sources([str(tmp_path)], LAND_COVER, cache_bytes=cache)
        split = hold_out(["scene"], sources, 0.1, seed=0)
        blocks = [*split.train[0], *split.validation]
        assert len(split.validation) == round(0.1 * len(blocks)) >= 2
        covered = np.zeros((120, 200), int)
        for block, entry in zip(
            blocks, split.record["train"] + split.record["validation"], strict=True
        ):
            row, col, height, width = entry["window"]
            covered[row : row + height, col : col + width] += 1
            found, labels = block.read()
            np.testing.assert_array_equal(labels, ids[row : row + height, col : col + width])
            np.testing.assert_array_equal(found, pixels[row : row + height, col : col + width])
            np.testing.assert_array_equal(block.open().read_labels(1, 2, 5, 6), labels[1:6, 2:8])
            assert sum(block.label_counts().values()) == height * width
        assert (covered == 1).all()
        assert "scene is cut into" in split.line


def test_places_of_a_block_lie_within_it():
    class Places:
        def place(self, rng):
            return float(rng.integers(100)) + 0.5, float(rng.integers(100)) + 0.5

    whole = ArrayPair(
        "a", np.zeros((100, 100, 3), np.uint8), np.zeros((100, 100), np.uint8), places=Places()
    )
    rng = np.random.default_rng(0)
    for block in blocks_of(whole, 9):
        found = [block.open().places.place(rng) for _ in range(20)]
        assert all(
            0 <= row < block.size[0] and 0 <= col < block.size[1]
            for row, col in filter(None, found)
        )
        assert any(found)


def test_regions_of_a_manifest_are_groups(tmp_path):
    pairs = []
    for index in range(6):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{index}.png")
        Image.new("L", (8, 8), index % 2).save(tmp_path / f"m{index}.png")
        pairs.append({"image": f"{index}.png", "mask": f"m{index}.png", "region": f"r{index % 3}"})
    (tmp_path / "manifest.json").write_text(json.dumps({"pairs": pairs}))
    source = load_source(f"{tmp_path / 'manifest.json'}", LAND_COVER)
    assert [each.group for each in source] == ["r0", "r1", "r2", "r0", "r1", "r2"]
    (kept,) = load_sources([f"{tmp_path / 'manifest.json'}"], LAND_COVER)
    assert [each.group for each in kept] == ["r0", "r1", "r2", "r0", "r1", "r2"]


@pytest.mark.parametrize("cache", [0, 10**9])
def test_a_file_that_several_sources_list_is_not_in_both_parts(tmp_path, cache):
    for part in ("images", "masks"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for index in range(10):
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / "images" / f"{index}.png")
        Image.new("L", (8, 8), index % 2).save(tmp_path / "data" / "masks" / f"{index}.png")
    (tmp_path / "link").symlink_to("data")
    sources = [str(tmp_path / "data"), f"{tmp_path / 'link'}:[0-4]"]
    loaded = load_sources(sources, LAND_COVER, cache_bytes=cache)
    for seed in range(8):
        split = hold_out(sources, loaded, 0.3, seed)
        assert names(split.validation)
        assert not names(split.validation) & {each.name for part in split.train for each in part}


def test_groups_that_share_a_file_stay_together(tmp_path):
    def listed(name, file, group=None):
        return replace(image(name, group), file=tmp_path / file)

    first = [listed("a", "1"), listed("b", "2", "west"), listed("c", "3", "west")]
    second = [listed("d", "1", "east"), listed("e", "2", "east"), listed("f", "4", "north")]
    third = [image(f"g{index}") for index in range(3)]
    fourth = [listed("h", "5"), listed("i", "3")]
    together = {"a", "b", "c", "d", "e", "i"}
    sources = [[*first, image("x")], second, third, fourth]
    for seed in range(8):
        held = names(hold_out(["1", "2", "3", "4"], sources, 0.5, seed).validation)
        assert held & together in (set(), together)


def test_streams_cannot_be_split(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {"image": [Image.new("RGB", (8, 8))] * 2, "mask": [Image.new("L", (8, 8))] * 2}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "set")
    name = f"hf-stream:{tmp_path / 'set'}"
    with pytest.raises(InputError, match="is a stream; use hf: or eval_data"):
        hold_out([name], [load_source(name, LAND_COVER)], 0.1, seed=0)
