"""Places of tiles in an image."""

from math import ceil

Tile = tuple[int, int, int, int]
"""Row, column, height and width in pixels."""


def starts(length: int, tile: int) -> list[int]:
    """Starts of tiles along one axis: every `tile` pixels, the last shifted back to end at the border."""
    return [min(index * tile, max(length - tile, 0)) for index in range(ceil(length / tile))]


def windows(height: int, width: int, tile: int | None) -> list[Tile]:
    """Tiles of an image, row by row; the whole image if `tile` is None.

    The rule of mmsegmentation's converters for Potsdam and Vaihingen: they step by the tile's side whatever their
    --stride_size says, shift the last row and column to the border, and overwrite the duplicates that this makes.
    ceil(height / tile) * ceil(width / tile) tiles remain. An image smaller than a tile is kept as it is.
    """
    if tile is None:
        return [(0, 0, height, width)]
    return [
        (row, col, min(tile, height), min(tile, width))
        for row in starts(height, tile)
        for col in starts(width, tile)
    ]
