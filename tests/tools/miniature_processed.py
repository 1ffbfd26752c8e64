"""The archives that CrossEarth's authors have cut and relabeled, in the layouts of their configurations, tiny.

Each function writes below `root` and returns the true ids by (domain, split, name of the pair).
"""

from pathlib import Path

import numpy as np
from miniature_others import HEIGHT, WIDTH, blob, picture, save, zipped

Truth = dict[tuple[str, str, str], np.ndarray]


def numbered(seed: int, classes: int) -> np.ndarray:
    """(H, W) uint8 of 0, without a label, and 1..classes, all of them there."""
    values = np.random.default_rng(seed).integers(0, classes + 1, (HEIGHT, WIDTH)).astype(np.uint8)
    values.flat[: classes + 1] = range(classes + 1)
    return values


def from_one(values: np.ndarray) -> np.ndarray:
    """Ids of labels that start at 1."""
    return np.where(values == 0, 255, values - 1).astype(np.uint8)


def potsdam_res(root: Path, folders: dict[str, str] | None = None) -> Truth:
    truth, seed = {}, 0
    for domain, folder in (
        folders or {"potsdam_rgb_res": "RGB", "potsdam_irrg_res": "IRRG"}
    ).items():
        for part, split in (("train", "train"), ("val", "test")):
            for tile in ("2_10_0_0_512_512", "2_10_512_0_1024_512"):
                values, seed = numbered(seed, 5), seed + 1
                place = root / "Potsdam_Res" / folder
                save(place / "img_dir" / part / f"{tile}.png", picture(seed))
                save(place / "ann_dir" / part / f"{tile}.png", values)
                truth[domain, split, tile] = from_one(values)
    zipped(root / "Potsdam_Res")
    return truth


def rescuenet(root: Path) -> Truth:
    truth = {}
    for index in range(2):
        values, folder = numbered(index, 5), root / "RescueNet"
        save(folder / "test-org-img" / f"{index}.jpg", picture(index))
        save(folder / "test-label-img" / f"{index}_lab.png", values)
        truth["rescuenet", "test", str(index)] = from_one(values)
    zipped(root / "RescueNet")
    return truth


def loveda(root: Path) -> Truth:
    truth, seed = {}, 0
    for domain, scene in (("loveda_urban", "Urban"), ("loveda_rural", "Rural")):
        for part, split in (("Train", "train"), ("Val", "test")):
            values, seed, folder = (
                numbered(seed, 7),
                seed + 1,
                root / "LoveDA-CrossEarth" / "LoveDA" / part / scene,
            )
            save(folder / "images_png" / f"{seed}.png", picture(seed))
            save(folder / "masks_png" / f"{seed}.png", values)
            truth[domain, split, str(seed)] = from_one(values)
    zipped(root / "LoveDA-CrossEarth")
    return truth


def whu(root: Path) -> Truth:
    """The aerial tiles also carry their first labels, in color, which nobody may take."""
    truth, seed, base = {}, 0, root / "WHU-Building"
    layouts = (("whu_aerial", "Aerial", ("train", "test"), "label2"),)
    layouts += (("whu_satellite", "Satellite", ("train_all", "test_all"), "label"),)
    for domain, folder, parts, labels in layouts:
        for part in parts:
            ids, seed = blob(seed), seed + 1
            save(base / folder / part / "image" / f"{seed}.tif", picture(seed))
            save(base / folder / part / labels / f"{seed}.tif", ids)
            if labels == "label2":
                save(base / folder / part / "label" / f"{seed}.tif", picture(seed + 50))
            truth[domain, part.split("_", maxsplit=1)[0], f"{part}_{seed}"] = ids
    zipped(base)
    return truth


def massachusetts(root: Path) -> Truth:
    """With the published labels (255) beside the new ones (1), and for validation only the former."""
    truth, base = {}, root / "Massachusetts" / "tiff"
    for seed, part in enumerate(("train", "val", "test")):
        ids, name = blob(seed), f"1037878{seed}_15"
        save(base / part / f"{name}.tiff", picture(seed))
        save(base / f"{part}_labels" / f"{name}.tif", ids * np.uint8(255))
        if part != "val":
            save(base / f"{part}_labels_new" / f"{name}.tif", ids)
            truth["massachusetts_road", part, name] = ids
    zipped(root / "Massachusetts")
    return truth


def deepglobe(root: Path) -> Truth:
    truth = {}
    for seed in range(3):
        ids = blob(seed)
        save(root / "DeepGlobe" / "train" / f"{seed}_sat.jpg", picture(seed))
        save(root / "DeepGlobe" / "train" / f"{seed}_mask.png", ids)
        truth["deepglobe_road", "train", str(seed)] = ids
    truth["deepglobe_road", "test", "0"] = truth["deepglobe_road", "train", "0"]
    zipped(root / "DeepGlobe")
    return truth


def casid(root: Path) -> Truth:
    """Ids from 1; those of one climate's tests lie in `label_id`, beside labels in color."""
    truth = {}
    for seed, (domain, folder) in enumerate({"casid_sub": "SubMs", "casid_tms": "TroMs"}.items()):
        for part, split in (("all_train", "train"), ("all_test", "test")):
            values = np.random.default_rng(seed).integers(1, 6, (HEIGHT, WIDTH)).astype(np.uint8)
            place, name = root / "CASID" / folder / part, f"{seed}_{split}"
            save(place / "image" / f"{name}.png", picture(seed))
            if (domain, split) == ("casid_tms", "test"):
                save(place / "label" / f"{name}-label.png", picture(seed))
                save(place / "label_id" / f"{name}-label.png", values)
            else:
                save(place / "label" / f"{name}-label.png", values)
            truth[domain, split, name] = values - np.uint8(1)
    zipped(root / "CASID")
    return truth
