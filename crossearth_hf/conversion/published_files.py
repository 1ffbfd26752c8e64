"""The files that CrossEarth's authors publish, known by their names: what no shape in them shows.

Names and scenarios: the table "Model Weights with Configs" of https://github.com/Cuzyoung/CrossEarth (README). Crops:
the names of the configurations that this table links. Pixel sizes: those of the imagery that a file was trained on.
The tests hold this table against `scenarios.scenarios`.
"""

import os
import re
from dataclasses import dataclass

from ..errors import InputError

REPOSITORY = "Cusyoung/CrossEarth"
"""On the Hub; the authors' name on GitHub is spelled Cuzyoung."""


@dataclass(frozen=True)
class PublishedFile:
    """A checkpoint of the authors.

    Attributes:
        name: File name.
        source: Domain that it was trained on, a key of the benchmark's `DOMAINS`.
        label_set: Key in `LABEL_SETS`.
        crop: Side of crops and windows in pixels.
        ground_sampling_distance: Meters per pixel of the source; None if it varies or is not stated.
    """

    name: str
    source: str
    label_set: str
    crop: int
    ground_sampling_distance: float | None = None

    @property
    def stride(self) -> int:
        """Step between windows in pixels."""
        return round(self.crop * 2 / 3)

    @property
    def backbone(self) -> str:
        """The authors' file of its DINOv2."""
        return next(name for name, crop in BACKBONES.items() if crop == self.crop)

    @property
    def hub_name(self) -> str:
        """The argument of `crossearth convert`."""
        return f"{REPOSITORY}:{self.name}"

    def describe(self) -> str:
        """A line for the report of a conversion."""
        if self.ground_sampling_distance is None:
            distance = "pixel size not stated"
        else:
            distance = f"{self.ground_sampling_distance:g} m per pixel"
        return (
            f"Known by its name: trained on {self.source}, label set {self.label_set}, crop {self.crop} px, stride "
            f"{self.stride} px, {distance}, backbone {self.backbone}"
        )


BACKBONES = {
    "dinov2_vitl14_pretrain.pth": None,
    "dinov2_converted.pth": 512,
    "dinov2_converted_1024x1024.pth": 1024,
}
"""DINOv2 ViT-L beside the checkpoints, and the crop that it was resampled for: L/14 as released, L/16 twice."""

PUBLISHED_FILES = (
    PublishedFile("Potsdam(i)-source.pth", "potsdam_irrg", "isprs", 512, 0.05),
    PublishedFile("Potsdam(r)-source.pth", "potsdam_rgb", "isprs", 512, 0.05),
    PublishedFile("Vaihingen-source.pth", "vaihingen", "isprs", 512, 0.09),
    PublishedFile("Potsdam(r)2RescueNet.pth", "potsdam_rgb_res", "rescue", 512, 0.05),
    PublishedFile("Potsdam(i)2RescueNet.pth", "potsdam_irrg_res", "rescue", 512, 0.05),
    PublishedFile("WHU-Building-A2S.pth", "whu_aerial", "building", 512, 0.3),
    PublishedFile("WHU-Building-S2A.pth", "whu_satellite", "building", 512, 0.45),
    PublishedFile("D2M-Rein.pth", "deepglobe_road", "road", 1024, 0.5),
    PublishedFile("casid-sub-source.pth", "casid_sub", "casid", 1024),
    PublishedFile("casid-tem-source.pth", "casid_tem", "casid", 1024),
    PublishedFile("casid-tms-source.pth", "casid_tms", "casid", 1024),
    PublishedFile("casid-trf-source.pth", "casid_trf", "casid", 1024),
)

ANNOUNCED = ("loveda_urban", "loveda_rural")
"""Source domains whose files the authors announce without a name."""

_OTHER_NETWORKS = {
    "d2m-mtp.pth": "another network, the ViT of MTP with rotated varied-size attention, which this package does not "
    "have; convert D2M-Rein.pth, which is for the same scenario",
}


def published_file(checkpoint: str | os.PathLike[str]) -> PublishedFile | None:
    """The published file that a path, or ORG/NAME:FILE of the Hub, is named like; None for any other.

    Raises:
        InputError: The published file of this name holds another network.
    """
    name = re.split(r"[/\\:]", os.fspath(checkpoint))[-1]
    for other, reason in _OTHER_NETWORKS.items():
        if name.lower() == other:
            raise InputError(f"{checkpoint} is {reason}")
    return next((file for file in PUBLISHED_FILES if file.name.lower() == name.lower()), None)
