"""Files that name rasters and polygons: what they say, and what is said of mistakes in them."""

import numpy as np
import pytest
import shapely
from affine import Affine
from PIL import Image
from rasterio.control import GroundControlPoint
from rasters import PLACE, write_raster
from vectors import write_layer

from crossearth_hf.data import load_source, load_sources, polygon_class_names, source_folder
from crossearth_hf.data.class_list import read_classes
from crossearth_hf.data.image_blocks import blocks_of
from crossearth_hf.data.label_counts import count_labels
from crossearth_hf.data.labeled_images import ArrayPair, FilePair, PartialLabels
from crossearth_hf.errors import InputError
from crossearth_hf.labels import get_label_set

LAND_COVER = get_label_set("land-cover")
PIXEL = shapely.box(5e5 + 2, 5e6 - 6, 5e5 + 6, 5e6 - 2)  # 8 x 8 pixels


@pytest.fixture
def folder(tmp_path):
    """Two rasters side by side, two polygons on the first, and a file that names them."""
    (tmp_path / "tiles").mkdir()
    for name, place in {"a": PLACE, "b": PLACE @ Affine.translation(30, 0)}.items():
        write_raster(
            tmp_path / "tiles" / f"{name}.tif", np.full((3, 20, 30), 9, np.uint8), transform=place
        )
    write_layer(
        tmp_path / "labels.gpkg",
        [PIXEL, shapely.box(5e5 + 8, 5e6 - 4, 5e5 + 10, 5e6)],
        {"kind": ["road", "water"]},
    )
    (tmp_path / "mine.yaml").write_text(
        "images: tiles/*.tif\npolygons: labels.gpkg\nclass_column: kind\n"
    )
    return tmp_path


def test_a_file_is_a_source(folder):
    lines = []
    ((pair,),) = load_sources([str(folder / "mine.yaml")], LAND_COVER, tell=lines.append)
    assert isinstance(pair, ArrayPair)
    assert pair.label_counts() == {2: 64, 3: 32, 255: 600 - 96}
    assert lines == [
        f"{folder / 'labels.gpkg'}: no polygon lies on b.tif, left out (1 of 2 rasters are used)"
    ]
    assert source_folder(str(folder / "mine.yaml")) == folder / "mine.yaml"


def test_a_warm_start_reads_the_rasters_alone(folder):
    images = load_source(str(folder / "mine.yaml"), LAND_COVER, labeled=False)
    assert [(image.name, type(image)) for image in images] == [("a", FilePair), ("b", FilePair)]
    assert (images[0].read()[1] == 255).all()


def write(path, text):
    (path / "mine.yaml").write_text(text)


def labels(path, shapes, kinds=None, **options):
    write_layer(path / "new.gpkg", shapes, {"kind": kinds or ["road"] * len(shapes)}, **options)
    write(path, "images: tiles/a.tif\npolygons: new.gpkg\nclass_column: kind\n")


def raster(path, **options):
    write_raster(path / "tiles" / "c.tif", np.zeros((3, 20, 30), np.uint8), **options)
    write(path, "images: tiles/c.tif\npolygons: labels.gpkg\nclass_column: kind\n")


def two_layers(path):
    labels(path, [PIXEL], layer="one")
    write_layer(path / "new.gpkg", [PIXEL], {"kind": ["road"]}, layer="two", append=True)


def shapefile_without_crs(path):
    with pytest.warns(UserWarning, match="'crs' was not provided"):
        write_layer(path / "new.shp", [PIXEL], {"kind": ["road"]}, crs=None, kind="Polygon")
    write(path, "images: tiles/a.tif\npolygons: new.shp\nclass_column: kind\n")


def picture(path):
    Image.new("RGB", (30, 20)).save(path / "tiles" / "c.png")
    write(path, "images: tiles/c.png\npolygons: labels.gpkg\nclass_column: kind\n")


def control_points(path):
    points = [
        GroundControlPoint(row, col, 5e5 + col, 5e6 - row) for row, col in [(0, 0), (9, 0), (0, 9)]
    ]
    raster(path, transform=Affine.identity(), gcps=points)


def broken(path):
    (path / "labels.gpkg").write_bytes(b"SQLite format 3\0" + b"x" * 2000)


def virtual(path):
    source = f"<SrcDataSource>{path / 'labels.gpkg'}</SrcDataSource>"
    layer = f'<OGRVRTLayer name="labels">{source}</OGRVRTLayer>'
    (path / "new.gpkg").write_text(f"<OGRVRTDataSource>{layer}</OGRVRTDataSource>")
    write(path, "images: tiles/a.tif\npolygons: new.gpkg\nclass_column: kind\n")


def same_names(path):
    write(path, "images: [tiles/a.tif, a.tif]\npolygons: labels.gpkg\nclass_column: kind\n")


BASE = "images: tiles/*.tif\npolygons: labels.gpkg\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (BASE, r"nothing says what .*labels\.gpkg shows; give class_column, the column of the classes \(it has kind\)"),
        (BASE + "class_column: klass", "no column 'klass'; its columns are kind"),
        (BASE + "class_column: kind\nclass_name: road", "give the one that says"),
        (BASE + "class_name: Buildng", "did you mean 'building'"),
        (BASE + "class_colum: kind", "has the field 'class_colum'; those of polygons are images, polygons"),
        (BASE + "class_column: [kind]", "write it as one text"),
        (BASE + "class_column: kind\nlayer: roads", "no layer 'roads' with geometries; it has labels"),
        (BASE + "class_column: kind\nunlabeled: gravel", "unlabeled is 'gravel'; it must be 'ignored' or one of land"),
        (BASE + "class_column: kind\nlabeled_area: labels.gpkg", "name one of land"),
        ("polygons: labels.gpkg\nclass_column: kind", "has images None"),
        ("images: '*.jp2'\npolygons: labels.gpkg\nclass_column: kind", r"no file matches the images '\*\.jp2'"),
        ("images: tiles/x.tif\npolygons: labels.gpkg\nclass_column: kind", r"x\.tif does not exist"),
        ("images: tiles/a.tif\npolygons: x.gpkg\nclass_column: kind", r"x\.gpkg does not exist"),
        ("images: tiles/a.tif\npolygons: x.kml\nclass_column: kind", "export the polygons to a GeoPackage"),
        (same_names, "give every image its own name"),
        (two_layers, r"has 2 layers with geometries \(one, two\); name the one"),
        (shapefile_without_crs, "does not state the CRS"),
        (broken, "cannot be read"),
        (virtual, "is of the kind OGR_VRT"),
        (picture, "a picture without a CRS"),
        (control_points, "warp it first"),
        (lambda path: raster(path, transform=None), "no CRS or no place"),
        (lambda path: raster(path, crs=None), "no CRS or no place"),
        (lambda path: raster(path, crs='LOCAL_CS["engine",UNIT["metre",1]]'), "PROJ cannot convert"),
        (lambda path: labels(path, []), "holds no feature"),
        (lambda path: labels(path, [shapely.box(0, 0, 9, 9)]), "from 0, 0 to 9, 9, and a.tif from .*at their CRSs"),
        (lambda path: labels(path, [PIXEL], crs="EPSG:4326"), "are not degrees: assign the CRS"),
        (lambda path: labels(path, [PIXEL, PIXEL.boundary]), "feature 2 .* is a LineString, and polygons are needed"),
        (lambda path: labels(path, [PIXEL.centroid]), "feature 1 of .* is a Point"),
        (lambda path: labels(path, [PIXEL, PIXEL], ["road", "Rode"]), "unknown class 'Rode' .*did you mean 'road'"),
        (lambda path: labels(path, [PIXEL, PIXEL], ["road", None]), "feature 2 .* has no class in column 'kind'"),
        (lambda path: labels(path, [PIXEL, PIXEL], [1, 5]), r"unknown class '5' .* land \(0\), building \(1\)"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_their_remedy(folder, change, message):
    if isinstance(change, str):
        write(folder, change)
    else:
        change(folder)
    with pytest.raises(InputError, match=message):
        load_source(str(folder / "mine.yaml"), LAND_COVER)


def test_pixels_without_a_polygon_may_be_none_of_the_classes_of_polygons(folder):
    cloud = shapely.box(5e5 + 12, 5e6 - 2, 5e5 + 15, 5e6)  # 6 x 4 pixels
    labels(
        folder,
        [PIXEL, shapely.box(5e5 + 8, 5e6 - 4, 5e5 + 10, 5e6), cloud],
        ["road", "water", "ignored"],
    )
    with open(folder / "mine.yaml", "a") as file:
        file.write("unlabeled: others\n")
    (image,) = load_source(str(folder / "mine.yaml"), LAND_COVER)
    assert image.partial == PartialLabels((2, 3), complete=True, is_marked=True)
    assert image.partial.unlabeled_classes(5) == [True, True, False, False, True]
    assert image.label_counts() == {2: 64, 3: 32, 254: 600 - 96 - 24, 255: 24}
    burned = image.read_labels(0, 0, 20, 30)
    np.testing.assert_array_equal(image.partial.for_training(burned), burned)
    # the rest counts as the first class, the cloud as nothing
    scored = np.where(burned == 254, 0, burned)
    for same in (image, image.decode(), *image.parts(), blocks_of(image, 1)[0]):
        np.testing.assert_array_equal(same.read()[1], scored)
        assert same.partial == image.partial
    table = count_labels([[image]]).table("train_data", LAND_COVER)
    assert "  254  (others)" in table
    assert "mask-offset" not in table  # the rest may be class 0
    assert polygon_class_names(str(folder / "mine.yaml")) == ["road", "water"]


def test_others_within_a_labeled_area(folder):
    write_layer(folder / "area.gpkg", [shapely.box(5e5, 5e6 - 10, 5e5 + 5, 5e6)])
    with open(folder / "mine.yaml", "a") as file:
        file.write("unlabeled: others\nlabeled_area: area.gpkg\n")
    (image,) = load_source(str(folder / "mine.yaml"), LAND_COVER)
    # 10 columns are in the area, 6 x 8 pixels of the first polygon lie there, and all of both polygons are labeled
    assert image.label_counts() == {
        2: 64,
        3: 32,
        254: 10 * 20 - 6 * 8,
        255: 600 - 96 - (10 * 20 - 6 * 8),
    }


def test_others_need_a_class_that_is_left_and_a_free_id(folder):
    with open(folder / "mine.yaml", "a") as file:
        file.write("unlabeled: others\n")
    with pytest.raises(
        InputError,
        match="has unlabeled 'others' and shows all classes, road, water: no other is left",
    ):
        load_source(str(folder / "mine.yaml"), read_classes("road,water"))
    many = ["road", "water", *(f"class {number}" for number in range(253))]
    with pytest.raises(
        InputError, match="labels some of 255 classes, and partly labeled data go with at most 254"
    ):
        load_source(str(folder / "mine.yaml"), read_classes(many))
    (image,) = load_source(str(folder / "mine.yaml"), read_classes(many[:254]))
    assert image.label_counts() == {0: 64, 1: 32, 254: 600 - 96}
    assert np.unique(image.read()[1]).tolist() == [
        0,
        1,
        255,
    ]  # it is not class 0, and no other may be named
    named = read_classes("road,water,others")
    assert load_source(str(folder / "mine.yaml"), named)[0].label_counts() == {
        0: 64,
        1: 32,
        2: 600 - 96,
    }
