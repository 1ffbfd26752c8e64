"""The grid of the style preview: what stands where, and refusals."""

import numpy as np
import pytest
import torch
from PIL import Image

from crossearth_hf.errors import InputError
from crossearth_hf.model.earth_style import EarthStyle, StyleDraw, StyleSettings, image_seed
from crossearth_hf.model.style_bank import StyleBank
from crossearth_hf.styles.preview import draw_style_preview, write_style_preview
from crossearth_hf.synthetic import generate_scene

SETTINGS = StyleSettings(alpha=0.5, block_size=32)


@pytest.fixture(scope="module")
def pixels():
    """(3, 96, 128) uint8."""
    return generate_scene("temperate-summer", 0, 96, 128).image.transpose(2, 0, 1)


def cells(page, rows):
    """(rows, 3, 96, 128, 3): the pictures of a grid, brought back to their own size."""
    width, height, margin, header = 384, 288, 12, 44
    boxes = [
        [(margin + c * (width + margin), header + r * (height + margin)) for c in range(3)]
        for r in range(rows)
    ]
    return np.array(
        [
            [
                np.asarray(
                    page.crop((x, y, x + width, y + height)).resize((128, 96), Image.Resampling.BOX)
                )
                for x, y in row
            ]
            for row in boxes
        ],
        dtype=np.float32,
    )


def test_the_grid_shows_original_style_and_mix(pixels):
    style = EarthStyle.from_file()
    page = draw_style_preview(pixels, style, SETTINGS, seed=3, draws=2)
    grid = cells(page, rows=2)
    original = pixels.transpose(1, 2, 0).astype(np.float32)
    for i, (first, styled, mix) in enumerate(grid):
        assert np.abs(first - original).mean() < 2  # resized there and back
        draw = StyleDraw.from_seed(image_seed(3, i), SETTINGS, 96, 128)
        with torch.no_grad():
            clean = torch.from_numpy(original / 255).permute(2, 0, 1)[None]
            rendered = style.render(clean, draw.noise[None], 0.5)[0].permute(1, 2, 0).numpy() * 255
        assert np.abs(styled - rendered).mean() < 2
        assert np.abs(styled - original).mean() > 5
        expected = np.where(draw.keep[..., None], original, rendered)
        assert np.abs(mix - expected).mean() < 2
    assert np.abs(grid[0, 1] - grid[1, 1]).mean() > 3


def test_a_file_and_its_options(tmp_path, pixels):
    Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "scene.png")
    StyleBank(torch.full((100,), 0.5), torch.eye(100)).save(tmp_path / "bank.safetensors")
    options = {"block_size": 32, "draws": 1, "alpha": 1.0}
    for name, bank in (("a", None), ("b", None), ("c", tmp_path / "bank.safetensors")):
        write_style_preview(tmp_path / "scene.png", tmp_path / f"{name}.png", bank=bank, **options)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    a, c = (cells(Image.open(tmp_path / f"{name}.png"), rows=1)[0] for name in "ac")
    assert np.array_equal(a[0], c[0])
    assert np.abs(a[1] - c[1]).mean() > 5


MISTAKES = {
    "alpha": ({"alpha": 2.0}, "alpha 2.0 is not a number from 0 to 1"),
    "ratio": ({"mask_ratio": -1.0}, "mask_ratio -1.0"),
    "block": ({"block_size": 128}, "block_size 128 is larger than an image of 96 x 128"),
    "no block": ({"block_size": 0}, "block_size 0"),
    "seed": ({"seed": -1, "block_size": 8}, "seed -1"),
    "draws": ({"draws": 0, "block_size": 8}, "0 draws"),
    "small": ({"block_size": 2}, "an image of 4 x 4 pixels is too small for the style transfer"),
    "bank": ({"bank": "none"}, "none does not exist"),
    "bands": ({"bands": [1, 2, 7]}, "bands 1,2,7 do not fit"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_write_nothing(tmp_path, pixels, name):
    options, sentence = MISTAKES[name]
    pixels = pixels[:, :4, :4] if name == "small" else pixels
    Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "scene.png")
    with pytest.raises(InputError, match=sentence):
        write_style_preview(tmp_path / "scene.png", tmp_path / "out.png", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["scene.png"]


def test_the_picture_is_not_its_own_preview(tmp_path, pixels):
    Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "scene.png")
    with pytest.raises(InputError, match="same file"):
        write_style_preview(tmp_path / "scene.png", tmp_path / "scene.png", overwrite=True)
