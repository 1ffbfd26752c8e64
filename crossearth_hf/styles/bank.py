"""Style banks from imagery: mean and covariance of the styles of tiles of rasters, at several scales."""

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.image_files import IMAGE_SUFFIXES
from ..errors import InputError
from ..files.outputs import check_distinct, check_output, staged
from ..model.earth_style import EarthStyle
from ..model.style_bank import StyleBank
from ..model.style_networks import STYLE_SIZE, Predictor
from ..progress import progress_bar
from ..raster.scene import Scene, bounded_cache, files_behind

TILE = 256
"""Side of the tiles in pixels, as for the published style predictor."""
SCALES = (1, 2, 4)
"""Sizes of tiles as multiples of `TILE`; larger tiles are averaged down to it, for styles at several resolutions."""

_VALID_SHARE = 0.9
_BATCH = 16


def write_style_bank(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    bands: Sequence[int] | None = None,
    nodata: Sequence[float] | None = None,
    palette_as_image: bool = False,
    networks: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> StyleBank:
    """Computes the bank of a folder and writes it, for `crossearth style-bank`.

    Args:
        folder: `FOLDER` or `FOLDER:GLOB`, see `find_rasters`.
        out: Output file; its name ends in .safetensors.
        bands: One or three band numbers, counted from 1, as in `Scene`.
        nodata, palette_as_image: As in `Scene`.
        networks: A file of `EarthStyle.save`; None for the package's own.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: There are no rasters or too few tiles, a raster is damaged, or the output cannot be written.
    """
    paths = find_rasters(folder)
    read: list[str | os.PathLike[str]] = [*paths]
    if os.path.lexists(out):
        read = [file for path in paths for file in files_behind(path)]
    if networks is not None:
        read.append(networks)
    check_distinct(read, [Path(os.path.realpath(out))])
    target = check_output(out, (".safetensors",), overwrite=overwrite)
    style = load_earth_style(networks)
    embeddings = embed_rasters(
        paths, style.predictor, bands=bands, nodata=nodata, palette_as_image=palette_as_image
    )
    if len(embeddings) < 2:
        raise InputError(
            f"{folder} gives {len(embeddings)} tiles with data; a style bank needs at least 2, and more than "
            f"{STYLE_SIZE} to vary in every direction: add images"
        )
    sources = [f"{paths[0].parent.resolve().name} ({len(paths)} images)"]
    bank = StyleBank.from_embeddings(embeddings, sources, architecture=style.architecture)
    with staged([target]) as (stage,):
        bank.save(stage)
    return bank


def load_earth_style(
    networks: str | os.PathLike[str] | None = None, bank: str | os.PathLike[str] | None = None
) -> EarthStyle:
    """`EarthStyle.from_file` on a person's files; raises `InputError` if one is missing or of another kind."""
    try:
        return EarthStyle.from_file(_path(networks), bank=_path(bank))
    except ValueError as error:
        raise InputError(str(error)) from error


def _path(file: str | os.PathLike[str] | None) -> Path | None:
    if file is None:
        return None
    return Path(file)


def find_rasters(folder: str | os.PathLike[str]) -> list[Path]:
    """Rasters directly in `FOLDER`, or those of `FOLDER:GLOB` whose name without ending matches the pattern, sorted.

    Raises:
        InputError: The folder does not exist, or holds no raster.
    """
    text = os.fspath(folder)
    root, colon, pattern = text.rpartition(":")
    if not colon or Path(text).is_dir():
        root, pattern = text, "*"
    if not Path(root).is_dir():
        raise InputError(f"{root} is not a folder; name one that holds the rasters")
    files = sorted(path for path in Path(root).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    files = [path for path in files if fnmatch(path.stem, pattern)]
    if not files:
        raise InputError(
            f"{root} holds no raster ({', '.join(IMAGE_SUFFIXES)}) whose name matches '{pattern}'"
        )
    return files


@torch.inference_mode()
def embed_rasters(
    paths: Sequence[Path],
    predictor: Predictor,
    *,
    bands: Sequence[int] | None = None,
    nodata: Sequence[float] | None = None,
    palette_as_image: bool = False,
    step: int = TILE,
) -> Tensor:
    """Style embeddings of the tiles of all rasters.

    Args:
        paths: Rasters; a raster without data adds no tile.
        predictor: Style predictor P_s.
        bands: One or three band numbers, counted from 1, as in `Scene`.
        nodata, palette_as_image: As in `Scene`.
        step: Pixels from tile to tile; less than 256 gives more tiles.

    Returns:
        (N, 100).

    Raises:
        InputError: A raster cannot be read or lacks a band.
    """
    embeddings = [torch.empty(0, STYLE_SIZE)]
    with bounded_cache():
        for path in progress_bar(paths, desc="styles", unit="image"):
            with Scene(
                path, bands=bands, nodata=nodata, palette_as_image=palette_as_image
            ) as scene:
                for scale in SCALES:
                    tiles = list(_tiles(scene, scale, step, predictor.smallest_image))
                    embeddings += [
                        predictor(torch.stack(tiles[i : i + _BATCH]))
                        for i in range(0, len(tiles), _BATCH)
                    ]
    return torch.cat(embeddings)


def _tiles(scene: Scene, scale: int, step: int, smallest: int) -> Iterator[Tensor]:
    """(3, h, w) RGB in [0, 1]: windows of `scale` x 256 pixels with enough data, averaged down to 256.

    A smaller image is one tile at scale 1 if its sides have `smallest` pixels, and no tile at other scales.
    """
    grid, side = scene.grid, scale * TILE
    height, width = min(side, grid.height), min(side, grid.width)
    if scale > 1:
        smallest = side
    if min(height, width) < smallest:
        return
    for row, col in product(
        _starts(grid.height, height, scale * step), _starts(grid.width, width, scale * step)
    ):
        window = scene.read(row, col, height, width)
        if window.valid.mean() >= _VALID_SHARE:
            pixels = torch.from_numpy(window.pixels.astype(np.float32) / 255)
            yield F.avg_pool2d(pixels, scale)


def _starts(length: int, side: int, step: int) -> list[int]:
    """Starts of windows of `side` pixels every `step` pixels; the last window ends at `length`."""
    return [*range(0, length - side, step), length - side]
