"""Raw archives of DeepGlobe, Massachusetts, RescueNet, WHU, CASID and SpaceNet in the published structure, tiny.

Each function writes below `root` and returns the true ids by (split, name of the pair).
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from PIL import Image

Truth = dict[tuple[str, str], np.ndarray]

HEIGHT, WIDTH = 24, 32
CITIES = ("AOI_2_Vegas", "AOI_3_Paris", "AOI_4_Shanghai", "AOI_5_Khartoum")


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(height, width, 3) uint8 noise."""
    return np.random.default_rng(seed).integers(1, 255, (height, width, 3), dtype=np.uint8)


def blob(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(height, width) uint8 of 0 and, in a rectangle of a quarter at most, 1."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((height, width), np.uint8)
    row, col = rng.integers(0, height // 2), rng.integers(0, width // 2)
    ids[row : row + height // 3, col : col + width // 3] = 1
    return ids


def save(path: Path, pixels: np.ndarray) -> Path:
    """Writes a picture, its folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def zipped(folder: Path, name: str | None = None) -> Path:
    """Packs the content of a folder into a zip beside it and removes the folder."""
    archive = shutil.make_archive(str(folder), "zip", folder)
    shutil.rmtree(folder)
    return Path(archive) if name is None else Path(archive).rename(folder.parent / name)


def deepglobe(root: Path, count: int = 7) -> Truth:
    """`train/ID_sat.jpg` with `train/ID_mask.png`, whose values were blurred by compression, and unlabeled `valid`."""
    truth = {}
    for index in range(count):
        name, ids = str(100 * (index + 1) + 7), blob(index)
        noise = np.random.default_rng(index).integers(0, 128, ids.shape).astype(np.uint8)
        mask = np.where(ids == 1, 255 - noise, noise)  # 128..255 and 0..127
        save(root / "train" / f"{name}_sat.jpg", picture(index))
        save(root / "train" / f"{name}_mask.png", np.repeat(mask[..., None], 3, axis=2))
        truth["train", name] = ids
        if index % 5 == 0:
            truth["test", name] = ids
    save(root / "valid" / "9_sat.jpg", picture(99))
    return truth


def massachusetts(root: Path, *, homepage: bool = False, road: int = 255) -> Truth:
    """The benchmark's `tiff` folder, or the homepage's `sat` and `map`."""
    truth = {}
    for number, (split, part) in enumerate(
        (("train", "train"), ("validation", "val"), ("test", "test"))
    ):
        for index in range(2):
            name, ids = f"{10378780 + number}_{index + 1}5", blob(10 * number + index)
            if homepage:
                part = "valid" if part == "val" else part
                image, mask = root / part / "sat", root / part / "map"
            else:
                image, mask = root / "tiff" / part, root / "tiff" / f"{part}_labels"
            save(image / f"{name}.tiff", picture(10 * number + index))
            save(mask / f"{name}.tif", ids * np.uint8(road))
            truth[split, name] = ids
    return truth


def rescuenet(root: Path, highest: int = 10) -> Truth:
    """`RescueNet/{train,val,test}/PART-org-img` and `PART-label-img` with ids up to `highest`, larger than 512 px."""
    # clutter, building, car, impervious, vegetation
    classes = np.array([4, 4, 1, 1, 1, 1, 3, 0, 0, 2, 4, 4], np.uint8)
    truth = {}
    for number, (part, split) in enumerate(
        (("train", "train"), ("val", "validation"), ("test", "test"))
    ):
        ids = np.random.default_rng(number).integers(0, highest + 1, (60, 80)).astype(np.uint8)
        name = str(10778 + number)
        save(root / "RescueNet" / part / f"{part}-org-img" / f"{name}.jpg", picture(number, 60, 80))
        save(root / "RescueNet" / part / f"{part}-label-img" / f"{name}_lab.png", ids)
        truth[split, name] = classes[ids]
    return truth


def whu(root: Path, *, building: int = 255) -> Truth:
    """Both zips; the same file names with the same sizes in all parts, as published."""
    aerial = root / "aerial" / "3. The cropped image tiles and raster labels"
    satellite = (
        root
        / "satellite"
        / "Satellite dataset Ⅱ (East Asia)"
        / "1. The cropped image data and raster labels"
    )
    truth, seed = {}, 0
    for folder, parts in (
        (aerial, ("train", "val", "test")),
        (satellite, ("train", "train_no", "test", "test_no")),
    ):
        for part in parts:
            for name in ("0", "1"):
                ids = np.zeros((HEIGHT, WIDTH), np.uint8) if part.endswith("_no") else blob(seed)
                save(folder / part / "image" / f"{name}.tif", picture(seed))
                save(folder / part / "label" / f"{name}.tif", ids * np.uint8(building))
                domain = "whu_aerial" if folder == aerial else "whu_satellite"
                split = "train" if part.startswith("train") else "test"
                if (domain, part) != ("whu_aerial", "test"):
                    truth[f"{domain} {split}", f"{part}_{name}"] = ids
                seed += 1
    zipped(root / "aerial", "3. The cropped aerial image tiles and raster labels.zip")
    zipped(root / "satellite", "Satellite dataset Ⅱ (East Asia).zip")
    return truth


def casid(root: Path, base: int = 0, folders: Mapping[str, str] | None = None) -> Truth:
    """Climates' folders with `all_train` and `all_test`; labels start at `base`."""
    names = {"casid_sub": "SubMs", "casid_tem": "TemMs", "casid_tms": "TroMs", "casid_trf": "TroRf"}
    truth = {}
    for number, (domain, folder) in enumerate((folders or names).items()):
        for part, split in (("all_train", "train"), ("all_test", "test")):
            for index in range(2):
                seed = 10 * number + index + (5 if split == "test" else 0)
                ids = np.random.default_rng(seed).integers(0, 5, (HEIGHT, WIDTH)).astype(np.uint8)
                name = f"{index}_{split}"
                save(root / folder / part / "image" / f"{name}.png", picture(seed))
                save(root / folder / part / "label" / f"{name}-label.png", ids + np.uint8(base))
                truth[f"{domain} {split}", name] = ids
    return truth


PIXEL = 2.7e-6
"""Degrees, about 0.3 m: SpaceNet's chips are in longitude and latitude."""


def spacenet_place(index: int) -> Affine:
    """From (column, row) of a chip to longitude and latitude."""
    return Affine(PIXEL, 0, -115.3 + 0.01 * index, 0, -PIXEL, 36.1)


def save_chip(path: Path, seed: int, place: Affine, side: int = 40) -> np.ndarray:
    """Writes a 16-bit GeoTIFF without data in its first three rows; returns (3, side, side)."""
    pixels = np.random.default_rng(seed).integers(1, 2000, (3, side, side)).astype(np.uint16)
    pixels[:, :3] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": 3, "height": side, "width": side, "dtype": "uint16"}
    with rasterio.open(path, "w", crs="EPSG:4326", transform=place, **profile) as target:
        target.write(pixels)
    return pixels


def geojson(*geometries: dict | None) -> str:
    """A collection as SpaceNet writes them, in longitude and latitude."""
    features = [
        {"type": "Feature", "properties": {}, "geometry": geometry} for geometry in geometries
    ]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}
    return json.dumps({"type": "FeatureCollection", "crs": crs, "features": features})


def on_earth(place: Affine, points: list[tuple[float, float]]) -> list[list[float]]:
    """(column, row) points as longitude, latitude and a height, as SpaceNet's polygons have."""
    return [[*(place @ point), 0.0] for point in points]


def spacenet_roads(root: Path, cities: tuple[str, ...] = CITIES) -> None:
    """Per city a chip with a road along row 20, and one without label file."""
    for index, city in enumerate(cities):
        place, folder = (
            spacenet_place(index),
            root / f"{city}_Roads_Train" if index else root / city,
        )
        for number in (1, 2):
            save_chip(
                folder / "PS-RGB" / f"SN3_roads_train_{city}_PS-RGB_img{number}.tif", index, place
            )
        road = {"type": "LineString", "coordinates": on_earth(place, [(-5, 20), (50, 20)])}
        label = folder / "geojson_roads" / f"SN3_roads_train_{city}_geojson_roads_img1.geojson"
        label.parent.mkdir(parents=True)
        label.write_text(geojson(road))


def spacenet_buildings(root: Path, cities: tuple[str, ...] = CITIES) -> None:
    """Per city a chip with a building of 10 x 8 pixels that has a court of 2 x 2, and one with an empty label file."""
    for index, city in enumerate(cities):
        place, folder = spacenet_place(index), root / f"{city}_Train"
        outer, court = (
            [(5, 10), (15, 10), (15, 18), (5, 18), (5, 10)],
            [(8, 12), (10, 12), (10, 14), (8, 14), (8, 12)],
        )
        house = {"type": "Polygon", "coordinates": [on_earth(place, outer), on_earth(place, court)]}
        labels = folder / "geojson" / "buildings"
        labels.mkdir(parents=True)
        for number, content in (
            (1, geojson(house, None, {"type": "Point", "coordinates": [0, 0]})),
            (2, ""),
        ):
            save_chip(
                folder / "RGB-PanSharpen" / f"RGB-PanSharpen_{city}_img{number}.tif",
                index + number,
                place,
            )
            (labels / f"buildings_{city}_img{number}.geojson").write_text(content)
