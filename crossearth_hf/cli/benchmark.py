"""scenarios, calibrate, evaluate, report: the benchmark."""

import argparse
import signal
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .arguments import (
    add_computing,
    add_nodata,
    add_overwrite,
    by_name,
    group,
    interrupt,
    names,
    numbers,
    options,
    pairs,
    say,
    values,
)

if TYPE_CHECKING:
    from ..evaluation.targets import Target


# Options by the names that `evaluation.evaluate` knows them by.
_SCORING = (
    "batch_size",
    "device",
    "dtype",
    "examples",
    "features",
    "selection",
    "resamples",
    "overwrite",
)


def add_scenarios(subparsers: Any) -> None:
    """Arguments of `crossearth scenarios`."""
    parser = subparsers.add_parser(
        "scenarios",
        help="list the benchmark",
        description="Lists the benchmark's scenarios, or shows one of them in full: data, recipe, licenses, citations.",
    )
    parser.set_defaults(run=_scenarios)
    parser.add_argument(
        "code", metavar="CODE", nargs="?", help="such as 'P(i)2V'; default: the table of all"
    )


def _scenarios(arguments: argparse.Namespace) -> None:
    from ..scenarios.table import describe_scenario, scenario_table  # noqa: PLC0415

    if arguments.code is None:
        text = scenario_table()
    else:
        text = describe_scenario(arguments.code)
    print(text)


def add_calibrate(subparsers: Any) -> None:
    """Arguments of `crossearth calibrate`."""
    parser = subparsers.add_parser(
        "calibrate",
        help="adjust a model's class scores to unseen places",
        description="Chooses a factor for the score of every class, so that the mean IoU is highest on labeled images "
        "of places that MODEL has not learned from, and a temperature that calibrates its confidence there. Writes "
        "the model with both to OUT.",
    )
    parser.set_defaults(run=_calibrate)
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id")
    parser.add_argument("output_dir", metavar="OUT", help="folder for the model with its factors")
    parser.add_argument(
        "--data",
        metavar="SOURCE",
        nargs="+",
        required=True,
        help="sets of labeled images, as for --train_data",
    )
    _add_mask_flags(parser)
    _add_bands(parser, "bands of the images, as for predict")
    parser.add_argument(
        "--scale", metavar="S", type=float, default=1.0, help="enlarge the images by S (default: 1)"
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    add_overwrite(parser, "an existing model folder")


def _calibrate(arguments: argparse.Namespace) -> None:
    from ..evaluation.read_out import calibrate  # noqa: PLC0415

    arguments.mask_offset = arguments.mask_offset or 0
    read_out = calibrate(**options(arguments), tell=say)
    print(
        "factors: " + ", ".join(f"{name} {factor:g}" for name, factor in read_out.factors.items())
    )
    print(f"temperature of the confidence: {read_out.temperature:g}")
    print(f"wrote {arguments.output_dir}")


def _add_mask_flags(parser: argparse.ArgumentParser) -> None:
    """How masks say the classes."""
    parser.add_argument(
        "--mask-values",
        metavar="A,B",
        type=values,
        help="value of each class in the masks, in the order of the classes: 0,255 for two classes in black "
        "and white (default: the ids)",
    )
    parser.add_argument(
        "--mask-offset",
        metavar="N",
        type=int,
        help="value of the first class: 1 for masks that count from 1, 0 ignored",
    )


def _add_bands(parser: argparse.ArgumentParser, text: str) -> None:
    """How images are read."""
    parser.add_argument("--bands", metavar="R,G,B", type=numbers, help=text)
    add_nodata(parser)


def add_evaluate(subparsers: Any) -> None:
    """Arguments of `crossearth evaluate`."""
    parser = subparsers.add_parser(
        "evaluate",
        help="score a model on unseen domains",
        description="Scores MODEL on scenarios of the benchmark, or on any folder of images and masks, and adds the "
        "scores to the report folder OUT. Finished entries are not scored again. Under `accelerate launch --module "
        "crossearth_hf.cli evaluate` several processes share the images.",
    )
    parser.set_defaults(run=_evaluate)
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id")
    parser.add_argument(
        "--out", metavar="REPORT", required=True, help="folder of the report, one per model"
    )
    _add_targets(parser)
    parser.add_argument(
        "--window",
        metavar="N",
        type=int,
        help="side in pixels (default: the recipe's or the model's)",
    )
    parser.add_argument("--stride", metavar="N", type=int, help="step between windows in pixels")
    add_computing(parser, ("float32", "bfloat16", "float16"), "precision (default: float32)")
    _add_scoring(parser)
    parser.add_argument("--overwrite", action="store_true", help="score the named targets again")


def _add_targets(parser: argparse.ArgumentParser) -> None:
    """What to score."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--scenarios", metavar="CODES", type=names, help='such as "P(i)2V,U2R"; needs --data'
    )
    what.add_argument(
        "--folder", metavar="FOLDER", help="images/ and masks/, FOLDER:GLOB for some; needs --name"
    )
    parser.add_argument(
        "--data", metavar="DIR", help="folder in which build-dataset wrote a folder per data set"
    )
    parser.add_argument("--name", metavar="NAME", help="name of the folder's entry in the report")
    parser.add_argument(
        "--classes",
        metavar="A,B",
        help="classes of the folder's masks: names, a file such as classes.yaml, or a known set such as isprs "
        "(default: those named by the data, else the model's)",
    )
    parser.add_argument(
        "--labeled", metavar="A,B", type=names, help="classes that the masks label, if not all"
    )
    parser.add_argument(
        "--class-map", metavar="A=B,...", type=pairs, help="target class of each model class"
    )
    _add_mask_flags(parser)
    _add_bands(parser, "bands of the folder's images, as for predict")
    parser.add_argument("--scale", metavar="S", type=float, help="enlarge the folder's images by S")
    parser.add_argument(
        "--in-domain",
        action="store_true",
        help="the model was trained on this domain, so the score is left out of means",
    )


def _add_scoring(parser: argparse.ArgumentParser) -> None:
    """What to keep and to state beside the scores."""
    parser.add_argument(
        "--examples",
        metavar="N",
        type=int,
        default=8,
        help="images to keep per target (default: 8)",
    )
    parser.add_argument(
        "--features",
        action="store_true",
        help="keep features of class regions for the report's feature maps",
    )
    parser.add_argument(
        "--selection",
        choices=("last", "source", "oracle"),
        default="last",
        help="how the checkpoint was chosen: the last one, on the source's validation images, or on the target "
        "(default: last)",
    )
    parser.add_argument(
        "--bootstrap",
        dest="resamples",
        metavar="N",
        type=int,
        default=1000,
        help="resamples for the confidence intervals (default: 1000)",
    )


def _evaluate(arguments: argparse.Namespace) -> None:
    try:
        from accelerate import PartialState  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            "evaluate needs 'accelerate'; install it with pip install 'crossearth-hf[benchmark]'"
        ) from error

    from ..evaluation import evaluate  # noqa: PLC0415
    from ..evaluation.table import terminal_table  # noqa: PLC0415
    from ..inference.memory import keep_freed_memory  # noqa: PLC0415

    keep_freed_memory()
    signal.signal(signal.SIGTERM, interrupt)
    report = evaluate(
        arguments.model,
        _targets(arguments),
        arguments.out,
        **{name: getattr(arguments, name) for name in _SCORING},
    )
    if PartialState().is_main_process:
        print(terminal_table(report))
        print(
            f"the report is in {report.folder}: report.json, examples{', features' * arguments.features}"
        )
    PartialState().destroy_process_group()


def _targets(arguments: argparse.Namespace) -> "dict[str, Target]":
    """The targets that the flags name: scenarios or a folder; `InputError` for flags of the other kind."""
    from ..evaluation import FolderTarget, ScenarioTarget  # noqa: PLC0415

    foreign: tuple[str, ...]
    of_folder = (
        *("name", "classes", "labeled", "mask_values", "mask_offset"),
        *("bands", "nodata", "scale", "in_domain"),
    )
    if arguments.scenarios:
        kind, needed, foreign = "--scenarios", "data", of_folder
    else:
        kind, needed, foreign = "--folder", "name", ("data",)
    for name in foreign:
        if getattr(arguments, name) not in (None, False):
            raise InputError(f"--{name.replace('_', '-')} does not go with {kind}; leave it out")
    if getattr(arguments, needed) is None:
        raise InputError(f"{kind} needs --{needed}; see crossearth evaluate --help")
    common = {
        "class_map": arguments.class_map,
        "window": arguments.window,
        "stride": arguments.stride,
    }
    if arguments.scenarios:
        named = [
            (code, ScenarioTarget(code, arguments.data, **common)) for code in arguments.scenarios
        ]
        return by_name(named, "--scenarios", "once is enough")
    given = {name: getattr(arguments, name) for name in of_folder if name != "name"}
    own = {name: value for name, value in given.items() if value is not None}
    return {arguments.name: FolderTarget(arguments.folder, **common, **own)}


def add_report(subparsers: Any) -> None:
    """Arguments of `crossearth report`."""
    parser = subparsers.add_parser(
        "report",
        help="compare evaluated models in tables and figures",
        description="Compares the reports of `crossearth evaluate`: a self-contained page, Markdown tables and figures "
        "as PNG and PDF.",
    )
    parser.set_defaults(run=_report)
    parser.add_argument(
        "reports", metavar="REPORT", nargs="*", help="folder that `crossearth evaluate` wrote"
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="folder to write")
    parser.add_argument(
        "--group",
        metavar="NAME=A,B,C",
        dest="groups",
        type=group,
        action="append",
        default=[],
        help="reports of one model's seeds, shown as mean and standard deviation; NAME=A only renames; repeatable",
    )
    add_overwrite(parser, "a folder that an earlier call wrote")


def _report(arguments: argparse.Namespace) -> None:
    from ..reporting.report import write_report  # noqa: PLC0415

    signal.signal(signal.SIGTERM, interrupt)
    groups = by_name(arguments.groups, "--group", "put all its reports into one")
    written = write_report(
        arguments.reports, arguments.out, groups=groups, overwrite=arguments.overwrite
    )
    print("\n".join(f"wrote {path}" for path in written))
