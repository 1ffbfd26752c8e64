"""Jobs, each with its own folder, which can be stopped; one map is made at a time, in one thread."""

import asyncio
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ..inference.memory import return_freed_memory

Result = TypeVar("Result")


class Cancelled(Exception):
    """A person pressed Cancel or closed the page."""


@dataclass(eq=False)
class Job:
    """One prediction, or one look at a scene.

    Attributes:
        folder: Holds its files only; its name cannot be guessed.
        session: The open page or API client that it belongs to.
        finished: When it ended, on the monotonic clock; None while it runs.
        stop: Setting it stops the job.
    """

    folder: Path
    session: str | None
    finished: float | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def counting(self, show: Callable[[float, str], None]) -> Callable[[int, int], None]:
        """A `WindowCounter` that shows share, windows and time left, and raises `Cancelled` once it must stop."""
        start = time.monotonic()

        def count(done: int, total: int) -> None:
            if self.stop.is_set():
                raise Cancelled
            left = (time.monotonic() - start) * (total - done) / done
            if done < total:
                text = f"{done} of {total} windows, about {_duration(left)} left"
            else:
                text = "Writing the files"
            show(done / total, text)

        return count


class Jobs:
    """All jobs whose files are still there, and the threads in which they run; `close` them.

    All maps share one thread and all quick jobs another, because the C library keeps the memory that each thread has
    freed: with a pool of threads, the server would in time hold the largest job's memory once per thread. After each
    job, free memory between blocks in use is returned to the system.

    Args:
        folder: Used by this server only.
        keep: Seconds for which a job's files stay after its end.
    """

    def __init__(self, folder: Path, keep: float) -> None:
        self._folder, self.keep = folder, keep
        self._jobs: list[Job] = []
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="jobs")
        self._quick = ThreadPoolExecutor(max_workers=1, thread_name_prefix="quick-jobs")

    async def run(
        self, session: str | None, work: Callable[[Job], Result], *, quick: bool = False
    ) -> Result:
        """Runs `work` on a new job; stops it at its next window if the caller is cancelled.

        Args:
            session: The open page or API client that it belongs to.
            work: What to do.
            quick: Whether it takes moments and need not wait for the maps.
        """
        worker = self._worker
        if quick:
            worker = self._quick

        def work_and_tidy(job: Job) -> Result:
            try:
                return work(job)
            finally:
                return_freed_memory()

        with self.running(session) as job:
            context = copy_context()  # in which gradio finds whose progress is shown
            task = asyncio.get_running_loop().run_in_executor(
                worker, context.run, work_and_tidy, job
            )
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                job.stop.set()
                with suppress(Exception):  # no one waits for its outcome
                    await task
                raise

    @contextmanager
    def running(self, session: str | None) -> Iterator[Job]:
        """A new job; its files stay after a regular end and are removed after any other."""
        job = Job(self._folder / secrets.token_urlsafe(16), session)
        job.folder.mkdir(parents=True)
        with self._lock:
            self._jobs.append(job)
        try:
            yield job
            job.finished = time.monotonic()
        finally:
            self._remove(lambda other: other is job and job.finished is None)

    def cancel(self, session: str | None) -> None:
        """Stops the jobs of a session at their next window; finished ones stay."""
        with self._lock:
            running = [job for job in self._jobs if job.session == session and job.finished is None]
        for job in running:
            job.stop.set()

    def close(self) -> None:
        """Stops every job at its next window and waits for that."""
        with self._lock:
            for job in self._jobs:
                job.stop.set()
        for worker in (self._worker, self._quick):
            worker.shutdown(cancel_futures=True)

    def sweep(self) -> None:
        """Removes the files of jobs that ended long ago."""
        now = time.monotonic()
        self._remove(lambda job: job.finished is not None and now - job.finished > self.keep)

    def _remove(self, chosen: Callable[[Job], bool]) -> None:
        with self._lock:
            gone = [job for job in self._jobs if chosen(job)]
            self._jobs = [job for job in self._jobs if job not in gone]
        for job in gone:
            shutil.rmtree(job.folder, ignore_errors=True)


def repeat_forever(work: Callable[[], None], seconds: float) -> None:
    """Runs `work` in the background every `seconds` seconds until the process ends, also after an error."""

    def loop() -> None:
        while True:
            time.sleep(seconds)
            try:
                work()
            except Exception as error:
                print(
                    f"crossearth app: {type(error).__name__} in the background: {error}",
                    file=sys.stderr,
                )

    threading.Thread(target=loop, daemon=True).start()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"
