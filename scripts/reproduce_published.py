"""Scores the authors' checkpoints on their scenarios, beside the paper's numbers.

    python scripts/reproduce_published.py "P(i)2V" RAW_DIR WORK_DIR      # one scenario
    python scripts/reproduce_published.py all RAW_DIR WORK_DIR           # every one that has a published checkpoint
    python scripts/reproduce_published.py list RAW_DIR WORK_DIR          # which these are, nothing else

RAW_DIR holds the archives of the data sets, those of their authors or those that CrossEarth's authors have processed; a
data set may have a folder of its own in it, such as RAW_DIR/whu-building. Builds the data, downloads the checkpoint
(some GB) from the Hub, converts it, evaluates, and prints our mean IoU and the published one. Each step is kept in
WORK_DIR and not repeated. A scenario that cannot be scored does not end the others.

NOT RUN ON THE REAL FILES by the authors of this package: neither the checkpoints nor the full archives were at hand.
The steps are tested on random checkpoints of the published format and on miniature archives, so what comes out is
unknown; the paper's numbers are of another harness.

Names of checkpoints and scenarios: the table "Model Weights with Configs" of https://github.com/Cuzyoung/CrossEarth.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open

from crossearth_hf.cli.arguments import assignment
from crossearth_hf.conversion.published import WEIGHTS, convert, describe
from crossearth_hf.conversion.published_files import PUBLISHED_FILES, PublishedFile
from crossearth_hf.errors import InputError
from crossearth_hf.evaluation import ScenarioTarget, evaluate
from crossearth_hf.evaluation.numbers import percent, percent_interval
from crossearth_hf.evaluation.report_file import Entry
from crossearth_hf.scenarios.build import build_dataset
from crossearth_hf.scenarios.build.readers import READERS
from crossearth_hf.scenarios.domains import DOMAINS, Domain
from crossearth_hf.scenarios.scenarios import SCENARIOS, Scenario, get_scenario

FILES = {
    scenario.code: file
    for scenario in SCENARIOS.values()
    for file in PUBLISHED_FILES
    if file.source == scenario.source and not scenario.ours
}
"""The checkpoint of every scenario that has one."""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "scenario", metavar="SCENARIO", help="its code, such as 'P(i)2V', or all, or list"
    )
    parser.add_argument("raw_dir", metavar="RAW_DIR", type=Path, help="folder with the archives")
    parser.add_argument(
        "work_dir", metavar="WORK_DIR", type=Path, help="folder for models, data and reports"
    )
    parser.add_argument(
        "--checkpoints", type=Path, help="folder with the authors' files; default: the Hub"
    )
    parser.add_argument(
        "--config", help="for other sizes than the published ones, see `crossearth convert`"
    )
    parser.add_argument(
        "--path", metavar="KEY=PATH", type=assignment, action="append", default=[], dest="paths",
        help="folders of a data set, see `crossearth build-dataset`; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--allow-incomplete",
        action="store_true",
        help="score a partial download; no score to compare",
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    parser.add_argument("--batch-size", type=int, default=4, help="windows at a time (default: 4)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes that build the data"
    )
    return parser.parse_args(argv)


def chosen(name: str) -> list[Scenario]:
    """The scenarios that `name` stands for; `InputError` for one without a published checkpoint."""
    if name in ("all", "list"):
        return [SCENARIOS[code] for code in FILES]
    scenario = get_scenario(name)
    if name not in FILES:
        raise InputError(
            f"no checkpoint is published for {name}; those with one are {', '.join(FILES)}"
        )
    return [scenario]


def built_data(options: argparse.Namespace, target: Domain) -> Path:
    """The folder with the target's data, built if it is not there."""
    data = options.work_dir / "data"
    data.mkdir(parents=True, exist_ok=True)
    raw = options.raw_dir / target.dataset
    known = {*READERS[target.dataset].PATHS, target.name}
    build = build_dataset(
        target.dataset,
        raw if raw.is_dir() else options.raw_dir,
        data / target.dataset,
        domains=[target.name],
        paths={
            key: path for key, path in options.paths if key in known or key.split(".")[0] in known
        },
        allow_incomplete=options.allow_incomplete,
        workers=options.workers,
    )
    print(build.table())
    return data


def converted_model(options: argparse.Namespace, file: PublishedFile) -> Path:
    """The converted checkpoint; `InputError` if another checkpoint's model is in its place."""
    if options.checkpoints is None:
        checkpoint = file.hub_name
    else:
        checkpoint = str(options.checkpoints / file.name)
    folder: Path = options.work_dir / "models" / Path(file.name).stem
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        print(describe(convert(checkpoint, folder, config=options.config)))
        return folder
    with safe_open(folder / WEIGHTS, framework="pt") as weights:
        source, digest = json.loads(weights.metadata()["sha256"])[0]
    if source not in (file.hub_name, file.name):
        raise InputError(
            f"{folder} was converted from {source}, not from {file.name}; name another WORK_DIR"
        )
    print(f"{folder} is there, converted from {source} (SHA-256 {digest})")
    return folder


def score(options: argparse.Namespace, scenario: Scenario) -> Entry:
    """Builds, downloads, converts and evaluates what is not there yet."""
    data = built_data(options, DOMAINS[scenario.target])
    file = FILES[scenario.code]
    model = converted_model(options, file)
    report = evaluate(
        model,
        {scenario.code: ScenarioTarget(scenario.code, data)},
        options.work_dir / "reports" / Path(file.name).stem,
        batch_size=options.batch_size,
        device=options.device,
    )
    return report.entries[scenario.code]


def comparison(scenario: Scenario, entry: Entry) -> str:
    """Our score beside the published one, and what keeps the two apart."""
    ours, published = entry.scores["mean_iou"], scenario.published.get("CrossEarth")
    score = percent(ours)
    if ours is not None:
        score = percent_interval(ours, entry.intervals["mean_iou"])
    stated = "no number found"
    if published is not None:
        stated = f"{published:.1f}"
    lines = [
        f"{scenario.code}, mean IoU of {entry.images} images in percent",
        f"  this harness      {score}",
        f"  paper's harness   {stated}",
    ]
    if entry.incomplete:
        lines.append("  The data are incomplete: these two numbers do not compare.")
    return "\n".join(lines)


def listing(scenarios: Sequence[Scenario]) -> str:
    """A line per scenario: its checkpoint, the data set to download, the paper's number."""
    lines = []
    for scenario in scenarios:
        published = scenario.published.get("CrossEarth", "")
        lines.append(
            f"{scenario.code:10} {FILES[scenario.code].name:26} {DOMAINS[scenario.target].dataset:20} {published}"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Runs the steps; 2 is the exit code of a mistake in what was given, or of a scenario that was not scored."""
    options = parse(argv)
    try:
        scenarios = chosen(options.scenario)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.scenario == "list":
        print(listing(scenarios))
        return 0
    results, failures = [], 0
    for scenario in scenarios:
        try:
            results.append(comparison(scenario, score(options, scenario)))
        except (InputError, OSError) as error:
            failures += 1
            print(f"error: {scenario.code}: {error}", file=sys.stderr)
    print("\n".join(results))
    return 2 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
