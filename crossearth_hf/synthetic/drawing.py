"""Drawing and photographing a planned SynthEarth scene: ground, water, streets, houses, trees, light and air."""

import math
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from .domains import Region
from .plan import BANDS, BUILDING, LAND, ROAD, VEGETATION, WATER, Canvas, Slices, TownPlan, noise

_SKY_LIGHT = (0.36, 0.41, 0.50, 0.28)  # light in shadows, from the sky: more blue than infrared
_AIR = (186.0, 194.0, 206.0, 150.0)
_SNOW = (226.0, 231.0, 238.0, 200.0)
_ROUGHNESS = (0.09, 0.05, 0.05, 0.04, 0.13)  # relative contrast of the texture of each class
_SNOW_LASTS = (
    0,
    0.5,
    -2.2,
    -9,
    0,
)  # additional snow on each class, in standard deviations of its patches
_ALL = (slice(None), slice(None))


def draw(canvas: Canvas, plan: TownPlan) -> None:
    """Draws all objects of `plan`; later ones cover earlier ones."""
    _draw_ground(canvas, plan)
    _draw_water(canvas, plan)
    _draw_streets(canvas, plan)
    _draw_houses(canvas, plan)
    _draw_trees(canvas, plan)


def _draw_ground(canvas: Canvas, plan: TownPlan) -> None:
    """Fills lots with their ground; worn patches in the grass and weeds on bare land keep edges from being straight."""
    picture = Image.new("I", canvas.shape[::-1])
    draw = ImageDraw.Draw(picture)
    verge = canvas.spec.region.verge
    materials, colors, rows = [verge], [canvas.pick(verge)], [(0.0, 0.0, 0.0)]
    for index, ((u0, v0, u1, v1), material, in_rows) in enumerate(plan.lots, start=1):
        turns = np.array([[u0, v0], [u1, v0], [u1, v1], [u0, v1], [u0, v0]])
        steps = np.linspace(0, 1, 5)[:-1, None]
        # (16, 2)
        ring = plan.place(np.concatenate([a * (1 - steps) + b * steps for a, b in pairwise(turns)]))
        draw.polygon([(x, y) for x, y in (ring / canvas.gsd).tolist()], fill=index)
        materials.append(material)
        colors.append(canvas.pick(material))
        spacing = max(canvas.rng.uniform(1.2, 4), 2.6 * canvas.gsd)
        depth = canvas.rng.uniform(0.05, 0.2)
        dx, dy = ring[4] - ring[0]
        length = math.dist(ring[4], ring[0])
        turn = 2 * math.pi / spacing / length
        if not in_rows:
            depth = 0.0
        rows.append((dx * turn, dy * turn, depth))
    lots = np.asarray(picture)
    np.take(np.array(colors), lots, axis=0, out=canvas.color, mode="clip")
    waves = np.array(rows, dtype=np.float32)
    y, x = np.nonzero(waves[lots, 2])
    pace_x, pace_y, depth = waves[lots[y, x]].T
    canvas.color[y, x] *= (1 + depth * np.sin(canvas.x[x] * pace_x + canvas.y[y] * pace_y))[:, None]
    green, soil = (np.isin(materials, kinds)[lots] for kinds in (("grass", "crop"), ("soil",)))
    canvas.labels[green] = VEGETATION
    canvas.paint(_ALL, green & (canvas.patches > 1.9), canvas.pick("soil"), LAND)
    canvas.paint(_ALL, soil & (canvas.patches < -1.7), canvas.pick("grass"), VEGETATION)


def _draw_water(canvas: Canvas, plan: TownPlan) -> None:
    region, rng, shore = canvas.spec.region, canvas.rng, canvas.shore
    _dig_channels(canvas)
    scale = _bank_width(region) / 3.5  # a pond has no beach
    for center in plan.ponds:
        x, y = plan.place(np.array([center]))[0]
        radius, stretch, turn = rng.uniform((8, 1, 0), (15, 1.7, 6))
        if spot := canvas.around(x, y, turn, 2.2 * radius):
            window, u, v = spot
            direction = np.arctan2(v, u)
            bays = 1 + 0.2 * np.sin(2 * direction + turn) + 0.15 * np.sin(3 * direction)
            outside = np.hypot(u, v * stretch) - radius * bays
            shore[window] = np.minimum(shore[window], scale * outside)
    if region.bank != "paving":
        shore += 0.8 * canvas.patches
    bank = (shore >= 0) & (shore < _bank_width(region) + canvas.patches)
    if region.bank == "grass":
        label = VEGETATION
    else:
        label = LAND
    canvas.paint(_ALL, bank, canvas.pick(region.bank), label)
    depth = 0.8 + 0.4 * np.exp(np.minimum(shore, 0) / 9)[..., None]
    canvas.paint(_ALL, shore < 0, canvas.pick("water") * depth, WATER)


def _bank_width(region: Region) -> float:
    if region.water == "coast":
        return 12.0
    return 3.5


def _dig_channels(canvas: Canvas) -> None:
    """Sets `canvas.shore` to the distance from rivers that meander across the scene or from a coast at its side."""
    region, rng = canvas.spec.region, canvas.rng
    angle = rng.uniform(0, 2 * math.pi)
    span = abs(math.sin(angle)) * canvas.extent[0] + abs(math.cos(angle)) * canvas.extent[1]
    is_coast, is_delta = region.water == "coast", region.water == "delta"
    count = 1
    if not is_coast:
        count = max(1, round(span / 900)) * (1 + is_delta)
    for index in range(count):
        turn = 0.0
        if is_delta:
            turn = rng.uniform(-0.3, 0.3)
        offset, steepness = _meander(canvas, angle + turn)
        if is_coast:
            distance = offset + np.float32(rng.uniform(0.2, 0.32) * span)
        else:
            middle = ((index + rng.uniform(0.3, 0.7)) / count - 0.5) * span
            narrowest, widest = region.channel
            half = min(max(0.09 * span / math.sqrt(count), narrowest), widest) / 2
            distance = np.abs(offset - np.float32(middle)) / steepness - np.float32(half)
        np.minimum(canvas.shore, distance, out=canvas.shore)


def _meander(canvas: Canvas, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) offset in meters from a winding line through the center, and (H, W) its ratio to the distance."""
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    x = canvas.x - np.float32(canvas.extent[0] / 2)
    y = (canvas.y - np.float32(canvas.extent[1] / 2))[:, None]
    along, offset = x * cos + y * sin, y * cos - x * sin
    slope = np.zeros((), dtype=np.float32)
    for wave in canvas.rng.uniform(150, 420, 2):
        swing = wave * canvas.rng.uniform(0.02, 0.05)
        if canvas.spec.region.water == "canal":
            swing *= 0.25
        pace = np.float32(2 * math.pi / wave)
        phase = np.float32(canvas.rng.uniform(0, 2 * math.pi))
        offset -= np.float32(swing) * np.sin(along * pace + phase)
        slope = slope + np.float32(swing) * pace * np.cos(along * pace + phase)
    return offset, np.hypot(np.float32(1), slope)


def _draw_streets(canvas: Canvas, plan: TownPlan) -> None:
    """Paves the streets, widest last; main roads bridge rivers, side streets end at the bank."""
    region = canvas.spec.region
    # meters to the edge of the road, negative on it
    edge = np.full(canvas.shape, np.inf, dtype=np.float32)
    main_color = canvas.pick("asphalt", 0.12)
    for points, width in plan.streets:
        main = width == region.streets[1]
        bridges = main and region.water != "coast"
        if main:
            color = main_color
        else:
            color = canvas.pick("asphalt", 0.2)
        for (x0, y0), (x1, y1) in pairwise(points.tolist()):
            length = math.hypot(x1 - x0, y1 - y0)
            spot = canvas.around(
                (x0 + x1) / 2, (y0 + y1) / 2, math.atan2(y1 - y0, x1 - x0), (length + width) / 2
            )
            if spot is None:
                continue
            window, u, v = spot
            outside = np.hypot(np.maximum(np.abs(u) - length / 2, 0), v) - np.float32(width / 2)
            shore = canvas.shore[window]
            paved = (outside < 0) & (bridges | (shore > _bank_width(region) / 2))
            canvas.paint(window, paved, color, ROAD)
            canvas.height[window][paved] = np.clip(1 - 0.3 * shore[paved], 0, 4)
            edge[window] = np.minimum(edge[window], outside)
    road = canvas.labels == ROAD
    canvas.color[road & (edge > -0.8)] *= np.float32(1.12)
    for points, width in plan.streets:
        if width == region.streets[1]:
            _mark_lanes(canvas, points)
        for aside in (1.3 - width / 2, width / 2 - 1.3):
            _draw_cars(canvas, _walk(points, 7, aside), 0.12)
    for ends in plan.parking:
        places = _walk(ends, 2.9)
        places[:, 2] += math.pi / 2
        _draw_cars(canvas, places, 0.45)


def _walk(points: np.ndarray, step: float, aside: float = 0.0) -> np.ndarray:
    """Places each `step` meters along a line and `aside` of it, (N, 3): x, y, direction."""
    legs = np.diff(points, axis=0)
    length = np.concatenate([[0], np.hypot(*legs.T).cumsum()])
    at = np.arange(step / 2, length[-1], step)
    leg = np.searchsorted(length, at, side="right") - 1
    x, y = (np.interp(at, length, axis) for axis in points.T)
    angle = np.arctan2(legs[leg, 1], legs[leg, 0])
    return np.stack([x - aside * np.sin(angle), y + aside * np.cos(angle), angle], axis=1)


def _mark_lanes(canvas: Canvas, points: np.ndarray) -> None:
    half = max(0.12, 0.5 * canvas.gsd)
    for x, y, angle in _walk(points, 9).tolist():
        if spot := canvas.around(x, y, angle, 3):
            window, u, v = spot
            stripe = (np.abs(u) < 1.8) & (np.abs(v) < half) & (canvas.labels[window] == ROAD)
            canvas.color[window][stripe] *= np.float32(1 + 0.5 * min(0.3 / canvas.gsd, 1))


def _draw_cars(canvas: Canvas, places: np.ndarray, share: float) -> None:
    """Cars on a `share` of the places (N, 3); they keep the label of the ground."""
    tints = canvas.rng.uniform(30, 235, (len(places), 1)) + canvas.rng.uniform(
        -22, 22, (len(places), 3)
    )
    taken = canvas.rng.random(len(places)) < share
    for (x, y, angle), tint in zip(places[taken].tolist(), tints[taken], strict=True):
        if spot := canvas.around(x, y, angle, 3):
            window, u, v = spot
            from_middle = np.abs(u)
            car = (
                (from_middle < 2.2)
                & (np.abs(v) < 0.95)
                & np.isin(canvas.labels[window], (LAND, ROAD))
            )
            windshields = (from_middle > 0.6) & (from_middle < 1.3)
            canvas.color[window][car] = tint * (1 - 0.35 * windshields[car][:, None])
            canvas.height[window][car] += 1.4


def _draw_houses(canvas: Canvas, plan: TownPlan) -> None:
    """Puts a house on each parcel that has one, turned between the two directions of its bent grid."""
    region, rng = canvas.spec.region, canvas.rng
    for (u0, v0, u1, v1), roof in plan.houses:
        u, v = (u0 + u1) / 2, (v0 + v1) / 2
        center, east, south = plan.place(np.array([[u, v], [u + 1, v], [u, v + 1]]))
        (east_x, east_y), (south_x, south_y) = east - center, south - center
        angle = math.atan2(east_y, east_x)
        skew = math.remainder(angle - math.atan2(-south_x, south_y), 2 * math.pi)
        fill = region.fill * (1 - 0.6 * abs(skew))
        sides = [(u1 - u0) * math.hypot(east_x, east_y), (v1 - v0) * math.hypot(south_x, south_y)]
        room = np.array(sides) / 2
        a, b = (room * fill * rng.uniform(0.82, 1 + 0.15 * (1 - region.fill), 2)).tolist()
        shift_u, shift_v = (rng.uniform(-0.3, 0.3, 2) * (1 - fill) * (u1 - u0, v1 - v0)).tolist()
        x, y = (center + shift_u * (east - center) + shift_v * (south - center)).tolist()
        turned = 0.0
        if canvas.chance(0.5):
            turned = math.pi
        _draw_house(canvas, (x, y, angle - skew / 2 + turned), (a, b), roof)


def _draw_house(
    canvas: Canvas, pose: tuple[float, float, float], half: tuple[float, float], roof: str
) -> None:
    """A house with half sides `half`, unless it would be in the water or too small."""
    region, rng = canvas.spec.region, canvas.rng
    eaves = region.eaves[0] + (region.eaves[1] - region.eaves[0]) * rng.random() ** 2
    pitch = 0.0
    if roof != "flat":
        pitch = rng.uniform(0.35, 0.8)
    color, has_pool, fittings = (
        canvas.pick("roof", 0.14),
        canvas.chance(region.pools),
        rng.random((4, 5)),
    )
    spot = canvas.around(*pose, math.hypot(*half) + 1)
    if spot is None or min(half) < 1.5:
        return
    window, u, v = spot
    wall, inset = _roof(u, v, *half, roof)
    mask = wall > 0
    if not mask.any() or canvas.shore[window][mask].min() < 2.5:
        return
    height = eaves + pitch * np.minimum(inset, 7)
    shade = _sunlight(canvas, height)
    if pitch == 0:
        shade[wall < 0.5] = 1.14  # the parapet
    largest = 1.6
    if pitch:
        largest = 0.5
    for (
        along,
        across,
        size,
        tone,
        taste,
    ) in fittings.tolist():  # chimneys, skylights, tanks, solar panels
        side = 0.0
        if taste < 0.5:
            side = 0.4 + largest * size
        at_u, at_v = (1.4 * along - 0.7) * half[0], (1.4 * across - 0.7) * half[1]
        box = (np.abs(u - at_u) < side) & (np.abs(v - at_v) < 0.7 * side) & (wall > 0.6)
        height[box] += 1.2
        shade[box] *= 0.6 + 0.9 * tone
    canvas.paint(window, mask, color * shade[..., None], BUILDING)
    canvas.height[window][mask] = height[mask]
    if has_pool:
        (x, y, angle), aside = pose, half[1] + 4
        _draw_pool(canvas, x - aside * math.sin(angle), y + aside * math.cos(angle), angle)


def _roof(
    u: np.ndarray, v: np.ndarray, a: float, b: float, roof: str
) -> tuple[np.ndarray, np.ndarray]:
    """Meters to the nearest wall (negative outside) and to the nearest eaves of a house 2a by 2b, (h, w) each."""
    across, along = np.float32(b) - np.abs(v), np.float32(a) - np.abs(u)
    wall = np.minimum(across, along)
    if roof == "ell":
        wide, narrow = 0.55 * b, min(0.4 * a, 0.5 * b)
        wing_wall, wing_eaves = _roof(
            v - 0.275 * b, u - 0.8 * (a - narrow), 0.725 * b, narrow, "gable"
        )
        wall, eaves = _roof(u, v + 0.45 * b, a, wide, "gable")
        inside = np.where(wall > 0, eaves, 0)
        return np.maximum(wall, wing_wall), np.where(
            wing_wall > 0, np.maximum(inside, wing_eaves), eaves
        )
    if roof == "court" and min(a, b) > 8:
        wall = np.minimum(wall, np.maximum(np.abs(v) - 0.45 * b, np.abs(u) - 0.45 * a))
    if roof == "gable" and b <= a:
        return wall, across
    if roof == "gable":
        return wall, along
    return wall, wall


def _draw_pool(canvas: Canvas, x: float, y: float, angle: float) -> None:
    if spot := canvas.around(x, y, angle, 9):
        window, u, v = spot
        free = np.isin(canvas.labels[window], (LAND, VEGETATION))
        canvas.paint(window, (np.abs(u) < 6) & (np.abs(v) < 4) & free, canvas.pick("paving"), LAND)
        canvas.paint(
            window, (np.abs(u) < 4.5) & (np.abs(v) < 2.5) & free, canvas.pick("pool"), WATER
        )


def _sunlight(canvas: Canvas, height: np.ndarray) -> np.ndarray:
    """Light on a slope relative to level ground, (h, w), for `height` (h, w) in meters."""
    if min(height.shape) < 2:
        return np.ones_like(height)
    elevation, azimuth = (math.radians(angle) for angle in canvas.spec.sun)
    down, right = np.gradient(height, canvas.gsd)
    toward = (right * math.sin(azimuth) - down * math.cos(azimuth)) / math.tan(elevation)
    light = 0.35 + 0.65 * (1 - toward) / np.sqrt(1 + down**2 + right**2)
    return np.clip(light, 0.4, 1.35).astype(np.float32)


def _draw_trees(canvas: Canvas, plan: TownPlan) -> None:
    """Plants groves, leaving clearings, and rows along the main roads; never in water, houses or roads."""
    region, rng = canvas.spec.region, canvas.rng
    stands = []
    for (u0, v0, u1, v1), density in plan.groves:
        count = rng.poisson(density * (u1 - u0) * (v1 - v0) / 10_000)
        stands.append(plan.place(rng.uniform((u0, v0), (u1, v1), (count, 2))))
    for line, width in plan.streets:
        if width == region.streets[1]:
            stands += [_walk(line, 11, side * (width + region.kerb) / 2)[:, :2] for side in (-1, 1)]
    points = np.concatenate(stands)  # (N, 2)
    points = points[((points > 0) & (points < canvas.extent)).all(axis=1)]
    free = np.isin(canvas.at(canvas.labels, points), (LAND, VEGETATION)) & (
        canvas.at(canvas.shore, points) > 1.5
    )
    for x, y in points[free & (canvas.at(canvas.patches, points) < 1.2)].tolist():
        _draw_tree(canvas, x, y, 1.3 + 3.4 * rng.random() ** 1.5)


def _draw_tree(canvas: Canvas, x: float, y: float, radius: float) -> None:
    color, tall = canvas.pick("crown", 0.15), 1.5 + radius * canvas.rng.uniform(0.8, 1.6)
    spot = canvas.around(x, y, 0, 1.3 * radius)
    if spot is None:
        return
    window, u, v = spot
    grain = canvas.grain[window]
    dome = 1 - (u * u + v * v) / np.float32(radius * radius) + 0.22 * grain
    height = tall + radius * np.sqrt(np.maximum(dome, 0))
    crown = (dome > 0) & (height > canvas.height[window])
    shade = _sunlight(canvas, 0.45 * radius * np.minimum(dome, 1)) * (1.05 + 0.12 * grain)
    canvas.labels[window][crown] = VEGETATION
    if canvas.spec.canopy < 1:
        crown &= grain > NormalDist().inv_cdf(1 - canvas.spec.canopy)
    canvas.color[window][crown] = (color * shade[..., None])[crown]
    canvas.height[window][crown] = height[crown]


def cast_shadows(height: np.ndarray, sun: tuple[float, float], gsd: float) -> np.ndarray:
    """(H, W) bool, True in the shadow of objects of `height` (H, W) in meters.

    The horizon towards the sun is a running maximum; each round doubles its distance.
    """
    elevation, azimuth = (math.radians(angle) for angle in sun)
    horizon, reach = height, 1
    while reach * gsd * math.tan(elevation) < height.max():
        down, right = round(-reach * math.cos(azimuth)), round(reach * math.sin(azimuth))
        drop = np.float32(math.hypot(right, down) * gsd * math.tan(elevation))
        rows, far_rows = _shifted(down, height.shape[0])
        columns, far_columns = _shifted(right, height.shape[1])
        raised = horizon.copy()
        raised[rows, columns] = np.maximum(
            horizon[rows, columns], horizon[far_rows, far_columns] - drop
        )
        horizon, reach = raised, 2 * reach
    return horizon > height + np.float32(0.4)


def _shifted(step: int, size: int) -> Slices:
    """Positions along an axis and the positions `step` pixels further, if both are inside."""
    step = max(-size, min(step, size))
    return slice(max(-step, 0), size - max(step, 0)), slice(max(step, 0), size - max(-step, 0))


def photograph(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Texture, snow, light, air and sensor: (H, W, 3) uint8."""
    spec, color = canvas.spec, canvas.color
    snow, sky, air = (
        np.array(c, dtype=np.float32)[list(BANDS[spec.bands])] for c in (_SNOW, _SKY_LIGHT, _AIR)
    )
    broad = noise(rng, canvas.shape, 60 / canvas.gsd)
    roughness = np.array(_ROUGHNESS, dtype=np.float32)[canvas.labels]
    color *= (1 + roughness * (0.5 * canvas.grain + 0.35 * canvas.patches + 0.45 * broad))[
        ..., None
    ]
    if spec.snow:
        white = _snow_cover(canvas, broad)[..., None]
        color += white * (snow - color)
    shadow = cast_shadows(canvas.height, spec.sun, canvas.gsd)
    if spec.canopy < 1:
        solid = cast_shadows(
            np.where(canvas.labels == VEGETATION, 0, canvas.height), spec.sun, canvas.gsd
        )
        color[shadow & ~solid] *= 1 - spec.canopy * (1 - sky)
        shadow &= solid
    color[shadow] *= sky
    haze = np.clip(spec.haze * (1 + 0.25 * noise(rng, canvas.shape, 120 / canvas.gsd)), 0, 0.8)
    gains = rng.uniform(0.84, 1.14) * rng.uniform(0.95, 1.05, 3)
    image = np.empty(color.shape, dtype=np.uint8)
    for band, gain in enumerate(gains.tolist()):
        plane = color[..., band] * gain * (1 - haze) + air[band] * haze
        plane = 255 * (np.clip(plane, 0, 255) / 255) ** np.float32(spec.contrast)
        plane = ndimage.gaussian_filter(plane, spec.blur)
        plane += spec.noise * rng.standard_normal(plane.shape, dtype=np.float32)
        image[..., band] = np.clip(np.rint(plane), 0, 255)
    return image


def _snow_cover(canvas: Canvas, broad: np.ndarray) -> np.ndarray:
    """Opacity of the snow, (H, W): patchy on open ground, rare on roads and trees, none on water."""
    cover = 0.8 * canvas.patches + 0.2 * canvas.grain + 0.7 * broad
    cover += np.array(_SNOW_LASTS, dtype=np.float32)[canvas.labels]
    cover[(canvas.labels == VEGETATION) & (canvas.height > 1)] -= 1.6
    threshold = np.float32(1.2 * NormalDist().inv_cdf(1 - canvas.spec.snow))
    return np.clip(0.5 + 0.55 * (cover - threshold), 0, 0.9)
