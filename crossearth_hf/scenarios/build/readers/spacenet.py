"""SpaceNet 3 roads and SpaceNet 2 buildings (Van Etten et al. 2018): pan-sharpened 16-bit RGB chips of four cities.

In the folder of each city, whose name starts with AOI_2_Vegas, AOI_3_Paris, AOI_4_Shanghai or AOI_5_Khartoum:
roads `PS-RGB/*_imgN.tif` of 1300 x 1300 pixels with `geojson_roads/*_imgN.geojson` (or `geojson_roads_speed`);
buildings `RGB-PanSharpen/*_imgN.tif` of 650 x 650 pixels with `geojson/buildings/*_imgN.geojson`. This is how torchgeo
and Raster Vision read the archives, not a statement of the authors: `--path` names other places. They come as .tar.gz:
unpack them. Only the training archives have labels; all of these are the split "test", SpaceNet being a target only.

Center lines become roads 4 m wide, 2 m to either side, as in SpaceNet's own baseline (CRESI, `buffer_meters` 2).
Pixels without image, 0 in all bands, are ignored: ours.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from ....labels import IGNORE_INDEX
from ...domains import Domain
from ..archives import RawFile, RawFolder
from ..pairs import DomainSource, RawPair, by_key, paired
from ..rasters import open_raster
from ..vectors import burn_lines, burn_polygons, read_geometries

PATHS: Mapping[str, str] = {
    "images": "folder or zip of the chips, names with AOI_N_CITY and imgN, such as PS-RGB_AOI_2_Vegas_img1.tif",
    "labels": "folder or zip of their GeoJSON files, with the same parts in their names",
}
CITIES = ("AOI_2_Vegas", "AOI_3_Paris", "AOI_4_Shanghai", "AOI_5_Khartoum")
ROAD_DISTANCE = 2.0
"""Meters from the center line to the edge of a road."""


@dataclass(frozen=True)
class _Layout:
    """Patterns of images and labels in order of preference, and the kind of shapes in the labels."""

    images: str
    labels: tuple[str, ...]
    kind: str


_LAYOUTS = {
    "spacenet_road": _Layout(
        "PS-RGB/*.tif", ("geojson_roads/*.geojson", "geojson_roads_speed/*.geojson"), "LineString"
    ),
    "spacenet_building": _Layout(
        "RGB-PanSharpen/*.tif", ("geojson/buildings/*.geojson",), "Polygon"
    ),
}


def read(raw: RawFolder, domain: Domain, paths: Mapping[str, RawFolder]) -> DomainSource:
    """All labeled chips of the four cities; chips without a label file are left out."""
    layout = _LAYOUTS[domain.name]
    images = _chips(paths, "images", raw, (layout.images,), ".tif")
    labels = _chips(paths, "labels", raw, layout.labels, ".geojson")
    unlabeled = len(images.keys() - labels.keys())
    pairs, unpaired = paired(
        {key: file for key, file in images.items() if key in labels}, labels, "test"
    )
    found = {pair.name.rsplit("_", 1)[0] for pair in pairs}
    if pairs:
        unpaired += tuple(f"no labeled chip of {city}" for city in CITIES if city not in found)
    notes = []
    if unlabeled:
        notes.append(f"{unlabeled} chips without a label file are left out")
    if layout.kind == "LineString":
        notes.append(f"roads are drawn {2 * ROAD_DISTANCE:g} m wide around their center lines")
    notes.append("pixels without image, 0 in all bands, are ignored")
    return DomainSource(
        pairs,
        partial(_labels, kind=layout.kind),
        unpaired=unpaired,
        layout="assumed",
        notes=tuple(notes),
    )


def _chips(
    paths: Mapping[str, RawFolder], key: str, raw: RawFolder, patterns: tuple[str, ...], suffix: str
) -> dict[str, RawFile]:
    """Files by city and number, such as AOI_2_Vegas_img1: from `--path`, else by the first matching pattern."""
    if key in paths:
        return by_key(paths[key].files(f"*{suffix}"), _chip)
    for pattern in patterns:
        files = raw.files(f"AOI_*/{pattern}")
        if files:
            return by_key(files, _chip)
    return {}


def _chip(file: RawFile) -> str | None:
    """City and number of a chip, by which image and label find each other; None for files of another kind."""
    match = re.search(r"(AOI_\d+_[A-Za-z]+)_.*?(img\d+)\.[a-z]+$", file.name)
    return match and f"{match[1]}_{match[2]}"


def _labels(pair: RawPair, kind: str) -> np.ndarray:
    """0, 1 in the shapes of the label file, 255 where the image is 0 in all bands."""
    with open_raster(pair.image) as raster:
        empty = (raster.read(0, 0, *raster.size) == 0).all(axis=2)
        grid = raster.grid
    shapes = read_geometries(pair.label, kind, grid)
    if kind == "LineString":
        inside = burn_lines(shapes, grid, ROAD_DISTANCE)
    else:
        inside = burn_polygons(shapes, grid)
    ids = inside.astype(np.uint8)
    ids[empty] = IGNORE_INDEX
    return ids
