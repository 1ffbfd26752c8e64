"""SynthEarth: procedural towns seen from above, with exact labels and controllable domain shifts.

A scene is planned in meters (water, streets, blocks, parcels, houses, trees), drawn as rasters of label, sunlit color
and height, and photographed (cast shadows, haze, blur, noise). It is the offline default of demo, examples and tests
and never evidence of generalization.
"""

import io
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from PIL import Image

from ..errors import InputError
from ..files.outputs import check_distinct, check_output, staged
from ..raster.writing import write_geotiff
from .domains import DOMAINS, Region, SyntheticDomain
from .drawing import draw, photograph
from .plan import LABEL_SET, Canvas, make_plan

if TYPE_CHECKING:
    import datasets

__all__ = [
    "DOMAINS",
    "Region",
    "SyntheticDomain",
    "SyntheticScene",
    "generate_scene",
    "synthetic_dataset",
    "write_scene",
]

LARGEST_SIDE = 16_384
"""Pixels of a scene's longer side."""


@dataclass(frozen=True)
class SyntheticScene:
    """A drawn scene.

    Attributes:
        image: (H, W, 3) uint8 in the domain's band order.
        labels: (H, W) uint8 ids of the "land-cover" label set; shadows do not change them.
        domain, seed: What the scene was drawn from.
        transform: North-up transform from pixels to meters.
        crs: UTM zone as "EPSG:code".
    """

    image: np.ndarray
    labels: np.ndarray
    domain: str
    seed: int
    transform: Affine
    crs: str


def generate_scene(domain: str, seed: int, height: int = 1024, width: int = 1024) -> SyntheticScene:
    """Draws a scene, the same to the last bit for the same arguments.

    Args:
        domain: A name of `DOMAINS`.
        seed: 0 or more. Domains that share region and resolution draw the same labels for one seed and size.
        height, width: Size in pixels, from 1 to `LARGEST_SIDE`.

    Raises:
        InputError: The domain is unknown, the seed is negative, or the size is out of range.
    """
    if domain not in DOMAINS:
        raise InputError(
            f"unknown SynthEarth domain '{domain}'; choose one of {', '.join(DOMAINS)}"
        )
    if min(height, width) < 1 or seed < 0:
        raise InputError(
            f"{height}x{width} px with seed {seed} cannot be drawn; give a size of at least 1x1 and a seed of 0 or more"
        )
    if max(height, width) > LARGEST_SIDE:
        raise InputError(
            f"a scene of {height}x{width} px is too large to draw; give a size of {LARGEST_SIDE} or less"
        )
    spec = DOMAINS[domain]
    # includes field names: renaming one would redraw all scenes
    region_seed = zlib.crc32(repr(spec.region).encode())
    canvas = Canvas(spec, np.random.default_rng([seed, region_seed]), height, width)
    draw(canvas, make_plan(canvas))
    rng = np.random.default_rng([seed, zlib.crc32(domain.encode())])
    code, northing = spec.utm
    origin = rng.integers((400_000, 1000 * northing), (600_000, 1000 * northing + 40_000))
    gsd = spec.ground_sampling_distance
    return SyntheticScene(
        image=canvas.crop(photograph(canvas, rng)),
        labels=canvas.crop(canvas.labels),
        domain=domain,
        seed=seed,
        transform=Affine(gsd, 0, float(origin[0]), 0, -gsd, float(origin[1])),
        crs=f"EPSG:{code}",
    )


def write_scene(
    scene: SyntheticScene, path: str | Path, *, overwrite: bool = False
) -> tuple[Path, Path]:
    """Writes image and labels as georeferenced, tiled GeoTIFFs; the labels carry a color table.

    Args:
        scene: What to write.
        path: File of the image, .tif or .tiff; the file of the labels has `_labels` before the suffix.
        overwrite: Whether existing files may be replaced.

    Returns:
        The two files.

    Raises:
        InputError: A file exists already or cannot be written; then no new file is left.
    """
    path = Path(path)
    labels_path = path.with_name(f"{path.stem}_labels{path.suffix}")
    check_distinct([], [Path(os.path.realpath(target)) for target in (path, labels_path)])
    targets = [
        check_output(target, (".tif", ".tiff"), overwrite=overwrite)
        for target in (path, labels_path)
    ]
    with staged(targets) as (image, labels):
        write_geotiff(
            image, scene.image.transpose(2, 0, 1), crs=scene.crs, transform=scene.transform
        )
        write_geotiff(
            labels,
            scene.labels[None],
            crs=scene.crs,
            transform=scene.transform,
            label_set=LABEL_SET,
        )
    return path, labels_path


def synthetic_dataset(
    domain: str, count: int, *, size: int = 512, seed: int = 0
) -> "datasets.Dataset":
    """`count` square scenes of `size` pixels as a data set; scene i is `generate_scene(domain, seed + i, size, size)`.

    Returns:
        Columns `image` (RGB or IRRG picture), `label` (picture of mode L with the ids), `domain` and `seed`.

    Raises:
        InputError: `count` is below 1, a scene cannot be drawn, or the package `datasets` is missing.
    """
    if count < 1:
        raise InputError(f"a data set needs 1 or more scenes, not {count}")
    try:
        import datasets  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise InputError(
            "the package 'datasets' is missing; run: pip install crossearth-hf[train]"
        ) from error
    columns: dict[str, list] = {"image": [], "label": [], "domain": [domain] * count, "seed": []}
    for index in range(seed, seed + count):
        scene = generate_scene(domain, index, size, size)
        columns["image"].append({"bytes": _png(scene.image), "path": None})
        columns["label"].append({"bytes": _png(scene.labels), "path": None})
        columns["seed"].append(index)
    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.Image(mode="L"),
        domain=datasets.Value("string"),
        seed=datasets.Value("int64"),
    )
    return datasets.Dataset.from_dict(columns, features=features)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
