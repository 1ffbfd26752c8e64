"""Example scenes, made once and kept in a folder: drawings by SynthEarth of several domains, and a photograph."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..files.outputs import staged
from ..raster.writing import write_geotiff
from ..synthetic import generate_scene

_THUMBNAIL = 240  # pixels on a side
_SEED = 3


@dataclass(frozen=True)
class Example:
    """A scene to try: its name, its file and a small picture of it."""

    title: str
    scene: Path
    thumbnail: Path


_PHOTOGRAPH = Path(__file__).parent / "static" / "yellowstone.jpg"
_DOMAINS = {
    "temperate-summer": "Temperate town, with infrared",
    "temperate-winter": "The same town in winter",
    "desert-city": "Desert city",
    "mediterranean-coast": "Mediterranean coast",
    "tropical-town": "Tropical town",
}


def make_examples(folder: Path, side: int = 768) -> list[Example]:
    """Copies the photograph and draws the scenes that are not in `folder` yet, `side` pixels wide and high.

    The first drawing gets a fourth band, near infrared: that of `irrg-summer`, which shows the same town for one seed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    examples = []
    for domain, title in _DOMAINS.items():
        example = Example(title, folder / f"{domain}-{side}.tif", folder / f"{domain}-{side}.png")
        if not (example.scene.exists() and example.thumbnail.exists()):
            _draw(example, domain, side)
        examples.append(example)
    examples.insert(2, _photograph(folder))  # after the town in summer and in winter
    return examples


def _photograph(folder: Path) -> Example:
    """The photograph in the folder, with the small picture of its middle."""
    scene = folder / _PHOTOGRAPH.name
    example = Example("Photograph: forest and meadow", scene, scene.with_suffix(".png"))
    if not (scene.exists() and example.thumbnail.exists()):
        with (
            staged([scene, example.thumbnail]) as (scene_file, thumbnail),
            Image.open(_PHOTOGRAPH) as picture,
        ):
            shutil.copyfile(_PHOTOGRAPH, scene_file)
            ImageOps.fit(picture, (_THUMBNAIL, _THUMBNAIL)).save(thumbnail)
    return example


def _draw(example: Example, domain: str, side: int) -> None:
    scene = generate_scene(domain, _SEED, side, side)
    bands = [*scene.image.transpose(2, 0, 1)]
    if domain == "temperate-summer":
        bands.append(generate_scene("irrg-summer", _SEED, side, side).image[..., 0])
    pixels = np.stack(bands)
    with staged([example.scene, example.thumbnail]) as (scene_file, thumbnail):
        # A fourth band is not transparency.
        write_geotiff(
            scene_file,
            pixels,
            crs=scene.crs,
            transform=scene.transform,
            photometric="RGB",
            alpha="unspecified",
        )
        Image.fromarray(scene.image).resize(
            (_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS
        ).save(thumbnail)
