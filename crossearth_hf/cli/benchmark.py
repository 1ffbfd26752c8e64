"""scenarios, build-dataset, evaluate, report: the benchmark."""

import argparse
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .arguments import add_nodata, assignment, group, interrupt, names, numbers, pairs, values

if TYPE_CHECKING:
    from ..evaluation.targets import Target


def add_scenarios(subparsers: Any) -> None:
    """Arguments of `crossearth scenarios`."""
    parser = subparsers.add_parser(
        "scenarios",
        help="list the benchmark",
        description="Lists the benchmark's scenarios, or shows one of them in full: data, recipe, licenses, citations.",
    )
    parser.set_defaults(run=_scenarios)
    parser.add_argument("code", metavar="CODE", nargs="?", help="such as 'P(i)2V'; default: the table of all")


def _scenarios(arguments: argparse.Namespace) -> None:
    from ..scenarios.table import describe_scenario, scenario_table  # noqa: PLC0415

    print(scenario_table() if arguments.code is None else describe_scenario(arguments.code))


def add_build_dataset(subparsers: Any) -> None:
    """Arguments of `crossearth build-dataset`."""
    parser = subparsers.add_parser(
        "build-dataset",
        help="build a data set of the benchmark from its archives",
        description="Turns the archives of a public data set, as its authors publish them, into Parquet shards with a "
        "card, ready for load_dataset: tiles, classes and splits of the CrossEarth benchmark. An interrupted build "
        "goes on where it stopped.",
    )
    parser.set_defaults(run=_build_dataset)
    parser.add_argument(
        "name", metavar="NAME", help="such as potsdam, loveda or whu-building; a wrong one lists them all"
    )
    parser.add_argument("raw_dir", metavar="RAW_DIR", help="folder with the archives, zipped or unpacked; only read")
    parser.add_argument("out_dir", metavar="OUT_DIR", help="folder to write, one sub-folder per domain")
    parser.add_argument("--domains", metavar="A,B", type=names, help="which of its domains (default: all)")
    parser.add_argument(
        "--path",
        metavar="KEY=PATH",
        type=assignment,
        action="append",
        default=[],
        dest="paths",
        help="where the files of an assumed layout lie; a wrong KEY lists the known ones; may be repeated",
    )
    parser.add_argument("--allow-incomplete", action="store_true", help="build a partial download too, and say so")
    parser.add_argument("--workers", metavar="N", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--push", metavar="REPO", help="then upload it to this data-set repository, which is private")
    parser.add_argument("--overwrite", action="store_true", help="replace domains built from other files")


def _build_dataset(arguments: argparse.Namespace) -> None:
    from ..files.downloads import check_repository  # noqa: PLC0415
    from ..hub.publishing import publish  # noqa: PLC0415
    from ..scenarios.build import build_dataset  # noqa: PLC0415

    signal.signal(signal.SIGTERM, interrupt)
    options = {name: value for name, value in vars(arguments).items() if name not in ("run", "push", "paths")}
    paths = _by_name(arguments.paths, "--path", "give each key one place")
    if arguments.push is not None:
        check_repository(arguments.push)  # before the long work
    report = build_dataset(paths=paths, **options)
    print(report.table())
    if arguments.push is not None:
        print(publish(report.out_dir, arguments.push, dataset=True, private=True, really=True).describe())
        print(f"pushed to {arguments.push}")


def _by_name(assigned: Sequence[tuple[str, Any]], flag: str, remedy: str) -> dict[str, Any]:
    """What a repeated flag has assigned; `InputError` where it names something twice."""
    keys = [key for key, _ in assigned]
    if len(set(keys)) < len(keys):
        raise InputError(f"{flag} names {max(keys, key=keys.count)} twice; {remedy}")
    return dict(assigned)


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
    parser.add_argument("--out", metavar="REPORT", required=True, help="folder of the report, one per model")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--scenarios", metavar="CODES", type=names, help='such as "P(i)2V,U2R"; needs --data')
    what.add_argument("--folder", metavar="FOLDER", help="images/ and masks/, FOLDER:GLOB for some; needs --name")
    parser.add_argument("--data", metavar="DIR", help="holds what build-dataset wrote, a folder per data set")
    parser.add_argument("--name", metavar="NAME", help="of the folder's entry in the report")
    parser.add_argument("--label-set", metavar="NAME", help="of the folder's masks (default: the model's)")
    parser.add_argument("--classes", metavar="A,B", type=names, help="the only ones that the folder's masks label")
    parser.add_argument("--class-map", metavar="A=B,...", type=pairs, help="what the model's classes count as")
    parser.add_argument(
        "--mask-values",
        metavar="A,B",
        type=values,
        help="value of each class in the folder's masks, in the order of the label set: 0,255 for two classes in black "
        "and white (default: the ids)",
    )
    parser.add_argument("--bands", metavar="R,G,B", type=numbers, help="of the folder's images, as for predict")
    add_nodata(parser)
    parser.add_argument("--scale", metavar="S", type=float, help="enlarge the folder's images by S")
    parser.add_argument("--in-domain", action="store_true", help="the model has learned from this domain: in no mean")
    parser.add_argument("--window", metavar="N", type=int, help="side in pixels (default: the recipe's or the model's)")
    parser.add_argument("--stride", metavar="N", type=int, help="step between windows in pixels")
    parser.add_argument("--batch-size", metavar="N", type=int, default=4, help="windows at a time (default: 4)")
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--examples", metavar="N", type=int, default=8, help="images to keep per target (default: 8)")
    parser.add_argument("--features", action="store_true", help="keep features of class regions for the report's map")
    parser.add_argument(
        "--selection",
        choices=("last", "source", "oracle"),
        default="last",
        help="checkpoint: the last one, or chosen on the source's validation images, or on the target (default: last)",
    )
    parser.add_argument("--bootstrap", metavar="N", type=int, default=1000, help="resamples (default: 1000)")
    parser.add_argument("--overwrite", action="store_true", help="score the named targets again")


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
        batch_size=arguments.batch_size,
        device=arguments.device,
        dtype=arguments.dtype,
        examples=arguments.examples,
        features=arguments.features,
        selection=arguments.selection,
        resamples=arguments.bootstrap,
        overwrite=arguments.overwrite,
    )
    if PartialState().is_main_process:
        print(terminal_table(report))
        print(f"the report is in {report.folder}: report.json, examples" + (", features" if arguments.features else ""))
    PartialState().destroy_process_group()


def _targets(arguments: argparse.Namespace) -> "dict[str, Target]":
    """What to score, by the flags: scenarios or a folder; `InputError` for flags that belong to the other."""
    from ..evaluation import FolderTarget, ScenarioTarget  # noqa: PLC0415

    of_folder = ("name", "label_set", "classes", "mask_values", "bands", "nodata", "scale", "in_domain")
    kind, needed, foreign = (
        ("--scenarios", "data", of_folder) if arguments.scenarios else ("--folder", "name", ("data",))
    )
    for name in foreign:
        if getattr(arguments, name) not in (None, False):
            raise InputError(f"--{name.replace('_', '-')} does not go with {kind}; leave it out")
    if getattr(arguments, needed) is None:
        raise InputError(f"{kind} needs --{needed}; see crossearth evaluate --help")
    common = {"class_map": arguments.class_map, "window": arguments.window, "stride": arguments.stride}
    if arguments.scenarios:
        named = [(code, ScenarioTarget(code, arguments.data, **common)) for code in arguments.scenarios]
        return _by_name(named, "--scenarios", "once is enough")
    own = {name: getattr(arguments, name) for name in of_folder if name not in ("name", "scale")}
    own["scale"] = 1.0 if arguments.scale is None else arguments.scale
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
    parser.add_argument("reports", metavar="REPORT", nargs="*", help="folder that `crossearth evaluate` wrote")
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
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that an earlier call wrote")


def _report(arguments: argparse.Namespace) -> None:
    from ..reporting.report import write_report  # noqa: PLC0415

    signal.signal(signal.SIGTERM, interrupt)
    groups = _by_name(arguments.groups, "--group", "put all its reports into one")
    written = write_report(arguments.reports, arguments.out, groups=groups, overwrite=arguments.overwrite)
    print("\n".join(f"wrote {path}" for path in written))
