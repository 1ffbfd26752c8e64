"""STAC items (https://stacspec.org, version 1.1) that describe maps, beside them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ..files import stac
from ..labels import IGNORE_INDEX, LabelSet
from ..raster.footprint import footprint, recorded_at
from ..raster.grid import Grid
from ..raster.remote import is_url
from ..raster.scene import Scene
from ..raster.tiles import TILES_MARK, mosaic_tiles

_EXTENSIONS = (
    stac.CLASSIFICATION,
    stac.PROCESSING,
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
)
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"


def item_path(map_path: Path) -> Path:
    """Where the item of a map lies: beside it, under its name."""
    return map_path.with_suffix(".json")


def check_item(map_path: Path) -> None:
    """Raises `InputError` if something else than the item of a map is in its place, or the folder is not writable."""
    stac.check_item(item_path(map_path), "a map")


def write_item(
    map_path: Path, scene: Scene, label_set: LabelSet, files: Sequence[Path], model: str
) -> Path:
    """Writes the item of a finished map.

    Args:
        map_path: The map.
        scene: The scene, open.
        label_set: Its classes.
        files: All files of the map; the GeoTIFFs and the PNG among them become assets.
        model: Name of the model.

    Returns:
        The item.

    Raises:
        InputError: The item cannot be written.
    """
    path = item_path(map_path)
    stac.write_item(path, _item(map_path, scene, label_set, files, model))
    return path


def _item(
    map_path: Path, scene: Scene, label_set: LabelSet, files: Sequence[Path], model: str
) -> dict[str, Any]:
    """The item as JSON has it."""
    now = stac.now()
    sources = [scene.path]
    if TILES_MARK in scene.tags:  # the virtual raster of tiles is gone once the map is there
        sources = mosaic_tiles(scene.path)
    geometry, box = footprint(scene.native_grid)
    properties = {
        "datetime": stac.time_text(recorded_at(scene.tags) or now),
        **stac.creation(now),
        "processing:lineage": f"classes of every pixel by the model {model}",
        **_projection(scene.native_grid),
    }
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(_EXTENSIONS),
        "id": map_path.stem,
        "geometry": geometry,
        "properties": properties,
        "links": [
            {"rel": "derived_from", "href": _reference(source, map_path.parent)}
            for source in sources
        ],
        "assets": _assets(map_path, scene.native_grid, label_set, files),
    }
    if box is not None:
        item["bbox"] = box
    return item


def _projection(grid: Grid) -> dict[str, Any]:
    """The fields of the extension `projection`."""
    fields: dict[str, Any] = {"proj:shape": [grid.height, grid.width]}
    crs = grid.crs or grid.gcps_crs
    authority = crs.to_authority() if crs is not None else None
    if authority is not None:
        fields["proj:code"] = ":".join(authority)
    else:
        fields["proj:code"] = None
        if crs is not None:
            fields["proj:wkt2"] = crs.to_wkt(version="WKT2_2019")
    if not grid.transform.is_identity:
        fields["proj:transform"] = list(grid.transform)[:6]
    return fields


def _assets(
    map_path: Path, grid: Grid, label_set: LabelSet, files: Sequence[Path]
) -> dict[str, Any]:
    """The files of a map, the map first."""
    size = grid.pixel_size()
    band: dict[str, Any] = {"name": "class", "data_type": "uint8", "nodata": IGNORE_INDEX}
    if size is not None:
        band["raster:spatial_resolution"] = round((size[0] * size[1]) ** 0.5, 4)
    no_data = {"value": IGNORE_INDEX, "name": "no_data", "description": "no data", "nodata": True}
    band["classification:classes"] = [*stac.described_classes(label_set), no_data]
    assets: dict[str, Any] = {
        "map": {
            "href": f"./{map_path.name}",
            "type": _COG,
            "roles": ["data"],
            "title": "Classes",
            "bands": [band],
        }
    }
    for file in files:
        if file == map_path or file.suffix.lower() not in (".tif", ".tiff", ".png"):
            continue
        is_picture = file.suffix.lower() == ".png"
        kind, role = ("image/png", "overview") if is_picture else (_COG, "data")
        key = f"{file.parent.name}_{file.stem}" if file.stem in assets else file.stem
        assets[key] = {
            "href": _reference(str(file), map_path.parent),
            "type": kind,
            "roles": [role],
        }
    return assets


def _reference(path: str, folder: Path) -> str:
    """A link to a file, relative to a folder, or to a URL without what may be secret."""
    if is_url(path):
        parts = urlsplit(path)
        return urlunsplit(
            parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
        )
    if not os.path.exists(path):  # another name that GDAL knows
        return path
    return Path(os.path.relpath(os.path.realpath(path), folder)).as_posix()
