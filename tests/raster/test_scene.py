"""Reading rasters of every kind and writing GeoTIFFs, judged by rasterio and numpy."""

import shutil
import threading
import warnings
import zipfile

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasters import write_raster

from crossearth_hf.errors import InputError
from crossearth_hf.labels import get_label_set
from crossearth_hf.raster.scene import Scene, read_band
from crossearth_hf.raster.writing import write_geotiff

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

UTM = CRS.from_epsg(32632)
PLACE = Affine(0.5, 0, 5e5, 0, -0.5, 5e6)
ROTATED = Affine(0.4330127, 0.25, 5e5, 0.25, -0.4330127, 5e6)  # 30 degrees


def save(
    path,
    pixels,
    *,
    driver="GTiff",
    crs=UTM,
    transform=PLACE,
    colorinterp=None,
    palette=None,
    **profile,
):
    count, height, width = pixels.shape
    place = {} if crs is None and transform is None else {"crs": crs, "transform": transform}
    with rasterio.open(
        path,
        "w",
        driver=driver,
        count=count,
        height=height,
        width=width,
        dtype=pixels.dtype,
        **place,
        **profile,
    ) as target:
        if colorinterp:
            target.colorinterp = colorinterp
        if palette:
            target.write_colormap(1, palette)
        target.write(pixels)
    return path


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(1, 256, (4, 50, 70), dtype=np.uint8)


def read_all(path, **options):
    with Scene(path, **options) as scene:
        return scene.read(0, 0, scene.grid.height, scene.grid.width)


def test_bytes_come_through_unchanged_with_their_place(tmp_path, noise):
    with Scene(save(tmp_path / "a.tif", noise[:3])) as scene:
        piece = scene.read(10, 20, 30, 40)
    np.testing.assert_array_equal(piece.pixels, noise[:3, 10:40, 20:60])
    assert piece.valid.all()
    assert piece.crs == UTM
    assert piece.transform @ (0, 0) == PLACE @ (20, 10)


@pytest.mark.parametrize(
    ("count", "bands", "expected"),
    [(1, None, (0, 0, 0)), (2, None, (0, 0, 0)), (3, None, (0, 1, 2)), (4, None, (0, 1, 2)),
     (4, [4, 2, 1], (3, 1, 0)), (4, [3], (2, 2, 2))],
)  # fmt: skip
def test_choice_of_bands(tmp_path, noise, count, bands, expected):
    path = save(tmp_path / "a.tif", noise[:count], photometric="minisblack")
    np.testing.assert_array_equal(read_all(path, bands=bands).pixels, noise[list(expected)])


def test_marked_colors_are_found_and_alpha_is_validity(tmp_path, noise):
    alpha = np.zeros((50, 70), dtype=np.uint8)
    alpha[5:, 8:] = 200
    roles = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.alpha]
    path = save(tmp_path / "a.tif", np.stack([*noise[:3], alpha]), colorinterp=roles)
    raster = read_all(path)
    np.testing.assert_array_equal(raster.pixels, noise[[2, 1, 0]])
    np.testing.assert_array_equal(raster.valid, alpha > 0)


def test_palette_is_expanded(tmp_path):
    ids = np.random.default_rng(0).integers(0, 4, (1, 20, 30), dtype=np.uint8)
    colors = {0: (9, 8, 7, 255), 1: (255, 0, 0, 255), 2: (0, 255, 3, 255), 3: (1, 2, 250, 255)}
    raster = read_all(save(tmp_path / "a.tif", ids, palette=colors, nodata=0))
    expected = np.array([colors[i][:3] for i in range(4)], dtype=np.uint8)[ids[0]].transpose(
        2, 0, 1
    )
    np.testing.assert_array_equal(raster.pixels, expected)
    np.testing.assert_array_equal(raster.valid, ids[0] != 0)


def test_nodata_is_where_no_band_has_data(tmp_path, noise):
    noise[:3, :10, :10] = 0
    noise[0, 20, 20] = 0  # black in one band only is a color
    raster = read_all(save(tmp_path / "a.tif", noise[:3], nodata=0))
    expected = np.ones((50, 70), dtype=bool)
    expected[:10, :10] = False
    np.testing.assert_array_equal(raster.valid, expected)


def test_mask_inside_the_file(tmp_path, noise):
    path = save(tmp_path / "a.tif", noise[:3])
    mask = np.full((50, 70), 255, dtype=np.uint8)
    mask[30:] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as target:
        target.write_mask(mask)
    np.testing.assert_array_equal(read_all(path).valid, mask > 0)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64"])
def test_one_stretch_for_the_whole_scene(tmp_path, dtype):
    ramp = (
        np.linspace(-500 if dtype != "uint16" else 100, 3000, 120 * 90)
        .reshape(1, 120, 90)
        .astype(dtype)
    )
    path = save(tmp_path / "a.tif", ramp)
    whole = read_all(path).pixels[0]
    low, high = np.percentile(ramp.astype(float), [2, 98])
    expected = np.rint(np.clip((ramp[0].astype(float) - low) / (high - low), 0, 1) * 255)
    np.testing.assert_array_equal(whole, expected)
    with Scene(path) as scene:
        np.testing.assert_array_equal(scene.read(30, 10, 40, 50).pixels[0], whole[30:70, 10:60])


def test_nan_is_not_data_and_does_not_spoil_the_stretch(tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 40, 40)).astype(np.float32)
    values[1, :5] = np.nan
    values[2, 7, 7] = np.inf
    raster = read_all(save(tmp_path / "a.tif", values))
    np.testing.assert_array_equal(raster.valid, np.isfinite(values).all(axis=0))
    low, high = np.percentile(values[0][raster.valid], [2, 98])
    np.testing.assert_array_equal(
        raster.pixels[0, 10], np.rint(np.clip((values[0, 10] - low) / (high - low), 0, 1) * 255)
    )


def test_a_band_is_stretched_by_its_own_data(tmp_path):
    values = np.random.default_rng(0).uniform(0, 3000, (4, 100, 200)).astype(np.float32)
    values[2, :, :10] = values[3] = -9999  # 5 % of a band, and a whole one
    pixels = read_all(save(tmp_path / "a.tif", values, nodata=-9999), num_channels=4).pixels
    for band, own in ((1, slice(None)), (2, slice(10, None))):
        low, high = np.percentile(values[band, :, own].astype(float), [2, 98])
        expected = np.rint(np.clip((values[band].astype(float) - low) / (high - low), 0, 1) * 255)
        np.testing.assert_array_equal(pixels[band], expected)
    assert (pixels[3] == 0).all()


def test_specks_of_data_set_the_stretch(tmp_path):
    values = np.zeros((1, 3000, 40), dtype=np.uint16)
    values[0, 2001, 30:34] = [1000, 2000, 3000, 4000]  # between the samples of the decimated read
    raster = read_all(save(tmp_path / "a.tif", values, nodata=0))
    assert raster.valid.sum() == 4
    assert raster.pixels[0, 2001, 30] == 0
    assert raster.pixels[0, 2001, 33] == 255


def test_constant_values_do_not_divide_by_zero(tmp_path):
    assert (
        read_all(save(tmp_path / "a.tif", np.full((1, 20, 20), 7, dtype=np.uint16))).pixels == 0
    ).all()


@pytest.mark.parametrize("driver", ["PNG", "JPEG"])
def test_pictures_without_a_place(tmp_path, noise, driver):
    raster = read_all(
        save(tmp_path / f"a.{driver.lower()}", noise[:3], driver=driver, crs=None, transform=None)
    )
    assert raster.crs is None
    assert raster.pixels.shape == (3, 50, 70)


@pytest.mark.parametrize("transform", [PLACE, ROTATED, Affine(0.5, 0, 5e5, 0, 0.5, 5e6)])
@pytest.mark.parametrize("meters", [1.0, 0.25])
def test_resampled_reading(tmp_path, transform, meters):
    steps = np.kron(
        np.arange(1, 26, dtype=np.uint8).reshape(1, 5, 5) * 10, np.ones((1, 16, 16), np.uint8)
    )
    steps[:, :16, :16] = 0
    with Scene(
        save(tmp_path / "a.tif", steps, transform=transform, nodata=0), resolution=meters
    ) as scene:
        assert scene.is_resampled
        assert (scene.grid.height, scene.grid.width) == (scene.grid.width,) * 2
        side = round(16 * 0.5 / meters)
        assert abs(scene.grid.width - 5 * side) <= 1
        raster = scene.read(0, 0, 5 * side, 5 * side)
        assert scene.scale == pytest.approx((2 * meters,) * 2, rel=1e-3)
        assert scene.read_valid(0, 0, 80, 80).sum() == 80 * 80 - 16 * 16
    middles = slice(side // 2, None, side)
    np.testing.assert_array_equal(raster.pixels[0, middles, middles], steps[0, 8::16, 8::16])
    np.testing.assert_array_equal(raster.valid[middles, middles], steps[0, 8::16, 8::16] > 0)


def test_thumbnail_averages(tmp_path):
    checks = np.tile(np.array([[0, 200], [200, 0]], dtype=np.uint8), (1, 40, 60))
    with Scene(save(tmp_path / "a.tif", checks)) as scene:
        small = scene.thumbnail(60)
    assert small.pixels.shape == (3, 40, 60)
    assert (small.pixels == 100).all()
    assert small.transform @ (60, 40) == pytest.approx(PLACE @ (120, 80))


def test_bad_files(tmp_path, noise):
    (tmp_path / "text.tif").write_text("not a raster")
    (tmp_path / "empty.tif").touch()
    save(tmp_path / "complex.tif", noise[:1].astype(np.complex64))
    with rasterio.open(
        tmp_path / "radar.tif", "w", count=1, height=4, width=4, dtype="complex_int16"
    ):
        pass
    save(tmp_path / "alpha.tif", np.full_like(noise[:1], 255), colorinterp=[ColorInterp.alpha])
    sentences = {
        "none.tif": "does not exist",
        ".": "is a folder",
        "text.tif": "not a raster that GDAL can read",
        "empty.tif": "0 bytes",
        "complex.tif": "complex numbers",
        "radar.tif": "complex numbers",
        "alpha.tif": "has only transparency",
    }
    for name, sentence in sentences.items():
        with pytest.raises(InputError, match=sentence):
            Scene(tmp_path / name)


def test_bands_of_different_types_share_no_stretch(tmp_path):
    ramp = np.linspace(0, 1, 100 * 100).reshape(1, 100, 100)
    paths = [
        save(tmp_path / f"{scale}.tif", (ramp * scale).astype(dtype))
        for scale, dtype in ((200, np.uint8), (40000, np.uint16), (0.5, np.float32))
    ]
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{band}"><SimpleSource><SourceFilename>{path}</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for band, (kind, path) in enumerate(
            zip(("Byte", "UInt16", "Float32"), paths, strict=True), 1
        )
    )
    vrt = tmp_path / "mixed.vrt"
    vrt.write_text(f'<VRTDataset rasterXSize="100" rasterYSize="100">{bands}</VRTDataset>')
    with Scene(vrt) as scene:
        pixels = scene.read(0, 0, 100, 100).pixels.astype(int)
    assert np.abs(pixels - pixels[:1]).max() <= 2
    assert (pixels.min(), pixels.max()) == (0, 255)


@pytest.mark.parametrize("bands", [[0], [4], [1, 2], [1, 2, 3, 1], []])
def test_bad_bands(tmp_path, noise, bands):
    path = save(tmp_path / "a.tif", noise[:3])
    with pytest.raises(InputError, match="numbers from 1 to 3"):
        Scene(path, bands=bands)


def test_truncated_file_is_an_input_error(tmp_path, noise):
    path = save(
        tmp_path / "a.tif", np.tile(noise[:3], (1, 5, 5)), tiled=True, blockxsize=64, blockysize=64
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with Scene(path) as scene:
        scene.read(0, 0, 20, 20)
        with pytest.raises(InputError, match="damaged or cut off"):
            scene.read(0, 0, 250, 350)


def grow(path):
    with path.open("ab") as file:
        file.write(b"more")


def replace(path):
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize(
    "change", [grow, replace, lambda path: path.unlink(), lambda path: path.write_bytes(b"")]
)
def test_a_file_that_changes_while_it_is_open_is_told(tmp_path, noise, change):
    path = save(tmp_path / "a.tif", noise)
    with Scene(path) as scene:
        scene.check_unchanged()
        change(path)
        with pytest.raises(
            InputError, match=r"a.tif changed or vanished .* run again once it is complete"
        ):
            scene.check_unchanged()


def mosaic(path, source):
    """A VRT of the one band of `source`."""
    path.write_text(
        '<VRTDataset rasterXSize="70" rasterYSize="50"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{source}</SourceFilename><SourceBand>1</SourceBand>"
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    return path


@pytest.mark.parametrize("name", ["a.tif", "a.tif.msk", "a.vrt"])
def test_a_mosaic_of_mosaics_changes_with_what_it_is_made_of(tmp_path, noise, name):
    path = save(tmp_path / "a.tif", noise[:1])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as target:
        target.write_mask(noise[0] > 9)
    outer = mosaic(tmp_path / "b.vrt", mosaic(tmp_path / "a.vrt", path))
    with Scene(path if name.endswith("msk") else outer) as scene:
        scene.read(0, 0, 50, 70)
        scene.check_unchanged()
        replace(tmp_path / name)
        with pytest.raises(InputError, match=f"{name} changed or vanished"):
            scene.check_unchanged()


def test_what_is_no_file_does_not_change(tmp_path, noise):
    save(tmp_path / "a.tif", noise)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.tif", "a.tif")
    with Scene(f"/vsizip/{tmp_path}/a.zip/a.tif") as scene:
        scene.check_unchanged()
        assert scene.read(0, 0, 50, 70).valid.all()


def test_threads_open_pictures_without_a_place_in_silence(tmp_path, noise, monkeypatch):
    path = save(tmp_path / "a.png", noise[:3], driver="PNG", crs=None, transform=None)
    opened, both_open, first_is_done = (
        rasterio.open,
        threading.Barrier(2, timeout=20),
        threading.Event(),
    )
    failures = []

    def slowly(*arguments, **options):
        """Both threads are at it before one is through, and the second opens its file only then."""
        if both_open.wait():
            first_is_done.wait(20)
        return opened(*arguments, **options)

    def read():
        try:
            Scene(path).close()
        except Warning as warning:
            failures.append(warning)
        first_is_done.set()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setattr(rasterio, "open", slowly)
        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with pytest.raises(DeprecationWarning):
            warnings.warn(
                "the filters of others are as they were", DeprecationWarning, stacklevel=1
            )
    assert failures == []


def test_every_kind_of_real_raster_opens(shared):
    paths = sorted((shared / "data" / "geotiff").glob("*.tif"))
    assert len(paths) == 14
    for path in paths:
        is_land_cover = path.name == "riotiler_cog_cmap.tif"
        with Scene(path, palette_as_image=is_land_cover) as scene, rasterio.open(path) as source:
            assert (scene.native_grid.crs, scene.native_grid.transform) == (
                source.crs,
                source.transform,
            )
            raster = scene.read(source.height // 2, source.width // 2, 64, 64)
            assert raster.pixels.dtype == np.uint8
            assert raster.valid.shape == (64, 64)
            assert scene.summary()


def test_nearest_reading_of_fractional_windows(tmp_path):
    values = np.random.default_rng(0).integers(0, 200, (1, 40, 40), dtype=np.uint8)
    path = save(tmp_path / "a.tif", values)
    for scale in (0.37, 2.6):  # native pixels per pixel of the file
        size = int(30 * scale)
        nearest = ((3 + np.arange(size) + 0.5) / scale).astype(int)
        found = read_band(path, (3 / scale, 3 / scale, size / scale, size / scale), (size, size))
        np.testing.assert_array_equal(found, values[0][np.ix_(nearest, nearest)])


def test_write_geotiff(tmp_path, noise):
    path = tmp_path / "scene.tif"
    write_geotiff(path, noise[:3], crs=UTM, transform=PLACE, nodata=0)
    with rasterio.open(path) as source:
        np.testing.assert_array_equal(source.read(), noise[:3])
        assert (source.crs, source.transform, source.nodata) == (UTM, PLACE, 0)
    with pytest.raises(InputError, match="exists already"):
        write_geotiff(path, noise[:3], crs=UTM, transform=PLACE)
    labels = noise[:1] % 5
    write_geotiff(
        path,
        labels,
        crs="EPSG:32632",
        transform=PLACE,
        label_set=get_label_set("land-cover"),
        overwrite=True,
    )
    with rasterio.open(path) as source:
        np.testing.assert_array_equal(source.read(), labels)
        assert source.colormap(1)[3][:3] == get_label_set("land-cover").colors[3]
    assert [p.name for p in tmp_path.iterdir()] == ["scene.tif"]


def test_full_disk_is_an_input_error(tmp_path, noise):
    small = tmp_path / "small.tif"
    shutil.copy("/dev/null", small)
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # files cannot grow, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(InputError, match="cannot be written"):
            write_geotiff(
                small, np.tile(noise, (1, 8, 8)), crs=UTM, transform=PLACE, overwrite=True
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [(p.name, p.stat().st_size) for p in tmp_path.iterdir()] == [("small.tif", 0)]


@pytest.mark.parametrize("size", [(33, 1), (1, 33), (1, 1), (5, 7), (2, 2)])
def test_the_last_pixels_of_a_coarser_grid_have_data(tmp_path, size):
    """They may reach over the edge of the file by more than their half."""
    write_raster(tmp_path / "even.tif", np.full((3, *size), 100, dtype=np.uint8))
    with Scene(tmp_path / "even.tif", resolution=2) as scene:
        raster = scene.read(0, 0, scene.grid.height, scene.grid.width)
    assert raster.valid.all()
    assert (raster.pixels == 100).all()
