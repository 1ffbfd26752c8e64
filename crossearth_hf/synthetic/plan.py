"""The town plan of a SynthEarth scene, in meters, and the canvas for drawing it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageColor

from ..labels import get_label_set
from .domains import Region, SyntheticDomain

Box = tuple[float, float, float, float]
Place = Callable[[np.ndarray], np.ndarray]
Cut = tuple[tuple[float, float], tuple[float, float], float]  # start, end, width
Slices = tuple[slice, slice]

LABEL_SET = get_label_set("land-cover")
LAND, BUILDING, ROAD, WATER, VEGETATION = (
    LABEL_SET.label2id[name] for name in ("land", "building", "road", "water", "vegetation")
)
BANDS = {"RGB": (0, 1, 2), "IRRG": (3, 0, 1)}
_MARGIN = 24.0  # meters drawn around a scene and cropped, for shadows that fall into the scene
_USES = {  # side of a parcel in meters, ground, roofs, trees per hectare
    "park": (math.inf, ("grass",), (), 110.0),
    "wood": (math.inf, ("grass",), (), 420.0),
    "crop": (55.0, ("crop", "crop", "soil"), (), 4.0),
    "bare": (60.0, ("soil", "soil", "paving"), (), 8.0),
    "works": (46.0, ("paving", "soil", "paving"), ("flat", "hip", "gable"), 6.0),
}


def noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> np.ndarray:
    """Smooth (H, W) float32 noise of about unit variance with blobs of `cell` pixels."""
    rows, columns = shape[0] / cell, shape[1] / cell
    coarse = rng.standard_normal((math.ceil(rows) + 3, math.ceil(columns) + 3), dtype=np.float32)
    box = (1.0, 1.0, 1.0 + columns, 1.0 + rows)
    return 1.25 * np.asarray(
        Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC, box=box)
    )


def _infrared(red: float, green: float, blue: float) -> float:
    """Near infrared of a dry surface: a little above red for clay and soil, far above it for living plants."""
    return min(1.05 * red + 0.4 * max(red - blue, 0) + 3 * max(green - (red + blue) / 2, 0), 225)


class Canvas:
    """Rasters of a scene: label, color in the sun, height in meters, distance to the shore in meters."""

    def __init__(
        self, spec: SyntheticDomain, rng: np.random.Generator, height: int, width: int
    ) -> None:
        self.spec, self.rng, self.gsd = spec, rng, spec.ground_sampling_distance
        self.pad = math.ceil(_MARGIN / self.gsd)
        self.shape = (height + 2 * self.pad, width + 2 * self.pad)
        self.labels = np.zeros(self.shape, dtype=np.uint8)
        self.color = np.zeros((*self.shape, 3), dtype=np.float32)
        self.height = np.zeros(self.shape, dtype=np.float32)
        self.shore = np.full(self.shape, np.inf, dtype=np.float32)
        self.y, self.x = (((np.arange(n) + 0.5) * self.gsd).astype(np.float32) for n in self.shape)
        self.extent = np.array([self.shape[1], self.shape[0]]) * self.gsd  # (2,) meters
        self.grain = noise(rng, self.shape, max(1.2, 0.8 / self.gsd))
        self.patches = noise(rng, self.shape, 9 / self.gsd) + 0.5 * noise(
            rng, self.shape, 3 / self.gsd
        )

    def crop(self, pixels: np.ndarray) -> np.ndarray:
        return pixels[self.pad : -self.pad, self.pad : -self.pad].copy()

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def choose(self, options: tuple[str, ...] | list[str]) -> str:
        return options[int(self.rng.random() * len(options))]

    def pick(self, material: str, spread: float = 0.1) -> np.ndarray:
        """A color of `material` in the domain's bands, (3,) float32."""
        red, green, blue = ImageColor.getrgb(self.choose(self.spec.palette[material].split()))[:3]
        if material in ("water", "pool"):
            infrared = 0.3 * red
        else:
            infrared = _infrared(red, green, blue)
        color = np.array([red, green, blue, infrared], dtype=np.float32)[
            list(BANDS[self.spec.bands])
        ]
        return color * np.float32(1 + spread * (2 * self.rng.random() - 1))

    def at(self, raster: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Values of `raster` at (N, 2) `points`, at its border for those outside."""
        columns, rows = np.floor(points / self.gsd).astype(int).T
        return raster[rows.clip(0, self.shape[0] - 1), columns.clip(0, self.shape[1] - 1)]

    def around(
        self, x: float, y: float, angle: float, reach: float
    ) -> tuple[Slices, np.ndarray, np.ndarray] | None:
        """The window within `reach` of a point, with coordinates along and across `angle`; None if it is outside."""
        rows, columns = self._span(y, reach), self._span(x, reach)
        dx = self.x[columns] - np.float32(x)
        dy = (self.y[rows] - np.float32(y))[:, None]
        if not dx.size or not dy.size:
            return None
        cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
        return (rows, columns), dx * cos + dy * sin, dy * cos - dx * sin

    def _span(self, center: float, reach: float) -> slice:
        """The pixels within `reach` meters of `center` along an axis."""
        first = max(int((center - reach) / self.gsd), 0)
        last = int((center + reach) / self.gsd) + 1
        return slice(first, max(last, 0))

    def paint(self, window: Slices, mask: np.ndarray, color: np.ndarray, label: int) -> None:
        """Colors (3,) or (h, w, 3) and labels the pixels of `mask` (h, w)."""
        if color.ndim == 3:
            color = color[mask]
        self.color[window][mask] = color
        self.labels[window][mask] = label


@dataclass
class TownPlan:
    """The objects of a town; boxes (u0, v0, u1, v1) are in the town's own meters; `place` maps them to the scene."""

    place: Place
    # (N, 2) map points, width
    streets: list[tuple[np.ndarray, float]] = field(default_factory=list)
    # ground, material, whether in rows
    lots: list[tuple[Box, str, bool]] = field(default_factory=list)
    houses: list[tuple[Box, str]] = field(default_factory=list)  # parcel, roof
    groves: list[tuple[Box, float]] = field(default_factory=list)  # ground, trees per hectare
    ponds: list[tuple[float, float]] = field(default_factory=list)  # center
    # (2, 2) map points, ends of a row of cars
    parking: list[np.ndarray] = field(default_factory=list)


def make_plan(canvas: Canvas) -> TownPlan:
    """Streets, blocks, fields and water of a scene, according to its domain's region."""
    region, rng = canvas.spec.region, canvas.rng
    center = canvas.extent / 2
    plan = TownPlan(_bent_grid(rng, center, region.bend))
    side = math.hypot(*canvas.extent) / 2 + region.block
    u, v = rng.uniform(-0.5, 0.5, 2) * region.block
    whole = (u - side, v - side, u + side, v + side)
    cuts, blocks = _split(rng, whole, region.block, region.jitter, region)
    for start, end, width in cuts:
        steps = np.linspace(0, 1, 2 + int(math.dist(start, end) / 15))[:, None]
        line = np.array(start) * (1 - steps) + np.array(end) * steps
        plan.streets.append((plan.place(line), width))
    plan.streets.sort(key=lambda street: street[1])  # main roads are drawn last
    deck: list[str] = []
    for box in sorted(blocks, key=lambda box: math.hypot(box[0] + box[2], box[1] + box[3])):
        deck = deck or [region.uses[index] for index in rng.permutation(len(region.uses))]
        _plan_block(plan, canvas, box, deck.pop())
    return plan


def _bent_grid(rng: np.random.Generator, center: np.ndarray, bend: float) -> Place:
    angle = rng.uniform(0, 2 * math.pi)
    cos, sin = math.cos(angle), math.sin(angle)
    pace = 2 * math.pi / rng.uniform(260, 420, 2)
    phase = rng.uniform(0, 2 * math.pi, 2)

    def place(points: np.ndarray) -> np.ndarray:
        u, v = (points + bend * np.sin(points[:, ::-1] * pace + phase)).T
        return np.stack([u * cos - v * sin, u * sin + v * cos], axis=1) + center

    return place


def _split(
    rng: np.random.Generator, box: Box, side: float, jitter: float, region: Region | None = None
) -> tuple[list[Cut], list[Box]]:
    """Cuts a box until no side is longer than about 1.5 `side`, with streets of `region` between the parts.

    Returns:
        The cuts, as wide as their streets, and the boxes left.
    """
    u0, v0, u1, v1 = box
    length = max(u1 - u0, v1 - v0)
    if length < side * (1.5 + 0.5 * jitter * rng.uniform(-1, 1)):
        return [], [box]
    share = 0.5 + 0.2 * jitter * rng.uniform(-1, 1)
    width = gap = 0.0
    if region:
        width = region.streets[int(length > 4.2 * side)]
        gap = width / 2 + region.kerb
    if u1 - u0 >= v1 - v0:
        cut = u0 + share * length
        first, second = (u0, v0, cut - gap, v1), (cut + gap, v0, u1, v1)
        line = (cut, v0), (cut, v1), width
    else:
        cut = v0 + share * length
        first, second = (u0, v0, u1, cut - gap), (u0, cut + gap, u1, v1)
        line = (u0, cut), (u1, cut), width
    cuts, boxes = _split(rng, first, side, jitter, region)
    more_cuts, more_boxes = _split(rng, second, side, jitter, region)
    return [line, *cuts, *more_cuts], boxes + more_boxes


def _plan_block(plan: TownPlan, canvas: Canvas, block: Box, use: str) -> None:
    region, rng = canvas.spec.region, canvas.rng
    homes = (region.parcel, region.garden, region.roofs, region.trees)
    side, grounds, roofs, trees = _USES.get(use, homes)
    for parcel in _split(rng, block, side, jitter=0.8)[1]:
        u0, v0, u1, v1 = parcel
        ground = canvas.choose(grounds)
        plan.lots.append((parcel, ground, use == "crop"))
        plan.groves.append((parcel, trees))
        if roofs and canvas.chance(0.92):
            plan.houses.append((parcel, canvas.choose(roofs)))
        if use == "works" and ground == "paving":
            for v in np.arange(v0 + 4, v1 - 3, 8.5):
                row = np.array([[u0 + 2, v], [u1 - 2, v]])
                plan.parking.append(plan.place(row))
        if use == "crop" and canvas.chance(0.4):
            plan.groves.append(((u0, v0, u1, v0 + 3), 500.0))  # a hedgerow
    if use == "park":
        _plan_park(plan, canvas, block)


def _plan_park(plan: TownPlan, canvas: Canvas, block: Box) -> None:
    """Two paths that cross, and mostly a pond between them."""
    u0, v0, u1, v1 = block
    u = u0 + (u1 - u0) * canvas.rng.uniform(0.3, 0.7)
    v = v0 + (v1 - v0) * canvas.rng.uniform(0.3, 0.7)
    across, down = (u0, v - 1.2, u1, v + 1.2), (u - 1.2, v0, u + 1.2, v1)
    plan.lots += [(across, "soil", False), (down, "soil", False)]
    if canvas.chance(0.7):
        plan.ponds.append(((u + u0) / 2, (v + v0) / 2))
