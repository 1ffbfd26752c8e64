"""Whole maps: right pixels, right place, right numbers, and nothing left behind when something fails."""

import os
import tracemalloc

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasters import read_shares, with_legend
from rio_cogeo import cog_validate
from stub_model import CLASSES, ColorModel

from crossearth_hf import CrossEarthImageProcessor
from crossearth_hf.errors import InputError
from crossearth_hf.files.working_folders import mark
from crossearth_hf.prediction import MapOutputs, one_scene, predict_map
from crossearth_hf.raster.scene import Scene
from crossearth_hf.raster.writing import write_geotiff

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

UTM_PLACE = Affine(2, 0, 499_000, 0, -2, 5_000_000)


def patches(height=320, width=400, side=40):
    """A scene of pure red, green and blue patches, and the classes `ColorModel` gives them."""
    rng = np.random.default_rng(0)
    ids = np.kron(rng.integers(0, 3, (height // side, width // side)), np.ones((side, side), int))
    return np.where(np.arange(3)[:, None, None] == ids, 230, 20).astype(np.uint8), ids


def make_map(scene_path, folder, *, resolution=None, model=None, preview=False, **options):
    outputs = MapOutputs.checked(
        scene_path,
        folder / "map.tif",
        confidence=folder / "confidence.tif",
        probabilities=folder / "probabilities.tif",
        preview=folder / "preview.png" if preview else None,
    )
    with Scene(scene_path, resolution=resolution) as scene:
        return predict_map(
            scene,
            outputs,
            model or ColorModel(),
            CrossEarthImageProcessor(),
            window=64,
            stride=43,
            progress=False,
            **options,
        )


def read(path):
    with rasterio.open(path) as source:
        return source.read(1)


@pytest.fixture
def scene(tmp_path):
    pixels, ids = patches()
    # an oblique edge, as satellites leave it
    corner = np.add.outer(np.arange(320), 0.6 * np.arange(400)) < 97
    pixels[:, corner] = 0
    write_geotiff(tmp_path / "scene.tif", pixels, crs="EPSG:32632", transform=UTM_PLACE, nodata=0)
    ids[corner] = 255
    return tmp_path / "scene.tif", ids


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize("float_shares", [False, True])
def test_map_and_report(scene, folder, float_shares):
    path, ids = scene
    report = make_map(path, folder, preview=True, float_shares=float_shares)
    np.testing.assert_array_equal(read(folder / "map.tif"), ids)
    confidence = read_shares(folder / "confidence.tif")[0]
    np.testing.assert_array_equal(np.isnan(confidence), ids == 255)
    assert 1 / 3 < np.nanmin(confidence) <= np.nanmax(confidence) <= 1
    with rasterio.open(folder / "probabilities.tif") as source:
        assert source.descriptions == CLASSES
        assert set(source.dtypes) == {"float32" if float_shares else "uint8"}
    shares = read_shares(folder / "probabilities.tif")
    np.testing.assert_array_equal(np.isnan(shares), np.broadcast_to(ids == 255, shares.shape))
    known = ids < 255
    step = 0.51 / 4096 if float_shares else 0.51 * 0.004
    np.testing.assert_array_equal(shares.argmax(axis=0)[known], ids[known])
    np.testing.assert_allclose(shares.max(axis=0), confidence, atol=step)
    np.testing.assert_allclose(shares.sum(axis=0)[known], 1, atol=3 * step)
    for name in ("map.tif", "confidence.tif", "probabilities.tif"):
        assert cog_validate(str(folder / name), quiet=True) == (True, [], [])
    np.testing.assert_array_equal(report.pixels, np.bincount(ids[ids < 255], minlength=3))
    assert report.without_data == (ids == 255).sum() > 0
    # Pixels of 4 m2 on the map, where UTM's scale is 0.9996 near the central meridian.
    np.testing.assert_allclose(report.hectares, report.pixels * 4 / 0.9996**2 / 10_000, rtol=1e-5)
    assert sorted(p.name for p in folder.iterdir()) == [
        "confidence.tif",
        *with_legend("map.tif"),
        "preview.png",
        "probabilities.tif",
    ]
    table = report.table()
    assert all(name in table for name in (*CLASSES, "(no data)", "map.tif", "preview.png"))
    assert f"{report.pixels[0]:,}" in table
    assert Image.open(folder / "preview.png").width <= 1600


@pytest.mark.parametrize("meters", [5.0, 1.0])
def test_resampled_map_lies_on_the_scenes_own_grid(scene, folder, meters):
    path, ids = scene
    report = make_map(path, folder, resolution=meters)
    found = read(folder / "map.tif")
    np.testing.assert_array_equal(found == 255, ids == 255)
    inner = np.zeros_like(ids, dtype=bool)  # pixels whose neighborhood holds one class only
    inner[4:-4, 4:-4] = True
    for step in (-4, 4):
        inner &= (np.roll(ids, step, axis=0) == ids) & (np.roll(ids, step, axis=1) == ids)
    np.testing.assert_array_equal(found[inner], ids[inner])
    with rasterio.open(folder / "map.tif") as source:
        assert (source.transform, source.crs.to_epsg(), source.shape) == (
            UTM_PLACE,
            32632,
            ids.shape,
        )
    assert report.pixels.sum() + report.without_data == ids.size
    for name in ("confidence.tif", "probabilities.tif"):
        np.testing.assert_array_equal(np.isnan(read_shares(folder / name)[0]), ids == 255)


def test_picture_without_a_place(tmp_path, folder):
    pixels, ids = patches()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "scene.png")
    report = make_map(tmp_path / "scene.png", folder)
    np.testing.assert_array_equal(read(folder / "map.tif"), ids)
    assert report.hectares is None
    assert " - " in report.table().replace("\n", " ")


@pytest.mark.parametrize(
    ("crs", "transform", "shown"),
    [
        ("EPSG:4326", Affine(1, 0, 8, 0, -1, 93), "-"),  # three rows beyond the pole
        ("EPSG:32632", Affine(0.001, 0, 5e5, 0, -0.001, 5e6), "3.5e-09"),  # 35 square millimeters
        ("EPSG:32632", Affine(10, 0, 5e5, 0, -10, 5e6), "0.35"),
        (
            "EPSG:3413",
            Affine(1e3, 0, -3500, 0, -1e3, 2500),
            "3,720.93",
        ),  # at the pole, 1031.08 m on the ground
    ],
)
def test_areas_are_shown_with_their_digits_or_not_at_all(tmp_path, folder, crs, transform, shown):
    pixels = np.full((3, 5, 7), 20, np.uint8)
    pixels[0] = 230
    write_geotiff(tmp_path / "scene.tif", pixels, crs=crs, transform=transform)
    line = make_map(tmp_path / "scene.tif", folder).table().splitlines()[2]
    assert line.split() == ["red", "35", "100.0%", shown]


def test_scene_smaller_than_a_patch(tmp_path, folder):
    pixels, ids = patches(height=5, width=7, side=1)
    write_geotiff(tmp_path / "scene.tif", pixels, crs=None, transform=UTM_PLACE)
    make_map(tmp_path / "scene.tif", folder)
    np.testing.assert_array_equal(read(folder / "map.tif"), ids)


def test_all_nodata(tmp_path, folder):
    write_geotiff(
        tmp_path / "s.tif", np.zeros((3, 90, 90), np.uint8), crs=None, transform=UTM_PLACE, nodata=0
    )
    with pytest.raises(InputError, match="no pixel with data"):
        make_map(tmp_path / "s.tif", folder)
    assert list(folder.iterdir()) == []


def test_truncated_scene(tmp_path, folder):
    noise = np.random.default_rng(0).integers(0, 256, (3, 600, 600), dtype=np.uint8)
    write_geotiff(tmp_path / "s.tif", noise, crs=None, transform=UTM_PLACE)
    content = (tmp_path / "s.tif").read_bytes()
    (tmp_path / "s.tif").write_bytes(content[: len(content) * 7 // 10])
    model = ColorModel()
    with pytest.raises(InputError, match="damaged or cut off"):
        make_map(tmp_path / "s.tif", folder, model=model)
    assert model.batches, "the damage lies in the middle"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("resolution", [None, 4.0])
def test_interrupted_run_keeps_the_old_map(scene, folder, resolution):
    class Interrupted(ColorModel):
        def forward(self, pixel_values):
            if len(self.batches) == 3:
                raise KeyboardInterrupt
            return super().forward(pixel_values)

    (folder / "map.tif").write_text("old")
    outputs = MapOutputs.checked(scene[0], folder / "map.tif", overwrite=True)
    with Scene(scene[0], resolution=resolution) as opened, pytest.raises(KeyboardInterrupt):
        predict_map(
            opened,
            outputs,
            Interrupted(),
            CrossEarthImageProcessor(),
            window=64,
            stride=43,
            progress=False,
        )
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [("map.tif", "old")]


def test_full_disk_in_the_middle(tmp_path, folder):
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(0).integers(0, 256, (3, 700, 700), dtype=np.uint8)
    write_geotiff(tmp_path / "s.tif", noise, crs=None, transform=UTM_PLACE)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (2_000, 100_000, 1_000_000):  # files cannot grow further, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            with pytest.raises(InputError, match="cannot be written"):
                make_map(tmp_path / "s.tif", folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert list(folder.iterdir()) == []


def test_what_a_killed_run_has_left_is_replaced_and_nothing_else(scene, folder):
    """What it was about to write is noted beside its parts."""
    parts = folder / ".map.tif.parts"
    parts.mkdir()
    (folder / "map.tif").write_text("new")
    (folder / "confidence.tif").write_text("of somebody else")
    mark(parts, scene=os.path.realpath(scene[0]), outputs=[str(folder / "map.tif")])
    with pytest.raises(InputError, match=r"confidence.tif exists already"):
        make_map(scene[0], folder)
    mark(
        parts,
        scene=os.path.realpath(scene[0]),
        outputs=[str(folder / "map.tif"), str(folder / "confidence.tif")],
    )
    make_map(scene[0], folder)
    np.testing.assert_array_equal(read(folder / "map.tif"), scene[1])
    with pytest.raises(InputError, match=r"map.tif exists already"):
        make_map(scene[0], folder)


def test_more_classes_than_a_map_can_hold(scene, folder):
    model = ColorModel()
    model.config.id2label = {index: f"class {index}" for index in range(256)}
    with pytest.raises(InputError, match="256 classes, but a map holds at most 255"):
        make_map(scene[0], folder, model=model)
    assert list(folder.iterdir()) == []


def test_what_was_computed_survives_a_disk_that_fills_at_the_end(
    scene, folder, monkeypatch, capsys
):
    def full(target, *_):
        raise InputError(
            f"{target.name} cannot be written (No space left on device), nothing was changed"
        )

    with monkeypatch.context() as patch:
        patch.setattr(one_scene, "write_cog", full)
        with pytest.raises(InputError, match=r"map.tif cannot be written"):
            make_map(scene[0], folder)
    assert [path.name for path in folder.iterdir()] == [".map.tif.parts"]
    assert "1 finished part is kept" in capsys.readouterr().err
    model = ColorModel()
    make_map(scene[0], folder, model=model)
    assert model.batches == []
    np.testing.assert_array_equal(read(folder / "map.tif"), scene[1])


def test_every_kind_of_real_raster(shared, folder):
    """The four smallest kinds; all fourteen take minutes on the real network."""
    for name in (
        "riotiler_cog_gcps",
        "riotiler_pix4d_alpha_nodata",
        "rasterio_rgb1",
        "solaris_ms1",
    ):
        path = shared / "data" / "geotiff" / f"{name}.tif"
        outputs = MapOutputs.checked(path, folder / f"{name}.tif")
        with Scene(path) as scene:
            predict_map(
                scene,
                outputs,
                ColorModel(),
                CrossEarthImageProcessor(),
                window=256,
                stride=171,
                progress=False,
            )
        with rasterio.open(path) as source, rasterio.open(outputs.map) as result:
            assert (result.shape, result.crs, result.transform) == (
                source.shape,
                source.crs,
                source.transform,
            )
            assert len(result.gcps[0]) == len(source.gcps[0])


def test_a_huge_sparse_mosaic_starts_at_once_and_in_little_memory(tmp_path, folder):
    side, told = 500_000, []
    path = tmp_path / "huge.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><VRTRasterBand dataType="Byte" band="1"/></VRTDataset>'
    )

    def stop(done, total):
        told.append((done, total))
        if done > 20:
            raise InterruptedError

    model = ColorModel()
    tracemalloc.start()
    with Scene(path) as scene, pytest.raises(InterruptedError):
        predict_map(
            scene,
            MapOutputs.checked(path, folder / "map.tif"),
            model,
            CrossEarthImageProcessor(),
            window=256,
            stride=256,
            progress=False,
            on_windows=stop,
        )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 500 000 = 1953.125 windows of 256. Windows share no border with another column or run of bands but for the last of
    # a side, shifted back inside: it is the only one beside multiples of 256.
    assert told[0][1] == 1954**2
    assert peak < 16 * 2**20
