"""Images of `datasets`: saved to disk, Parquet, ImageFolder; map-style and streams."""

import builtins
import io
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from rasters import write_raster
from torch.utils.data import DataLoader

from crossearth_hf.data import all_images, load_source, load_sources
from crossearth_hf.data.hub_records import RecordReader
from crossearth_hf.data.hub_stream import SHUFFLE_BUFFER, HubStream, shuffled
from crossearth_hf.data.mask_values import read_as
from crossearth_hf.errors import InputError
from crossearth_hf.labels import get_label_set
from crossearth_hf.raster.scene import Reading
from crossearth_hf.training.augmentation import CropSettings, TrainingCrops

datasets = pytest.importorskip("datasets")
LAND_COVER = get_label_set("land-cover")
COUNT = 12


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def png(array):
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()


def columns(count=COUNT, size=(24, 32)):
    """Images whose every pixel holds the record's number, and masks of that number modulo 5."""
    images = [np.full((*size, 3), 10 * number, np.uint8) for number in range(count)]
    return images, [np.full(size, number % 5, np.uint8) for number in range(count)]


def dataset(label="label", **other):
    images, masks = columns()
    kinds = datasets.Features({"image": datasets.Image(), label: datasets.Image()})
    values = {
        "image": [Image.fromarray(i) for i in images],
        label: [Image.fromarray(m) for m in masks],
    }
    return datasets.Dataset.from_dict(values, features=kinds)


def save(kind, folder):
    """The same records in three forms."""
    if kind == "saved":
        dataset().save_to_disk(folder)
    elif kind == "parquet":
        folder.mkdir()
        for part in range(3):
            dataset("mask").shard(3, part, contiguous=True).to_parquet(
                folder / f"train-{part:05d}-of-00003.parquet"
            )
    else:
        (folder / "train" / "masks").mkdir(parents=True)
        with open(folder / "train" / "metadata.jsonl", "w") as lines:
            for number, (image, mask) in enumerate(zip(*columns(), strict=True)):
                name = f"{number:02d}.png"
                Image.fromarray(image).save(folder / "train" / name)
                Image.fromarray(mask).save(folder / "train" / "masks" / name)
                lines.write(
                    json.dumps({"file_name": name, "annotation_file_name": f"masks/{name}"}) + "\n"
                )
    return folder


def numbers(images):
    """Numbers of the records, by their pixels, whose labels are as they should be."""
    found = []
    for pair in images:
        image, labels = pair.read()
        found.append(int(image[0, 0, 0]) // 10)
        assert (image == found[-1] * 10).all()
        assert (labels == found[-1] % 5).all()
    return found


@pytest.mark.parametrize("kind", ["saved", "parquet", "imagefolder"])
def test_map_style(tmp_path, kind):
    images = load_source(f"hf:{save(kind, tmp_path / 'data')}", LAND_COVER)
    assert numbers(images) == list(range(COUNT))
    assert images[3].size == (24, 32)
    assert images[3].name.endswith("data[3]")


@pytest.mark.parametrize("kind", ["saved", "parquet", "imagefolder"])
def test_every_pass_of_a_stream_holds_every_record_in_another_order(tmp_path, kind):
    stream = load_source(f"hf-stream:{save(kind, tmp_path / 'data')}", LAND_COVER)
    order = numbers(stream.image(position, 7) for position in range(2 * COUNT))
    assert sorted(order[:COUNT]) == sorted(order[COUNT:]) == list(range(COUNT))
    assert order[:COUNT] != order[COUNT:]
    assert order[:COUNT] != list(range(COUNT))
    assert numbers(stream.image(position, 8) for position in range(COUNT)) != order[:COUNT]


def test_a_record_of_a_stream_depends_on_seed_and_position_alone(tmp_path):
    source = f"hf-stream:{save('parquet', tmp_path / 'data')}"
    stream = load_source(source, LAND_COVER)
    order = numbers(stream.image(position, 3) for position in range(20))
    other = pickle.loads(pickle.dumps(stream))
    assert numbers(other.image(position, 3) for position in (17, 5, 5, 6, 0)) == [
        order[i] for i in (17, 5, 5, 6, 0)
    ]


def crops_of(source, workers, start=0, stop=16, weights=None):
    """Batches of two crops, as the trainer asks for them."""
    crops = TrainingCrops(load_sources(source, LAND_COVER), weights, CropSettings(16), 1, 100)
    loader = DataLoader(crops, 2, sampler=range(start, stop), num_workers=workers)
    return torch.cat([batch["pixel_values"] for batch in loader])


@pytest.mark.parametrize("prefix", ["hf", "hf-stream"])
def test_crops_are_the_same_with_workers_and_after_a_resume(tmp_path, prefix):
    source = [f"{prefix}:{save('parquet', tmp_path / 'data')}", f"hf:{tmp_path / 'data'}"]
    alone = crops_of(source, 0, weights=[3, 1])
    assert torch.equal(alone, crops_of(source, 2, weights=[3, 1]))
    assert torch.equal(alone[10:], crops_of(source, 0, start=10, weights=[3, 1]))
    assert len(torch.unique(alone.flatten(1), dim=0)) > 8


def test_splits_and_configs(tmp_path):
    datasets.DatasetDict({"train": dataset(), "validation": dataset().select([4, 2])}).save_to_disk(
        tmp_path / "a:b"
    )
    assert numbers(load_source(f"hf:{tmp_path / 'a:b'}::validation", LAND_COVER)) == [4, 2]
    assert len(load_source(f"hf:{tmp_path / 'a:b'}", LAND_COVER)) == COUNT
    for source, message in (
        (f"hf:{tmp_path / 'a:b'}::test", "has the splits train, validation"),
        (f"hf:{save('parquet', tmp_path / 'p')}::test", "cannot be opened: Unknown split"),
        (f"hf:{tmp_path / 'p'}:other", "cannot be opened: BuilderConfig 'other' not found"),
        ("hf:nobody/nothing", "hf:nobody/nothing cannot be opened"),
        ("hf:a:b:c:d", r"is not of the form hf:PATH_OR_ID\[:CONFIG"),
    ):
        with pytest.raises(InputError, match=message):
            load_source(source, LAND_COVER)


def test_sixteen_bit_rasters_as_bytes(tmp_path):
    values = np.random.default_rng(0).integers(0, 4000, (6, 24, 32)).astype(np.uint16)
    ids = np.random.default_rng(1).integers(0, 5, (1, 24, 32), dtype=np.uint8)
    image, mask = write_raster(tmp_path / "i.tif", values), write_raster(tmp_path / "m.tif", ids)
    rows = {"image": [image.read_bytes()], "mask": [mask.read_bytes()], "label": [3]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "data")
    (pair,) = load_source(f"hf:{tmp_path / 'data'}", LAND_COVER, reading=Reading((6, 4, 2)))
    pixels, labels = pair.read()
    low, high = (np.percentile(values[[5, 3, 1]], q, axis=(1, 2))[:, None, None] for q in (2, 98))
    assert (
        np.abs(
            pixels.transpose(2, 0, 1)
            - np.clip((values[[5, 3, 1]] - low) / (high - low), 0, 1) * 255
        ).max()
        <= 0.5
    )
    np.testing.assert_array_equal(labels, ids[0])


def test_masks_as_arrays(tmp_path):
    images, masks = columns(2)
    rows = {
        "image": [png(image) for image in images],
        "annotation": [mask.tolist() for mask in masks],
    }
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "data")
    assert numbers(load_source(f"hf:{tmp_path / 'data'}", LAND_COVER)) == [0, 1]


def test_images_alone(tmp_path):
    rows = {"image": [png(image) for image in columns(3)[0]]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "data")
    images = load_source(f"hf:{tmp_path / 'data'}", LAND_COVER, labeled=False)
    assert [int(pair.read()[1].min()) for pair in images] == [255] * 3
    assert (
        load_source(f"hf-stream:{tmp_path / 'data'}", LAND_COVER, labeled=False).image(1, 0).labels
        == 255
    ).all()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            {"picture": [png(columns(1)[0][0])], "mask": [[[1]]]},
            "has the columns picture, mask; it needs 'image' and",
        ),
        (
            {"image": [png(columns(1)[0][0])], "label": [3]},
            "needs 'image' and one of label, annotation, mask with maps",
        ),
        (
            {"image": [png(columns(1)[0][0])], "mask": [[[1, 2]]]},
            r"data\[0\] is 32x24 pixels and its mask 2x1",
        ),
        (
            {"image": [png(columns(1)[0][0])], "mask": [png(np.full((24, 32), 9, np.uint8))]},
            r"label ids \[9\]",
        ),
        ({"image": [b"no image"], "mask": [[[1]]]}, r"data\[0\] is damaged or is not a raster"),
        ({"image": [[1, 2]], "mask": [[[1]]]}, r"data\[0\] holds a list where an image is wanted"),
    ],
)
@pytest.mark.parametrize("prefix", ["hf", "hf-stream"])
def test_what_does_not_fit_is_named(tmp_path, prefix, rows, message):
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "data" / "train.parquet")
    with pytest.raises(InputError, match=message):
        load_source(f"{prefix}:{tmp_path / 'data'}", LAND_COVER).image(0, 0)


@pytest.mark.parametrize(
    ("prefix", "message"), [("hf", "no data"), ("hf-stream", "data holds no record")]
)
def test_without_records(tmp_path, prefix, message):
    (tmp_path / "data").mkdir()
    dataset().select([]).to_parquet(tmp_path / "data" / "train.parquet")
    with pytest.raises(InputError, match=message):
        load_source(f"{prefix}:{tmp_path / 'data'}", LAND_COVER).image(0, 0)


def test_a_stream_that_breaks_off_says_how_to_go_on():
    class Broken:
        num_shards = 1

        def shard(self, *_):
            return self

        def iter(self, batch_size):
            raise ConnectionError("no route to host")

    stream = HubStream(Broken(), RecordReader("hf-stream:far/away", None, read_as(LAND_COVER)))
    with pytest.raises(
        InputError, match=r"far/away stopped \(no route to host\); .* --resume_from_checkpoint"
    ):
        stream.image(0, 0)


def test_the_buffer_mixes_and_loses_nothing():
    records = range(10 * SHUFFLE_BUFFER)
    mixed = list(shuffled(records, np.random.default_rng(0)))
    assert sorted(mixed) == list(records)
    assert np.corrcoef(mixed, records)[0, 1] > 0.9  # it reads forward
    moved = np.abs(np.array(mixed) - np.arange(len(mixed)))
    assert np.median(moved) > SHUFFLE_BUFFER / 4


def test_a_stream_has_no_length_and_is_not_scored(tmp_path):
    source = f"hf-stream:{save('parquet', tmp_path / 'data')}"
    sources = load_sources([source, f"hf:{tmp_path / 'data'}"], LAND_COVER)
    with pytest.raises(InputError, match=r"length of hf-stream.* is not known; give train_weights"):
        TrainingCrops(sources, None, CropSettings(16), 0, 10)
    with pytest.raises(InputError, match="cannot be scored"):
        all_images(sources)


def test_datasets_is_only_needed_where_it_is_used(tmp_path, monkeypatch):
    def refuse(name, *rest):
        if name == "datasets":
            raise ImportError(name)
        return original(name, *rest)

    original = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", refuse)
    assert load_source("synth:desert-city:1", LAND_COVER)
    with pytest.raises(InputError, match="needs the package 'datasets'; install it"):
        load_source(f"hf:{tmp_path}", LAND_COVER)


def test_remote_files_are_fetched(tmp_path):
    import fsspec  # noqa: PLC0415

    with fsspec.open("memory://images/a.png", "wb") as file:
        file.write(png(np.full((4, 6, 3), 7, np.uint8)))
    reader = RecordReader("set", None, read_as(LAND_COVER))
    record = {"image": {"bytes": None, "path": "memory://images/a.png"}}
    assert (reader.decode(record, 0).image == 7).all()
    with pytest.raises(InputError, match=r"set\[0\] cannot be fetched from memory://images/b.png"):
        reader.decode({"image": {"bytes": None, "path": "memory://images/b.png"}}, 0)
