"""Scenes behind URLs: the same map as of the file, few bytes, broken connections, and nothing unasked."""

import json
import shutil

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from loopback import serving
from rasters import write_raster
from small_jobs import predict as crossearth_predict
from small_jobs import refused, vrt_of
from stub_model import ColorModel

from crossearth_hf import CrossEarthImageProcessor
from crossearth_hf.errors import InputError
from crossearth_hf.prediction import predict
from crossearth_hf.prediction.scene_list import list_scenes
from crossearth_hf.raster import remote
from crossearth_hf.raster.scene import Scene

SIDE = 1100


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    """A folder with cog.tif, a Cloud-Optimized GeoTIFF of 16 bits whose pixels hardly compress."""
    folder = tmp_path_factory.mktemp("cloud")
    pixels = np.random.default_rng(0).integers(1, 60_000, (3, SIDE, SIDE), dtype=np.uint16)
    write_raster(folder / "plain.tif", pixels, tiled=True, blockxsize=256, blockysize=256)
    rasterio.shutil.copy(
        folder / "plain.tif", folder / "cog.tif", driver="COG", compress="DEFLATE", level=1
    )
    return folder


@pytest.fixture
def server(cloud, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(remote, "_PAUSES", (0, 0, 0))
    for name, value in {
        "NO_PROXY": "127.0.0.1",
        "GDAL_HTTP_MAX_RETRY": "1",
        "GDAL_HTTP_RETRY_DELAY": "0.01",
    }.items():
        monkeypatch.setenv(name, value)
    with serving(cloud) as state:
        yield state


def run(scene, target, **options):
    settings = {"window": 512, "stride": 341, "progress": False, "tell": None} | options
    report = predict(scene, target, model=(ColorModel(), CrossEarthImageProcessor()), **settings)
    with rasterio.open(target) as source:
        return source.read(), report


def test_the_map_of_a_url_is_that_of_the_file(server, cloud, tmp_path):
    local, _ = run(cloud / "cog.tif", "local.tif")
    there, report = run(
        f"{server.url}/cog.tif?signed=yes", "there.tif", remote=True, areas="areas.csv"
    )
    np.testing.assert_array_equal(local, there)
    assert server.sent <= 1.1 * (cloud / "cog.tif").stat().st_size
    assert report.pixels.sum() == SIDE**2
    assert (tmp_path / "areas.csv").read_text().splitlines()[1].startswith("cog,red,"), (
        "secrets stay out of tables"
    )


def buckets(port):
    """For each kind of store, settings of GDAL that make this machine one, and where a bucket lies on it."""
    host = f"127.0.0.1:{port}"
    store = f"DefaultEndpointsProtocol=http;AccountName=me;AccountKey=a2V5;BlobEndpoint=http://{host}/me"
    signed = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}
    return {
        "s3": (
            {"AWS_S3_ENDPOINT": host, "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE", **signed},
            "bucket",
        ),
        "gs": ({"CPL_GS_ENDPOINT": f"http://{host}/", "GS_NO_SIGN_REQUEST": "YES"}, "bucket"),
        "az": ({"AZURE_STORAGE_CONNECTION_STRING": store}, "me/bucket"),
    }


@pytest.mark.parametrize("kind", ["s3", "gs", "az"])
def test_a_scene_in_a_bucket(kind, cloud, server, monkeypatch):
    """Stores in the cloud as GDAL asks them, but on this machine."""
    settings, place = buckets(server.url.rpartition(":")[2])[kind]
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    (cloud / place).mkdir(parents=True, exist_ok=True)
    copy = cloud / place / f"{kind}.tif"
    shutil.copyfile(cloud / "cog.tif", copy)
    local, _ = run(cloud / "cog.tif", "local.tif")
    there, _ = run(f"{kind}://bucket/{kind}.tif", "there.tif", remote=True)
    np.testing.assert_array_equal(local, there)
    assert server.sent <= 1.1 * copy.stat().st_size
    assert {path.partition("?")[0] for _, path in server.requests} == {f"/{place}/{kind}.tif"}
    with pytest.raises(InputError, match=r"none\.tif"):
        run(f"{kind}://bucket/none.tif", "none.map.tif", remote=True)


@pytest.mark.parametrize("trouble", ["breaks", "refuses"])
def test_a_broken_connection_is_tried_again(server, cloud, trouble):
    with Scene(cloud / "cog.tif") as scene:
        expected = scene.read(500, 300, 512, 600)
    setattr(server, trouble, 2)
    with Scene(f"{server.url}/cog.tif", remote=True) as scene:  # needs only half of the first piece
        setattr(server, trouble, 3)
        found = scene.read(500, 300, 512, 600)
        assert getattr(server, trouble) == 0
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    np.testing.assert_array_equal(found.valid, expected.valid)


def test_a_connection_that_stays_broken_is_told(server):
    with Scene(f"{server.url}/cog.tif", remote=True) as scene:
        server.breaks = 1000
        with pytest.raises(
            InputError, match=r"cannot be read in 4 tries .* finished parts are kept"
        ):
            scene.read(0, 0, 512, 512)


def test_servers_that_cannot_help_are_told(server, model_folder, capsys):
    refused(
        capsys,
        crossearth_predict(model_folder, f"{server.url}/none.tif", "m.tif", "--remote"),
        "404",
        "check the",
    )
    server.ranges = False
    code = crossearth_predict(model_folder, f"{server.url}/cog.tif", "m.tif", "--remote")
    refused(capsys, code, "cannot send parts of files (range requests); download the file first")
    code = crossearth_predict(model_folder, "http://127.0.0.1:9/cog.tif", "m.tif", "--remote")
    refused(capsys, code, "cannot be read in 4 tries")


def test_nothing_is_fetched_unasked(server, cloud, tmp_path, model_folder, capsys):
    write_raster(tmp_path / "in.tif", np.full((3, 64, 64), 9, np.uint8))
    vrt_of("outer.vrt", f"/vsicurl/{server.url}/cog.tif")
    vrt_of("nested.vrt", "outer.vrt")
    (tmp_path / "list.txt").write_text(f"{server.url}/cog.tif\n")
    names = [
        f"{server.url}/cog.tif", f"/vsicurl/{server.url}/cog.tif", f"/vsicurl?url={server.url}/cog.tif",
        f"vrt://{server.url}/cog.tif", "s3://bucket/a.tif", "gs://bucket/a.tif", "az://box/a.tif",
        "/vsis3/bucket/a.tif", "outer.vrt", "nested.vrt",
    ]  # fmt: skip
    for name in names:
        with pytest.raises(InputError, match="add --remote to allow network access"):
            Scene(name)
        refused(
            capsys,
            crossearth_predict(model_folder, name, "map.tif"),
            "add --remote to allow network access",
        )
    assert crossearth_predict(model_folder, "list.txt", "maps") == 2
    assert "add --remote to allow network access" in capsys.readouterr().err
    with pytest.raises(InputError, match="add --remote to allow network access"):
        list_scenes([f"stac:{server.url}?collections=a"], [])
    assert server.requests == []
    with Scene("nested.vrt", remote=True) as scene:
        assert scene.grid.width == 64


def item(identity, href):
    asset = {"href": href, "type": "image/tiff; application=geotiff", "roles": ["visual"]}
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": identity, "geometry": None, "links": [], "collection": "air",
        "properties": {"datetime": "2024-05-06T00:00:00Z"}, "assets": {"visual": asset},
    }  # fmt: skip


def test_stac_items_with_remote_assets(server, tmp_path):
    (tmp_path / "item.json").write_text(json.dumps(item("far", f"{server.url}/cog.tif")))
    (closed,) = list_scenes(["item.json"], [])
    assert "or add --remote" in closed.problem
    (opened,) = list_scenes(["item.json"], [], remote=True)
    assert (opened.source, opened.name, opened.problem) == (f"{server.url}/cog.tif", "far", None)
    assert server.requests == []


def test_a_search_of_a_stac_api(server):
    pytest.importorskip("pystac_client")
    asked = []

    def pages(method, path, body):
        if path in ("", "/"):
            links = [
                {"rel": rel, "href": server.url, "type": "application/json"}
                for rel in ("self", "root")
            ]
            search = {
                "rel": "search",
                "href": f"{server.url}/search",
                "type": "application/geo+json",
                "method": "POST",
            }
            core = [f"https://api.stacspec.org/v1.0.0/{name}" for name in ("core", "item-search")]
            page = {"type": "Catalog", "stac_version": "1.0.0", "id": "test", "description": "A test.",
                    "conformsTo": core, "links": [*links, search]}  # fmt: skip
        elif path.startswith("/search"):
            asked.append(json.loads(body))
            found = [item(name, f"{server.url}/cog.tif?name={name}") for name in ("a/1", "b")]
            page = {
                "type": "FeatureCollection",
                "features": found if "air" in asked[-1]["collections"] else [],
                "links": [],
            }
        else:
            return None
        return json.dumps(page).encode()

    server.pages = pages
    source = f"stac:{server.url}?collections=air,sea&bbox=8,47,9,48&datetime=2024-01-01/2024-12-31&limit=5"
    scenes = list_scenes([source], [], remote=True)
    assert [(scene.name, scene.source) for scene in scenes] == [
        ("a_1", f"{server.url}/cog.tif?name=a/1"),
        ("b", f"{server.url}/cog.tif?name=b"),
    ]
    assert (asked[0]["collections"], asked[0]["bbox"]) == (["air", "sea"], [8, 47, 9, 48])
    assert asked[0]["datetime"].startswith("2024-01-01T00:00:00Z/2024-12-31")
    with pytest.raises(InputError, match="finds no item"):
        list_scenes([f"stac:{server.url}?collections=none"], [], remote=True)
    mistakes = {
        "colections=a": "has no 'colections'",
        "bbox=1,2": "is not W,S,E,N",
        "limit=no": "not a whole number",
    }
    for query, words in mistakes.items():
        with pytest.raises(InputError, match=words):
            list_scenes([f"stac:{server.url}?{query}"], [], remote=True)
    server.pages = None
    with pytest.raises(InputError, match="does not answer as it should"):
        list_scenes([f"stac:{server.url}/none?collections=a"], [], remote=True)
