"""The folder of a training run: its log, its last checkpoint, and files that appear complete or not at all."""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..outputs import remove_folder, replace_folder
from .config import TrainConfig, defaults, to_json

HARMLESS_ON_RESUME = {
    "resume",
    "output_dir",
    "eval_data",
    "eval_scale",
    "num_workers",
    "log_every",
    "eval_every",
    "save_every",
    "tracker",
}
"""Fields that may change between a run and its continuation, since no training step depends on them."""


class RunFolder:
    """Names and exchanges what a run leaves behind; a kill at any moment leaves a state to resume from.

    Attributes:
        path: The folder.
        checkpoint: The last checkpoint; complete whenever it exists.
        incoming: Where the next checkpoint is written before it takes that place.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoint = self.path / "checkpoint"
        self.incoming = self.path / ".checkpoint.tmp"
        self._outgoing = self.path / ".checkpoint.old"
        self._log = self.path / "log.jsonl"

    def prepare(self, *, resume: bool) -> None:
        """Makes the folder; `InputError` if that fails, if it holds a run that is not to be resumed or only a model."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise InputError(f"output_dir {self.path} cannot be written: {error.strerror}; name another") from error
        saved = self.checkpoint.exists() or self._outgoing.exists()
        if not saved and (self.path / "config.json").exists():
            raise InputError(f"{self.path} already holds a model and no checkpoint of it; name another output_dir")
        if (saved or self._log.exists()) and not resume:
            raise InputError(f"{self.path} already holds a run; continue it with --resume or name another output_dir")

    def recover(self) -> None:
        """Puts the last checkpoint back if a run was killed while it exchanged two; clears the rest away."""
        if not self.checkpoint.exists() and self._outgoing.is_dir():
            os.replace(self._outgoing, self.checkpoint)
        for leftover in (self.incoming, self._outgoing):
            shutil.rmtree(leftover, ignore_errors=True)

    def commit(self, config: TrainConfig, state: Mapping[str, Any]) -> None:
        """Makes what lies in `incoming` the last checkpoint, with the run's configuration and `state` as JSON."""
        (self.incoming / "run.json").write_text(json.dumps(dict(state)), encoding="utf-8")
        (self.incoming / "config.json").write_text(to_json(config), encoding="utf-8")
        replace_folder(self.incoming, self.checkpoint, self._outgoing)

    def saved_state(self, config: TrainConfig, processes: int) -> dict[str, Any]:
        """What `commit` was given; raises `InputError` if `config` is that of another run."""
        state = json.loads((self.checkpoint / "run.json").read_text(encoding="utf-8"))
        saved = defaults() | json.loads((self.checkpoint / "config.json").read_text(encoding="utf-8"))
        now = json.loads(to_json(config))
        for fields in (saved, now):  # a run may be prolonged where that leaves the learning rates as they were
            fields["schedule_steps"] = fields["schedule_steps"] or fields.pop("steps")
            fields.pop("steps", None)
        saved["processes"], now["processes"] = state["processes"], processes
        for name in sorted(set(now) - HARMLESS_ON_RESUME):
            if saved.get(name) != now[name]:
                raise InputError(
                    f"{name} is {now[name]!r} but {self.checkpoint} was trained with {saved.get(name)!r}; resume with "
                    "the same value or start in another output_dir"
                )
        return state

    def log(self, values: Mapping[str, Any]) -> None:
        """Appends one line of JSON to `log.jsonl`."""
        with open(self._log, "a", encoding="utf-8") as log:
            log.write(json.dumps(dict(values)) + "\n")

    def keep_log_until(self, step: int) -> None:
        """Drops the log's lines beyond `step`: a resumed run writes them again."""
        if self._log.exists():
            lines = [line for line in self._log.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
            temporary = self._log.with_suffix(".tmp")
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            os.replace(temporary, self._log)


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A temporary folder inside `folder`, which is made, whose files move to `folder` at the end.

    `config.json` comes last: a folder of a killed run without it is no model to anybody.
    """
    temporary = folder / ".saving.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in sorted(temporary.iterdir(), key=lambda path: path.name == "config.json"):
            os.replace(path, folder / path.name)
    finally:
        remove_folder(temporary)


def _step_of(line: str) -> float:
    """Step of a log line; infinity for one that a kill cut short."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return math.inf
