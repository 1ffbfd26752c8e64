"""Work in another thread: reading ahead of the computation and writing behind it, in order and within limits."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_AHEAD = 2  # results


class Background:
    """A thread that runs calls one after the other, in the order of their submission.

    As a context, it waits for all calls at a regular end; after an exception, Ctrl-C included, it waits only for the
    running call. An exception in a call is raised by a later `submit` or at the end; the calls after it do not run.

    Args:
        waiting: Number of calls that may be unfinished when `submit` returns; it blocks while there are more.
    """

    def __init__(self, waiting: int = 1) -> None:
        self._waiting = waiting
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._calls: deque[Future[None]] = deque()
        self._failed = False

    def submit(self, call: Callable[..., None], *arguments: Any) -> None:
        """Runs `call(*arguments)` after the earlier calls."""
        self._calls.append(self._thread.submit(self._run, call, *arguments))
        self._wait(self._waiting)

    def _run(self, call: Callable[..., None], *arguments: Any) -> None:
        if self._failed:
            return
        try:
            call(*arguments)
        except BaseException:
            self._failed = True
            raise

    def __enter__(self) -> "Background":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._wait(0)
        finally:
            self._thread.shutdown(cancel_futures=True)

    def _wait(self, unfinished: int) -> None:
        while len(self._calls) > unfinished:
            self._calls.popleft().result()


def ahead(
    prepare: Callable[[_Item], _Result], items: Iterable[_Item]
) -> Generator[_Result, None, None]:
    """Yields `prepare(item)` of each item in order; another thread prepares the next two results.

    Close the generator (`contextlib.closing`) if it may not be exhausted.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        results: deque[Future[_Result]] = deque()
        try:
            for item in items:
                results.append(thread.submit(prepare, item))
                if len(results) > _AHEAD:
                    yield results.popleft().result()
            while results:
                yield results.popleft().result()
        finally:
            for result in results:
                result.cancel()
