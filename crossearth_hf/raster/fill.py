"""Pixels without imagery: undeclared fill values, collars, plateaus; and flat classes."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

_LEAST_SHARE = 0.001
_LEAST_SHARE_OF_A_CEILING = (
    0.02  # fewer may be saturated bright roofs; and they hardly change the stretch
)
_FAR, _FAR_AT_THE_BORDER, _FAR_IN_ALL_BANDS = (
    1.0,
    0.5,
    0.05,
)  # in ranges between the 2nd and 98th percentiles
_MIXED = 0.1  # pixels between fill and data (blurred edges), relative to pixels with fill
_SHARED = 0.95  # of the pixels with fill in one band, the share with fill in all bands
_LEAST_OTHERS = 16  # pixels needed to estimate a range

_SCALE_ENDS = {
    1,
    100,
    255,
    1000,
    1023,
    2047,
    4095,
    8191,
    10_000,
    16_383,
}  # where sensors and reflectances saturate
_TYPE_ENDS = {32_767, 65_535}  # the same, but much more often fill
_USUAL_FILLS = {-999, -9999, -99_999, -32_768, 32_767, 65_535, -(2**31), 2**31 - 1, 2**32 - 1}
_SENSELESS = 1e10  # no sensor's unit reaches it

_COLLAR_STEPS = (
    3  # values beside black and white that compression or a sensor's noise leaves in a collar
)
_WIDE = 100.0  # range of values between the 2nd and 98th percentiles at which these steps are near each other
_COLLAR_SHARE = 0.01
_COLLAR_PURITY = 0.5  # share of one color in a collar; dark water varies
_PURE, _PURE_WITHOUT_CORNER = 0.95, 0.99
_PLATEAU_SHARE = 0.02
_PLATEAU_FLATNESS = 0.8  # share of its pixels with four equal neighbors; bright roofs reach 0.7
MOST_CLASSES = 32
"""Largest number of values or colors of a map of classes; our choice."""
_FLAT_SHARE = 0.9
_NEIGHBORS = (
    (np.s_[:, 1:], np.s_[:, :-1]),
    (np.s_[1:], np.s_[:-1]),
)  # pixels and those to the left, or above


@dataclass(frozen=True)
class Fill:
    """A value that probably means no data.

    Attributes:
        value: The value in the file's units.
        band: Index of the band among the sampled bands.
        share: Share of the sampled pixels with data.
        certain: Whether it is treated as no data; otherwise it may be a saturated sensor.
    """

    value: float
    band: int
    share: float
    certain: bool


def find_fills(values: np.ndarray, masks: np.ndarray) -> list[Fill]:
    """Undeclared fill of the bands of a scene: extreme values of many pixels, far from all other values.

    An extreme value counts as fill if at least 0.1 % of the pixels have it (2 % if it may be a saturated sensor),
    hardly any pixel lies between it and the other values, and its distance from these is at least their range. Half
    that distance is enough if it touches the border, and less for zeros that all bands share. The fill of one band is
    the fill of all bands if the same pixels have it. Values at which reflectances and sensors saturate (1, 4095,
    10000...) are reported, but stay data. These rules are our choice, from the rasters that we know.

    Args:
        values: (bands, H, W) of a numeric type, sampled over the scene.
        masks: (bands, H, W) bool, where a band has data according to the file.
    """
    fills = [
        fill
        for band in range(len(values))
        for fill in _fills_of_band(values[band], masks[band], band)
    ]
    fills += _shared_fills(values, masks, fills)
    return fills + _shared_zeros(values, masks, fills)


def _shared_fills(values: np.ndarray, masks: np.ndarray, fills: list[Fill]) -> list[Fill]:
    """The same fill in the other bands, if the pixels with fill in one band have it in all bands."""
    found = []
    for value in dict.fromkeys(fill.value for fill in fills if fill.certain):
        own = {fill.band for fill in fills if fill.value == value}
        same = (values == value) & masks
        shared = same.all(axis=0).sum()
        if all(shared >= _SHARED * held.sum() for held in same):
            share = float(shared / max(1, masks.any(axis=0).sum()))
            found += [
                Fill(value, band, share, certain=True)
                for band in range(len(values))
                if band not in own
            ]
    return found


def _shared_zeros(values: np.ndarray, masks: np.ndarray, fills: list[Fill]) -> list[Fill]:
    """Zeros that all bands share, for which a smaller distance is enough; none if zero is a known fill."""
    if len(values) == 1 or any(fill.value == 0 for fill in fills):
        return []
    zeros = (values == 0) & masks
    shared = zeros.all(axis=0)
    share = float(shared.sum() / max(1, masks.any(axis=0).sum()))
    others = masks & ~zeros & ~np.isin(values, [fill.value for fill in fills if fill.certain])
    if share < _LEAST_SHARE or not all(
        shared.sum() >= _SHARED * zero.sum()
        and _distance(0, band[other], shared.sum()) >= _FAR_IN_ALL_BANDS
        for zero, band, other in zip(zeros, values, others, strict=True)
    ):
        return []
    return [Fill(0.0, band, share, certain=True) for band in range(len(values))]


def _fills_of_band(values: np.ndarray, mask: np.ndarray, band: int) -> list[Fill]:
    """The fills of an (H, W) band; each fill is excluded from the search for the next one."""
    total, fills, mask = int(mask.sum()), list[Fill](), mask.copy()
    while mask.any():
        data = values[mask]
        ends = data.min(), data.max()
        core = data[(data != ends[0]) & (data != ends[1])]
        found = next(
            (fill for end in ends if (fill := _judged(end, values, mask, core, band, total))), None
        )
        if found is None or len(fills) > 8:
            break
        fills.append(found)
        mask &= values != found.value
    return fills


def _judged(
    end: np.generic, values: np.ndarray, mask: np.ndarray, core: np.ndarray, band: int, total: int
) -> Fill | None:
    """The fill for an extreme value of a band, or None; `core` are the values between both extremes."""
    value, same = float(end), mask & (values == end)
    share = same.sum() / total
    usual = value in _USUAL_FILLS or abs(value) >= _SENSELESS
    if len(core) < _LEAST_OTHERS or core.min() == core.max():
        is_two_valued = len(core) == 0 and share < 1
        certain = not (is_two_valued and value in _TYPE_ENDS)  # black and white in 16 bits
        if usual and share >= _LEAST_SHARE:
            return Fill(value, band, share, certain)
        return None
    distance = _distance(value, core, int(same.sum()))
    if share < _LEAST_SHARE or distance < _FAR_AT_THE_BORDER:
        return None
    may_saturate = value in _SCALE_ENDS and value > core.max()
    if _border_share(same) >= 0.5 and not may_saturate:
        return Fill(value, band, share, certain=True)
    if distance < _FAR:
        return None
    if value in _TYPE_ENDS:
        needed = _LEAST_SHARE_OF_A_CEILING
    else:
        needed = _LEAST_SHARE
    return Fill(value, band, share, certain=value not in _SCALE_ENDS and share >= needed)


def _distance(value: float, others: np.ndarray, count: int) -> float:
    """Distance of `value`, which `count` pixels have, from the others, relative to their range; 0 if pixels lie "
    "between."""
    if len(others) < _LEAST_OTHERS:
        return 0.0
    low, high = (float(limit) for limit in np.percentile(others, (2, 98)))
    if value < low:
        nearest = low
    else:
        nearest = high
    if low <= value <= high:
        return 0.0
    halfway = nearest + (value - nearest) / 2
    between = int((others < halfway).sum() if value < low else (others > halfway).sum())
    spread = max(high - low, 0.05 * max(abs(low), abs(high)), np.finfo(np.float32).tiny)
    if between <= _MIXED * count:
        return abs(value - nearest) / spread
    return 0.0


def _border_share(same: np.ndarray) -> float:
    """Share of an (H, W) bool region that is connected to the border."""
    return float(border_connected(same).sum() / max(1, same.sum()))


def border_connected(region: np.ndarray) -> np.ndarray:
    """The parts of an (H, W) bool region that touch the border."""
    parts, _ = ndimage.label(region)
    return np.isin(parts, _touching_border(parts))


def _touching_border(parts: np.ndarray) -> np.ndarray:
    """Numbers above 0 on the border of (H, W) numbered parts, ascending."""
    first_and_last = [parts[0], parts[-1], parts[:, 0], parts[:, -1]]
    numbers = np.unique(np.concatenate(first_and_last))
    return numbers[numbers > 0]


@dataclass(frozen=True)
class Collar:
    """A constant black or white region at the border of a scene.

    Attributes:
        color: "black" or "white".
        share: Share of the sampled pixels with data.
        values: Values of its pixels, if excluding these values removes little else; empty if compression has blurred
            the region.
    """

    color: str
    share: float
    values: tuple[int, ...]


def find_collars(values: np.ndarray, valid: np.ndarray) -> list[Collar]:
    """Black and white collars of at least 1 % of a scene.

    A collar is a region at the border that includes a corner and has one color in half of it, or that includes no
    corner and has one color in 99 % of it: bright roofs and dark water also touch the border, but vary. The rules are
    our choice, from 600 pictures.

    Args:
        values: (bands, H, W) of a numeric type, spread over the scene; white is recognized in 8 bits only.
        valid: (H, W) bool.
    """
    is_byte = values.dtype == np.uint8
    collars = []
    for color, end in (("black", 0), ("white", 255)) if is_byte else (("black", 0),):
        steps = np.abs(values.astype(np.float64) - end)
        if is_byte:
            tolerance = _COLLAR_STEPS
        else:
            tolerance = _noise_of_black(values[:, valid])
        is_noisy = tolerance > 0 and not is_byte
        near = valid & (steps <= tolerance).all(axis=0)
        region = _collar_region(steps, near, may_vary=is_noisy)
        share = float(region.sum() / max(1, valid.sum()))
        if share >= _COLLAR_SHARE:
            held = (
                _held_by_byte_collar(steps[:, region], end)
                if is_byte
                else np.unique(values[:, region])
            )
            collars.append(Collar(color, share, tuple(int(value) for value in held)))
    return collars


def _noise_of_black(data: np.ndarray) -> int:
    """Largest black value in (bands, N) data of more than 8 bits: 0, unless the data have a wide range."""
    if data.dtype.kind not in "iu" or data.size == 0:
        return 0
    low, high = np.percentile(data, (2, 98))
    if high - low >= _WIDE * _COLLAR_STEPS:
        return _COLLAR_STEPS
    return 0


def _held_by_byte_collar(steps: np.ndarray, end: int) -> list[int]:
    """The value that at least 95 % of (bands, N) pixels, given as steps from `end`, have in all bands, if any."""
    purity, usual = _usual_color(steps)
    is_exact = purity >= _PURE and len(np.unique(usual)) == 1
    if is_exact:
        return [int(abs(end - usual[0]))]
    return []


@dataclass(frozen=True)
class Plateau:
    """A value that all bands have in flat regions: perhaps no data, a saturated sensor or still water.

    Attributes:
        value: The value in the file's units.
        share: Share of the sampled pixels with data.
    """

    value: float
    share: float


def find_plateau(values: np.ndarray, valid: np.ndarray) -> Plateau | None:
    """The value that all bands have in flat regions of at least 2 % of a scene, or None.

    In 8 bits only 0 and 255 count, in a single band only its smallest and largest value, otherwise any value; this is
    our choice. In 914 pictures and rasters it found a black pond and two white roofs, so the value stays data and is
    only reported.

    Args:
        values: (bands, H, W) of a numeric type, spread over the scene.
        valid: (H, W) bool.
    """
    same = valid & (values == values[0]).all(axis=0)
    if not same.any():
        return None
    held = values[0][same]
    if values.dtype == np.uint8:
        candidates = np.array([0, 255])
    elif len(values) == 1:
        candidates = np.array([held.min(), held.max()])
    else:
        found, counts = np.unique(held, return_counts=True)
        candidates = found[[counts.argmax()]]
    plateaus = [
        _plateau_of(value, same & (values[0] == value), int(valid.sum())) for value in candidates
    ]
    known = [plateau for plateau in plateaus if plateau is not None]
    return max(known, key=lambda plateau: plateau.share, default=None)


def _plateau_of(value: np.generic, region: np.ndarray, total: int) -> Plateau | None:
    """The plateau of a value in an (H, W) bool region; None if it is small, rough, or the whole scene."""
    size = int(region.sum())
    if size == total or size < _PLATEAU_SHARE * total:
        return None
    inner = ndimage.binary_erosion(region, border_value=1)
    if inner.sum() >= _PLATEAU_FLATNESS * size:
        return Plateau(float(value), size / total)
    return None


def _collar_region(steps: np.ndarray, near: np.ndarray, *, may_vary: bool) -> np.ndarray:
    """(H, W) bool, the parts of `near` that are collars; `steps` (bands, H, W) tell colors apart.

    Parts with a corner need no dominant color if they `may_vary`.
    """
    parts, _ = ndimage.label(near)
    corners = parts[[0, 0, -1, -1], [0, -1, 0, -1]]
    sizes = np.bincount(parts.ravel())
    touching = _touching_border(parts)
    chosen = []
    for part in touching[sizes[touching] >= _LEAST_SHARE * near.size]:
        holds_corner = part in corners
        if holds_corner:
            needed = _COLLAR_PURITY
        else:
            needed = _PURE_WITHOUT_CORNER
        purity, _ = _usual_color(steps[:, parts == part])
        if purity >= needed or (holds_corner and may_vary):
            chosen.append(part)
    return np.isin(parts, chosen)


def _usual_color(colors: np.ndarray) -> tuple[float, np.ndarray]:
    """The most frequent of (bands, N) colors: its share, and (bands,) itself."""
    # much faster to count than columns
    codes = (_COLLAR_STEPS + 1.0) ** np.arange(len(colors)) @ colors
    _, first, counts = np.unique(codes, return_index=True, return_counts=True)
    return float(counts.max() / colors.shape[1]), colors[:, first[counts.argmax()]]


def count_flat_classes(
    values: np.ndarray, pieces: Iterable[tuple[np.ndarray, np.ndarray]], fewest: int = 2
) -> int | None:
    """Number of values of a band if they are few and in flat regions, like classes; None for imagery.

    Few means `fewest` to 32 values. Flat means that 90 % of the neighbors are equal; photographs in 16 colors reach
    80 %.

    Args:
        values: The different values of the band.
        pieces: (H, W) values and (H, W) validity of windows at full resolution.
    """
    if not fewest <= len(values) <= MOST_CLASSES:
        return None
    equal = pairs = 0
    for piece, valid in pieces:
        for one, other in _NEIGHBORS:
            both = valid[one] & valid[other]
            equal += int((both & (piece[one] == piece[other])).sum())
            pairs += int(both.sum())
    if pairs and equal >= _FLAT_SHARE * pairs:
        return len(values)
    return None


def is_transparency(alpha: np.ndarray) -> bool:
    """Whether (H, W) values of a band marked as alpha are transparency, and not data with a wrong mark.

    A quarter of the pixels that are not fully transparent must have the same value: soft edges are few, while the near
    infrared has many values.
    """
    shown = alpha[alpha > 0]
    if shown.size == 0:
        return True
    counts = np.unique(shown, return_counts=True)[1]
    return bool(counts.max() >= 0.25 * shown.size)
