"""Folders, lists and STAC items: which scenes they name, under which names, and what is refused."""

import json

import numpy as np
import pytest
from affine import Affine

from crossearth_hf.errors import InputError
from crossearth_hf.labels import get_label_set
from crossearth_hf.prediction.scene_list import ListedScene, list_scenes, names_many
from crossearth_hf.raster.writing import write_geotiff

LAND_COVER = get_label_set("land-cover")


def files(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def named(scenes):
    return [(scene.source, scene.name) for scene in scenes]


@pytest.mark.parametrize(
    ("scenes", "target", "many"),
    [
        (["a.tif"], "map.tif", False),
        (["a.tif"], "maps", False),
        (["a.tif", "b.tif"], "maps", True),
        (["a.tif", "b.tif"], "map.tif", True),
        (["folder"], "maps", True),
        (["folder"], "map.TIF", False),  # GDAL opens some folders
        (["list.txt"], "maps", True),
        (["grid.txt"], "map.tiff", False),  # and some texts
        (["items.json"], "maps", True),
        (["items.GeoJSON"], "maps", True),
    ],
)
def test_one_scene_or_many(tmp_path, monkeypatch, scenes, target, many):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    assert names_many(scenes, target) is many


def test_a_folder_gives_its_rasters_by_name_with_their_subfolders(tmp_path):
    root = files(
        tmp_path / "in",
        "b.tif",
        "a.v2.JPG",
        "north/t.jp2",
        "notes.md",
        ".hidden.tif",
        ".trash/x.tif",
    )
    assert named(list_scenes([str(root)], [])) == [
        (str(root / "a.v2.JPG"), "a.v2"),
        (str(root / "b.tif"), "b"),
        (str(root / "north/t.jp2"), "north/t"),
    ]


def test_results_inside_the_folder_are_no_scenes(tmp_path):
    root = files(tmp_path / "in", "a.tif")
    for folder in ("maps", "sure"):
        (root / folder).mkdir()
        labels = np.zeros((1, 4, 5), np.uint8)
        write_geotiff(
            root / folder / "a.tif",
            labels,
            crs=None,
            transform=Affine.identity(),
            label_set=get_label_set("land-cover"),
        )
    (tmp_path / "link").symlink_to(root / "sure")
    found = list_scenes([str(root)], [root / "maps", tmp_path / "link"])
    assert named(found) == [(str(root / "a.tif"), "a")]
    with pytest.raises(InputError, match="is the folder of the scenes; choose another folder"):
        list_scenes([str(root)], [root / "maps" / ".."])


def test_a_list_is_relative_to_its_file(tmp_path, monkeypatch):
    files(tmp_path, "x/a.tif", "y z.tif")
    elsewhere = files(tmp_path / "elsewhere", "b.tif")
    (tmp_path / "list.txt").write_bytes(
        f"\ufeff# mine\r\nx/a.tif\r\n\r\n  y z.tif \r\n{elsewhere}/b.tif\nnone.tif\n/vsizip/a.zip/c.tif".encode()
    )
    monkeypatch.chdir(elsewhere)
    assert named(list_scenes(["../list.txt"], [])) == [
        ("../x/a.tif", "a"),
        ("../y z.tif", "y z"),
        (f"{elsewhere}/b.tif", "b"),
        ("none.tif", "none"),  # opening it says what is wrong, and the others are mapped
        ("/vsizip/a.zip/c.tif", "c"),
    ]


def test_several_arguments_of_all_kinds(tmp_path):
    files(tmp_path, "in/a.tif", "b.tif", "c.tif")
    (tmp_path / "list.txt").write_text("c.tif")
    found = list_scenes([str(tmp_path / name) for name in ("b.tif", "list.txt", "in")], [])
    assert [scene.name for scene in found] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["in", "b.tif"], "would both be written as b; name the folder that holds both"),
        (
            ["twins"],
            "would both be written as a; move one of them away, or list the scenes to map in a .txt file",
        ),
        (["empty"], "has no raster"),
        (["empty.txt"], "lists no scene"),
        (["none.txt"], "cannot be read: No such file"),
        (["latin.txt"], "not text in UTF-8"),
        (["binary.txt"], "zero bytes"),
        (["empty.txt.json"], "is not JSON"),
        (["deep.json"], "is nested too deeply"),
        (["number.json"], "is not a JSON object"),
        (["features.json"], "neither a STAC item nor a FeatureCollection"),
        (["none.json"], "has no STAC item"),
        (["odd.json"], "the id None is not a STAC item"),
        (["plain.json"], "the id 'a' is not a STAC item"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(
        files(tmp_path, "in/b.tif", "b.tif", "twins/a.tif", "twins/a.png", "empty/x.md")
    )
    contents = {
        "empty.txt": b"\n# nothing\n",
        "latin.txt": "für.tif".encode("latin-1"),
        "binary.txt": b"II*\0",
        "empty.txt.json": b"",
        "deep.json": b"[" * 100_000,
        "number.json": b"7",
        "features.json": b'{"type": "FeatureCollection", "features": {}}',
        "none.json": b'{"type": "FeatureCollection", "features": []}',
        "odd.json": b'{"type": "FeatureCollection", "features": [7]}',
        "plain.json": b'{"type": "Feature", "id": "a", "geometry": null, "properties": {}}',
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        list_scenes(arguments, [])
    assert sentence in str(error.value)


def item(identity, **assets):
    return {"type": "Feature", "stac_version": "1.0.0", "id": identity, "assets": assets}


def collection(folder, *items):
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return str(folder / "items.json")


def asset(href, *roles, kind=None):
    return {"href": href, "roles": list(roles)} | ({"type": kind} if kind else {})


# What catalogs give: Sentinel-2 with one asset per band, aerial images with one, and so on.
CHOICES = {
    "the visual role": (
        {"B04": asset("r.tif", "data"), "image": asset("s.tif", "visual", "data")},
        None,
    ),
    "the key visual": (
        {"B04": asset("r.tif", "data"), "B03": asset("g.tif", "data"), "visual": asset("s.tif")},
        None,
    ),
    "the only data": ({"image": asset("s.tif", "data"), "mask": asset("m.tif")}, None),
    "no thumbnail": (
        {"t": asset("t.png", "thumbnail"), "o": asset("o.tif", "overview"), "i": asset("s.tif")},
        None,
    ),
    "no metadata": (
        {"m": asset("m.xml", "data", kind="application/xml"), "i": asset("s.tif", "data")},
        None,
    ),
    "by media type": (
        {"i": asset("s.tif", kind="image/tiff; application=geotiff"), "x": asset("x.csv")},
        None,
    ),
    "by its key": ({"visual": asset("v.tif", "visual"), "nir": asset("s.tif", "data")}, "nir"),
    "roles that are none": (
        {"i": {"href": "s.tif", "roles": [["data"], 7]}, "j": {"roles": 3}, "k": "text"},
        None,
    ),
}


@pytest.mark.parametrize("name", CHOICES)
def test_which_asset_of_an_item(tmp_path, name):
    assets, wanted = CHOICES[name]
    files(tmp_path, "s.tif")
    found = list_scenes([collection(tmp_path, item("one", **assets))], [], asset=wanted)
    assert found == [ListedScene(str(tmp_path / "s.tif"), "one")]


def test_links_to_files_here(tmp_path):
    files(tmp_path, "a b.tif", "sub/c.tif")
    links = {
        "rel": "./sub/c.tif",
        "abs": str(tmp_path / "a b.tif"),
        "uri": f"file://{tmp_path}/a%20b.tif",
    }
    (tmp_path / "one.geojson").write_text(
        json.dumps(item("single", image=asset("sub/c.tif", "data")))
    )
    items = [item(key, image=asset(href, "data")) for key, href in links.items()]
    found = list_scenes([collection(tmp_path, *items), str(tmp_path / "one.geojson")], [])
    assert named(found) == [
        (str(tmp_path / "sub/c.tif"), "rel"),
        (str(tmp_path / "a b.tif"), "abs"),
        (str(tmp_path / "a b.tif"), "uri"),
        (str(tmp_path / "sub/c.tif"), "single"),
    ]


@pytest.mark.parametrize(
    ("assets", "sentence"),
    [
        ({"i": asset("https://example.com/s.tif", "data")}, "not on this machine; download it"),
        ({"i": asset("s3://bucket/s.tif", "data")}, "not on this machine"),
        ({"i": asset("/vsicurl/http://127.0.0.1:1/s.tif", "data")}, "not on this machine"),
        ({"i": asset("/vsis3/bucket/s.tif", "data")}, "not a file on this machine"),
        ({"i": asset("http://[/s.tif", "data")}, "not on this machine"),
        ({"i": asset("missing.tif", "data")}, "not a file on this machine"),
        ({"i": asset("x" * 5000 + ".tif", "data")}, "not a file on this machine"),
        ({"i": asset("s\0.tif", "data")}, "not a file on this machine"),
        ({"i": asset("\ud800.tif", "data")}, "not a file on this machine"),
        ({"i": asset("folder", "data", kind="image/tiff")}, "not a file on this machine"),
        (
            {"a": asset("s.tif", "data"), "b": asset("s.tif", "data")},
            "has 2 assets that could be the scene",
        ),
        ({"x": asset("s.csv")}, "has 0 assets"),
        ({}, "there is none"),
    ],
)
def test_a_bad_item_does_not_stop_the_others(tmp_path, assets, sentence):
    files(tmp_path, "s.tif", "folder/x")
    bad, good = list_scenes(
        [collection(tmp_path, item("bad", **assets), item("ok", i=asset("s.tif", "data")))], []
    )
    assert sentence in bad.problem
    assert good.problem is None


def test_an_asset_that_is_not_there_or_not_asked_of_items(tmp_path):
    path = collection(tmp_path, item("a", visual=asset("s.tif")))
    assert (
        "no asset 'nir'; choose one with --asset: visual"
        in list_scenes([path], [], asset="nir")[0].problem
    )
    with pytest.raises(InputError, match="is for STAC items only"):
        list_scenes([str(tmp_path / "scene.tif")], [], asset="nir")


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        ("S2A_33UUP.v1", "S2A_33UUP.v1"),
        ("../../etc/x", "_._.._etc_x"),
        (".", "_"),
        ("", "_"),
        ("ü" * 500, "ü" * 100),
    ],
)
def test_names_of_items_are_names_of_files(tmp_path, identity, name):
    files(tmp_path, "s.tif")
    assert list_scenes([collection(tmp_path, item(identity, i=asset("s.tif")))], [])[0].name == name
