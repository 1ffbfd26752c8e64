"""What another sensor would show: versions of a scene in other styles or bands, and the model's map of each."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import InputError
from ..inference.windows import normalize, resolve_window, sliding_window_scores
from ..labels import IGNORE_INDEX
from ..model.earth_style import EarthStyle, StyleSettings, image_seed
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..raster.admission import SCENE_DRIVER
from ..raster.scene import Raster, Scene
from ..styles.preview import WINDOW

BAND_ORDERS = ("RGB", "IRRG")
_SMALLEST = 32  # pixels on a side; the style networks see nothing in less
_BLOCK = 64


@dataclass(frozen=True)
class Version:
    """A scene as another domain would show it.

    Attributes:
        title: What was done to it.
        raster: Its pixels.
        labels: (H, W) uint8 map, 255 without data.
        agreement: Share of the pixels with data that keep the class they have in the original; None for the original.
    """

    title: str
    raster: Raster
    labels: np.ndarray
    agreement: float | None


def compare_versions(
    scene: Scene,
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    style: EarthStyle,
    *,
    alpha: float,
    mask_ratio: float,
    seed: int,
    infrared: Scene | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> list[Version]:
    """Maps the middle of a scene, at most 512 x 512 pixels, as it is and in an Earth style.

    Args:
        scene: An open scene.
        model, processor: As `load_model` gives them.
        style: Networks and bank.
        alpha, mask_ratio: As in `StyleSettings`.
        seed: Seed of the style.
        infrared: The same scene in near infrared, red and green; shown too, and styled instead of the original.
        on_step: Called with the versions mapped so far and their number.

    Raises:
        InputError: A number is out of range, the scene has no data or fewer than 32 pixels on a side, or the model does
            not take three bands.
    """
    if model.config.num_channels != 3:
        raise InputError(
            f"this model takes {model.config.num_channels} bands, but styles have three; choose another model"
        )
    try:
        block = min(_BLOCK, scene.grid.height, scene.grid.width)
        settings = StyleSettings(
            probability=1, alpha=alpha, mask_ratio=mask_ratio, block_size=block
        )
        number = image_seed(seed, 0)
    except ValueError as error:
        raise InputError(str(error)) from error
    rasters = [("As it was taken", middle(scene))]
    if infrared is not None:
        rasters.append(("In near infrared, red and green", middle(infrared)))
    rasters.append(
        ("As another sensor might show it", _restyled(rasters[-1][1], style, settings, number))
    )
    versions: list[Version] = []
    for title, raster in rasters:
        labels = _map(raster, model, processor)
        if versions:
            agreement = _agreement(labels, versions[0].labels)
        else:
            agreement = None
        versions.append(Version(title, raster, labels, agreement))
        if on_step is not None:
            on_step(len(versions), len(rasters))
    return versions


def middle(scene: Scene) -> Raster:
    """The middle of a scene, at most 512 x 512 pixels; raises `InputError` if it is too small or without data."""
    height, width = min(WINDOW, scene.grid.height), min(WINDOW, scene.grid.width)
    if min(height, width) < _SMALLEST:
        raise InputError(
            f"{scene.path} has {width} x {height} pixels; a style needs at least {_SMALLEST} on a side"
        )
    raster = scene.read(
        (scene.grid.height - height) // 2, (scene.grid.width - width) // 2, height, width
    )
    if not raster.valid.any():
        raise InputError(
            f"the middle of {scene.path} has no pixel with data; cut out a part with data"
        )
    return raster


def infrared_scene(scene: Scene) -> Scene:
    """The same file, opened as near infrared (its band 4), red and green; close it.

    Raises:
        InputError: The file has fewer than four bands.
    """
    try:
        return Scene(scene.path, bands=[4, *scene.bands[:2]], driver=SCENE_DRIVER)
    except InputError as error:
        raise InputError(
            "IRRG needs a fourth band with the near infrared, which this file does not have; take a scene of four "
            "bands, such as the first example, or choose RGB"
        ) from error


def _restyled(raster: Raster, style: EarthStyle, settings: StyleSettings, seed: int) -> Raster:
    image = torch.from_numpy(np.array(raster.pixels, dtype=np.float32) / 255)[None]  # (1, 3, H, W)
    injected, _ = style.inject(image, settings, [seed])
    pixels = injected[0].mul(255).round().byte().numpy()
    return Raster(pixels, raster.valid, raster.crs, raster.transform)


def _map(
    raster: Raster, model: CrossEarthForSemanticSegmentation, processor: CrossEarthImageProcessor
) -> np.ndarray:
    """(H, W) uint8 labels."""
    window, stride = resolve_window(model.config, None, None)
    pixel_values = normalize(raster, processor)[None].to(model.device)
    scores = sliding_window_scores(model, pixel_values, window, stride)[0]
    return np.where(raster.valid, scores.argmax(dim=0).cpu().numpy(), IGNORE_INDEX).astype(np.uint8)


def _agreement(labels: np.ndarray, others: np.ndarray) -> float:
    known = (labels != IGNORE_INDEX) & (others != IGNORE_INDEX)
    return float((labels == others)[known].mean())
