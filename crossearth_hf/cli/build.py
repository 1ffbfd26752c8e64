"""build-dataset: archives of the benchmark's data sets, or a person's own data, to Parquet."""

import argparse
import signal
from typing import Any

from ..errors import InputError
from .arguments import (
    add_nodata,
    add_overwrite,
    assignment,
    by_name,
    interrupt,
    names,
    numbers,
    say,
    values,
)

_OF_ARCHIVES = ("domains", "paths", "allow_incomplete", "workers")
_OF_OWN_DATA = (
    *("classes", "mask_values", "mask_offset", "bands", "nodata"),
    *("tile", "validation_fraction", "seed"),
)
"""Options by the names that the jobs know them by."""


def add_build_dataset(subparsers: Any) -> None:
    """Arguments of `crossearth build-dataset`."""
    parser = subparsers.add_parser(
        "build-dataset",
        help="build a benchmark data set from its archives, or one from your own data",
        description="Writes Parquet shards with a card, ready for load_dataset. With DATASET RAW_DIR OUT_DIR: from the "
        "archives of a public data set as its authors publish them, in the tiles, classes and splits of the CrossEarth "
        "benchmark; an interrupted build resumes where it stopped. With SOURCE OUT_DIR: from your own images and "
        "labels.",
    )
    parser.set_defaults(run=_build_dataset)
    parser.add_argument(
        "name",
        metavar="DATASET_OR_SOURCE",
        help="such as potsdam, loveda or whu-building (a wrong name lists all); or what --train_data of training "
        "takes: a folder, a YAML file, a manifest",
    )
    parser.add_argument(
        "folders",
        metavar="[RAW_DIR] OUT_DIR",
        nargs="+",
        help="folder with the archives, zipped or unpacked, which is only read; folder to write",
    )
    _add_archives(parser.add_argument_group("archives of the benchmark"))
    _add_own_data(parser.add_argument_group("your own data"))
    parser.add_argument(
        "--push", metavar="REPO", help="then upload it to this private data-set repository"
    )
    add_overwrite(parser, "a data set, or domains built from other files")


def _add_archives(group: Any) -> None:
    group.add_argument(
        "--domains", metavar="A,B", type=names, help="domains to build (default: all)"
    )
    group.add_argument(
        "--path",
        metavar="KEY=PATH",
        type=assignment,
        action="append",
        dest="paths",
        help="where the files of another layout are, such as whu_aerial.test.images=FOLDER; a wrong KEY lists the "
        "known ones; repeatable",
    )
    group.add_argument(
        "--allow-incomplete",
        action="store_true",
        default=None,
        help="also build a partial download, and say so in the card",
    )
    group.add_argument("--workers", metavar="N", type=int, help="processes (default: 2)")


def _add_own_data(group: Any) -> None:
    group.add_argument(
        "--classes",
        metavar="A,B",
        help="names, a file such as classes.yaml, or a known set such as isprs (default: those that the data name)",
    )
    group.add_argument(
        "--mask-values", metavar="A,B", type=values, help="value of each class in the masks"
    )
    group.add_argument(
        "--mask-offset", metavar="N", type=int, help="value of the first class in the masks"
    )
    group.add_argument(
        "--bands", metavar="R,G,B", type=numbers, help="of the images, as for predict"
    )
    add_nodata(group)
    group.add_argument(
        "--tile", metavar="N", type=int, help="longest side of a tile in pixels (default: 512)"
    )
    group.add_argument(
        "--validation-fraction",
        "--validation_fraction",
        metavar="F",
        type=float,
        help="share of the images in the split 'validation', as in training (default: 0)",
    )
    group.add_argument("--seed", metavar="N", type=int, help="split seed (default: 0)")


def _build_dataset(arguments: argparse.Namespace) -> None:
    from ..files.downloads import check_repository  # noqa: PLC0415
    from ..hub.publishing import publish  # noqa: PLC0415

    signal.signal(signal.SIGTERM, interrupt)
    if arguments.push is not None:
        check_repository(arguments.push)  # before the long work
    report = _built(arguments)
    print(report.table())
    if arguments.push is not None:
        print(
            publish(
                report.out_dir, arguments.push, dataset=True, private=True, really=True
            ).describe()
        )
        print(f"pushed to {arguments.push}")


def _built(arguments: argparse.Namespace) -> Any:
    """The data set that the arguments ask for; `InputError` for those that belong to the other kind."""
    from ..scenarios.build import build_dataset, build_own_dataset  # noqa: PLC0415
    from ..scenarios.source_datasets import DATASETS  # noqa: PLC0415

    name, folders = arguments.name, arguments.folders
    if len(folders) > 2 or (len(folders) == 1 and name in DATASETS):
        raise InputError(
            f"{name} {' '.join(folders)} is neither DATASET RAW_DIR OUT_DIR nor SOURCE OUT_DIR; use either"
        )
    if len(folders) == 2:
        given = _given(arguments, _OF_ARCHIVES, _OF_OWN_DATA, "archives of the benchmark")
        paths = by_name(given.pop("paths", ()), "--path", "give each key one place")
        return build_dataset(name, *folders, paths=paths, overwrite=arguments.overwrite, **given)
    given = _given(arguments, _OF_OWN_DATA, _OF_ARCHIVES, "your own data")
    return build_own_dataset(name, *folders, overwrite=arguments.overwrite, tell=say, **given)


def _given(
    arguments: argparse.Namespace, own: tuple[str, ...], foreign: tuple[str, ...], kind: str
) -> dict[str, Any]:
    """The options that a person gave; `InputError` for foreign ones."""
    for name in foreign:
        if getattr(arguments, name) is not None:
            flag = "path" if name == "paths" else name.replace("_", "-")
            raise InputError(f"--{flag} does not go with {kind}; leave it out")
    return {name: getattr(arguments, name) for name in own if getattr(arguments, name) is not None}
