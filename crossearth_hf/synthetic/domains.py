"""The domains that SynthEarth draws: the layout of a region, its colors in a season, the sensor."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Region:
    """How a place is built; lengths in meters.

    Attributes:
        block, parcel: Sides of a block between streets and of a parcel within it.
        streets: Widths of side streets and of main roads.
        kerb: Width of the strip of `verge` between road and block.
        jitter: Irregularity of blocks and parcels, from 0 (a grid) to 1.
        bend: Deviation of streets from a straight line.
        fill: Share of a parcel's side that its house takes up.
        eaves: Heights of the lowest and the highest eaves.
        roofs: Roof shapes to draw from: gable, hip, ell, flat, court.
        uses: Uses of the blocks, dealt like a deck of cards from the center outwards.
        garden: Materials of the ground around houses.
        water: "river", "canal", "delta" or "coast", with the least and greatest width `channel` and a shore of `bank`.
        trees: Trees per hectare of garden.
        pools: Share of houses with a swimming pool.
    """

    block: float
    parcel: float
    streets: tuple[float, float]
    kerb: float
    jitter: float
    bend: float
    fill: float
    eaves: tuple[float, float]
    roofs: tuple[str, ...]
    uses: tuple[str, ...]
    garden: tuple[str, ...]
    verge: str
    water: str
    channel: tuple[float, float]
    bank: str
    trees: float
    pools: float


@dataclass(frozen=True)
class SyntheticDomain:
    """A place, a season and a sensor. Domains that share region and resolution show one town for one seed.

    Attributes:
        region: How the place is built.
        utm: EPSG code of the UTM zone and northing in km of the georeference.
        palette: Colors of the sunlit materials in this season; the infrared follows from them (`_infrared`).
        ground_sampling_distance: Meters per pixel.
        sun: Elevation and azimuth (clockwise from north) in degrees.
        bands: "RGB" or "IRRG" (near infrared, red, green).
        haze: Share of the light that comes from the air.
        blur: Standard deviation of the point-spread function in pixels.
        noise: Standard deviation of the sensor noise in gray levels.
        contrast: Exponent of the tone curve; above 1 darkens.
        snow: Share of open ground under snow.
        canopy: Opacity of the crowns: leafless trees let the ground show.
    """

    region: Region
    utm: tuple[int, int]
    palette: Mapping[str, str] = field(repr=False)
    ground_sampling_distance: float = 0.5
    sun: tuple[float, float] = (48, 150)
    bands: str = "RGB"
    haze: float = 0.06
    blur: float = 0.6
    noise: float = 3.0
    contrast: float = 1.0
    snow: float = 0.0
    canopy: float = 1.0


# fmt: off
_TEMPERATE = {
    "soil": "#968062 #7c6850 #ac9c80", "paving": "#98948e #7e7973 #66645f", "asphalt": "#626366 #767472 #54565b",
    "water": "#34443e #2c3c40 #4a5648 #3a3e36", "pool": "#5aa8b8 #74bcc4", "grass": "#5e7640 #707c48 #4c6836",
    "crop": "#6a843a #a4985a #466830",
    "crown": "#304e26 #3e582c #28402a #526232", "roof": "#985442 #7e4638 #6a6664 #525358 #aa9882 #c4c0ba #886854",
}
_WINTER = _TEMPERATE | {
    "soil": "#706252 #605646 #867a6a", "asphalt": "#54565c #686870 #484b52", "water": "#2e363e #3a424a #4c5660",
    "grass": "#787452 #6c6c4c #887c5c", "crop": "#707048 #8e7e5e #5c683e", "pool": "#5c666c",
    "crown": "#5c5044 #4e463e #685c4e #4c4c3a",
}
_DESERT = _TEMPERATE | {
    "soil": "#d6c2a0 #c6ae8a #e2d4ba", "paving": "#ccc0ac #b4a896 #948c82", "asphalt": "#847e78 #706c6a #9c948a",
    "water": "#3e706a #2c585c #5c6a5c #343e44", "grass": "#707e52 #828660", "crop": "#687c48 #908e64",
    "crown": "#4e5e3e #5c6848 #42543a", "roof": "#ded0b6 #c4b092 #eee8de #b0a08c #968e86 #bc967a",
}
_TROPICAL = _TEMPERATE | {
    "soil": "#a6704c #8e6246 #b68c66", "paving": "#9e9488 #867c70 #6c6862", "asphalt": "#686664 #7c766e #8a745e",
    "water": "#7a6848 #5e5a40 #8e7452 #3e4a3c", "grass": "#587a36 #6c823e #7e844a", "crop": "#528034 #708a42 #406e30",
    "crown": "#264a20 #345a26 #44662c #223e24", "roof": "#a6543a #8c4230 #764636 #b2b0ac #787e86 #5c7088 #927a64",
}
_MEDITERRANEAN = _TEMPERATE | {
    "soil": "#c4ac84 #ac926e #d6c4a0", "paving": "#beb4a4 #a49a8c #7c766e", "water": "#205470 #184260 #2e5a66",
    "grass": "#968c58 #7c7e4c #687442", "crop": "#808450 #b09c68 #667642", "crown": "#465432 #56623e #32442a #687050",
    "roof": "#c27854 #ae6446 #ce8e68 #e2dcd0 #baa284 #948c84",
}
_AUTUMN = _TEMPERATE | {
    "soil": "#765c46 #624e3e #8c7258", "water": "#585c4c #686654 #40483e", "grass": "#767a46 #60703e",
    "crop": "#b09c5c #868a4a #987a4a #5c723a", "crown": "#84602e #9c7634 #54582e #704a2c #3a4a2c",
}
_MEGACITY = _TEMPERATE | {
    "soil": "#a0907a #8a7c6a", "water": "#4a5446 #404e4a #5c5e52",
    "roof": "#a4a09a #807e7c #626264 #c4beb6 #96705c #70808e #b0a28e",
}
_SUBURB = Region(
    block=80, parcel=21, streets=(6.5, 13), kerb=2.5, jitter=0.6, bend=14, fill=0.72, eaves=(3.5, 9),
    roofs=("gable", "gable", "hip", "ell", "ell", "flat"), garden=("grass", "grass", "grass", "paving", "soil"),
    uses=("homes", "homes", "homes", "park", "homes", "crop", "works", "wood", "homes", "bare"),
    verge="paving", water="river", channel=(13, 40), bank="grass", trees=55, pools=0.03,
)
_COMPOUNDS = Region(
    block=84, parcel=26, streets=(8, 18), kerb=3.5, jitter=0.25, bend=5, fill=0.7, eaves=(4, 18),
    roofs=("flat", "flat", "court", "flat", "ell"), garden=("soil", "soil", "paving", "grass"),
    uses=("homes", "homes", "bare", "park", "homes", "works", "homes", "bare", "wood"),
    verge="soil", water="canal", channel=(20, 60), bank="paving", trees=26, pools=0.16,
)
_KAMPUNG = Region(
    block=44, parcel=12.5, streets=(4.2, 8.5), kerb=1.2, jitter=0.9, bend=8, fill=0.86, eaves=(2.8, 7),
    roofs=("gable", "gable", "hip", "gable", "flat", "ell"), garden=("soil", "soil", "paving", "grass"),
    uses=("homes", "homes", "homes", "wood", "homes", "crop", "homes", "park", "works", "bare"),
    verge="soil", water="river", channel=(9, 26), bank="grass", trees=110, pools=0.0,
)
_OLD_TOWN = Region(
    block=50, parcel=15, streets=(4.8, 10), kerb=1.6, jitter=1.0, bend=13, fill=0.95, eaves=(6, 14),
    roofs=("gable", "hip", "court", "gable", "flat"), garden=("paving", "soil", "grass"),
    uses=("homes", "homes", "park", "homes", "homes", "wood", "homes", "bare", "crop"),
    verge="paving", water="coast", channel=(10, 20), bank="soil", trees=40, pools=0.08,
)
_FARMLAND = Region(
    block=110, parcel=30, streets=(5.5, 10), kerb=2.5, jitter=0.7, bend=16, fill=0.7, eaves=(3, 8),
    roofs=("gable", "gable", "hip", "ell"), garden=("grass", "grass", "soil", "paving"),
    uses=("homes", "crop", "homes", "bare", "crop", "homes", "wood", "works", "crop", "park"),
    verge="grass", water="delta", channel=(14, 48), bank="soil", trees=40, pools=0.0,
)
_DOWNTOWN = Region(
    block=104, parcel=30, streets=(9, 20), kerb=4, jitter=0.0, bend=0, fill=0.82, eaves=(8, 48),
    roofs=("flat", "flat", "flat", "court", "hip"), garden=("paving", "paving", "grass"),
    uses=("homes", "homes", "park", "homes", "works", "homes", "wood", "homes", "bare"),
    verge="paving", water="river", channel=(30, 70), bank="paving", trees=30, pools=0.0,
)
DOMAINS: dict[str, SyntheticDomain] = {
    "temperate-summer": SyntheticDomain(_SUBURB, (32632, 5300), _TEMPERATE),
    "temperate-winter": SyntheticDomain(
        _SUBURB, (32632, 5300), _WINTER, sun=(23, 166), haze=0.1, noise=4, snow=0.35, canopy=0.5),
    "irrg-summer": SyntheticDomain(
        _SUBURB, (32632, 5300), _TEMPERATE, bands="IRRG", sun=(38, 205), haze=0.03, contrast=1.15),
    "desert-city": SyntheticDomain(
        _COMPOUNDS, (32640, 2780), _DESERT, ground_sampling_distance=0.6, sun=(58, 128), noise=2.5, contrast=1.1),
    "tropical-town": SyntheticDomain(
        _KAMPUNG, (32748, 9250), _TROPICAL, ground_sampling_distance=0.3, sun=(62, 62), haze=0.09, blur=0.7),
    "mediterranean-coast": SyntheticDomain(
        _OLD_TOWN, (32631, 4790), _MEDITERRANEAN, ground_sampling_distance=0.4, sun=(40, 238), noise=2.5),
    "river-delta": SyntheticDomain(
        _FARMLAND, (32635, 5000), _AUTUMN, ground_sampling_distance=0.8, sun=(28, 192), haze=0.12, blur=0.75),
    "coarse-hazy": SyntheticDomain(
        _DOWNTOWN, (32650, 4420), _MEGACITY, ground_sampling_distance=1, sun=(35, 140), haze=0.34, blur=0.95, noise=5),
}
"""The places to draw, by name."""
# fmt: on
