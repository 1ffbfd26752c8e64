"""The benchmark of the CrossEarth paper as literals: data sets, domains, recipes, scenarios, published scores.

Facts as listed by the authors (Gong et al., IEEE TPAMI 2026, arXiv 2410.22629, figures and repository): 25 cross-domain
and 4 in-domain scenarios. The paper counts 32; what the other three are could not be established, so three of our own
fill the count and are marked `ours` wherever they appear. Nothing about a scenario stands in a second place.
"""

from dataclasses import dataclass, field
from difflib import get_close_matches

from ..errors import InputError
from ..labels import LabelSet, get_label_set

VERSION = "1"
"""Of the scenarios: reports of different versions are not comparable. Rises when a target, split or label changes."""


@dataclass(frozen=True)
class Recipe:
    """How the authors trained and tested at one crop size.

    Attributes:
        learning_rate: AdamW's peak.
        warmup_steps: Steps of linear warm-up.
        window: Side of training crops and of the sliding window in pixels.
        stride: Step between windows in pixels.
    """

    learning_rate: float
    warmup_steps: int
    window: int
    stride: int


@dataclass(frozen=True)
class Domain:
    """Images of one kind with labels of one kind: what a scenario trains on or is scored on.

    Attributes:
        name: Key in `DOMAINS` and name of the configuration that its data set is loaded with.
        dataset: Key in `DATASETS`.
        bands: What the three channels are.
        label_set: Key in `labels.LABEL_SETS`.
        tile: Side of the tiles in pixels; None where images are kept as they are.
        counts: Tiles per split, as the benchmark counts them; None where it does not say. The splits it lacks are those
            of the data set's authors, or ours where `note` says so.
        ground_sampling_distance: Meters per pixel; None where it varies or is not stated.
        fit: For scoring, images are resized so that the longer side has this many pixels; labels keep theirs.
        window: Side of the window for scoring where it is not the recipe's.
        archive_counts: Tiles that the published archives give where that differs from `counts`; as good as these.
        note: What a user must know.
    """

    name: str
    dataset: str
    bands: str
    label_set: str
    tile: int | None
    counts: dict[str, int | None]
    ground_sampling_distance: float | None = None
    fit: int | None = None
    window: int | None = None
    archive_counts: dict[str, int] = field(default_factory=dict)
    note: str = ""

    @property
    def labels(self) -> LabelSet:
        """Classes, colors and ids."""
        return get_label_set(self.label_set)


@dataclass(frozen=True)
class Scenario:
    """Train on one domain, be scored on another.

    Attributes:
        code: Key in `BENCHMARKS`, as the paper writes it.
        gap: What differs between source and target.
        source, target: Keys in `DOMAINS`.
        recipe: Key in `RECIPES`.
        published: Mean IoU in percent by method, read from the paper's figures: another harness than ours. For roads
            and buildings the paper does not say whether the mean or the foreground's IoU is meant.
        ours: Whether it is our own choice rather than documented by the authors.
    """

    code: str
    gap: str
    source: str
    target: str
    recipe: int
    published: dict[str, float] = field(default_factory=dict)
    ours: bool = False

    @property
    def in_domain(self) -> bool:
        """Whether source and target are one domain: such a score enters no generalization mean."""
        return self.source == self.target

    @property
    def label_set(self) -> LabelSet:
        """Classes of the target, which are those of the source too."""
        return DOMAINS[self.target].labels


RECIPES = {
    512: Recipe(learning_rate=1e-4, warmup_steps=0, window=512, stride=341),
    1024: Recipe(learning_rate=6e-5, warmup_steps=10_000, window=1024, stride=683),
}


DOMAINS = {
    domain.name: domain
    for domain in (
        Domain(
            "potsdam_rgb",
            "potsdam",
            "R,G,B of 3_Ortho_RGB",
            "isprs",
            512,
            {"train": 3456, "test": 2016},
            ground_sampling_distance=0.05,
        ),
        Domain(
            "potsdam_irrg",
            "potsdam",
            "IR,R,G of 3_Ortho_IRRG",
            "isprs",
            512,
            {"train": 3456, "test": 2016},
            ground_sampling_distance=0.05,
        ),
        Domain(
            "vaihingen", "vaihingen", "IR,R,G", "isprs", 512, {"train": 344, "test": 398}, ground_sampling_distance=0.09
        ),
        Domain(
            "loveda_urban",
            "loveda",
            "R,G,B",
            "loveda",
            1024,
            {"train": 1156, "test": 677},
            ground_sampling_distance=0.3,
            note="the paper prints 667; the published validation set has 677",
        ),
        Domain(
            "loveda_rural",
            "loveda",
            "R,G,B",
            "loveda",
            1024,
            {"train": 1366, "test": 992},
            ground_sampling_distance=0.3,
        ),
        Domain(
            "deepglobe_road",
            "deepglobe-roads",
            "R,G,B",
            "road",
            1024,
            {"train": 6226, "test": 1246},
            ground_sampling_distance=0.5,
            note="only the training images have public masks: the test split, ours, is every fifth of them in the "
            "order of their ids; models that have seen DeepGlobe must not be scored on it",
        ),
        Domain(
            "massachusetts_road",
            "massachusetts-roads",
            "R,G,B",
            "road",
            1500,
            {"train": 1108, "validation": 14, "test": 49},
            ground_sampling_distance=1.0,
            window=1504,
            note="tested whole at 1500, the window being the next multiple of 16; training images keep their white "
            "areas without data",
        ),
        Domain(
            "rescuenet",
            "rescuenet",
            "R,G,B",
            "rescue",
            None,
            {"train": 3595, "validation": 449, "test": 449},
            fit=512,
            archive_counts={"test": 450},
            note="scored after resizing to fit 512, ratio kept; the 11 classes are mapped to these 5 by our choice, "
            "for the authors' mapping is not published; the paper counts 449 test images, the data set's authors 450",
        ),
        Domain(
            "potsdam_rgb_res",
            "potsdam",
            "R,G,B of 3_Ortho_RGB",
            "rescue",
            512,
            {"train": 3456, "test": 2016},
            ground_sampling_distance=0.05,
            note="the images of potsdam_rgb; low vegetation and tree are one class",
        ),
        Domain(
            "potsdam_irrg_res",
            "potsdam",
            "IR,R,G of 3_Ortho_IRRG",
            "rescue",
            512,
            {"train": 3456, "test": 2016},
            ground_sampling_distance=0.05,
            note="the images of potsdam_irrg; low vegetation and tree are one class",
        ),
        Domain(
            "whu_aerial",
            "whu-building",
            "R,G,B",
            "building",
            512,
            {"train": 4736, "test": 1036},
            ground_sampling_distance=0.3,
            note="by their number, the benchmark's 1036 test tiles are the archive's folder 'val'; its folder 'test' "
            "(2416) is not used",
        ),
        Domain(
            "whu_satellite",
            "whu-building",
            "R,G,B",
            "building",
            512,
            {"train": 13662, "test": 3726},
            ground_sampling_distance=0.45,
            note="with the tiles that hold few or no buildings: the archive's folders train and train_no "
            "(3135 + 10527), test and test_no (903 + 2823)",
        ),
        Domain(
            "casid_sub",
            "casid",
            "R,G,B",
            "casid",
            1024,
            {"train": 4900, "test": 2200},
            note="climate: subtropical monsoon",
        ),
        Domain(
            "casid_tem",
            "casid",
            "R,G,B",
            "casid",
            1024,
            {"train": 5025, "test": 2075},
            note="climate: temperate monsoon",
        ),
        Domain(
            "casid_tms",
            "casid",
            "R,G,B",
            "casid",
            1024,
            {"train": 3400, "test": 1650},
            note="climate: tropical monsoon",
        ),
        Domain(
            "casid_trf",
            "casid",
            "R,G,B",
            "casid",
            1024,
            {"train": 3700, "test": 1550},
            note="climate: tropical rainforest",
        ),
        Domain(
            "spacenet_road",
            "spacenet-roads",
            "R,G,B, 16 bits",
            "road",
            None,
            {"test": None},
            ground_sampling_distance=0.3,
            note="ours: all labeled chips of SpaceNet 3, the training archives of its four cities; center lines are "
            "drawn 4 m wide (2 m to either side)",
        ),
        Domain(
            "spacenet_building",
            "spacenet-buildings",
            "R,G,B, 16 bits",
            "building",
            None,
            {"test": 10593},
            ground_sampling_distance=0.3,
            note="ours: all labeled chips of SpaceNet 2, the training archives of its four cities",
        ),
    )
}

BENCHMARKS = {
    scenario.code: scenario
    for scenario in (
        Scenario(
            "P(i)2V",
            "region",
            "potsdam_irrg",
            "vaihingen",
            512,
            {"DAFormer": 54.4, "HRDA": 54.7, "MTP": 62.6, "Rein": 60.3, "CrossEarth": 67.5},
        ),
        Scenario(
            "V2P(i)",
            "region",
            "vaihingen",
            "potsdam_irrg",
            512,
            {"DAFormer": 47.6, "HRDA": 53.3, "MTP": 48.3, "Rein": 57.6, "CrossEarth": 58.2},
        ),
        Scenario("U2R", "region", "loveda_urban", "loveda_rural", 1024, {"CrossEarth": 46.6, "Rein": 45.6}),
        Scenario("R2U", "region", "loveda_rural", "loveda_urban", 1024, {"CrossEarth": 57.9, "Rein": 57.7}),
        Scenario("D2M", "region", "deepglobe_road", "massachusetts_road", 1024),
        Scenario("P(r)2Res", "region", "potsdam_rgb_res", "rescuenet", 512, {"CrossEarth": 46.8, "Rein": 45.9}),
        Scenario(
            "P(r)2P(i)",
            "band",
            "potsdam_rgb",
            "potsdam_irrg",
            512,
            {"DAFormer": 72.1, "HRDA": 69.5, "MTP": 64.5, "Rein": 76.3, "CrossEarth": 77.8},
        ),
        Scenario(
            "P(i)2P(r)",
            "band",
            "potsdam_irrg",
            "potsdam_rgb",
            512,
            {"DAFormer": 70.2, "HRDA": 70.0, "MTP": 71.0, "Rein": 69.2, "CrossEarth": 76.0},
        ),
        Scenario(
            "P(r)2V",
            "region+band",
            "potsdam_rgb",
            "vaihingen",
            512,
            {"DAFormer": 32.6, "HRDA": 33.4, "MTP": 31.1, "Rein": 56.1, "CrossEarth": 61.9},
        ),
        Scenario(
            "V2P(r)",
            "region+band",
            "vaihingen",
            "potsdam_rgb",
            512,
            {"DAFormer": 31.7, "HRDA": 35.7, "MTP": 48.6, "Rein": 50.6, "CrossEarth": 52.7},
        ),
        Scenario("P(i)2Res", "region+band", "potsdam_irrg_res", "rescuenet", 512, {"CrossEarth": 45.5, "Rein": 45.4}),
        Scenario("A2S", "region+platform", "whu_aerial", "whu_satellite", 512, {"CrossEarth": 44.3, "Rein": 30.8}),
        Scenario("S2A", "region+platform", "whu_satellite", "whu_aerial", 512),
        Scenario("Sub2Tem", "region+climate", "casid_sub", "casid_tem", 1024, {"CrossEarth": 48.1, "Rein": 46.4}),
        Scenario("Sub2Tms", "region+climate", "casid_sub", "casid_tms", 1024, {"CrossEarth": 64.6, "Rein": 59.7}),
        Scenario("Sub2Trf", "region+climate", "casid_sub", "casid_trf", 1024, {"CrossEarth": 64.2, "Rein": 63.4}),
        Scenario("Tem2Sub", "region+climate", "casid_tem", "casid_sub", 1024),
        Scenario("Tem2Tms", "region+climate", "casid_tem", "casid_tms", 1024),
        Scenario("Tem2Trf", "region+climate", "casid_tem", "casid_trf", 1024, {"CrossEarth": 57.8, "Rein": 55.9}),
        Scenario("Tms2Sub", "region+climate", "casid_tms", "casid_sub", 1024, {"CrossEarth": 69.1, "Rein": 68.6}),
        Scenario("Tms2Tem", "region+climate", "casid_tms", "casid_tem", 1024, {"CrossEarth": 40.5, "Rein": 37.2}),
        Scenario("Tms2Trf", "region+climate", "casid_tms", "casid_trf", 1024, {"CrossEarth": 60.7, "Rein": 59.7}),
        Scenario("Trf2Sub", "region+climate", "casid_trf", "casid_sub", 1024, {"CrossEarth": 67.9, "Rein": 67.6}),
        Scenario("Trf2Tem", "region+climate", "casid_trf", "casid_tem", 1024),
        Scenario("Trf2Tms", "region+climate", "casid_trf", "casid_tms", 1024),
        Scenario("Sub2Sub", "in-domain", "casid_sub", "casid_sub", 1024, {"CrossEarth": 69.4, "Rein": 67.2}),
        Scenario("Tem2Tem", "in-domain", "casid_tem", "casid_tem", 1024, {"CrossEarth": 53.5, "Rein": 51.3}),
        Scenario("Tms2Tms", "in-domain", "casid_tms", "casid_tms", 1024, {"CrossEarth": 68.9, "Rein": 65.0}),
        Scenario("Trf2Trf", "in-domain", "casid_trf", "casid_trf", 1024, {"CrossEarth": 65.3, "Rein": 61.0}),
        Scenario("D2S", "region", "deepglobe_road", "spacenet_road", 1024, ours=True),
        Scenario("A2SN", "region+platform", "whu_aerial", "spacenet_building", 512, ours=True),
        Scenario("M2D", "region", "massachusetts_road", "deepglobe_road", 1024, ours=True),
    )
}


def get_scenario(code: str) -> Scenario:
    """The scenario called `code`; raises `InputError` naming the closest ones."""
    if code not in BENCHMARKS:
        near = get_close_matches(code, BENCHMARKS, n=3, cutoff=0.4) or list(BENCHMARKS)[:3]
        raise InputError(f"'{code}' is not a scenario; the closest are {', '.join(near)}: see `crossearth scenarios`")
    return BENCHMARKS[code]


def domains_of(dataset: str) -> tuple[Domain, ...]:
    """The domains that are cut from a data set."""
    return tuple(domain for domain in DOMAINS.values() if domain.dataset == dataset)
