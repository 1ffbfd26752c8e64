"""Hidden folders of work that outlives an interruption: the next run of the same job goes on from what is finished.

The note in such a folder marks it. Only content that a run has put there is ever removed.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from .working_folders import (
    NOTES,
    is_own_folder,
    is_private,
    is_unmarked,
    mark,
    marked,
    remove,
    remove_marked,
)

_JOB = "job.txt"  # tells the job from others


@dataclass(frozen=True)
class UnfinishedWork:
    """A hidden folder of unfinished work.

    Attributes:
        folder: Its path, whether it exists or not.
        owns: Whether a run has put a given path, directly in the folder, there; notes are known already.
        purpose: What is kept under its name, and the remedy if something else is there; ends the sentence.
    """

    folder: Path
    owns: Callable[[Path], bool]
    purpose: str

    def check(self) -> None:
        """Raises `InputError` if something in its place does not come from a run."""
        folder = self.folder
        if not os.path.lexists(folder):
            return
        if folder.is_symlink():
            self._refuse(folder, "is a link")
        if not folder.is_dir():
            self._refuse(folder, "is not a folder")
        if not is_own_folder(folder):
            self._refuse(folder, "belongs to another user")
        try:
            strangers = [path for path in sorted(folder.iterdir()) if not self._is_own(path)]
            is_foreign = marked(folder) is None and not is_unmarked(folder)
        except OSError as error:
            raise InputError(
                f"{folder} cannot be read ({error.strerror}), and {self.purpose}"
            ) from error
        if strangers or is_foreign:
            self._refuse([*strangers, folder][0], "was not made by crossearth")

    def exists(self) -> bool:
        """Whether an interrupted run has left it, also a run that was about to remove it."""
        if marked(self.folder) is not None:
            return True
        return is_own_folder(self.folder) and is_private(self.folder) and is_unmarked(self.folder)

    def take_up(self, identity: str, **facts: Any) -> None:
        """Notes the job in the existing folder; what another job has left is removed first.

        Args:
            identity: Text that tells the job from others.
            facts: What to note beside it.
        """
        mark(self.folder, **facts)
        job = self.folder / _JOB
        if job.exists() and job.read_text(encoding="utf-8") == identity:
            return
        self._forget_job()
        for path in filter(self.owns, list(self.folder.iterdir())):
            remove(path)
        job.write_text(identity, encoding="utf-8")

    def remove(self) -> None:
        """Removes what runs have put into the folder, and then the folder if it is empty."""
        if self.exists():
            self._forget_job()
            remove_marked(self.folder, self.owns)

    def _forget_job(self) -> None:
        """Precedes any removal, so that no run continues from the rest that a kill leaves."""
        (self.folder / _JOB).unlink(missing_ok=True)

    def _is_own(self, path: Path) -> bool:
        if path.name in (*NOTES, _JOB):
            return not path.is_symlink() and not path.is_dir()
        return self.owns(path)

    def _refuse(self, path: Path, reason: str) -> None:
        raise InputError(f"{path} {reason}, and {self.purpose}")
