"""Images and masks of every kind as arrays, judged by Pillow, rasterio and numpy."""

import io
import warnings

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasters import write_raster

from crossearth_hf.data.image_files import (
    image_size,
    mask_counts,
    raster_grid,
    read_image,
    read_image_window,
    read_mask,
    read_mask_window,
)
from crossearth_hf.errors import InputError
from crossearth_hf.raster.scene import Reading, Scene

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(1, 256, (4, 40, 60), dtype=np.uint8)


def predicted(path, **options):
    """What `crossearth predict` sees of a file: (H, W, 3) and (H, W)."""
    with Scene(path, **options) as scene:
        raster = scene.read(0, 0, scene.grid.height, scene.grid.width)
    return np.where(raster.valid, raster.pixels, 0).transpose(1, 2, 0), raster.valid


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_plain_pictures(tmp_path, noise, name):
    path = tmp_path / name
    Image.fromarray(noise[:3].transpose(1, 2, 0)).save(path)
    pixels, valid = read_image(path, name)
    assert valid is None
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(path)))
    assert image_size(path, name) == (40, 60)


def test_palette_pictures_are_expanded(tmp_path, noise):
    picture = Image.fromarray(noise[:3].transpose(1, 2, 0)).quantize(16)
    for name, off in (("a.png", 0), ("a.tif", 1)):  # Pillow 10 writes a TIFF's palette one too low
        picture.save(tmp_path / name)
        shown = np.asarray(picture.convert("RGB"))
        np.testing.assert_allclose(
            read_image(tmp_path / name, name)[0].astype(int), shown, rtol=0, atol=off
        )


def sixteen_bit_png(path, pixels):
    return write_raster(path, pixels, driver="PNG", transform=None)


@pytest.mark.parametrize(
    ("count", "dtype", "bands"),
    [
        (1, "uint16", None),
        (3, "uint16", None),
        (4, "int16", (4, 3, 2)),
        (12, "uint16", (8, 4, 3)),
        (3, "float32", None),
        (2, "float64", (2,)),
    ],
)
def test_rasters_look_as_in_prediction(tmp_path, count, dtype, bands):
    rng = np.random.default_rng(1)
    values = (rng.gamma(2, 500, (count, 40, 60)) + 100).astype(dtype)
    path = write_raster(tmp_path / "a.tif", values)
    pixels, valid = read_image(path, "a", Reading(bands))
    expected, _ = predicted(path, bands=bands)
    np.testing.assert_array_equal(pixels, expected)
    assert valid is None
    chosen = values[[band - 1 for band in bands or ((1, 2, 3) if count >= 3 else (1,))]].astype(
        float
    )
    low, high = (np.percentile(chosen, q, axis=(1, 2))[:, None, None] for q in (2, 98))
    stretched = np.clip((chosen - low) / (high - low), 0, 1) * 255  # the rule, in numpy
    assert np.abs(pixels.transpose(2, 0, 1) - stretched).max() <= 0.5


def test_sixteen_bit_color_png_is_stretched_not_shortened(tmp_path):
    values = np.random.default_rng(0).integers(0, 3000, (3, 40, 60)).astype(np.uint16)
    path = sixteen_bit_png(tmp_path / "a.png", values)
    pixels, _ = read_image(path, "a")
    assert np.asarray(Image.open(path).convert("RGB")).max() < 15  # Pillow keeps the high byte
    assert pixels.max() == 255
    np.testing.assert_array_equal(pixels, predicted(path)[0])


@pytest.mark.parametrize("driver", ["GTiff", "PNG"])
def test_alpha_is_validity(tmp_path, noise, driver):
    noise[3] = 255
    noise[3, :7, :9] = 0
    roles = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    path = tmp_path / ("a.tif" if driver == "GTiff" else "a.png")
    write_raster(path, noise, driver=driver, transform=None, roles=roles)
    pixels, valid = read_image(path, "a")
    np.testing.assert_array_equal(valid, noise[3] > 0)
    assert (pixels[:7, :9] == 0).all()
    np.testing.assert_array_equal(pixels[7:], noise[:3, 7:].transpose(1, 2, 0))


def test_nodata_is_black_and_invalid(tmp_path):
    values = np.random.default_rng(0).normal(10, 2, (3, 40, 60)).astype(np.float32)
    values[:, 30:] = -9999
    values[1, 0, 0] = np.nan
    pixels, valid = read_image(write_raster(tmp_path / "a.tif", values, nodata=-9999), "a")
    expected = np.arange(40)[:, None].repeat(60, 1) < 30
    expected[0, 0] = False
    np.testing.assert_array_equal(valid, expected)
    assert (pixels[~valid] == 0).all()
    assert pixels[valid].min() == 0
    assert pixels[valid].max() == 255  # nodata is not part of the stretch


@pytest.mark.parametrize(
    ("dtype", "fill", "suffix"),
    [("float32", -9999, "tif"), ("uint16", 0, "png"), ("uint8", 0, "png")],
)
def test_a_person_decides_which_values_are_no_data(tmp_path, dtype, fill, suffix):
    values = np.random.default_rng(0).integers(100, 250, (3, 40, 60)).astype(dtype)
    values[:, 30:] = fill
    path = tmp_path / f"a.{suffix}"
    write_raster(path, values, driver="PNG" if suffix == "png" else "GTiff", transform=None)
    for file in (path, path.read_bytes()):
        _, valid = read_image(file, "a", Reading(nodata=(fill,)))
        np.testing.assert_array_equal(valid, np.arange(40)[:, None].repeat(60, 1) < 30)
        assert read_image(file, "a", Reading(nodata=()))[1] is None
    _, valid = read_image_window(path, Reading(nodata=(fill,)), (25, 10, 10, 20))
    np.testing.assert_array_equal(valid, np.arange(10)[:, None].repeat(20, 1) < 5)
    assert read_image_window(path, Reading(nodata=()), (25, 10, 10, 20))[1] is None


def test_values_that_no_file_can_hold_are_refused_at_once(tmp_path, noise):
    path = write_raster(tmp_path / "a.png", noise[:3], driver="PNG", transform=None)
    for read in (read_image, image_size):
        with pytest.raises(
            InputError, match=r"no-data value -1 does not fit .*a.png, whose bands are uint8; give"
        ):
            read(path, "a", Reading(nodata=(-1.0,)))


def test_bytes_read_like_files(tmp_path, noise):
    wide = (noise.astype(np.uint16) * 11)[:, :, :30]
    for path, bands in (
        (write_raster(tmp_path / "a.tif", wide), (4, 2, 1)),
        (sixteen_bit_png(tmp_path / "b.png", wide[:3]), None),
        (write_raster(tmp_path / "c.png", noise[:3], driver="PNG", transform=None), None),
    ):
        np.testing.assert_array_equal(
            read_image(path.read_bytes(), "a", Reading(bands))[0],
            read_image(path, "a", Reading(bands))[0],
        )
        assert image_size(path.read_bytes(), "a", Reading(bands)) == image_size(
            path, "a", Reading(bands)
        )


def test_errors_name_the_record_not_the_temporary_file(tmp_path, noise):
    data = write_raster(tmp_path / "a.tif", noise).read_bytes()
    for broken, bands, message in (
        (b"no image", None, "^train\\[7\\] is damaged or is not a raster"),
        (data[: len(data) // 2], (1,), "^train\\[7\\] is damaged"),
        (data, (5, 2, 1), "bands 5,2,1 do not fit train\\[7\\]"),
    ):
        with pytest.raises(InputError, match=message):
            read_image(broken, "train[7]", Reading(bands))


def test_windows_are_parts_of_the_whole(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 4000, (3, 300, 400)).astype(np.uint16)
    values[:, :40, :50] = 0
    path = write_raster(
        tmp_path / "a.tif", values, nodata=0, tiled=True, blockxsize=64, blockysize=64
    )
    whole, valid = read_image(path, "a", Reading((3, 2, 1)))
    part, part_valid = read_image_window(path, Reading((3, 2, 1)), (20, 30, 100, 70))
    np.testing.assert_array_equal(part, whole[20:120, 30:100])
    np.testing.assert_array_equal(part_valid, valid[20:120, 30:100])


def test_a_window_does_not_read_the_rest(tmp_path):
    """The last tiles are damaged: reading them fails, a window beside them does not."""
    pixels = np.random.default_rng(0).integers(0, 255, (1, 512, 512), dtype=np.uint8)
    path = write_raster(
        tmp_path / "a.tif", pixels, tiled=True, blockxsize=128, blockysize=128, compress="deflate"
    )
    with rasterio.open(path) as source:
        offset = int(source.get_tag_item("BLOCK_OFFSET_3_3", "TIFF", bidx=1))
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(bytes(64))
    assert read_image_window(path, Reading(), (0, 0, 128, 512))[0].shape == (128, 512, 3)
    np.testing.assert_array_equal(read_mask_window(path, (5, 6, 100, 90)), pixels[0, 5:105, 6:96])
    for read in (
        lambda: read_image(path, "a"),
        lambda: read_mask_window(path, (300, 300, 200, 200)),
    ):
        with pytest.raises(InputError, match="damaged"):
            read()


@pytest.mark.parametrize("name", ["m.png", "m.tif"])
def test_masks_keep_their_ids(tmp_path, name):
    ids = np.random.default_rng(0).choice([0, 1, 4, 255], (300, 70)).astype(np.uint8)
    picture = Image.fromarray(ids)
    picture.putpalette(list(range(256)) * 3)
    picture.save(tmp_path / "p.png")
    for path in (
        tmp_path / "p.png",
        write_raster(tmp_path / name, ids[None], driver="GTiff" if "tif" in name else "PNG"),
    ):
        np.testing.assert_array_equal(read_mask(path, "m"), ids)
        np.testing.assert_array_equal(read_mask(path.read_bytes(), "m"), ids)
        assert [int(np.count_nonzero(ids == value)) for value in range(256)] == mask_counts(
            path, "m"
        )[0].tolist()
        np.testing.assert_array_equal(read_mask_window(path, (250, 3, 40, 50)), ids[250:290, 3:53])


def test_masks_of_other_whole_types(tmp_path):
    ids = np.random.default_rng(0).choice([0, 3, 255], (20, 30))
    for dtype in ("int16", "uint16", "int32"):
        labels = read_mask(write_raster(tmp_path / f"{dtype}.tif", ids[None].astype(dtype)), "m")
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels, ids)


def test_nodata_of_a_mask_must_be_255(tmp_path):
    ids = np.array([[[0, 1, 255, 255]]], np.uint8)
    assert read_mask(write_raster(tmp_path / "good.tif", ids, nodata=255), "m").tolist() == [
        [0, 1, 255, 255]
    ]
    with pytest.raises(InputError, match="holds the id 0 where it declares no data; write 255"):
        read_mask(write_raster(tmp_path / "bad.tif", ids, nodata=0), "m")


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((5, 4, 4), np.uint8),
        np.zeros((1, 4, 4), np.float32),
        np.full((1, 4, 4), 256, np.uint16),
        np.full((1, 4, 4), -1, np.int16),
    ],
)
def test_what_is_no_mask(tmp_path, values):
    with pytest.raises(
        InputError,
        match=r"bad\.tif is not a label map.* a mask holds one band of class ids from 0 to 255",
    ):
        read_mask(write_raster(tmp_path / "bad.tif", values), "bad.tif")


def test_color_pictures_are_no_masks():
    data = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(data, "PNG")
    with pytest.raises(InputError, match="holds 64 colors: it is a picture"):
        read_mask(data.getvalue(), "m")


def test_masks_of_two_bands_are_refused(tmp_path):
    labels = np.stack([np.zeros((4, 5), np.uint8), np.ones((4, 5), np.uint8)])
    with pytest.raises(InputError, match="not a label map"):
        read_mask(write_raster(tmp_path / "a.tif", labels), "m")


def test_only_rasters_have_a_grid(tmp_path, noise):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert raster_grid(write_raster(tmp_path / "a.tif", noise)).pixel_size() == pytest.approx(
            (0.5, 0.5), rel=1e-3
        )
    assert (
        raster_grid(write_raster(tmp_path / "a.png", noise, driver="PNG", transform=None)) is None
    )


def test_training_sees_undeclared_fill_as_a_map_would(tmp_path):
    values = np.random.default_rng(0).integers(500, 3000, (3, 60, 80)).astype(np.uint16)
    values[:, 20:40, 20:50] = 65535
    path = write_raster(tmp_path / "a.tif", values)
    for pixels, valid in (
        read_image(path, "a"),
        read_image_window(path, Reading(), (0, 0, 60, 80)),
    ):
        expected = np.ones((60, 80), dtype=bool)
        expected[20:40, 20:50] = False
        np.testing.assert_array_equal(valid, expected)
        assert (pixels[~valid] == 0).all()
        low, high = np.percentile(values[:, expected][0], (2, 98))
        stretched = np.rint(np.clip((values[0] - low) / (high - low), 0, 1) * 255)
        np.testing.assert_array_equal(pixels[..., 0][expected], stretched[expected])


def test_sixteen_bit_masks_hold_ids_alone(tmp_path):
    ids = np.kron(np.arange(1, 5).reshape(2, 2), np.ones((20, 20)))[None].astype(np.uint16)
    ids[:, :9] = 255  # far from the others, and an id
    np.testing.assert_array_equal(read_mask(write_raster(tmp_path / "a.tif", ids), "a"), ids[0])
