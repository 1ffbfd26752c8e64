"""Fill that a file does not declare, collars and false alphas, judged by files that declare the same as no data."""

import re

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasters import write_raster

from crossearth_hf.errors import InputError
from crossearth_hf.raster.fill import Fill, find_fills
from crossearth_hf.raster.scene import Scene

HEIGHT, WIDTH = 100, 120
HOLE = np.zeros((HEIGHT, WIDTH), dtype=bool)
HOLE[40:70, 30:70] = True  # 10 %
STRIP = np.zeros((HEIGHT, WIDTH), dtype=bool)
STRIP[:, :12] = True
CORNER = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) < 50
MARKS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)


@pytest.fixture
def pixels():
    """Three bands of 500 to 3500, many values and few extremes, as 64-bit floats."""
    return np.rint(np.random.default_rng(0).beta(2, 4, (3, HEIGHT, WIDTH)) * 3000 + 500)


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(20, 230, (3, HEIGHT, WIDTH), dtype=np.uint8)


def read_all(path, **options):
    with Scene(path, **options) as scene:
        return scene.read(0, 0, scene.grid.height, scene.grid.width), [
            str(notice) for notice in scene.notices()
        ]


@pytest.mark.parametrize("resolution", [None, 1.3, 0.3])
@pytest.mark.parametrize(
    ("dtype", "fill"),
    [
        ("uint16", 65535), ("uint16", 0), ("int16", -32768), ("int16", 32767), ("int16", -9999), ("int32", -9999),
        ("int32", 2**31 - 1), ("uint32", 2**32 - 1), ("float32", -3.4028234663852886e38), ("float32", 1e20),
        ("float32", -9999), ("float32", 0), ("float64", -1.7976931348623157e308), ("float64", 1e20),
    ],
)  # fmt: skip
def test_undeclared_fill_is_like_declared(tmp_path, pixels, dtype, fill, resolution):
    for region in (HOLE, STRIP):
        values = pixels.astype(dtype)
        values[:, region] = fill
        found, notices = read_all(
            write_raster(tmp_path / "found.tif", values), resolution=resolution
        )
        declared = write_raster(tmp_path / "declared.tif", values, nodata=fill)
        expected, silence = read_all(declared, resolution=resolution, nodata=())
        np.testing.assert_array_equal(found.valid, expected.valid)
        np.testing.assert_array_equal(found.pixels[:, found.valid], expected.pixels[:, found.valid])
        if resolution is None:
            np.testing.assert_array_equal(found.valid, ~region)
        assert "10.0% of the pixels of bands 1, 2, 3" in notices[0]
        assert "treated as no data; --nodata none keeps it" in notices[0]
        assert silence == []


def test_a_person_decides(tmp_path, pixels):
    values = pixels.astype(np.uint16)
    values[:, HOLE], values[:, STRIP] = 65535, 777
    path = write_raster(tmp_path / "a.tif", values)
    assert read_all(path, nodata=())[0].valid.all()
    np.testing.assert_array_equal(
        read_all(path, nodata=[777])[0].valid, ~STRIP & (values != 777).any(axis=0)
    )
    np.testing.assert_array_equal(
        read_all(path, nodata=[777, 65535])[0].valid, ~HOLE & ~STRIP & (values != 777).any(axis=0)
    )
    for wrong in (-1, 70_000, 0.5):
        with pytest.raises(
            InputError,
            match=r"no-data value .* does not fit .*a.tif, whose bands are uint16; give a",
        ):
            Scene(path, nodata=[wrong])


def test_digits_as_a_person_writes_them(tmp_path, pixels):
    values = pixels.astype(np.float32)
    values[:, HOLE] = np.finfo(np.float32).min
    raster, _ = read_all(write_raster(tmp_path / "a.tif", values), nodata=[-3.40282e38])
    np.testing.assert_array_equal(raster.valid, ~HOLE)


def test_two_fills_and_a_declared_one(tmp_path, pixels):
    values = pixels.astype(np.int16)
    values[:, HOLE], values[:, STRIP], values[:, -10:] = 32767, -32768, 0
    raster, notices = read_all(write_raster(tmp_path / "a.tif", values, nodata=0))
    np.testing.assert_array_equal(
        raster.valid, ~HOLE & ~STRIP & (np.arange(HEIGHT) < HEIGHT - 10)[:, None]
    )
    assert len(notices) == 2


def test_the_hint_names_what_is_left_out_already_too(tmp_path, pixels):
    """Naming a value ends the search for others."""
    values = pixels.astype(np.float32)
    values[:, STRIP] = -9999
    values = blob(10_000)(values)
    path = write_raster(tmp_path / "a.tif", values)
    _, notices = read_all(path)
    assert "--nodata=-9999,10000 leaves it out" in notices[1]
    raster, notices = read_all(path, nodata=[-9999, 10_000])
    np.testing.assert_array_equal(
        raster.valid, (values > 0).all(axis=0) & (values < 10_000).all(axis=0)
    )
    assert notices == []


def test_each_band_has_a_fill_of_its_own(tmp_path, pixels):
    """A pixel is lost only where all bands are; the limits of a band come from its own data."""
    values = pixels.astype(np.uint16)
    values[0, HOLE], values[1, STRIP], values[2, HOLE | STRIP] = 65535, 65535, 65535
    with Scene(write_raster(tmp_path / "a.tif", values)) as scene:
        raster, summary = scene.read(0, 0, HEIGHT, WIDTH), scene.summary()
    assert raster.valid.all()
    for band, gone in enumerate((HOLE, STRIP, HOLE | STRIP)):
        low, high = np.percentile(pixels[band][~gone], (2, 98))
        expected = np.rint(np.clip((pixels[band] - low) / (high - low), 0, 1) * 255)
        np.testing.assert_array_equal(raster.pixels[band][~gone], expected[~gone])
        assert f"{low:.6g}..{high:.6g}" in summary


def test_a_scene_of_nothing_but_fill(tmp_path):
    for value, dtype in ((65535, np.uint16), (-9999, np.float32)):
        path = write_raster(tmp_path / "a.tif", np.full((3, 40, 40), value, dtype))
        assert not read_all(path)[0].valid.any()
        assert read_all(path, nodata=())[0].valid.all()
    assert read_all(write_raster(tmp_path / "b.tif", np.full((3, 40, 40), 7, np.uint16)))[
        0
    ].valid.all()


def blob(value, share=0.012):
    """A roof without a blurred edge."""
    side = round((share * HEIGHT * WIDTH) ** 0.5)

    def paint(values):
        values[:, 40 : 40 + side, 50 : 50 + side] = value
        return values

    return paint


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda p: p.clip(None, 2000).astype(np.uint16), None),  # saturated
        (lambda p: (p * 40).clip(0, 65535).astype(np.uint16), None),
        (lambda p: blob(4095)(p.astype(np.uint16)), None),
        (lambda p: blob(10_000)(p.astype(np.uint16)), "--nodata=10000 leaves it out"),
        (lambda p: blob(65_535)(p.astype(np.uint16)), "--nodata=65535 leaves it out"),
        (lambda p: blob(1)((p / 9000).astype(np.float32)), "--nodata=1 leaves it out"),
        (lambda p: (p - 1500).clip(0).astype(np.uint16), None),  # dark water at 0
        (lambda p: ((p - 2000) * 20).clip(-10_000, 10_000).astype(np.int16), None),  # an index
        (lambda p: np.round(p / 400).astype(np.uint16), None),  # few values
    ],
)
def test_data_that_look_like_fill_stay(tmp_path, pixels, make, hint):
    raster, notices = read_all(write_raster(tmp_path / "a.tif", make(pixels)))
    assert raster.valid.all()
    assert [hint in notice for notice in notices] == [True] * (hint is not None)


def test_mixed_pixels_of_overviews_do_not_set_the_stretch(tmp_path):
    """Stripes of fill of which averaged overviews keep half values: 6 % of the decimated pixels."""
    values = np.rint(np.random.default_rng(0).uniform(500, 3500, (1, 2048, 2048))).astype(np.uint16)
    gone = np.zeros((2048, 2048), dtype=bool)
    for start in range(1, 2048, 32):
        gone[start : start + 3] = True
    values[:, gone] = 65535
    path = write_raster(tmp_path / "a.tif", values, tiled=True)
    with rasterio.open(path, "r+") as target:
        target.build_overviews([2], rasterio.enums.Resampling.average)
    with Scene(path) as scene:
        values = scene.read(100, 100, 64, 64).pixels
        low, high = map(
            float, re.search(r"stretched from (\S+)\.\.(\S+),", scene.summary()).groups()
        )
        assert 500 < low < 1500  # of averages of four
        assert 2500 < high < 3500
        np.testing.assert_array_equal(scene.read(0, 0, 300, 300).valid, ~gone[:300, :300])
    assert values.std() > 60


def test_fills_of_arrays_by_hand():
    values = np.tile(np.arange(100, 200), (1, 50, 1))
    masks = np.ones(values.shape, dtype=bool)
    assert find_fills(values, masks) == []
    values[0, 10:20, 10:15] = -9999  # 50 of 5000
    assert find_fills(values, masks) == [Fill(-9999.0, 0, 0.01, certain=True)]
    assert find_fills(values, values != -9999) == []


@pytest.mark.parametrize(("color", "value"), [("black", 0), ("white", 255)])
def test_collars_of_bytes_are_told_and_left_out_on_request(tmp_path, picture, color, value):
    picture[:, CORNER] = value
    path = write_raster(tmp_path / "a.tif", picture)
    share = f"{CORNER.mean():.1%}"
    raster, (notice,) = read_all(path)
    assert raster.valid.all()
    assert notice == (
        f"a {color} region at the border covers {share} of the scene and is mapped like the rest; "
        f"--nodata={value} leaves it out"
    )
    raster, notices = read_all(path, nodata=[value])
    np.testing.assert_array_equal(raster.valid, ~CORNER)
    assert notices == []


def test_a_collar_that_jpeg_has_blurred(tmp_path, picture):
    smooth = np.asarray(
        Image.fromarray(picture.transpose(1, 2, 0)).resize((12, 10)).resize((WIDTH, HEIGHT))
    )
    smooth = np.where(CORNER[..., None], np.uint8(0), smooth)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=70)
    _, (notice,) = read_all(tmp_path / "a.jpg")
    assert notice.startswith("a black region at the border covers ")
    assert "nearblack -setmask" in notice


def test_no_alarm_for_dark_water_bright_roofs_and_shadows(tmp_path, picture):
    rng = np.random.default_rng(1)
    water, roof, shadow = picture.copy(), picture.copy(), picture.copy()
    water[:, CORNER] = rng.integers(0, 12, (3, CORNER.sum()))
    roof[:, 40:80, :30] = rng.integers(252, 256, (3, 40, 30))
    shadow[:, HOLE] = rng.integers(0, 2, (3, HOLE.sum()))
    for pixels in (water, roof, shadow):
        assert read_all(write_raster(tmp_path / "a.tif", pixels))[1] == []


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("uint8", 0),
        ("uint8", 255),
        ("uint16", 1),
        ("uint16", 255),
        ("int16", -1),
        ("int16", -100),
        ("float32", -0.25),
    ],
)
def test_a_hole_near_the_data_is_told_and_left_out_on_request(
    tmp_path, pixels, picture, dtype, value
):
    values = (
        picture if dtype == "uint8" else pixels / 3500 if dtype == "float32" else pixels
    ).astype(dtype)
    values[:, HOLE] = value
    path = write_raster(tmp_path / "a.tif", values)
    raster, (notice,) = read_all(path)
    assert raster.valid.all()
    assert notice == (
        f"{HOLE.mean():.1%} of the pixels have the value {value} in flat regions, treated as data; "
        f"--nodata={value} leaves it out"
    )
    raster, notices = read_all(path, nodata=[value])
    np.testing.assert_array_equal(raster.valid, ~HOLE)
    assert notices == []


def test_a_noisy_collar_of_16_bits_is_told_and_left_out_on_request(tmp_path, pixels):
    values = pixels.astype(np.uint16)
    values[:, CORNER] = np.random.default_rng(1).integers(0, 4, (3, CORNER.sum()))
    path = write_raster(tmp_path / "a.tif", values)
    _, notices = read_all(path)
    assert "--nodata=0,1,2,3 leaves it out" in "".join(notices)
    raster, notices = read_all(path, nodata=[0, 1, 2, 3])
    np.testing.assert_array_equal(raster.valid, ~CORNER)
    assert notices == []


def test_black_in_one_band_is_a_color(tmp_path, picture):
    picture[0, HOLE], picture[1, HOLE], picture[2, HOLE] = 0, 0, 255
    picture[:, STRIP] = 0
    raster, _ = read_all(write_raster(tmp_path / "a.tif", picture), nodata=[0, 255])
    np.testing.assert_array_equal(raster.valid, ~STRIP)


@pytest.mark.parametrize("resolution", [None, 1.0])
def test_near_infrared_marked_as_alpha_hides_nothing(tmp_path, picture, resolution):
    infrared = np.where(HOLE, 0, picture[0])[None]  # water is dark there
    path = write_raster(tmp_path / "a.tif", np.concatenate([picture, infrared]), roles=MARKS)
    raster, (notice,) = read_all(path, resolution=resolution)
    assert raster.valid[:-1, :-1].all()  # the last ones may reach over the edge
    assert "band 4 is marked as transparency, but has many values like data" in notice
    with Scene(path, num_channels=4) as scene:
        assert scene.bands == [1, 2, 3, 4]
        assert "all pixels valid" in scene.summary()


@pytest.mark.parametrize("kind", ["0/255", "0/1", "soft", "half", "16-bit"])
def test_transparency_is_validity(tmp_path, picture, kind):
    shown = ~CORNER
    alpha = {
        "0/255": shown * 255,
        "0/1": shown * 1,
        "half": shown * 128,
        "16-bit": shown * 65535,
    }.get(kind)
    if kind == "soft":
        edge = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) - 49
        alpha = np.clip(edge * 20, 0, 255)
    dtype = np.uint16 if kind == "16-bit" else np.uint8
    path = write_raster(
        tmp_path / "a.tif", np.concatenate([picture, alpha[None]]).astype(dtype), roles=MARKS
    )
    with Scene(path) as scene:
        np.testing.assert_array_equal(scene.read(0, 0, HEIGHT, WIDTH).valid, alpha > 0)
        assert "validity from band 4 (alpha)" in scene.summary()
        assert scene.notices() == []


def test_the_real_scenes(shared):
    """A count of all notices: alarms about data that have nothing odd are faults."""
    expected = {
        "riotiler_cog.tif": ["48.2% of the pixels of"],
        "riotiler_cog_gcps.tif": ["a black region at the border covers 2.0%"],
        "solaris_ms1.tif": ["nothing says which bands are red, green and blue"],
    }
    for path in sorted((shared / "data" / "geotiff").glob("*.tif")):
        if path.name == "riotiler_cog_cmap.tif":
            continue
        with Scene(path) as scene:
            notices = scene.notices()
        parts = expected.get(path.name, [])
        assert len(notices) == len(parts), path.name
        for part, notice in zip(parts, notices, strict=True):
            assert part in str(notice)


@pytest.mark.parametrize(
    ("dtype", "fill", "low", "high"), [("float32", 0, 0.02, 0.6), ("uint16", 0, 300, 20000)]
)
def test_fill_that_stands_out_in_some_bands_is_fill_in_all(dtype, fill, low, high):
    """The same pixels hold it; in one band it lies too near to the others to be told by itself."""
    random = np.random.default_rng(0)
    ranges = [(low + (high - low) * 0.5, high), (low + (high - low) * 0.4, high), (low, high)]
    pixels = np.stack([random.uniform(*limits, (64, 64)) for limits in ranges]).astype(dtype)
    hole = np.zeros((64, 64), dtype=bool)
    hole[:6], hole[:, :6] = True, True
    pixels[:, hole] = fill
    fills = find_fills(pixels, np.ones(pixels.shape, dtype=bool))
    assert {(found.value, found.band) for found in fills if found.certain} == {
        (fill, 0),
        (fill, 1),
        (fill, 2),
    }


@pytest.mark.parametrize(
    ("dtype", "value"), [("uint16", 10_000), ("uint16", 4095), ("float32", 1.0)]
)
def test_saturated_borders_stay_data(dtype, value):
    pixels = np.random.default_rng(0).uniform(0.1, 0.3, (3, 64, 64)) * value
    pixels[:, :13] = value
    assert not [
        fill
        for fill in find_fills(pixels.astype(dtype), np.ones(pixels.shape, dtype=bool))
        if fill.certain
    ]


def test_black_and_white_in_16_bits_stay_data():
    pixels = np.where(np.random.default_rng(0).random((1, 64, 64)) < 0.4, 65_535, 0).astype(
        np.uint16
    )
    assert not [
        fill for fill in find_fills(pixels, np.ones(pixels.shape, dtype=bool)) if fill.certain
    ]


def test_a_scene_in_the_lowest_values_is_told(tmp_path, picture):
    assert read_all(write_raster(tmp_path / "a.tif", picture))[1] == []
    (notice,) = read_all(write_raster(tmp_path / "b.tif", picture // 16))[1]
    assert "of 255, so the model sees a nearly black scene; stretch the values first" in notice


@pytest.mark.parametrize(
    "roles",
    [
        (ColorInterp.hue, ColorInterp.saturation, ColorInterp.lightness),
        (ColorInterp.Y, ColorInterp.Cb, ColorInterp.Cr),
        (ColorInterp.cyan, ColorInterp.magenta, ColorInterp.yellow),
    ],
)
def test_other_color_models_are_told(tmp_path, picture, roles):
    (notice,) = read_all(write_raster(tmp_path / "a.tif", picture, roles=roles))[1]
    names = ", ".join(role.name for role in roles)
    assert notice.startswith(
        f"the bands are marked as {names}, but are read as red, green and blue"
    )


def test_gray_in_which_0_is_white_is_told(tmp_path, picture):
    path = write_raster(tmp_path / "a.tif", picture[:1], photometric="MINISWHITE")
    assert "0 is white in this file" in read_all(path)[1][0]
