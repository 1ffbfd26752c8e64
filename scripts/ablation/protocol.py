"""The protocol of the ablation, as docs/ablation.md fixes it: data, regimes, rows, seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossearth_hf.errors import InputError

SOURCES: tuple[tuple[str, float], ...] = (
    ("dubai:tile[2-6]_*", 0.30),
    ("manifest.json:oam_building@Zanzibar*", 0.08),
    ("manifest.json:oam_building@Kampala*", 0.06),
    ("manifest.json:oam_building@Banepa*", 0.05),
    ("manifest.json:oam_building@Nairobi*", 0.03),
    ("manifest.json:banepa_np", 0.05),
    ("manifest.json:naip_california_veg@[!BE]*", 0.12),
    ("manifest.json:naip_us_forest_veg@[!O]*", 0.05),
    ("manifest.json:hls_worldcover", 0.03),
    ("manifest.json:fixtures_building_road", 0.05),
    ("synth:desert-city:24", 0.03),
    ("synth:mediterranean-coast:24", 0.03),
    ("synth:coarse-hazy:24", 0.03),
    ("synth:temperate-summer:24", 0.03),
    ("synth:tropical-town:24", 0.03),
    ("synth:river-delta:24", 0.03),
)
"""What every run learns from, with its share in the crops."""

LEFT_OUT = {
    "Dubai 1": "dubai:tile1_*",
    "Catanduanes": "manifest.json:oam_building@Catanduanes*",
    "temperate winter": "synth:temperate-winter:24",
}
"""Regions left out of the sources: all choices are made on them, and the factors of the read-out."""

UNSEEN = ("Harvey 1/4", "Indonesia", "Cities", "EPFL", "CIL", "Flood")
"""Targets of the primary outcome: domains of which no source holds anything. Dubai 7-8 is not one: tiles 2-6 are."""

SCORED = ("Dubai 7-8", *UNSEEN)
"""Targets that every run is scored on."""

BANK_PICTURES = ("unlabelled/aid150", "unlabelled/rsscn7")
"""Imagery worldwide, without sources and targets, that the styles come from."""

SETTINGS: dict[str, Any] = {
    "classes": ["land-cover"],
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-3,
    "backbone_lr_multiplier": 0.1,
    "max_grad_norm": 1.0,
    "ema_decay": 0.998,
    "crop_size": 128,
    "scale_range": [0.6, 3.0],
    "relative_to_crop": False,
    "rotate": True,
}
"""Fields of `TrainConfig` that all rows share; photometric distortion is part of every crop."""

STYLE: dict[str, Any] = {"style_probability": 0.1, "style_alpha": 0.1}
MASKS: dict[str, Any] = {"objective": "multitask", "mim_block_size": 16, "mim_hidden_only": True}
"""Blocks of an eighth of the crop, as in the paper: 64 of 512 pixels."""
GRADIENT_SHARE = 0.15
"""Of masked image modeling in segmentation's gradient: the middle of 10 to 20 %."""

REGIMES = {"frozen": {"adaptation": "rein"}, "trained": {"adaptation": "full+rein"}}
"""The paper's own, a frozen foundation model with Rein; and everything trained."""

BASE = "base"
BOTH = "crossearth"
ESI_LOW = STYLE | {"style_low_pass": 4.0}
ROWS: dict[str, dict[str, Any]] = {
    BASE: {},
    "rendering": STYLE | {"style_alpha": 0.0},
    "esi": STYLE,
    "esi-low": ESI_LOW,
    "mim": MASKS,
    "fourier": {"fourier_probability": 0.5},
    "peer": {"adaptation": "full"},
    BOTH: MASKS
    | ESI_LOW,  # at the authors' strength, most of the change is rendering and not style
}
"""Fields in which each row differs from the base."""

PEER = "peer"
SEEDS = {"frozen": {BASE: 5, BOTH: 5, "esi": 5, "esi-low": 5}, "trained": {BASE: 3, BOTH: 3}}
"""Number of seeds by regime and row; every other row of "frozen" has `OTHER_SEEDS`. The frozen regime is primary."""
OTHER_SEEDS = 3
FIRST_OF_SECOND_START = 3
"""Seeds from this one on start from the second model, where two are given."""


@dataclass(frozen=True)
class Cell:
    """One run of the ablation.

    Attributes:
        regime: Of `REGIMES`.
        row: Of `ROWS`.
        seed: Of the run.
    """

    regime: str
    row: str
    seed: int

    @property
    def name(self) -> str:
        """Its place below the folder of the ablation."""
        return f"{self.regime}/{self.row}/seed{self.seed}"

    def settings(self) -> dict[str, Any]:
        """Fields of `TrainConfig` that make it what it is."""
        return SETTINGS | REGIMES[self.regime] | ROWS[self.row]

    def start(self, starts: Sequence[Path]) -> Path:
        """Which of the models it starts from."""
        is_second = self.seed >= FIRST_OF_SECOND_START and len(starts) > 1
        return starts[int(is_second)]


def plan(
    regimes: Sequence[str], rows: Sequence[str], seeds: Sequence[int] | None = None
) -> list[Cell]:
    """The runs, seeds outermost, so that an unfinished table holds whole rounds.

    Args:
        regimes: Of `REGIMES`.
        rows: Of `ROWS`; a regime leaves out those that it does not have.
        seeds: In place of those of the protocol.

    Raises:
        InputError: an unknown name.
    """
    for names, known, what in ((regimes, REGIMES, "regime"), (rows, ROWS, "row")):
        for name in names:
            if name not in known:
                raise InputError(f"unknown {what} '{name}'; the known ones are {', '.join(known)}")
    cells = []
    for regime in regimes:
        for row in rows:
            if regime == "trained" and row not in SEEDS[regime]:
                continue
            chosen = seeds
            if chosen is None:
                chosen = range(SEEDS[regime].get(row, OTHER_SEEDS))
            cells += [Cell(regime, row, seed) for seed in chosen]
    return sorted(cells, key=lambda cell: (list(REGIMES).index(cell.regime), cell.seed))
