"""Finished parts of a map, in a hidden folder beside it; they survive a kill and are used again."""

import os
import re
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ..files.unfinished import UnfinishedWork
from ..files.working_folders import alone_in, marked
from .job_identity import digest_of, place_of
from .part_jobs import BLOCKS, PartJob, is_part, refusals

_PART = re.compile(r"\d+(-\w+)*")  # a part that is finished, in progress, or discarded
_PART_FILES = {BLOCKS, "labels.tif", "confidence.tif", "probabilities.tif"}


def unfinished_parts(output: Path) -> UnfinishedWork:
    """The hidden folder of finished parts beside an output, which exists while a job is unfinished."""
    purpose = "finished parts of the map are kept under that name; move it away or choose another name for the map"
    return UnfinishedWork(output.with_name(f".{output.name}.parts"), _is_own, purpose)


def is_of_killed_run(
    parts: UnfinishedWork, scene: str | os.PathLike[str], output: str | os.PathLike[str]
) -> bool:
    """Whether an output comes from the interrupted run on a scene that left these parts, and so may be replaced."""
    facts = marked(parts.folder)
    if facts is None:  # the kill came when all outputs were in place
        return parts.exists()
    return facts.get("scene") == place_of(scene) and os.path.realpath(output) in facts.get(
        "outputs", []
    )


@contextmanager
def kept_parts(outputs: Sequence[Path], identity: dict[str, Any]) -> Iterator[Path]:
    """The hidden folder of finished parts beside an output, for one process at a time.

    At first it holds only the parts that an earlier run of the same job has finished. It is removed at a regular end.
    After an exception it stays if it holds finished parts, and stderr says so.

    Args:
        outputs: Files of the job, the map first.
        identity: All that the parts depend on; parts of another job are removed.

    Raises:
        InputError: Another process writes this output, the folder cannot be made, or something else is in its place.
    """
    output = outputs[0]
    parts = unfinished_parts(output)
    with ExitStack() as stack:
        parts.check()
        with refusals(output):
            parts.folder.mkdir(mode=stat.S_IRWXU, exist_ok=True)
            refusal = f"another process is writing {output}; wait for it or choose another name"
            stack.enter_context(alone_in(parts.folder, refusal))
        try:
            with refusals(output):
                facts = {
                    "scene": identity["scene"][0],
                    "outputs": [os.path.realpath(path) for path in outputs],
                }
                parts.take_up(digest_of(identity), **facts)
                _remove_half_finished(parts.folder)
            yield parts.folder
        except BaseException:
            finished = sum(map(is_part, parts.folder.iterdir()))
            if finished:
                _tell_kept(finished, parts.folder)
            else:
                parts.remove()
            raise
        parts.remove()


def _tell_kept(finished: int, folder: Path) -> None:
    if finished == 1:
        are = "part is"
    else:
        are = "parts are"
    print(
        f"{finished} finished {are} kept in {folder}; the same command continues from there",
        file=sys.stderr,
    )


def _remove_half_finished(folder: Path) -> None:
    for path in filter(_is_own, list(folder.iterdir())):
        if not is_part(path):
            shutil.rmtree(path)


def _is_own(path: Path) -> bool:
    """Whether something in a folder of parts is a part, finished or not."""
    if path.is_symlink() or not path.is_dir():
        return False
    return _PART.fullmatch(path.name) is not None and all(map(_is_of_part, path.iterdir()))


def _is_of_part(path: Path) -> bool:
    return path.name.removesuffix(".aux.xml") in _PART_FILES and not path.is_dir()


def discard(jobs: Iterable[PartJob]) -> None:
    """Removes finished parts that give no map."""
    for job in jobs:
        aside = job.folder.with_name(f"{job.folder.name}-discarded")  # a kill leaves no partial one
        with suppress(OSError):
            os.replace(job.folder, aside)
        shutil.rmtree(aside, ignore_errors=True)
