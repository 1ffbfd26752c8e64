"""Measures speed and memory against the original's way of computing, other models and the previous release.

`python scripts/measure_speed.py --cases crop512 --rounds 5 --out speed.json` prints a Markdown table;
docs/performance.md says what is measured and how to read it. Contestants take turns, each in a process of its own; one
computes at a time.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from speed import cases, materials
from speed.jobs import Case, Setup
from speed.machine import describe, sentence
from speed.measure import Entry, race, summary
from speed.process import Contestant
from speed.table import table

from crossearth_hf.errors import InputError
from crossearth_hf.files.outputs import check_output, staged

ROOT = Path(__file__).resolve().parents[1]
KNOWN = cases.CASES | cases.QUICK


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        choices=KNOWN,
        default=list(cases.CASES),
        metavar="CASE",
        help=", ".join(KNOWN),
    )
    parser.add_argument(
        "--contestants", nargs="+", metavar="FAMILY[:OPTION]", type=contestant,
        help=f"of {', '.join(cases.FAMILIES)}; a family alone stands for those of it that the case usually has",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", nargs="+", default=cases.PRECISIONS, help="precisions of ours in inference"
    )
    parser.add_argument(
        "--rounds", type=positive, default=5, help="turns of every contestant, after one of warm-up"
    )
    parser.add_argument(
        "--threads", type=positive, default=torch.get_num_threads(), help="of PyTorch"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--previous",
        metavar="REVISION",
        default=cases.PREVIOUS_RELEASE,
        help="git's, to compare with",
    )
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=7200, help="for one turn"
    )
    parser.add_argument("--out", type=Path, help="JSON file for the whole report")
    return parser.parse_args(arguments)


def contestant(text: str) -> str:
    """A contestant as typed; raises `argparse.ArgumentTypeError` for an unknown family."""
    if text.partition(":")[0] not in cases.FAMILIES:
        raise argparse.ArgumentTypeError(
            f"'{text}' is of no known family; they are {', '.join(cases.FAMILIES)}"
        )
    return text


def positive(text: str) -> int:
    """A number of 1 or more; raises `argparse.ArgumentTypeError` for others."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of 1 or more")
    return int(text)


def measure(case: Case, names: list[str], args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The report of one case and its contestants; its files go to `folder`."""
    model = materials.make_model(case.preset, folder, ROOT)
    scene = corner = None
    if case.kind in ("predict", "engines"):
        scene = materials.make_scene(case.size, folder)
        corner = materials.make_scene(case.window, folder)
    entries = [
        Entry(family, option) for family, _, option in (name.partition(":") for name in names)
    ]

    def start(entry: Entry) -> Contestant:
        own = folder / case.name / entry.name.replace(":", "-")
        setup = Setup(
            entry.family, entry.option, case, model=model, scene=scene, corner=corner, folder=own,
            threads=args.threads, device=args.device,
        )  # fmt: skip
        package = ROOT
        if entry.family == "previous":
            package = folder / "previous"
        return Contestant(setup, package, args.timeout)

    race(case, entries, args.rounds, start, lambda text: print(text, file=sys.stderr, flush=True))
    return {"name": case.name, "contestants": [summary(entry, entries) for entry in entries]}


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The report of all cases, written anew after each of them; raises `InputError` for what cannot be begun."""
    out = None
    if args.out:
        out = check_output(args.out, (".json",), overwrite=True)
    plan = {
        name: cases.chosen_contestants(KNOWN[name], args.dtype, args.contestants)
        for name in args.cases
    }
    report: dict[str, Any] = {"machine": describe(args.threads, args.device), "cases": []}
    with tempfile.TemporaryDirectory(prefix="crossearth-speed-") as name:
        folder = Path(name)
        if any(
            contestant.startswith("previous")
            for contestants in plan.values()
            for contestant in contestants
        ):
            materials.extract_release(ROOT, args.previous, folder / "previous")
        for case, contestants in plan.items():
            report["cases"].append(measure(KNOWN[case], contestants, args, folder))
            if out:
                with staged([out]) as (stage,):
                    stage.write_text(json.dumps(report, indent=2) + "\n")
    return report


def main(arguments: list[str]) -> int:
    """Measures and prints."""
    args = parse(arguments)
    try:
        report = run(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{sentence(report['machine'])}\n\n{table(report)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
