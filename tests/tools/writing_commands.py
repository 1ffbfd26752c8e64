"""Every command that writes, on miniature inputs: what `tests/tools/reliability.py` and its test kill and disturb."""

import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import dask
import datasets
import torch
from benchmark_data import write_domain
from miniature_archives import class_map, loveda, picture
from published import ORACLE_CONFIG, tiny_tensors
from rasters import write_raster
from safetensors import SafetensorError, safe_open
from tiny_model import tiny_config
from tqdm import tqdm
from training_runs import make_workplace

import crossearth_hf
from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor
from crossearth_hf.cli import main
from crossearth_hf.labels import get_label_set
from crossearth_hf.scenarios.build import plan

# commands import what they need: not in a fork
for module in walk_packages(crossearth_hf.__path__, "crossearth_hf."):
    if not module.name.endswith("__main__"):
        import_module(module.name)
# the one that has imported this
dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
# its own is shared with forks: one that is killed may hold it for ever
tqdm.set_lock(threading.RLock())

ISPRS = get_label_set("isprs")


def is_whole(file: Path, finished: Path) -> bool:
    """Whether a file can be read to its end."""
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as weights:
                return all(weights.get_tensor(name) is not None for name in weights.keys())  # noqa: SIM118
        if file.suffix == ".json":
            json.loads(file.read_text())
        return file.stat().st_size > 0
    except (OSError, ValueError, SafetensorError):
        return False


PASSING = {"created": 0, "seconds": 0, "waiting": 0}
"""What differs between two runs of the same job, in logs and reports."""


def is_whole_or_log(file: Path, finished: Path) -> bool:
    """As `is_whole`; lines of a log are those of the finished run as far as they go, the last may be cut short."""
    if file.suffix != ".jsonl":
        return is_whole(file, finished)
    lines, known = (path.read_text().splitlines() for path in (file, finished))
    steps = [json.loads(line) | PASSING for line in lines[:-1]]
    return steps == [json.loads(line) | PASSING for line in known[: len(steps)]]


def has_finished_entries(file: Path, finished: Path) -> bool:
    """Whether every entry of a report is that of the finished one."""
    here, there = (json.loads(path.read_text())["entries"] for path in (file, finished))
    return all(entry | PASSING == there[name] | PASSING for name, entry in here.items())


@dataclass(frozen=True)
class Command:
    """A command on miniature inputs.

    Attributes:
        name: As a person types it; "-new" for results that replace nothing.
        run: Runs it with the current folder for its results; returns the exit code.
        is_unit: Patterns of what appears as a whole: a file, or a folder with all in it.
        earlier: By pattern of a file: whether (file, that of a finished run) is a complete earlier state.
        keeps: Patterns of hidden folders from which the next run goes on.
        before: Prepares results of an earlier call that are to be replaced; None where there is nothing to replace.
    """

    name: str
    run: Callable[[], int]
    is_unit: tuple[str, ...] = ("*",)
    earlier: Mapping[str, Callable[[Path, Path], bool]] | None = None
    keeps: tuple[str, ...] = ()
    before: Callable[[], int] | None = None

    def unit(self, path: str) -> str:
        """What a file, relative to the results, appears together with."""
        parts = path.split("/")
        places = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
        return next(
            (place for place in places if any(fnmatch(place, unit) for unit in self.is_unit)), path
        )

    def is_earlier(self, path: str, results: Path, finished: Path) -> bool:
        """Whether a file is a complete earlier state of that of the finished run."""
        for pattern, holds in (self.earlier or {}).items():
            if fnmatch(path, pattern):
                return (finished / path).exists() and holds(results / path, finished / path)
        return False


def make_inputs(root: Path) -> None:
    """Everything that the commands read, in `root`; the same bytes wherever and whenever it is made."""
    root.mkdir()
    torch.manual_seed(0)
    config = tiny_config(id2label=ISPRS.id2label, label2id=ISPRS.label2id)
    CrossEarthForSemanticSegmentation(config).save_pretrained(root / "model")
    CrossEarthImageProcessor().save_pretrained(root / "model")
    for seed, name in enumerate(("scene.tif", "other.tif")):
        (root / "scenes").mkdir(exist_ok=True)
        write_raster(root / "scenes" / name, picture(seed, 150, 180).transpose(2, 0, 1))
    for name, scale in (("source.pth", 1.0), ("other.pth", 0.5)):
        torch.save(
            {"state_dict": {key: scale * tensor for key, tensor in tiny_tensors().items()}},
            root / name,
        )
    (root / "given.yaml").write_text(ORACLE_CONFIG)
    loveda(root / "raw", {"Train/Rural": ("1", "2", "3", "4"), "Val/Rural": ("5", "6")})
    make_workplace(root / "training")
    pairs = [(picture(seed, 60, 70), class_map(seed, 60, 70, 6)) for seed in range(3)]
    write_domain(root / "data", "vaihingen", pairs)
    code = main(
        [
            "evaluate",
            str(root / "model"),
            *_SCORING,
            "--data",
            str(root / "data"),
            "--out",
            str(root / "report"),
        ]
    )
    assert code == 0


_SCORING = [
    "--scenarios",
    "P(i)2V,P(r)2V",
    "--window",
    "64",
    "--device",
    "cpu",
    "--bootstrap",
    "20",
    "--examples",
    "2",
]
_TRAINING = {
    "max_steps": 4, "per_device_train_batch_size": 1, "warmup_steps": 1, "logging_steps": 1, "eval_steps": 2,
    "save_steps": 1, "seed": 3, "learning_rate": 1e-3, "adaptation": "full+rein", "output_dir": "run",
}  # fmt: skip


def make_commands(root: Path) -> dict[str, Command]:
    """The commands on the inputs of `root`; their cache lies beside it."""
    datasets.config.HF_DATASETS_CACHE = str(root.with_name(f"{root.name}-cache"))
    plan.SHARD_PIXELS = 64 * 64  # several shards of few pixels

    def command(*arguments: str) -> Callable[[], int]:
        return lambda: _exit_code(main, [argument.format(root) for argument in arguments])

    new = (
        "map.tif",
        "--model",
        "{}/model",
        "--device",
        "cpu",
        "--preview",
        "p.png",
        "--confidence",
        "c.tif",
    )
    predict = (*new, "--overwrite")
    convert = ("--config", "{}/given.yaml", "--overwrite", "--label-set", "isprs")
    commands = (
        Command(
            "predict",
            command("predict", "{}/scenes/scene.tif", *predict),
            keeps=(".map.tif.parts",),
            before=command("predict", "{}/scenes/other.tif", *predict),
        ),
        Command(
            "predict-new",
            command("predict", "{}/scenes/scene.tif", *new),
            keeps=(".map.tif.parts",),
        ),
        Command(
            "predict-workers",
            command("predict", "{}/scenes/scene.tif", *predict, "--workers", "2"),
            keeps=(".map.tif.parts",),
            before=command("predict", "{}/scenes/other.tif", *predict),
        ),
        Command(
            "convert",
            command("convert", "{}/source.pth", "out", *convert),
            before=command("convert", "{}/other.pth", "out", *convert),
        ),
        Command(
            "build-dataset",
            command(
                "build-dataset",
                "loveda",
                "{}/raw",
                "out",
                "--domains",
                "loveda_rural",
                "--allow-incomplete",
            ),
            is_unit=("out/*",),
            keeps=("out/.*-unfinished",),
        ),
        Command(
            "train",
            lambda: _train(root),
            is_unit=(),
            earlier={
                "run/checkpoint/*": is_whole,
                "run/best/*": is_whole,
                "run/log.jsonl": is_whole_or_log,
            },
            keeps=("run/.checkpoint.*",),
        ),
        Command(
            "evaluate",
            command("evaluate", "{}/model", *_SCORING, "--data", "{}/data", "--out", "report"),
            is_unit=(),
            earlier={"report/report.json": has_finished_entries},
        ),
        Command(
            "synth",
            command("synth", "temperate-summer", "scene.tif", "--size", "64", "--overwrite"),
        ),
        Command(
            "style-bank", command("style-bank", "{}/scenes", "bank.safetensors", "--overwrite")
        ),
        Command(
            "style-preview",
            command(
                "style-preview", "{}/scenes/scene.tif", "styles.png", "--draws", "1", "--overwrite"
            ),
        ),
        Command("report", command("report", "{}/report", "--out", "comparison", "--overwrite")),
        Command(
            "card",
            command("card", "{}/model", "--report", "{}/report", "--out", "card.md", "--overwrite"),
        ),
    )
    return {each.name: each for each in commands}


def _train(root: Path) -> int:
    """`crossearth train`, which goes on with a run that is there."""
    places = {
        "model": root / "training/tiny.json",
        "train_data": f"{root}/training/data:[0-4]",
        "classes": "land-cover",
    }
    places["eval_data"] = f"{root}/training/data:5"
    flags = [f"--{name}={value}" for name, value in (_TRAINING | places).items()]
    return _exit_code(main, ["train", *flags, "--resume_from_checkpoint"])


def _exit_code(call: Callable[..., int], arguments: list[str]) -> int:
    try:
        return call(arguments)
    except SystemExit as stop:  # argparse's own way
        return int(stop.code or 0)


def grown(path: Path) -> None:
    """Appends to a file."""
    with path.open("ab") as file:
        file.write(bytes(5000))


def cut(path: Path) -> None:
    """Halves a file."""
    os.truncate(path, path.stat().st_size // 2)
