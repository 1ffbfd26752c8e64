"""The folder of a training run: its log, its last checkpoint, and files that are written completely or not at all."""

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError, shown
from ..files.documents import read_json
from ..files.downloads import CONFIG, INDEX, WEIGHTS
from ..files.outputs import replace_folder, staged
from ..files.working_folders import alone_in, is_own_folder, remove_folder, working_folder
from ..model import earth_style
from .config import TrainConfig
from .recipe import RENAMED, defaults, old_name, to_json

_STATE = "run.json"  # in every checkpoint, from its first moment on
_RECIPE = "train.yaml"
_SPLIT = "split.json"  # the images for training and the held-out ones
_PROCESSOR = "preprocessor_config.json"
_MODULES = Path(earth_style.__file__).parent  # model folders hold copies of these modules
_LOCK_SECONDS = 10  # the workers of a killed run end, and release its folder, within five

HARMLESS_ON_RESUME = {
    "resume_from_checkpoint",
    "output_dir",
    "eval_data",
    "eval_scale",
    "dataloader_num_workers",
    "logging_steps",
    "eval_steps",
    "early_stopping_patience",
    "save_steps",
    "report_to",
}
"""Fields that may change between a run and its continuation, since no training step depends on them."""


_STATE_TYPES: dict[str, tuple[type, ...]] = {
    "step": (int,),
    "best": (int, float),
    "skipped": (int,),
    "stale": (int,),
    "processes": (int,),
}


class RunFolder:
    """Names and replaces the files of a run; a run that is killed at any moment can be resumed.

    Attributes:
        path: The folder.
        checkpoint: The last checkpoint; complete whenever it exists.
        incoming: Folder of the next checkpoint while it is written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoint = self.path / "checkpoint"
        self.incoming = self.path / ".checkpoint.tmp"
        self._outgoing = self.path / ".checkpoint.old"
        self._log = self.path / "log.jsonl"

    def prepare(self, *, resume: bool) -> None:
        """Makes the folder.

        Raises:
            InputError: The folder cannot be written, it holds a run and `resume` is false, it holds files that the run
                would replace, or the names of checkpoints are taken.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise InputError(
                f"output_dir {self.path} cannot be written: {error.strerror}; name another"
            ) from error
        for folder in (self.checkpoint, self.incoming, self._outgoing):
            if os.path.lexists(folder) and not _is_own(folder):
                raise InputError(
                    f"{folder} was not written by a training run; move it away or name another output_dir"
                )
        saved = self.checkpoint.exists() or self._outgoing.exists()
        if not saved and any(
            (self.path / name).exists() for name in ("config.json", "best/config.json")
        ):
            raise InputError(
                f"{self.path} already holds a model and no checkpoint of it; name another output_dir"
            )
        if not (saved or self._log.exists()):
            for path in filter(os.path.lexists, self._results()):
                raise InputError(
                    f"{path} would be replaced by that of the run; name another output_dir"
                )
        if (saved or self._log.exists()) and not resume:
            raise InputError(
                f"{self.path} already holds a run; continue it with --resume_from_checkpoint or name another output_dir"
            )

    def _results(self) -> Iterator[Path]:
        """The files of model and adapter that runs write at their end, and those of the best model."""
        modules = sorted(path.name for path in _MODULES.glob("*.py"))
        model = [CONFIG, WEIGHTS, INDEX, _PROCESSOR, earth_style.STYLE_FILE, _RECIPE, *modules]
        yield self.path / _SPLIT
        for folder in (self.path, self.path / "best"):
            yield from (folder / name for name in model)
            yield from (
                folder / "adapter" / name
                for name in (CONFIG, "adapter_config.json", "adapter_model.safetensors")
            )

    def recover(self) -> None:
        """Restores the last checkpoint if a run was killed while it replaced it; removes leftovers."""
        if not self.checkpoint.exists() and _is_own(self._outgoing):
            os.replace(self._outgoing, self.checkpoint)
        for leftover in (self.incoming, self._outgoing):
            _remove(leftover)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A block in which no other run may write the folder; raises `InputError` if another run writes it."""
        refusal = f"another run is writing {self.path}; wait for it or name another output_dir"
        with alone_in(self.path, refusal, seconds=_LOCK_SECONDS):
            yield

    def open_incoming(self) -> None:
        """Makes `incoming`, with only the file that marks a checkpoint of a run."""
        _remove(self.incoming)
        self.incoming.mkdir()
        (self.incoming / _STATE).write_text("{}", encoding="utf-8")

    def commit(self, config: TrainConfig, state: Mapping[str, Any]) -> None:
        """Makes `incoming` the last checkpoint, with the run's configuration and `state` as JSON."""
        (self.incoming / _STATE).write_text(json.dumps(dict(state)), encoding="utf-8")
        (self.incoming / "config.json").write_text(to_json(config), encoding="utf-8")
        replace_folder(self.incoming, self.checkpoint, self._outgoing, remove=_remove)

    def saved_state(self, config: TrainConfig, processes: int) -> dict[str, Any]:
        """The state of the last `commit`; raises `InputError` if the checkpoint belongs to another `config`."""
        remedy = "start in another output_dir"
        state = {"best": -math.inf, "skipped": 0, "stale": 0} | read_json(
            self.checkpoint / _STATE, remedy
        )
        for name, kinds in _STATE_TYPES.items():
            if not isinstance(state.get(name), kinds):
                raise InputError(
                    f"{self.checkpoint / _STATE} has {name} {shown(state.get(name))}; {remedy}"
                )
        recipe = read_json(self.checkpoint / "config.json", remedy)
        old = old_name(recipe)
        if old is not None:
            raise InputError(
                f"{self.checkpoint} is of an earlier release: '{old}' is now '{RENAMED[old]}'; {remedy}"
            )
        saved = defaults() | recipe
        now = json.loads(to_json(config))
        for fields in (saved, now):  # a run may be prolonged if the learning rates stay the same
            fields["schedule_steps"] = fields["schedule_steps"] or fields["max_steps"]
            del fields["max_steps"]
        saved["processes"], now["processes"] = state["processes"], processes
        for name in sorted(set(now) - HARMLESS_ON_RESUME):
            if saved.get(name) != now[name]:
                earlier = shown(saved.get(name))
                raise InputError(
                    f"{name} is {now[name]!r} but {self.checkpoint} was trained with {earlier}; resume with the same "
                    "value or start in another output_dir"
                )
        return state

    def write_split(self, record: Mapping[str, Any]) -> None:
        """Writes the images for training and the held-out ones to `split.json`."""
        with staged([self.path / _SPLIT]) as (stage,):
            stage.write_text(json.dumps(dict(record), indent=1) + "\n", encoding="utf-8")

    def log(self, values: Mapping[str, Any]) -> None:
        """Appends one line of JSON to `log.jsonl`."""
        with open(self._log, "a", encoding="utf-8") as log:
            log.write(json.dumps(dict(values)) + "\n")

    def keep_log_until(self, step: int) -> None:
        """Drops the log's lines after `step`, because a resumed run writes them again."""
        if self._log.exists():
            lines = [
                line
                for line in self._log.read_text(encoding="utf-8").splitlines()
                if _step_of(line) <= step
            ]
            with staged([self._log]) as (stage,):
                stage.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A temporary folder inside `folder`, which is made if needed; its files move to `folder` at the end.

    `config.json` comes last: without it, nothing takes the folder of a killed run for a model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with working_folder(folder, []) as work:
        temporary = work / "files"
        temporary.mkdir()
        yield temporary
        for path in sorted(temporary.iterdir(), key=lambda path: path.name == "config.json"):
            os.replace(path, folder / path.name)


def _is_own(folder: Path) -> bool:
    """Whether a run of this user wrote a folder as a checkpoint, complete or not; a killed run may leave it empty."""
    if not is_own_folder(folder):
        return False
    try:
        if not any(folder.iterdir()):
            return True
        return isinstance(json.loads((folder / _STATE).read_text("utf-8")), dict)
    except (OSError, ValueError, RecursionError):
        return False


def _remove(folder: Path) -> None:
    """Removes a checkpoint; its mark goes last, so that an interrupted removal can go on later."""
    if not _is_own(folder):
        return
    for path in [path for path in folder.iterdir() if path.name != _STATE]:
        if path.is_dir() and not path.is_symlink():
            remove_folder(path)
        else:
            path.unlink(missing_ok=True)
    remove_folder(folder)


def _step_of(line: str) -> float:
    """Step of a log line; infinity for an incomplete line, which a killed run may leave."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return math.inf
