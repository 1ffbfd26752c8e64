"""The benchmark as text: a table of its scenarios, and one of them in full."""

from textwrap import fill, indent

from .domains import DOMAINS, Domain
from .scenarios import RECIPES, SCENARIOS, VERSION, Scenario, get_scenario
from .source_datasets import get_dataset

_HEADINGS = (
    "scenario",
    "gap",
    "source -> target",
    "classes",
    "train -> test",
    "window",
    "published",
    "origin",
)
_WIDTH = 110


def scenario_table() -> str:
    """All scenarios, a line each, with the benchmark's counts (`?` if not stated) and CrossEarth's mean IoU."""
    rows = [_HEADINGS, *(_row(scenario) for scenario in SCENARIOS.values())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    documented = sum(not scenario.ours for scenario in SCENARIOS.values())
    return "\n".join(
        [
            *lines,
            "",
            f"{documented} scenarios as the authors list them, {len(SCENARIOS) - documented} of our own (ours); "
            f"benchmark version {VERSION}.",
            "published: mean IoU in percent of CrossEarth in the paper, another harness than this one.",
        ]
    )


def describe_scenario(code: str) -> str:
    """One scenario in full; raises `InputError` naming the closest ones if there is none called `code`."""
    scenario = get_scenario(code)
    recipe, labels = RECIPES[scenario.recipe], scenario.label_set
    title = f"{code}: {scenario.gap}"
    if scenario.ours:
        title += " (ours, not of the paper)"
    parts = [
        title,
        f"classes    {', '.join(labels.classes)}",
        f"training   crops of {recipe.window} px, learning rate {recipe.learning_rate:g}, "
        f"{recipe.warmup_steps} steps of warm-up",
        f"test       {_testing(scenario)}",
        f"scores     {_published(scenario)}",
    ]
    if scenario.in_domain:
        parts.append("in-domain: reported apart, never part of a mean over unseen targets")
    names = dict.fromkeys((scenario.source, scenario.target))
    parts += [
        "",
        *("\n".join(_describe_domain(_role(scenario, name), DOMAINS[name])) for name in names),
    ]
    for dataset in dict.fromkeys(DOMAINS[name].dataset for name in names):
        parts += ["", _describe_dataset(dataset)]
    return "\n".join(parts)


def _row(scenario: Scenario) -> tuple[str, ...]:
    source, target = DOMAINS[scenario.source], DOMAINS[scenario.target]
    published, origin = "-", "authors"
    if scenario.published:
        published = f"{scenario.published['CrossEarth']:.1f}"
    if scenario.ours:
        origin = "ours"
    return (
        scenario.code,
        scenario.gap,
        f"{source.name} -> {target.name}",
        str(len(scenario.label_set.classes)),
        f"{_count(source, 'train')} -> {_count(target, 'test')}",
        str(target.window or RECIPES[scenario.recipe].window),
        published,
        origin,
    )


def _count(domain: Domain, split: str) -> str:
    count = domain.counts.get(split)
    if count is None:
        return "?"
    return str(count)


def _testing(scenario: Scenario) -> str:
    """Windows and resizing of the target's images."""
    recipe, target = RECIPES[scenario.recipe], DOMAINS[scenario.target]
    if target.fit:
        fit = f", after resizing to fit {target.fit} px"
    else:
        fit = ""
    return f"windows of {target.window or recipe.window} px, a step of {recipe.stride} px{fit}"


def _published(scenario: Scenario) -> str:
    """Scores by method, best first."""
    if not scenario.published:
        return "none published"
    ranked = sorted(scenario.published.items(), key=lambda item: -item[1])
    return (
        ", ".join(f"{method} {score:.1f}" for method, score in ranked)
        + " (mean IoU in percent, read from the paper's figures)"
    )


def _role(scenario: Scenario, name: str) -> str:
    if scenario.in_domain:
        return "source and target"
    if name == scenario.source:
        return "source"
    return "target"


def _describe_domain(role: str, domain: Domain) -> list[str]:
    if domain.tile:
        tile = f"tiles of {domain.tile} px"
    else:
        tile = "images as they are"
    if domain.ground_sampling_distance:
        meters = f", {domain.ground_sampling_distance:g} m per pixel"
    else:
        meters = ""
    counts = ", ".join(f"{split} {_count(domain, split)}" for split in domain.counts)
    lines = [f"{role}: {domain.name}: {domain.bands}, {tile}{meters}; tiles: {counts}"]
    if not domain.note:
        return lines
    return [*lines, _wrapped(f"note: {domain.note}", 4)]


def _describe_dataset(name: str) -> str:
    dataset = get_dataset(name)
    sharing = {True: "may be shared", False: "must not be shared", None: "sharing: not stated"}[
        dataset.may_be_shared
    ]
    lines = [
        f"homepage  {dataset.homepage}",
        f"license   {dataset.license}; {sharing}; source: {dataset.license_source}",
        f"archives  {', '.join(dataset.archives)}",
        f"layout    {dataset.layout}; source: {dataset.layout_source}",
    ]
    title = f"{dataset.title} (crossearth build-dataset {name} RAW_DIR OUT_DIR)"
    return "\n".join(
        [title, *(_wrapped(line, 12) for line in lines), indent(dataset.citation, "  ")]
    )


def _wrapped(line: str, hanging: int) -> str:
    """A line of a block, broken at spaces, its continuation indented further."""
    return fill(
        line,
        _WIDTH,
        initial_indent="  ",
        subsequent_indent=" " * hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
