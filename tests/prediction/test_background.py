"""Work in another thread: its order, and what an error leaves undone."""

import threading

import pytest

from crossearth_hf.prediction.background import Background


def test_calls_run_in_order_and_all_of_them():
    done = []
    with Background(waiting=3) as behind:
        for number in range(10):
            behind.submit(done.append, number)
    assert done == list(range(10))


def test_no_call_runs_after_one_that_raised():
    done, may_fail = [], threading.Event()

    def fail():
        may_fail.wait(10)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), Background(waiting=2) as behind:  # noqa: PT012
        behind.submit(done.append, "before")
        behind.submit(fail)
        behind.submit(done.append, "queued when it fails")
        may_fail.set()
    assert done == ["before"]
