"""Scores a published CrossEarth checkpoint on P(i)2V, Potsdam IRRG to Vaihingen, beside the paper's number.

    python scripts/reproduce_published.py RAW_DIR WORK_DIR

RAW_DIR holds the two Vaihingen archives of the ISPRS, as published. Builds the data, downloads the checkpoint (some GB)
from the Hub, converts it, evaluates, and prints our mean IoU and the published one. Each step is kept in WORK_DIR and
not repeated.

NOT RUN ON THE REAL FILES by the authors of this package: neither the checkpoint nor the full archives were at hand. The
steps are tested on a random checkpoint of the published format and on miniature archives, so what comes out is unknown;
the paper's number is of another harness.

The checkpoint's place, "Cusyoung/CrossEarth" on the Hub with the file "Potsdam(i)-source.pth" for P(i)2V, is what the
table "Model Weights with Configs" of the authors' README says (https://github.com/Cuzyoung/CrossEarth).
"""

import argparse
import json
import os
import sys
from pathlib import Path

from safetensors import safe_open

from crossearth_hf.conversion.published import WEIGHTS, convert, describe
from crossearth_hf.errors import InputError
from crossearth_hf.evaluation import ScenarioTarget, evaluate
from crossearth_hf.evaluation.numbers import percent, percent_interval
from crossearth_hf.evaluation.report_file import Entry
from crossearth_hf.scenarios.build import build_dataset
from crossearth_hf.scenarios.scenarios import DOMAINS, get_scenario

SCENARIO = get_scenario("P(i)2V")
CHECKPOINT = "Cusyoung/CrossEarth:Potsdam(i)-source.pth"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("raw_dir", type=Path, help="folder with the archives of ISPRS Vaihingen")
    parser.add_argument("work_dir", type=Path, help="folder for the model, the data and the report")
    parser.add_argument("--checkpoint", default=CHECKPOINT, help=f"file here, or ORG/NAME:FILE; default: {CHECKPOINT}")
    parser.add_argument("--config", help="for other sizes than the published ones, see `crossearth convert`")
    parser.add_argument("--allow-incomplete", action="store_true", help="score a partial download; no score to compare")
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    parser.add_argument("--batch-size", type=int, default=4, help="windows at a time (default: 4)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that build the data")
    return parser.parse_args(argv)


def converted_model(checkpoint: str, config: str | None, folder: Path) -> Path:
    """The converted checkpoint in `folder`; `InputError` if another checkpoint's model is there."""
    if not folder.exists():
        print(describe(convert(checkpoint, folder, label_set=SCENARIO.label_set.name, config=config)))
        return folder
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        source, digest = json.loads(file.metadata()["sha256"])[0]
    if source not in (checkpoint, Path(checkpoint).name):
        raise InputError(f"{folder} was converted from {source}, not from {checkpoint}; name another WORK_DIR")
    print(f"{folder} is there, converted from {source} (SHA-256 {digest})")
    return folder


def score(options: argparse.Namespace) -> Entry:
    """Builds, downloads, converts and evaluates what is not there yet."""
    target = DOMAINS[SCENARIO.target]
    data = options.work_dir / "data"
    data.mkdir(parents=True, exist_ok=True)
    build = build_dataset(
        target.dataset,
        options.raw_dir,
        data / target.dataset,
        domains=[target.name],
        allow_incomplete=options.allow_incomplete,
        workers=options.workers,
    )
    print(build.table())
    model = converted_model(options.checkpoint, options.config, options.work_dir / "model")
    report = evaluate(
        model,
        {SCENARIO.code: ScenarioTarget(SCENARIO.code, data)},
        options.work_dir / "report",
        batch_size=options.batch_size,
        device=options.device,
    )
    return report.entries[SCENARIO.code]


def comparison(entry: Entry) -> str:
    """Our score beside the published one, and what keeps the two apart."""
    ours, published = entry.scores["mean_iou"], SCENARIO.published["CrossEarth"]
    lines = [
        f"{SCENARIO.code}, mean IoU of {entry.images} images in percent",
        f"  this harness      {percent(ours) if ours is None else percent_interval(ours, entry.intervals['mean_iou'])}",
        f"  paper's harness   {published:.1f}",
    ]
    if entry.incomplete:
        lines.append("  The data are incomplete: these two numbers do not compare.")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Runs the steps; 2 is the exit code of a mistake in what was given."""
    try:
        print(comparison(score(parse(argv))))
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
