"""The cases and their usual contestants."""

from collections.abc import Sequence

from .jobs import Case
from .materials import BUNDLED, SMALL
from .package import ENGINES
from .peers import NETWORKS

PREVIOUS_RELEASE = "8d595de"
"""The revision before the work on speed began."""

PRECISIONS = ("float32", "bfloat16")
FAMILIES = ("baseline", "ours", "previous", "forward", *NETWORKS)
PEERS = tuple(f"{name}:float32" for name in NETWORKS)

CASES = {
    case.name: case
    for case in (
        Case("crop512", "scores", "large-512", size=512, window=512, stride=341),
        Case("crop1024", "scores", "large-1024", size=1024, window=1024, stride=683),
        Case("slide2048", "scores", "large-512", size=2048, window=512, stride=341),
        Case("training512", "training", "large-512", size=512, window=512, stride=341, stays=False),
        Case("predict4096", "predict", BUNDLED, size=4096, window=256, stride=171),
        Case("predict8192", "predict", BUNDLED, size=8192, window=256, stride=171),
        Case("engines1024", "engines", SMALL, size=1024, window=256, stride=192),
        Case("engines2048", "engines", SMALL, size=2048, window=256, stride=192),
    )
}
QUICK = {
    case.name: case
    for case in (
        Case("quick-crop", "scores", "tiny", size=256, window=256, stride=171),
        Case("quick-training", "training", "tiny", size=256, window=256, stride=171, stays=False),
        Case("quick-predict", "predict", BUNDLED, size=512, window=256, stride=171),
    )
}
"""The same kinds of work in seconds: they show that everything runs, not how fast it is."""


def usual_contestants(case: Case, precisions: Sequence[str]) -> list[str]:
    """Those of a case as "FAMILY:OPTION", the baseline first; ours once for each of `precisions`."""
    if case.kind == "training":
        return ["baseline", "ours:fast", "ours:lean", "previous:fast", *PEERS]
    ours = [f"ours:{precision}" for precision in precisions]
    if case.kind == "engines":
        return [*ours, *(f"ours:{engine}" for engine in ENGINES)]
    if case.kind == "scores":
        return ["baseline", *ours, "previous:float32", *PEERS]
    return ["baseline", "forward:logits", "forward:scores", *ours, "previous:float32"]


def chosen_contestants(
    case: Case, precisions: Sequence[str], wanted: Sequence[str] | None
) -> list[str]:
    """The usual ones, or of these the families in `wanted`, and whoever is named there with an option."""
    usual = usual_contestants(case, precisions)
    if wanted is None:
        return usual
    kept = [name for name in usual if name.partition(":")[0] in wanted]
    return kept + [name for name in wanted if ":" in name and name not in kept]
