"""Real tiles of the benchmark's data sets through builder and `load_dataset`, against the masks that came with them."""

import json
import warnings

import datasets
import numpy as np
import torch
from miniature_archives import ISPRS_COLORS, encoded, tiff, write_archive
from PIL import Image
from tiny_model import tiny_config

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor
from crossearth_hf.cli import main
from crossearth_hf.data.hub import load_map
from crossearth_hf.data.mask_values import MaskReading
from crossearth_hf.labels import get_label_set
from crossearth_hf.raster.scene import DEFAULT_READING
from crossearth_hf.scenarios.build import build_dataset

# Published color of the ids in the tiles: 0 boundary, then the six classes.
COLORS = np.array([ISPRS_COLORS["boundary"], *list(ISPRS_COLORS.values())[:6]], np.uint8)
# Id in the five-class masks that were made of them independently, by our class; 255 where they have none.
UNIFIED = {
    "isprs": {0: 2, 1: 1, 2: 4, 3: 4, 4: 255, 5: 255, 255: 255},
    "loveda": {0: 0, 1: 1, 2: 2, 3: 3, 4: 0, 5: 4, 6: 255, 255: 255},
}


def opened(path):
    return np.array(Image.open(path))


def archived_isprs(raw, folder, name, image_path, label_path):
    """A real tile in the corner of a larger orthophoto, as TIFFs in the published archives."""
    image = opened(folder / f"images/{name}.png")
    labels = COLORS[opened(folder / f"ann_native/{name}.png")]
    large = [
        np.block([[[part], [part[:, ::-1]]], [[part[::-1]], [part[::-1, ::-1]]]])
        for part in (image, labels)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_archive(raw / "images.zip", {image_path: tiff(large[0])})
        write_archive(raw / "labels.zip", {label_path: tiff(large[1])})
    return image


def check(out, domain, split, name, image, mask, tmp_path):
    label_set = {"l": "loveda", "p": "isprs", "v": "isprs"}[domain[0]]
    table = np.full(256, 254)
    table[list(UNIFIED[label_set])] = list(UNIFIED[label_set].values())
    for streaming in (False, True):
        rows = datasets.load_dataset(
            str(out), domain, split=split, streaming=streaming, cache_dir=str(tmp_path / "cache")
        )
        [row] = [row for row in rows if row["name"] == name]
        assert (np.array(row["image"]) == image).all()
        assert (table[np.array(row["label"])] == mask).all()
    pairs = load_map(
        f"hf:{out}:{domain}:{split}",
        MaskReading(get_label_set(label_set)),
        DEFAULT_READING,
        labeled=True,
    )
    assert any((pair.read()[0] == image).all() for pair in pairs)


def test_potsdam(tmp_path, shared):
    folder, name = shared / "data/isprs_potsdam", "2_10_0_0_512_512"
    paths = "2_Ortho_RGB/top_potsdam_2_10_RGB.tif", "top_potsdam_2_10_label_noBoundary.tif"
    image = archived_isprs(tmp_path / "raw", folder, name, *paths)
    build_dataset(
        "potsdam",
        tmp_path / "raw",
        tmp_path / "out",
        domains=["potsdam_rgb"],
        allow_incomplete=True,
    )
    check(
        tmp_path / "out",
        "potsdam_rgb",
        "train",
        name,
        image,
        opened(folder / f"masks/{name}.png"),
        tmp_path,
    )


def test_vaihingen(tmp_path, shared):
    folder, name = shared / "data/isprs_vaihingen", "area1_0_0_512_512"
    paths = "top/top_mosaic_09cm_area1.tif", "top_mosaic_09cm_area1_noBoundary.tif"
    image = archived_isprs(tmp_path / "raw", folder, name, *paths)
    build_dataset("vaihingen", tmp_path / "raw", tmp_path / "out", allow_incomplete=True)
    check(
        tmp_path / "out",
        "vaihingen",
        "train",
        name,
        image,
        opened(folder / f"masks/{name}.png"),
        tmp_path,
    )


def test_loveda(tmp_path, shared):
    folder = shared / "data/loveda"
    files = {}
    for name in "012":
        files[f"Train/Rural/images_png/{name}.png"] = (folder / f"images/{name}.png").read_bytes()
        files[f"Train/Rural/masks_png/{name}.png"] = encoded(
            opened(folder / f"ann_native/{name}.png"), "PNG"
        )
    write_archive(tmp_path / "raw/Train.zip", files)
    build_dataset(
        "loveda",
        tmp_path / "raw",
        tmp_path / "out",
        domains=["loveda_rural"],
        allow_incomplete=True,
    )
    image, mask = opened(folder / "images/1.png"), opened(folder / "masks/1.png")
    check(tmp_path / "out", "loveda_rural", "train", "1", image, mask, tmp_path)


def test_real_tiles_from_archive_to_report(tmp_path, shared):
    folder, files = shared / "data/loveda", {}
    for name in "012":
        files[f"Val/Rural/images_png/{name}.png"] = (folder / f"images/{name}.png").read_bytes()
        files[f"Val/Rural/masks_png/{name}.png"] = encoded(
            opened(folder / f"ann_native/{name}.png"), "PNG"
        )
    write_archive(tmp_path / "raw/Val.zip", files)
    label_set = get_label_set("loveda")
    config = tiny_config(num_labels=7, id2label=label_set.id2label, label2id=label_set.label2id)
    torch.manual_seed(0)
    CrossEarthForSemanticSegmentation(config).save_pretrained(tmp_path / "model")
    CrossEarthImageProcessor().save_pretrained(tmp_path / "model")
    data, report, page = (str(tmp_path / name) for name in ("data", "report", "page"))
    build = [
        "loveda",
        str(tmp_path / "raw"),
        f"{data}/loveda",
        "--domains",
        "loveda_rural",
        "--allow-incomplete",
    ]
    assert main(["build-dataset", *build]) == 0
    windows = ["--window", "512", "--stride", "512", "--examples", "1"]
    model = str(tmp_path / "model")
    assert (
        main(["evaluate", model, "--scenarios", "U2R", "--data", data, "--out", report, *windows])
        == 0
    )
    assert main(["report", report, "--out", page]) == 0
    entry = json.loads((tmp_path / "report/report.json").read_text())["entries"]["U2R"]
    labels = [opened(folder / f"ann_native/{name}.png") for name in "012"]
    counts = np.bincount(np.concatenate([ids.ravel() for ids in labels]), minlength=8)[1:]
    assert np.array(entry["confusion_matrix"]).sum(1).tolist() == counts.tolist()
    assert entry["data"]["incomplete"]
    assert "U2R" in (tmp_path / "page/report.md").read_text()
