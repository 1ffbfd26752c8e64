"""The first look at an upload: a small picture, how it will be read, and what would give a better map."""

from dataclasses import dataclass
from pathlib import Path

from ..prediction import resolution_advice
from ..raster.grid import Grid
from ..raster.polygons import Footprint, footprint
from ..raster.scene import Reading
from .pictures import THUMBNAIL, save_scene
from .uploads import Limits, admitted, notices


@dataclass(frozen=True)
class Look:
    """What the page shows of a scene before it is mapped.

    Attributes:
        picture: JPEG.
        grid: The scene's own grid.
        reading: Its bands and their use, in words.
        place: Where it lies, or None.
        advice: What would give a better map, or None.
        can_be_rescaled: Whether it can be read at the pixel size that the model learned.
        notices: Oddities of the scene, one sentence each.
    """

    picture: Path
    grid: Grid
    reading: str
    place: Footprint | None
    advice: str | None
    can_be_rescaled: bool
    notices: tuple[str, ...]


def look(
    upload: str | Path | None,
    folder: Path,
    limits: Limits,
    reading: Reading,
    trained_at: float | None,
) -> Look:
    """Looks at an upload.

    Args:
        upload: The file as it came.
        folder: An empty folder for the picture.
        limits: Largest sizes.
        reading: How it is read.
        trained_at: Meters per pixel that the model learned, or None.

    Raises:
        InputError: Something is wrong with the upload. The message is a sentence for the page.
    """
    with admitted(upload, folder, limits, reading) as scene:
        scene.check_has_data()
        picture = folder / "scene.jpg"
        save_scene(scene, THUMBNAIL, picture)
        grid = scene.native_grid
        return Look(
            picture,
            grid,
            scene.reading_in_words(),
            footprint(grid),
            advice(grid, trained_at, limits),
            trained_at is not None and _fits_rescaled(grid, trained_at, limits),
            notices(scene, with_fields=True),
        )


def advice(grid: Grid, trained_at: float | None, limits: Limits) -> str | None:
    """A sentence for a scene whose pixels do not suit the model; it names the page's checkbox only where that works."""
    remedy = "reading it at the model's resolution (see the checkbox) may give a better map"
    if (
        trained_at is not None
        and grid.can_be_rescaled(trained_at)
        and not _fits_rescaled(grid, trained_at, limits)
    ):
        remedy = "at that resolution it has too many pixels for this server; cut out a part of it"
    return resolution_advice(grid, trained_at, remedy)


def _fits_rescaled(grid: Grid, meters: float, limits: Limits) -> bool:
    """Whether a scene can be read at another pixel size within the limits."""
    if not grid.can_be_rescaled(meters):
        return False
    rescaled = grid.rescaled(meters)
    return rescaled.width * rescaled.height <= limits.megapixels * 1e6
