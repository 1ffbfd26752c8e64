"""Names of bands, and the bands that are red, green and blue by their names.

Names come from a person or an agency. The color interpretation is less reliable, because GDAL marks the first three
8-bit bands of a new file as red, green and blue, whatever they are.
"""

import re
from collections.abc import Sequence
from typing import Any

COLORS = ("red", "green", "blue")

_NAME_TAGS = ("band_name", "bandname", "name", "common_name", "long_name")
_WAVELENGTH_TAGS = (
    "central_wavelength_um",
    "wavelength",
    "center_wavelength",
    "central_wavelength",
)
_MICROMETERS = {
    "blue": (0.45, 0.515),
    "green": (0.52, 0.59),
    "red": (0.62, 0.69),
}  # Landsat, Sentinel-2, PlanetScope
_OTHER_LIGHT = {
    *(
        "edge",
        "infra",
        "infrared",
        "near",
        "nir",
        "swir",
        "short",
        "shortwave",
        "mid",
        "far",
        "thermal",
        "coastal",
    ),
    *(
        "aerosol",
        "yellow",
        "i",
        "index",
        "ratio",
        "mask",
        "cloud",
        "qa",
        "quality",
        "error",
        "uncertainty",
    ),
}  # words that make "red edge" or "green I" another band
_IN_ENGLISH = {
    **dict.fromkeys(("r", "rot", "rouge", "rojo", "rosso", "vermelho"), "red"),
    **dict.fromkeys(("g", "grün", "gruen", "grun", "vert", "verde"), "green"),
    **dict.fromkeys(("b", "blau", "bleu", "azul", "blu"), "blue"),
}  # whole names
_NEUTRAL = {
    "band",
    "b",
    "ch",
    "channel",
    "nm",
    "sr",
    "toa",
    "boa",
    "reflectance",
    "surface",
    "visible",
    "light",
}
_GENERIC = {
    "band",
    "b",
    "bands",
    "ch",
    "channel",
    "layer",
    "raster",
    "image",
    "data",
    "dataset",
    "variable",
    "x",
}
_FIXED_CODES = {
    "OLCI": re.compile(r"(?:^|[^a-z0-9])oa0?(8|6|4)(?!\d)"),
    "MODIS": re.compile(r"sur_refl_b0?(1|4|3)(?!\d)"),
}  # red, green and blue in this order
_ORDERS = {"OLCI": ("8", "6", "4"), "MODIS": ("1", "4", "3")}
_NANOMETERS = re.compile(r"(?<![\d.])(\d{3,4})(?:\.\d+)?\s*nm\b", re.IGNORECASE)
_CODE = re.compile(r"(?:^|[^a-z0-9])(sr_)?b(0?)(\d{1,2})(a?)(?![a-z0-9])")


def band_names(source: Any) -> list[str]:
    """For each band of an open rasterio dataset: its description, a name from its tags, or ""."""
    names = []
    for band, description in enumerate(source.descriptions, 1):
        tags = {key.lower(): value for key, value in source.tags(band).items()}
        names.append(
            " ".join(
                (
                    description or next((tags[key] for key in _NAME_TAGS if tags.get(key)), "")
                ).split()
            )
        )
    return names


def rgb_by_name(source: Any) -> list[int] | None:
    """Numbers of the bands that are red, green and blue by their names, codes or wavelengths.

    Codes are those of Sentinel-2 and Landsat 8 and 9, where B2, B3 and B4 are blue, green and red, of Sentinel-3's
    OLCI (Oa04, Oa06, Oa08) and of MODIS (sur_refl_b03, b04, b01). B1, B2, B3 may come from older Landsats or be mere
    numbers, so they are ignored.

    Returns:
        Three numbers, counted from 1; None unless exactly one band is found for each color.
    """
    names = [_IN_ENGLISH.get(name.lower(), name) for name in band_names(source)]
    by_agency = _by_fixed_codes(names)
    return by_agency or _by_color_words(names) or _by_codes(names) or _by_wavelengths(source, names)


def has_meaning(source: Any, bands: Sequence[int]) -> bool:
    """Whether the names of these bands say more than "band" and a number."""
    names = band_names(source)
    words = {word for band in bands for word in _letters(_words(names[band - 1]))}
    return bool(words - _GENERIC)


def _by_color_words(names: Sequence[str]) -> list[int] | None:
    """The bands named by one color and no other part of the spectrum; plain names come before longer names."""
    found = []
    for color in COLORS:
        words = [_words(name) for name in names]
        longer = [band for band, parts in enumerate(words, 1) if _colors_in(parts) == {color}]
        plain = [band for band in longer if {*_letters(words[band - 1])} - _NEUTRAL == {color}]
        found.append(plain if len(plain) == 1 else longer)
    if all(len(bands) == 1 for bands in found):
        return [bands[0] for bands in found]
    return None


def _colors_in(words: Sequence[str]) -> set[str]:
    """The colors among words; none if the words name another part of the spectrum."""
    if _OTHER_LIGHT.intersection(words):
        return set()
    return set(COLORS).intersection(words)


def _words(name: str) -> list[str]:
    """Lower-case words of a name, also if joined as in rededge, RedEdge or red_edge."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    spaced = re.sub(r"rededge", "red edge", spaced, flags=re.IGNORECASE)
    return re.findall(r"[a-z]+|\d+", spaced.lower())


def _letters(words: Sequence[str]) -> list[str]:
    return [word for word in words if not word.isdecimal()]


def _by_codes(names: Sequence[str]) -> list[int] | None:
    """The bands 4, 3 and 2 of Sentinel-2 or Landsat 8 and 9."""
    codes = [_CODE.search(name.lower()) for name in names]
    known = {band: match for band, match in enumerate(codes, 1) if match}
    numbers = {band: int(match[3]) for band, match in known.items() if not match[4]}
    found = [[band for band, number in numbers.items() if number == wanted] for wanted in (4, 3, 2)]
    if any(len(bands) != 1 for bands in found):
        return None
    has_8a = len(numbers) < len(known)
    is_landsat_8 = all(match[1] for match in known.values()) and 6 in numbers.values()
    only_positions = all(band == number for band, number in numbers.items())
    beyond_old_landsats = max(numbers.values()) > 7 and not only_positions
    if 1 in numbers.values() and not (has_8a or is_landsat_8 or beyond_old_landsats):
        return None
    return [bands[0] for bands in found]


def _by_fixed_codes(names: Sequence[str]) -> list[int] | None:
    """The bands that OLCI or MODIS calls red, green and blue."""
    for sensor, pattern in _FIXED_CODES.items():
        codes = [pattern.search(name.lower()) for name in names]
        numbers = [match[1] if match else None for match in codes]
        if all(numbers.count(wanted) == 1 for wanted in _ORDERS[sensor]):
            return [numbers.index(wanted) + 1 for wanted in _ORDERS[sensor]]
    return None


def _by_wavelengths(source: Any, names: Sequence[str]) -> list[int] | None:
    """The bands whose central wavelengths are red, green and blue, if there is one band for each."""
    lengths = [_micrometers(source, band, name) for band, name in enumerate(names, 1)]
    found = []
    for color in COLORS:
        low, high = _MICROMETERS[color]
        bands = [
            band
            for band, length in enumerate(lengths, 1)
            if length is not None and low <= length <= high
        ]
        if len(bands) != 1:
            return None
        found += bands
    return found


def _micrometers(source: Any, band: int, name: str) -> float | None:
    """Central wavelength of a band from its tags, or from a name such as "490 nm"."""
    tags = {**source.tags(band), **source.tags(band, ns="IMAGERY")}
    for key, value in tags.items():
        number = re.match(r"\s*(\d+(?:\.\d+)?)", str(value))
        if key.lower() in _WAVELENGTH_TAGS and number:
            length = float(number[1])
            if length > 100:
                return length / 1000
            return length
    in_name = _NANOMETERS.search(name)
    if in_name:
        return float(in_name[1]) / 1000
    return None
