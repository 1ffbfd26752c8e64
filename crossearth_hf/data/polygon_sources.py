"""Turns rasters and a layer of polygons into labeled images, checked before the work."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import shapely

from ..errors import InputError
from ..labels import LabelSet
from ..raster.placement import Placement, union_box
from ..raster.scene import DEFAULT_READING, Reading
from ..raster.vector_layers import Features, VectorLayer, open_layer, read_features
from .image_files import image_size, pixel_size, raster_grid
from .polygon_classes import IGNORED, OTHERS, class_id_of, column_ids, partial_of, unlabeled_id
from .polygons import PolygonImage, PolygonLabels

NAMED = 5
"""Number of features, values and rasters that a message names."""


IdsOf = Callable[[Features], np.ndarray]
"""Gives the (N,) uint8 class ids of features."""


@dataclass(frozen=True)
class PolygonSource:
    """A person's polygons over rasters.

    Attributes:
        images: The rasters; each has a CRS.
        polygons: GeoPackage, GeoJSON or Shapefile, in any CRS.
        layer: Layer of the file; not needed if the file has only one.
        class_column: Column with the class of each polygon: its name or its id; "ignored" or 255 for no class.
        class_name: Class of all polygons, instead of a column.
        unlabeled: Class of pixels without a polygon; "ignored"; or "others" if they certainly have none of the classes
            of the polygons on the rasters, but may have any other class of the run.
        labeled_area: File with polygons around completely labeled areas: only there, pixels without a polygon have the
            class `unlabeled`.
        labeled_area_layer: Layer of that file.
    """

    images: Sequence[Path]
    polygons: Path
    layer: str | None = None
    class_column: str | None = None
    class_name: str | None = None
    unlabeled: str = IGNORED
    labeled_area: Path | None = None
    labeled_area_layer: str | None = None


@dataclass
class _OnRaster:
    """A raster and the polygons found on it so far."""

    path: Path
    size: tuple[int, int]
    placement: Placement
    polygons: list[np.ndarray] = field(default_factory=list)
    ids: list[np.ndarray] = field(default_factory=list)


@dataclass
class _Told:
    """Counts for a person: the features of a layer on rasters, and repaired polygons."""

    found: int = 0
    repaired: list[int] = field(default_factory=list)

    def lines(self, layer: VectorLayer) -> list[str]:
        """Lines about features on no raster and repaired polygons."""
        lines = []
        elsewhere = layer.features - self.found
        if elsewhere:
            of_all = f"{elsewhere} of {layer.features} features"
            lines.append(
                f"{layer}: {of_all} lie on no raster, or have no geometry, and are left out"
            )
        if self.repaired:
            numbers = _some(self.repaired)
            lines.append(
                f"{layer}: {_number(len(self.repaired), 'invalid polygon')} repaired (feature {numbers})"
            )
        return lines


def load_polygons(
    source: PolygonSource,
    label_set: LabelSet,
    *,
    reading: Reading = DEFAULT_READING,
    tell: Callable[[str], object] | None = None,
) -> list[PolygonImage]:
    """Loads the rasters with polygons, and their labels.

    Args:
        source: Files and columns.
        label_set: Classes of the polygons.
        reading: Bands of the rasters and no-data values.
        tell: Takes lines about polygons that are left out, repaired or overlap.

    Raises:
        InputError: A file cannot be read or does not fit, a column or class does not exist, or no polygon lies on any
            raster.
    """
    tell = tell or (lambda line: None)
    unlabeled = _unlabeled_id(source, label_set)
    layer = open_layer(source.polygons, source.layer)
    ids_of = _class_reader(source, layer, label_set)
    rasters = _rasters(source.images, layer, reading)
    told = _Told()
    box = union_box([raster.placement.box for raster in rasters])
    for features in read_features(layer, source.class_column, box):
        _take(features, rasters, told, ids_of)
    used = [raster for raster in rasters if raster.polygons]
    if not used:
        raise InputError(_nowhere(layer, rasters))
    for line in told.lines(layer):
        tell(line)
    if len(used) < len(rasters):
        names = _some([raster.path.name for raster in rasters if not raster.polygons])
        tell(
            f"{layer}: no polygon lies on {names}, left out ({len(used)} of {len(rasters)} rasters are used)"
        )
    areas = _areas(source, used, tell)
    shown_ids = np.unique(np.concatenate([ids for raster in used for ids in raster.ids])).tolist()
    partial = partial_of(source.unlabeled, shown_ids, label_set, str(layer))
    images = [
        _image(raster, area, unlabeled, reading, layer, tell)
        for raster, area in zip(used, areas, strict=True)
    ]
    return [replace(image, partial=partial) for image in images]


def class_names(source: PolygonSource) -> list[str]:
    """The classes that polygons name, sorted: the values of their column or their common class, and that of the rest.

    Raises:
        InputError: A file cannot be read, or the column does not exist.
    """
    found = {source.class_name or ""}
    if source.class_column is not None:
        layer = open_layer(source.polygons, source.layer)
        for features in read_features(layer, source.class_column, None):
            if features.values is not None:
                found.update(str(value).strip() for value in features.values)
    if source.unlabeled != OTHERS:
        found.add(source.unlabeled)
    return sorted(name for name in found if name and name.lower() != IGNORED)


def _image(
    raster: _OnRaster,
    area: np.ndarray | None,
    unlabeled: int,
    reading: Reading,
    layer: VectorLayer,
    tell: Callable[[str], object],
) -> PolygonImage:
    """A raster with its labels; `tell` takes a line about overlaps."""
    polygons, ids = np.concatenate(raster.polygons), np.concatenate(raster.ids)
    labels = PolygonLabels(raster.size, polygons, ids, unlabeled, area)
    overlap = labels.overlap()
    if overlap >= 1:
        tell(
            f"{layer}: polygons of different classes overlap in about {overlap:,.0f} pixels of {raster.path.name}; the "
            "later feature lies on top"
        )
    return PolygonImage(raster.path.stem, raster.path, labels, reading, pixel_size(raster.path))


def _rasters(paths: Sequence[Path], layer: VectorLayer, reading: Reading) -> list[_OnRaster]:
    """The rasters, each with the transform from the layer's coordinates."""
    for first, second in pairwise(sorted(paths, key=lambda path: path.stem)):
        if first.stem == second.stem:
            raise InputError(
                f"{first} and {second} have the same name; give every image its own name"
            )
    rasters = []
    for path in paths:
        size, grid = image_size(path, str(path), reading), raster_grid(path)
        if grid is None:
            raise InputError(
                f"{path} is a picture without a CRS, which polygons need; save it as a GeoTIFF with one"
            )
        placement = Placement(grid, str(path), layer.crs, layer.bounds)
        rasters.append(_OnRaster(path, size, placement))
    return rasters


def _take(features: Features, rasters: Sequence[_OnRaster], told: _Told, ids_of: IdsOf) -> None:
    """Adds the features of a batch to the rasters on which they lie."""
    used = np.zeros(len(features.numbers), dtype=bool)
    tree = shapely.STRtree(features.polygons)
    placed = []
    for raster in rasters:
        near = np.sort(tree.query(shapely.box(*raster.placement.box)))
        polygons = raster.placement.pixels(features.polygons[near])
        is_on_raster = ~shapely.is_empty(polygons)
        indices = near[is_on_raster]
        used[indices] = True
        placed.append((indices, polygons[is_on_raster]))
    told.found += int(used.sum())
    told.repaired += np.intersect1d(features.numbers[used], features.repaired).tolist()
    ids = np.zeros(len(used), dtype=np.uint8)
    ids[used] = ids_of(features.only(used))
    for raster, (indices, polygons) in zip(rasters, placed, strict=True):
        if len(indices):
            raster.polygons.append(polygons)
            raster.ids.append(ids[indices])


def _areas(
    source: PolygonSource, rasters: Sequence[_OnRaster], tell: Callable[[str], object]
) -> list[np.ndarray | None]:
    """The labeled area on every raster; None without one."""
    if source.labeled_area is None:
        return [None] * len(rasters)
    layer, told = open_layer(source.labeled_area, source.labeled_area_layer), _Told()
    on_rasters = [
        _OnRaster(
            raster.path,
            raster.size,
            Placement(raster.placement.grid, str(raster.path), layer.crs, layer.bounds),
        )
        for raster in rasters
    ]
    box = union_box([raster.placement.box for raster in on_rasters])
    for features in read_features(layer, None, box):
        _take(features, on_rasters, told, _same_id(0))
    if not told.found:
        raise InputError(_nowhere(layer, on_rasters))
    for line in told.lines(layer):
        tell(line)
    return [np.concatenate([np.array([], dtype=object), *raster.polygons]) for raster in on_rasters]


def _unlabeled_id(source: PolygonSource, label_set: LabelSet) -> int:
    """Id of pixels without a polygon."""
    if source.labeled_area is not None and source.unlabeled == IGNORED:
        raise InputError(
            f"labeled_area is {source.labeled_area}, and unlabeled does not say which class pixels in it have that no "
            f"polygon holds; name one of {', '.join(label_set.classes)}, or '{OTHERS}'"
        )
    return unlabeled_id(source.unlabeled, "unlabeled", label_set)


def _class_reader(source: PolygonSource, layer: VectorLayer, label_set: LabelSet) -> IdsOf:
    """A function that gives features their class; raises `InputError` if nothing names the class."""
    column, name = source.class_column, source.class_name
    if column is not None and name is not None:
        raise InputError(
            f"class_column is {column} and class_name {name}; give the one that says what {layer} shows"
        )
    if name is not None:
        return _same_id(class_id_of(name, "class_name", label_set))
    if column is None:
        raise InputError(
            f"nothing says what {layer} shows; give class_column, the column of the classes (it has "
            f"{', '.join(layer.fields) or 'none'}), or class_name, the class of all its polygons"
        )
    return lambda features: column_ids(features, column, str(layer), label_set)


def _same_id(class_id: int) -> IdsOf:
    """One id for all features."""
    return lambda features: np.full(len(features.numbers), class_id, dtype=np.uint8)


def _nowhere(layer: VectorLayer, rasters: Sequence[_OnRaster]) -> str:
    """The message if no feature lies on any raster."""
    names = _some([raster.path.name for raster in rasters])
    if layer.bounds is None or not layer.features:
        return f"{layer} holds no feature; save the edits of the layer in QGIS, or name another one"
    box = union_box([raster.placement.box for raster in rasters])
    places = f"it reaches {_reach(layer.bounds)}, and {names} {_reach(box)} (in {layer.crs.name})"
    remedy = "look at both in QGIS, at their CRSs too"
    if layer.has_meters_for_degrees:
        remedy = "its coordinates are not degrees: assign the CRS that they were drawn in (QGIS: Assign projection)"
    return f"no feature of {layer} lies on {names}: {places}; {remedy}"


def _reach(box: tuple[float, float, float, float]) -> str:
    west, south, east, north = (f"{value:.7g}" for value in box)
    return f"from {west}, {south} to {east}, {north}"


def _some(names: Sequence[object]) -> str:
    """The first of some names."""
    shown_names = ", ".join(str(name) for name in names[:NAMED])
    if len(names) > NAMED:
        return f"{shown_names} and {len(names) - NAMED} more"
    return shown_names


def _number(count: int, what: str) -> str:
    if count == 1:
        return f"1 {what}"
    return f"{count} {what}s"
