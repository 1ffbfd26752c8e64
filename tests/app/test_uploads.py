"""What the app lets in: messages for bad uploads, limits, and that no upload reads another file."""

import os

import numpy as np
import pytest
import rasterio
from PIL import Image

pytest.importorskip("pyogrio")
pytest.importorskip("shapely")

from app_parts import patches, read_map, stub_model, write_patches
from rasters import write_raster

from crossearth_hf.app import predict
from crossearth_hf.app.inputs import nodata_values
from crossearth_hf.app.shift import infrared_scene
from crossearth_hf.app.uploads import Limits, admitted
from crossearth_hf.errors import InputError
from crossearth_hf.raster.admission import SCENE_DRIVER
from crossearth_hf.raster.scene import Reading, Scene

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("no image at all")


def cut(path):
    noise = np.random.default_rng(0).integers(0, 256, (3, 400, 400), dtype=np.uint8)
    write_raster(path, noise, tiled=True, blockxsize=128, blockysize=128)
    path.write_bytes(path.read_bytes()[:200_000])


def cut_png(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(
        path, "PNG"
    )
    path.write_bytes(path.read_bytes()[:5000])


def cut_jpeg(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(
        path, "JPEG"
    )
    path.write_bytes(path.read_bytes()[:4000])


def header_only(path):
    path.write_bytes(b"II*\x00" + bytes(40))


def without_data(path):
    write_raster(path, np.zeros((3, 90, 90), np.uint8), nodata=0)


def complex_numbers(path):
    write_raster(path, np.ones((3, 90, 90), np.complex64))


def many_pixels(path):
    write_raster(path, np.zeros((1, 1100, 1000), np.uint8), compress="deflate")


def many_bytes(path):
    noise = np.random.default_rng(0).integers(0, 256, (1, 700, 1000), dtype=np.uint8)
    write_raster(path, noise)


def one_tile(path):
    tile = {
        "tiled": True,
        "blockxsize": 1008,
        "blockysize": 992,
        "sparse_ok": True,
        "interleave": "pixel",
    }
    profile = {"driver": "GTiff", "width": 1000, "height": 990, "count": 70, "dtype": "uint8"}
    rasterio.open(path, "w", **profile, **tile).close()


def two_bands(path):
    write_raster(path, np.ones((2, 90, 90), np.uint8))


BAD = {
    "nothing": (None, {}, "There is no scene yet"),
    "empty": (empty, {}, r"empty \(0 bytes\)"),
    "text": (text, {}, "not a GeoTIFF, JPEG or PNG"),
    "header only": (header_only, {}, "not a readable image"),
    "cut off": (cut, {}, "damaged or cut off"),
    "cut off PNG": (cut_png, {}, "not a readable image, or it is damaged"),
    "cut off JPEG": (cut_jpeg, {}, "not a readable image, or it is damaged"),
    "no data": (without_data, {}, "no pixel with data"),
    "complex": (complex_numbers, {}, "complex numbers"),
    "too many pixels": (
        many_pixels,
        {},
        "1,000 x 1,100 = 1.1 million pixels; this server takes 1 million",
    ),
    "too many bytes": (many_bytes, {}, "1 MB; this server takes 0.5 MB"),
    "one tile": (one_tile, {}, "tiles of 1,008 x 992 pixels and 70 bands, too large to unpack"),
    "bands": (
        two_bands,
        {"bands": [1, 2, 3]},
        "Bands 1,2,3 do not fit the file; give one or three numbers from 1 to 2",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_uploads_get_a_sentence(tmp_path, folder, name):
    make, options, sentence = BAD[name]
    upload = None
    if make is not None:
        upload = tmp_path / "secret name.tif"
        make(upload)
    with pytest.raises(InputError, match=sentence) as caught:
        predict(upload, stub_model(), folder, limits=Limits(megapixels=1, megabytes=0.5), **options)
    message = str(caught.value)
    assert str(tmp_path) not in message
    assert message[0].isupper()
    assert message.endswith(".")
    assert not {path.name for path in folder.iterdir()} - {"scene.tif", "scene.tif.aux.xml"}


def test_overviews_may_not_be_one_tile_either(tmp_path, folder, monkeypatch):
    monkeypatch.setattr("crossearth_hf.raster.admission._LARGEST_BLOCK", 3 * 128 * 128)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 600, 600), dtype=np.uint8)
    write_raster(tmp_path / "s.tif", pixels, tiled=True, blockxsize=128, blockysize=128)
    with admitted(tmp_path / "s.tif", folder, Limits()) as scene:
        assert scene.grid.width == 600
    with (
        rasterio.Env(GDAL_TIFF_OVR_BLOCKSIZE=256),
        rasterio.open(tmp_path / "s.tif", "r+") as target,
    ):
        target.build_overviews([2])
    (folder / "scene.tif").unlink()
    with (
        pytest.raises(InputError, match="tiles of 256 x 256 pixels and 3 bands"),
        admitted(tmp_path / "s.tif", folder, Limits()),
    ):
        pass


def test_resampling_may_not_exceed_the_limit(tmp_path, folder):
    write_patches(tmp_path / "s.tif")
    with pytest.raises(InputError, match=r"12\.8 million pixels; this server takes 1 million"):
        predict(
            tmp_path / "s.tif",
            stub_model(trained_at=0.1),
            folder,
            limits=Limits(megapixels=1),
            at_model_resolution=True,
        )


SECRET = """<VRTDataset rasterXSize="90" rasterYSize="90"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename relativeToVRT="0">{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>
</VRTDataset>"""


@pytest.mark.parametrize("start", [b"", b"\xff\xd8\xff\xfe12", b"\x89PNG\r\n\x1a\n"])
def test_no_upload_reads_another_file(tmp_path, folder, start):
    """A VRT takes its pixels from any file of the server, and GDAL finds one behind the first bytes of a picture."""
    write_raster(tmp_path / "secret.tif", np.full((1, 90, 90), 77, np.uint8))
    upload = tmp_path / "upload.tif"
    upload.write_bytes(start + SECRET.format(tmp_path / "secret.tif").encode())
    with rasterio.open(upload) as source:  # the danger is real
        assert source.driver == "VRT"
        assert source.read(1)[0, 0] == 77
    with pytest.raises(InputError, match=r"not a GeoTIFF|not a readable image"):
        predict(upload, stub_model(), folder)


def test_no_upload_names_another_file_as_its_overview(tmp_path, folder):
    pixels, _ = patches()
    write_raster(tmp_path / "upload.tif", pixels)
    with rasterio.open(tmp_path / "upload.tif", "r+") as target:
        target.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(tmp_path / "secret.tif"))
    with pytest.raises(InputError, match="refers to other files"):
        predict(tmp_path / "upload.tif", stub_model(), folder)


def test_files_beside_an_upload_are_not_read(tmp_path, folder):
    """A sidecar would change what GDAL sees; only the file itself comes in."""
    ids = write_patches(tmp_path / "s.tif")
    (tmp_path / "s.tif.aux.xml").write_text("<PAMDataset><SRS>EPSG:3857</SRS></PAMDataset>")
    result = predict(tmp_path / "s.tif", stub_model(), folder)
    np.testing.assert_array_equal(read_map(result.report.files[0]), ids)
    assert rasterio.open(result.report.files[0]).crs.to_epsg() == 32632


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_files_beside_a_picture_are_not_read(tmp_path, folder, ending):
    pixels, ids = patches()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / f"s.{ending}", quality=95)
    (tmp_path / f"s.{ending}.aux.xml").write_text("<PAMDataset><SRS>EPSG:3857</SRS></PAMDataset>")
    for world in ("wld", "pgw", "jgw", f"{ending}w"):
        (tmp_path / f"s.{world}").write_text("2\n0\n0\n-2\n500000\n5000000\n")
    write_raster(tmp_path / f"s.{ending}.msk", np.zeros((1, 160, 200), np.uint8), transform=None)
    with rasterio.open(tmp_path / f"s.{ending}") as source:  # the danger is real
        assert source.transform.a == 2
    result = predict(tmp_path / f"s.{ending}", stub_model(), folder)
    assert (result.place, result.report.hectares, result.report.without_data) == (None, None, 0)
    assert "no CRS" in result.summary
    assert (read_map(result.report.files[0]) == ids).mean() > 0.98


def folder_of_a_scene(path):
    path.mkdir()
    write_patches(path / "s.tif")


def link(path):
    write_patches(path.with_name("secret.tif"))
    path.symlink_to(path.with_name("secret.tif"))


def device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [folder_of_a_scene, link, device, os.mkfifo])
def test_only_regular_files_come_in(tmp_path, folder, make):
    make(tmp_path / "s.tif")
    with pytest.raises(InputError, match="not a file that was uploaded"):
        predict(tmp_path / "s.tif", stub_model(), folder)
    assert list(folder.iterdir()) == []


def test_an_upload_that_is_gone(tmp_path, folder):
    for name in ("gone.tif", "zero\0.tif", "a" * 5000):
        with pytest.raises(InputError, match=r"(?i)the file was deleted"):
            predict(tmp_path / name, stub_model(), folder)


def geopackage(path):
    write_raster(path, np.ones((3, 64, 64), np.uint8), driver="GPKG")


def hdf5(path):
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2000))


def web_service(path):
    path.write_text(
        "<GDAL_WMS><Service name='TMS'><ServerUrl>http://127.0.0.1:9/</ServerUrl></Service></GDAL_WMS>"
    )


def catalog(path):
    path.write_text('{"type": "FeatureCollection", "stac_version": "1.0.0", "features": []}')


def tile_index(path):
    path.write_text(
        "<GDALTileIndexDataset><IndexDataset>PG:host=127.0.0.1</IndexDataset></GDALTileIndexDataset>"
    )


@pytest.mark.parametrize("make", [geopackage, hdf5, web_service, catalog, tile_index])
def test_other_formats_are_refused_whatever_their_name(tmp_path, folder, make):
    make(tmp_path / "s.gpkg")
    (tmp_path / "s.gpkg").rename(tmp_path / "s.tif")
    with pytest.raises(InputError, match="not a GeoTIFF, JPEG or PNG"):
        predict(tmp_path / "s.tif", stub_model(), folder)


def test_a_scene_is_opened_by_one_driver(tmp_path, folder):
    """Also when it is opened again, as near infrared: no other driver gets to look at its content."""
    with pytest.raises(InputError, match="not a raster that GDAL can read"):
        Scene(
            write_raster(tmp_path / "s.tif", np.ones((3, 64, 64), np.uint8), driver="GPKG"),
            driver=SCENE_DRIVER,
        )
    write_raster(tmp_path / "bands.tif", np.ones((4, 64, 64), np.uint8))
    with admitted(tmp_path / "bands.tif", folder, Limits()) as scene:
        write_raster(folder / "other.tif", np.ones((4, 64, 64), np.uint8), driver="GPKG")
        (folder / "other.tif").replace(folder / "scene.tif")
        with pytest.raises(InputError, match="needs a fourth band"):
            infrared_scene(scene)


def test_admitted_scene_has_a_name_of_ours(tmp_path, folder):
    write_patches(tmp_path / "..evil;name.tif")
    with admitted(tmp_path / "..evil;name.tif", folder, Limits()) as scene:
        assert scene.path == str(folder / "scene.tif")


@pytest.mark.parametrize(
    ("typed", "share"), [("", 0.1), ("None", 0), ("65535", 0.1), (" 65535, 1840 ", 0.1)]
)
def test_a_visitor_decides_which_values_are_no_data(tmp_path, folder, typed, share):
    """A pixel has no data where no band has any; 1840 is held by one band of each."""
    pixels, ids = patches()
    filled = pixels.astype(np.uint16) * 8
    filled[:, :16] = 65535
    write_raster(tmp_path / "s.tif", filled)
    with admitted(
        tmp_path / "s.tif", folder, Limits(), Reading(nodata=nodata_values(typed))
    ) as scene:
        valid = scene.read(0, 0, *ids.shape).valid
    assert (~valid).mean() == pytest.approx(share)
