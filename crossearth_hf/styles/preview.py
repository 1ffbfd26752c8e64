"""A picture of Earth-Style Injection: an image, the image in several Earth styles, and mixed block by block."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..errors import InputError
from ..files.outputs import check_distinct, check_output, staged
from ..model.earth_style import EarthStyle, StyleDraw, StyleSettings, image_seed
from ..raster.scene import Scene, files_behind
from .bank import load_earth_style

WINDOW = 512
"""Largest side in pixels of the shown central part, as in a training crop."""

_PANEL = 384  # longer side of a picture in the grid
_MARGIN, _HEADER, _FONT_SIZE = 12, 44, 20
_INK = (40, 40, 40)


def write_style_preview(
    image: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    alpha: float = StyleSettings.alpha,
    mask_ratio: float = StyleSettings.mask_ratio,
    block_size: int = StyleSettings.block_size,
    residual: bool = StyleSettings.residual,
    low_pass: float = StyleSettings.low_pass,
    seed: int = 0,
    draws: int = 4,
    bank: str | os.PathLike[str] | None = None,
    networks: str | os.PathLike[str] | None = None,
    bands: Sequence[int] | None = None,
    nodata: Sequence[float] | None = None,
    palette_as_image: bool = False,
    overwrite: bool = False,
) -> None:
    """Writes the picture of `crossearth style-preview`.

    Args:
        image: Any raster; the picture shows its central part, at most 512 x 512 pixels.
        out: Output file; its name ends in .png.
        alpha, mask_ratio, block_size, residual, low_pass: As in `StyleSettings`.
        seed: First number of the seeds.
        draws: Number of styles, each a row of the picture.
        bank: A file of `crossearth style-bank`; None for the bank of the networks' file.
        networks: A file of `EarthStyle.save`; None for the package's own.
        bands: One or three band numbers, counted from 1.
        nodata, palette_as_image: As in `Scene`.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: A number is out of range, the image cannot be read or is smaller than a block, the bank is invalid,
            or the output cannot be written.
    """
    others = [path for path in (bank, networks) if path is not None]
    check_distinct([*files_behind(image), *others], [Path(os.path.realpath(out))])
    target = check_output(out, (".png",), overwrite=overwrite)
    try:
        settings = StyleSettings(
            alpha=alpha,
            mask_ratio=mask_ratio,
            block_size=block_size,
            residual=residual,
            low_pass=low_pass,
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    style = load_earth_style(networks, bank)
    pixels = _middle(image, bands=bands, nodata=nodata, palette_as_image=palette_as_image)
    page = draw_style_preview(pixels, style, settings, seed=seed, draws=draws)
    with staged([target]) as (stage,):
        page.save(stage)


def draw_style_preview(
    pixels: np.ndarray, style: EarthStyle, settings: StyleSettings, *, seed: int = 0, draws: int = 4
) -> Image.Image:
    """Draws a grid with a row for each style: the original, the whole image in the style, and the mix.

    Args:
        pixels: (3, H, W) uint8 RGB.
        style: Networks and bank.
        settings: Strength and mask; the probability is not used here.
        seed: First number of the seeds, 0 or more.
        draws: Number of rows, 1 or more.

    Raises:
        InputError: A block is larger than the image, the image is too small for the networks, or a number is invalid.
    """
    clean = torch.from_numpy(np.array(pixels, dtype=np.float32) / 255)[None]  # (1, 3, H, W)
    height, width = clean.shape[-2:]
    if seed < 0 or draws < 1:
        raise InputError(
            f"seed {seed} with {draws} draws gives no picture; the seed must be 0 or more, and draws 1 or more"
        )
    try:
        strength = settings.alpha, settings.residual, settings.low_pass
        drawn = [
            StyleDraw.from_seed(image_seed(seed, i), settings, height, width) for i in range(draws)
        ]
        with torch.inference_mode():
            pictures = [style.render(clean, draw.noise[None], *strength) for draw in drawn]
    except ValueError as error:
        raise InputError(str(error)) from error
    rows = [
        [clean, styled, torch.where(draw.keep, clean, styled)]
        for draw, styled in zip(drawn, pictures, strict=True)
    ]
    share = f"{100 * settings.mask_ratio:g} % of {settings.block_size} px blocks"
    return _grid(rows, ["original", f"Earth style, alpha {settings.alpha:g}", f"mix: {share}"])


def _middle(image: str | os.PathLike[str], **reading: Any) -> np.ndarray:
    """(3, H, W) uint8 of the middle of a raster, at most `WINDOW` pixels on a side."""
    with Scene(image, **reading) as scene:
        grid = scene.grid
        height, width = min(WINDOW, grid.height), min(WINDOW, grid.width)
        row, col = (grid.height - height) // 2, (grid.width - width) // 2
        return scene.read(row, col, height, width).pixels


def _grid(rows: list[list[Tensor]], titles: list[str]) -> Image.Image:
    """Rows of (1, 3, H, W) pictures in [0, 1] under their titles."""
    height, width = rows[0][0].shape[-2:]
    zoom = _PANEL / max(height, width)
    panel = max(1, round(width * zoom)), max(1, round(height * zoom))
    font = ImageFont.load_default(_FONT_SIZE)
    size = (
        len(titles) * (panel[0] + _MARGIN) + _MARGIN,
        _HEADER + len(rows) * (panel[1] + _MARGIN),
    )
    page = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)
    for column, title in enumerate(titles):
        x = _MARGIN + column * (panel[0] + _MARGIN)
        draw.text((x + panel[0] // 2, _HEADER // 2), title, fill=_INK, font=font, anchor="mm")
        for row, pictures in enumerate(rows):
            pixels = pictures[column][0].mul(255).round().byte().permute(1, 2, 0).numpy()
            picture = Image.fromarray(pixels).resize(panel, Image.Resampling.BICUBIC)
            page.paste(picture, (x, _HEADER + row * (panel[1] + _MARGIN)))
    return page
