"""Sentences beside a map that may not be trusted. All limits are our choices."""

from ..raster.grid import Grid

LEAST_CONFIDENCE = 0.7
"""Mean confidence below which a map is doubted. crossearth-small has 0.76 to 0.87 on the eight domains of
SynthEarth, one scene each."""

LARGEST_PIXEL = 3.0
"""Meters above which buildings and roads are doubted; crossearth-small learned them from pixels of 0.07 to 1 m."""

_SMALL_THINGS = ("building", "road")


def doubts(
    grid: Grid,
    bands: int,
    classes: tuple[str, ...],
    confidence: float | None,
    trained_at: float | None,
) -> tuple[str, ...]:
    """Why a map may not be trusted.

    Args:
        grid: The grid that the model has seen.
        bands: Number of bands that became colors.
        classes: Of the model.
        confidence: Mean confidence of the pixels with data; None if it is unknown.
        trained_at: `ground_sampling_distance` of the model, for which `resolution_advice` speaks; None if unknown.

    Returns:
        One sentence for each reason.
    """
    found = []
    if bands == 1:
        found.append(
            "The scene has one band, read as gray, and the model learned from colors: check the map by eye"
        )
    size = grid.pixel_size()
    small = [name for name in _SMALL_THINGS if name in classes]
    if trained_at is None and size is not None and min(size) > LARGEST_PIXEL and small:
        found.append(
            f"Pixels of {min(size):.3g} m hardly show any {' or '.join(small)}: at more than {LARGEST_PIXEL:g} m (our "
            "limit), trust such classes only where you can see them yourself"
        )
    if confidence is not None and confidence < LEAST_CONFIDENCE:
        found.append(
            f"The model is unsure of this scene: its mean confidence is {confidence:.2f}, and below "
            f"{LEAST_CONFIDENCE:g} (our limit) it may not know such imagery; look at the confidence and check by eye"
        )
    return tuple(found)
