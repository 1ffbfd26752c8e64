"""The benchmark of the CrossEarth paper as literals: recipes, scenarios and published scores; `domains` has the data.

Facts as listed by the authors (Gong et al., IEEE TPAMI 2026, arXiv 2410.22629, figures and repository): 25 cross-domain
and 4 in-domain scenarios. The paper counts 32; what the other three are could not be established, so three of our own
fill the count and are marked `ours` wherever they appear. All facts about scenarios are in these two modules.
"""

from dataclasses import dataclass, field
from difflib import get_close_matches

from ..errors import InputError
from ..labels import LabelSet
from .domains import DOMAINS

VERSION = "1"
"""Version of the scenarios; it rises when a target, split or label changes, and reports of different versions are not
comparable."""


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
class Scenario:
    """Training on one domain and scoring on another.

    Attributes:
        code: Key in `SCENARIOS`, as the paper writes it.
        gap: The difference between source and target.
        source, target: Keys in `DOMAINS`.
        recipe: Key in `RECIPES`.
        published: Mean IoU in percent by method, read from the paper's figures: another harness than ours. For roads
            and buildings the paper does not say whether the mean or the foreground's IoU is meant.
        ours: Whether it is our own and not documented by the authors.
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
        """Classes of the target domain and of the source domain."""
        return DOMAINS[self.target].labels


RECIPES = {
    512: Recipe(learning_rate=1e-4, warmup_steps=0, window=512, stride=341),
    1024: Recipe(learning_rate=6e-5, warmup_steps=10_000, window=1024, stride=683),
}


SCENARIOS = {
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
        Scenario(
            "U2R",
            "region",
            "loveda_urban",
            "loveda_rural",
            1024,
            {"CrossEarth": 46.6, "Rein": 45.6},
        ),
        Scenario(
            "R2U",
            "region",
            "loveda_rural",
            "loveda_urban",
            1024,
            {"CrossEarth": 57.9, "Rein": 57.7},
        ),
        Scenario("D2M", "region", "deepglobe_road", "massachusetts_road", 1024),
        Scenario(
            "P(r)2Res",
            "region",
            "potsdam_rgb_res",
            "rescuenet",
            512,
            {"CrossEarth": 46.8, "Rein": 45.9},
        ),
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
        Scenario(
            "P(i)2Res",
            "region+band",
            "potsdam_irrg_res",
            "rescuenet",
            512,
            {"CrossEarth": 45.5, "Rein": 45.4},
        ),
        Scenario(
            "A2S",
            "region+platform",
            "whu_aerial",
            "whu_satellite",
            512,
            {"CrossEarth": 44.3, "Rein": 30.8},
        ),
        Scenario("S2A", "region+platform", "whu_satellite", "whu_aerial", 512),
        Scenario(
            "Sub2Tem",
            "region+climate",
            "casid_sub",
            "casid_tem",
            1024,
            {"CrossEarth": 48.1, "Rein": 46.4},
        ),
        Scenario(
            "Sub2Tms",
            "region+climate",
            "casid_sub",
            "casid_tms",
            1024,
            {"CrossEarth": 64.6, "Rein": 59.7},
        ),
        Scenario(
            "Sub2Trf",
            "region+climate",
            "casid_sub",
            "casid_trf",
            1024,
            {"CrossEarth": 64.2, "Rein": 63.4},
        ),
        Scenario("Tem2Sub", "region+climate", "casid_tem", "casid_sub", 1024),
        Scenario("Tem2Tms", "region+climate", "casid_tem", "casid_tms", 1024),
        Scenario(
            "Tem2Trf",
            "region+climate",
            "casid_tem",
            "casid_trf",
            1024,
            {"CrossEarth": 57.8, "Rein": 55.9},
        ),
        Scenario(
            "Tms2Sub",
            "region+climate",
            "casid_tms",
            "casid_sub",
            1024,
            {"CrossEarth": 69.1, "Rein": 68.6},
        ),
        Scenario(
            "Tms2Tem",
            "region+climate",
            "casid_tms",
            "casid_tem",
            1024,
            {"CrossEarth": 40.5, "Rein": 37.2},
        ),
        Scenario(
            "Tms2Trf",
            "region+climate",
            "casid_tms",
            "casid_trf",
            1024,
            {"CrossEarth": 60.7, "Rein": 59.7},
        ),
        Scenario(
            "Trf2Sub",
            "region+climate",
            "casid_trf",
            "casid_sub",
            1024,
            {"CrossEarth": 67.9, "Rein": 67.6},
        ),
        Scenario("Trf2Tem", "region+climate", "casid_trf", "casid_tem", 1024),
        Scenario("Trf2Tms", "region+climate", "casid_trf", "casid_tms", 1024),
        Scenario(
            "Sub2Sub",
            "in-domain",
            "casid_sub",
            "casid_sub",
            1024,
            {"CrossEarth": 69.4, "Rein": 67.2},
        ),
        Scenario(
            "Tem2Tem",
            "in-domain",
            "casid_tem",
            "casid_tem",
            1024,
            {"CrossEarth": 53.5, "Rein": 51.3},
        ),
        Scenario(
            "Tms2Tms",
            "in-domain",
            "casid_tms",
            "casid_tms",
            1024,
            {"CrossEarth": 68.9, "Rein": 65.0},
        ),
        Scenario(
            "Trf2Trf",
            "in-domain",
            "casid_trf",
            "casid_trf",
            1024,
            {"CrossEarth": 65.3, "Rein": 61.0},
        ),
        Scenario("D2S", "region", "deepglobe_road", "spacenet_road", 1024, ours=True),
        Scenario("A2SN", "region+platform", "whu_aerial", "spacenet_building", 512, ours=True),
        Scenario("M2D", "region", "massachusetts_road", "deepglobe_road", 1024, ours=True),
    )
}


def get_scenario(code: str) -> Scenario:
    """The scenario called `code`; raises `InputError` naming the closest ones."""
    if code not in SCENARIOS:
        near = get_close_matches(code, SCENARIOS, n=3, cutoff=0.4) or list(SCENARIOS)[:3]
        raise InputError(
            f"unknown scenario '{code}'; did you mean {' or '.join(near)}? See `crossearth scenarios`"
        )
    return SCENARIOS[code]
