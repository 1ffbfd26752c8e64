"""Reports as Markdown."""

from typing import Any

from .package import ENGINES

GIBIBYTE = 2**30
COLUMNS = (
    "case", "contestant", "median (least to most), s", "time / baseline (least to most)", "time / previous release",
    "peak memory, GiB", "memory / baseline", "difference to baseline", "labels changed",
)  # fmt: skip


def table(report: dict[str, Any]) -> str:
    """A row for every contestant of every case, and beneath it what predict adds to forward passes, and engines."""
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    rows += [_row(case["name"], entry) for case in report["cases"] for entry in case["contestants"]]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(
        [
            *lines,
            *(
                f"\n{text}"
                for case in report["cases"]
                for text in (*_overheads(case), *_engines(case))
            ),
        ]
    )


def _row(case: str, entry: dict[str, Any]) -> tuple[str, ...]:
    name, error = entry["contestant"], entry["error"]
    if "seconds" not in entry:
        return (case, name, str(error), *("-" for _ in COLUMNS[3:]))
    seconds, against = entry["seconds"], entry["against"]
    baseline = against.get("baseline", {})
    previous: dict[str, Any] = next(
        (v for other, v in against.items() if other.startswith("previous")), {}
    )
    precise = against.get(f"{name.split(':')[0]}:float32", baseline)
    time = f"{entry['median_seconds']:.3g} ({min(seconds):.3g} to {max(seconds):.3g})"
    if error:
        time += f"; {error}"
    ratio = _number(baseline, "ratio", ".2f")
    if baseline:
        ratio += f" ({baseline['ratio_least']:.2f} to {baseline['ratio_most']:.2f})"
    return (
        case,
        name,
        time,
        ratio,
        _number(previous, "ratio", ".2f"),
        f"{entry['peak_bytes'] / GIBIBYTE:.2f}",
        _number(baseline, "memory_ratio", ".2f"),
        _number(baseline, "difference", ".1e"),
        _number(precise, "changed", ".2%"),
    )


def _number(values: dict[str, Any], name: str, form: str) -> str:
    """A value in a table; "-" where it was not measured."""
    if name not in values:
        return "-"
    return format(values[name], form)


def _overheads(case: dict[str, Any]) -> list[str]:
    """A sentence for each time beside the bare forward passes of the same windows, where they were measured."""
    return [
        f"{case['name']}: {entry['contestant']} takes {values['ratio']:.3f} ({values['ratio_least']:.3f} to "
        f"{values['ratio_most']:.3f}) of the time of {other}."
        for entry in case["contestants"]
        for other, values in entry.get("against", {}).items()
        if other.startswith("forward")
        and entry["contestant"] == "ours:float32"  # the passes' own precision
    ]


def _engines(case: dict[str, Any]) -> list[str]:
    """A sentence for each engine beside PyTorch in float32."""
    return [
        f"{case['name']}: {entry['contestant']} takes {values['cpu_ratio']:.3f} of the processor time and "
        f"{values['ratio']:.3f} ({values['ratio_least']:.3f} to {values['ratio_most']:.3f}) of the time of {other}."
        for entry in case["contestants"]
        for other, values in entry.get("against", {}).items()
        if entry["contestant"].partition(":")[2] in ENGINES and other == "ours:float32"
    ]
