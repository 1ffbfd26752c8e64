"""Banks from rasters of every kind: which tiles, which bands, which sentence for which mistake."""

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from PIL import Image

from crossearth_hf.errors import InputError
from crossearth_hf.model.earth_style import EarthStyle
from crossearth_hf.model.style_bank import StyleBank
from crossearth_hf.model.style_networks import InceptionStylePredictor as Inception
from crossearth_hf.model.style_networks import StylePredictor
from crossearth_hf.raster.writing import write_geotiff
from crossearth_hf.styles.bank import (
    embed_rasters,
    find_rasters,
    load_earth_style,
    write_style_bank,
)

RNG = np.random.default_rng(0)
PLACE = {"crs": "EPSG:32632", "transform": Affine(1, 0, 5e5, 0, -1, 5e6)}


def blotches(height, width, bands=3):
    """(bands, height, width) float64 in 0..1, smooth enough to have a look of its own."""
    coarse = RNG.random((bands, height // 16 + 2, width // 16 + 2))
    return coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]


class Recorder(torch.nn.Module):
    """A predictor that keeps what it is shown and answers with the mean color."""

    def __init__(self, smallest_image):
        super().__init__()
        self.tiles, self.smallest_image = [], smallest_image

    def forward(self, images):
        self.tiles += list(images)
        return images.mean(dim=(2, 3)).repeat(1, 34)[:, :100]


def embedded(path, smallest_image=32, **options):
    recorder = Recorder(smallest_image)
    with torch.inference_mode():
        embeddings = embed_rasters([path], recorder, **options)
    assert len(embeddings) == len(recorder.tiles)
    return recorder.tiles


def test_tiles_at_several_scales(tmp_path):
    pixels = (255 * blotches(520, 600)).astype(np.uint8)
    Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "scene.png")
    tiles = embedded(tmp_path / "scene.png")
    unit = torch.from_numpy(pixels.astype(np.float32) / 255)
    small = [unit[:, y : y + 256, x : x + 256] for y in (0, 256, 264) for x in (0, 256, 344)]
    large = [unit[:, y : y + 512, x : x + 512] for y in (0, 8) for x in (0, 88)]
    halved = [t.reshape(3, 256, 2, 256, 2).mean(dim=(2, 4)) for t in large]
    assert len(tiles) == 9 + 4
    for found, expected in zip(tiles, small + halved, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert len(embedded(tmp_path / "scene.png", step=128)) == 4 * 4 + 2 * 2


def test_images_smaller_than_a_tile_are_one_tile(tmp_path):
    Image.fromarray((255 * blotches(100, 300)).astype(np.uint8).transpose(1, 2, 0)).save(
        tmp_path / "strip.jpg"
    )
    assert [tile.shape for tile in embedded(tmp_path / "strip.jpg")] == [(3, 100, 256)] * 2
    Image.fromarray(np.zeros((20, 300, 3), np.uint8)).save(tmp_path / "line.png")
    assert embedded(tmp_path / "line.png") == []
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "small.png")
    found = [
        len(embedded(tmp_path / "small.png", kind.smallest_image))
        for kind in (StylePredictor, Inception)
    ]
    assert found == [1, 0]


def test_16_bit_bands_are_chosen_and_stretched(tmp_path):
    pixels = (1000 + 9000 * blotches(256, 256, bands=5)).astype(np.uint16)
    write_geotiff(tmp_path / "scene.tif", pixels, **PLACE)
    (tile,) = embedded(tmp_path / "scene.tif", bands=[5, 3, 2])
    for channel, band in zip(tile.numpy(), (5, 3, 2), strict=True):
        low, high = np.percentile(pixels[band - 1], (2, 98))
        expected = np.clip((pixels[band - 1] - low) / (high - low), 0, 1)
        np.testing.assert_allclose(channel, expected, atol=1 / 255)
    with pytest.raises(InputError, match="bands 1,2,9 do not fit"):
        embedded(tmp_path / "scene.tif", bands=[1, 2, 9])


def test_tiles_without_data_are_left_out(tmp_path):
    pixels = 1 + (200 * blotches(256, 768)).astype(np.uint8)
    pixels[:, :, :400] = 0
    write_geotiff(tmp_path / "scene.tif", pixels, nodata=0, **PLACE)
    (tile,) = embedded(tmp_path / "scene.tif")
    np.testing.assert_allclose(tile, pixels[:, :, 512:] / 255, atol=1e-6)


def test_the_bank_of_a_folder(tmp_path):
    folder = tmp_path / "scenes"
    folder.mkdir()
    Image.fromarray((255 * blotches(64, 64)).astype(np.uint8).transpose(1, 2, 0)).save(
        folder / "a_1.png"
    )
    write_geotiff(folder / "a_2.TIF", (9000 * blotches(64, 80)).astype(np.uint16), **PLACE)
    Image.fromarray((255 * blotches(64, 64, bands=1)[0]).astype(np.uint8)).save(folder / "b_1.jpg")
    (folder / "notes.txt").write_text("no raster")
    bank = write_style_bank(folder, tmp_path / "bank.safetensors")
    assert (bank.count, bank.sources) == (3, ("scenes (3 images)",))
    predictor = EarthStyle.from_file().predictor
    embeddings = embed_rasters(find_rasters(folder), predictor).double()
    written = load_earth_style(bank=tmp_path / "bank.safetensors").bank
    np.testing.assert_allclose(written.mean, embeddings.mean(dim=0), atol=1e-5)
    np.testing.assert_allclose(
        written.covariance, np.cov(embeddings.numpy(), rowvar=False), atol=1e-5
    )
    pattern = write_style_bank(f"{folder}:a_*", tmp_path / "other.safetensors")
    assert pattern.sources == ("scenes (2 images)",)
    assert {path.name for path in tmp_path.iterdir()} == {
        "scenes",
        "bank.safetensors",
        "other.safetensors",
    }


def test_a_bank_changes_what_is_injected(tmp_path):
    torch.manual_seed(0)
    StyleBank.from_embeddings(torch.randn(120, 100)).save(tmp_path / "bank.safetensors")
    style = EarthStyle.from_file(bank=tmp_path / "bank.safetensors")
    assert style.bank.count == 120
    assert (style.mean - EarthStyle.from_file().mean).abs().max() > 0.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("rasters")
    for name in ("empty", "one", "torn"):
        (root / name).mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(root / "one" / "a.png")
    (root / "torn" / "a.tif").write_bytes(b"II*\0nothing")
    StyleBank(torch.zeros(100), torch.eye(100)).save(root / "exists.safetensors")
    return root


MISTAKES = {
    "no folder": ("none", "out.safetensors", "is not a folder"),
    "a file": ("one/a.png", "out.safetensors", "is not a folder"),
    "no raster": ("empty", "out.safetensors", "holds no raster"),
    "no match": ("one:b*", "out.safetensors", r"matches 'b\*'"),
    "one tile": ("one", "out.safetensors", "gives 1 tiles with data"),
    "torn raster": ("torn", "out.safetensors", "not a raster that GDAL can read"),
    "wrong ending": ("one", "out.npz", "must end in .safetensors"),
    "exists": ("one", "exists.safetensors", "exists already"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_leave_everything_as_it_was(folder, name):
    source, out, sentence = MISTAKES[name]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(InputError, match=sentence):
        write_style_bank(folder / source, folder / out)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_files_that_hold_no_styles(folder):
    with pytest.raises(InputError, match="does not exist"):
        load_earth_style(bank=folder / "none.safetensors")
    with pytest.raises(InputError, match="is not a safetensors file"):
        load_earth_style(bank=folder / "one" / "a.png")
    with pytest.raises(InputError, match="holds other networks"):
        load_earth_style(folder / "exists.safetensors")


def test_a_scene_with_a_palette(tmp_path):
    size = {"width": 64, "height": 64, "count": 1, "dtype": "uint8"}
    with rasterio.open(tmp_path / "p.tif", "w", driver="GTiff", **size, **PLACE) as target:
        target.write(np.full((1, 64, 64), 7, np.uint8))
        target.write_colormap(1, {7: (255, 0, 51, 255)})
    (tile,) = embedded(tmp_path / "p.tif")
    np.testing.assert_allclose(tile[:, 5, 5], [1, 0, 0.2], atol=1e-6)
