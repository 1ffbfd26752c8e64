"""Miniatures of published archives: the structure and file names of the real ones, small images with known labels."""

import io
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

ISPRS_COLORS = {  # as published, written here again on purpose
    "impervious_surface": (255, 255, 255),
    "building": (0, 0, 255),
    "low_vegetation": (0, 255, 255),
    "tree": (0, 255, 0),
    "car": (255, 255, 0),
    "clutter": (255, 0, 0),
    "boundary": (0, 0, 0),
}


def picture(seed: int, height: int, width: int, bands: int = 3, dtype: str = "uint8") -> np.ndarray:
    """(H, W, bands) of smooth noise."""
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    coarse = rng.integers(0, top, (height // 16 + 2, width // 16 + 2, bands))
    fine = rng.integers(0, top // 16, (height, width, bands))
    return (coarse.repeat(16, 0).repeat(16, 1)[:height, :width] * 15 // 16 + fine).astype(dtype)


def class_map(seed: int, height: int, width: int, values: int) -> np.ndarray:
    """(H, W) uint8 of blocks with all values 0..values-1."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, values, (height // 8 + 1, width // 8 + 1))
    coarse.flat[:values] = range(values)
    return coarse.repeat(8, 0).repeat(8, 1)[:height, :width].astype(np.uint8)


def isprs_colored(names: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of positions in `ISPRS_COLORS`."""
    return np.array(list(ISPRS_COLORS.values()), np.uint8)[names]


def tiff(pixels: np.ndarray, **profile: object) -> bytes:
    """A plain TIFF of (H, W, bands)."""
    height, width, bands = pixels.shape
    with warnings.catch_warnings(), MemoryFile() as memory:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with memory.open(
            driver="GTiff",
            height=height,
            width=width,
            count=bands,
            dtype=pixels.dtype,
            interleave="pixel",
            **profile,
        ) as target:
            target.write(pixels.transpose(2, 0, 1))
        return bytes(memory.getbuffer())


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    """(H, W) or (H, W, 3) uint8 as PNG or JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def write_archive(path: Path, files: Mapping[str, bytes], *, zipped: bool = True) -> Path:
    """A zip, or a folder called like it without its ending, with these files."""
    if zipped:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    folder = path.with_suffix("")
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def potsdam(
    root: Path,
    tiles: tuple[str, ...] = ("2_10", "3_11", "2_13"),
    size: tuple[int, int] = (600, 700),
    *,
    zipped: bool = True,
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Both image archives and the eroded labels; returns RGB, IRRG and positions in `ISPRS_COLORS` per tile."""
    content = {
        tile: (
            picture(index, *size),
            picture(100 + index, *size),
            class_map(index, *size, len(ISPRS_COLORS)),
        )
        for index, tile in enumerate(tiles)
    }
    rgb = {
        f"2_Ortho_RGB/top_potsdam_{tile}_RGB.tif": tiff(parts[0]) for tile, parts in content.items()
    }
    world = {
        f"2_Ortho_RGB/top_potsdam_{tile}_RGB.tfw": b"0.05\n0\n0\n-0.05\n0\n0\n" for tile in tiles
    }
    write_archive(root / "3_Ortho_RGB.zip", rgb | world, zipped=zipped)
    irrg = {
        f"3_Ortho_IRRG/top_potsdam_{tile}_IRRG.tif": tiff(parts[1])
        for tile, parts in content.items()
    }
    write_archive(root / "3_Ortho_IRRG.zip", irrg, zipped=zipped)
    labels = {
        f"top_potsdam_{tile}_label_noBoundary.tif": tiff(isprs_colored(parts[2]))
        for tile, parts in content.items()
    }
    write_archive(root / "5_Labels_all_noBoundary.zip", labels, zipped=zipped)
    return content


def vaihingen(
    root: Path, areas: Mapping[str, tuple[int, int]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Both archives for areas of (height, width); returns image and positions in `ISPRS_COLORS` per area."""
    content = {
        area: (picture(index, *size), class_map(index, *size, len(ISPRS_COLORS)))
        for index, (area, size) in enumerate(areas.items())
    }
    images = {f"top/top_mosaic_09cm_{area}.tif": tiff(parts[0]) for area, parts in content.items()}
    # The participants' archive also holds labels with boundaries, under the names of the images.
    decoys = {
        f"gts_for_participants/top_mosaic_09cm_{area}.tif": tiff(isprs_colored(parts[1]))
        for area, parts in content.items()
    }
    write_archive(root / "ISPRS_semantic_labeling_Vaihingen.zip", images | decoys)
    labels = {
        f"top_mosaic_09cm_{area}_noBoundary.tif": tiff(isprs_colored(parts[1]))
        for area, parts in content.items()
    }
    write_archive(
        root / "ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE.zip", labels
    )
    return content


def loveda(
    root: Path, names: Mapping[str, tuple[str, ...]], size: int = 64, *, zipped: bool = True
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Archives of parts such as {"Train/Urban": ("1366",)}; returns image and published ids (0: no data) of each."""
    content, archives = {}, {}
    for part, numbers in names.items():
        for number in numbers:
            seed = int(number)
            image, mask = picture(seed, size, size), class_map(seed, size, size, 8)
            content[f"{part}/{number}"] = image, mask
            files = archives.setdefault(part.split("/")[0], {})
            files[f"{part}/images_png/{number}.png"] = encoded(image, "PNG")
            files[f"{part}/masks_png/{number}.png"] = encoded(mask, "PNG")
    for archive, files in archives.items():
        write_archive(root / f"{archive}.zip" if zipped else root / "x.zip", files, zipped=zipped)
    return content
