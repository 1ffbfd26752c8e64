"""Jobs of the app: one after the other, apart, cancelled, swept."""

import asyncio
import re
import threading
import time

import pytest

pytest.importorskip("pyogrio")
pytest.importorskip("shapely")

from app_parts import read_map, stub_model, write_patches

from crossearth_hf.app import predict
from crossearth_hf.app.jobs import Cancelled, Jobs, repeat_forever
from crossearth_hf.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def test_cancelling_leaves_nothing(tmp_path):
    write_patches(tmp_path / "s.tif")
    jobs = Jobs(tmp_path / "results", keep=60)
    texts = []

    def run():
        with jobs.running("one") as job:
            count = job.counting(lambda share, sentence: texts.append(sentence))

            def count_and_cancel(done, total):
                count(done, total)
                jobs.cancel("one" if done >= 8 else "another")

            predict(tmp_path / "s.tif", stub_model(), job.folder, on_windows=count_and_cancel)

    with pytest.raises(Cancelled):
        run()
    assert list((tmp_path / "results").iterdir()) == []
    assert re.fullmatch(r"4 of 20 windows, about \d+ s left", texts[0])
    assert len(texts) == 3  # windows come in batches of four, five to a row


def test_jobs_are_kept_apart_and_swept(tmp_path):
    jobs = Jobs(tmp_path, keep=0.05)
    with jobs.running("one") as first, jobs.running("two") as second:
        jobs.cancel("one")
        assert first.stop.is_set()
        assert not second.stop.is_set()
    (second.folder / "map.tif").write_text("map")
    assert first.folder != second.folder
    time.sleep(0.1)
    with jobs.running("three") as third:
        time.sleep(0.1)
        jobs.sweep()
        assert list(tmp_path.iterdir()) == [third.folder]
        assert third.folder.exists(), "a running job is not swept"


def test_a_failed_job_takes_its_files_with_it(tmp_path):
    jobs = Jobs(tmp_path, keep=60)

    def fail(job):
        (job.folder / "half.tif").write_text("half")
        raise InputError("no")

    with pytest.raises(InputError), jobs.running(None) as job:
        fail(job)
    assert list(tmp_path.iterdir()) == []


def test_all_jobs_run_in_one_thread(tmp_path):
    jobs = Jobs(tmp_path, keep=60)

    async def several():
        works = [
            jobs.run("one", lambda job: (threading.get_ident(), job.folder)) for _ in range(20)
        ]
        return await asyncio.gather(*works)

    found = asyncio.run(several()) + asyncio.run(several())
    jobs.close()
    threads, folders = zip(*found, strict=True)
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()
    assert set(folders) == set(tmp_path.iterdir())
    assert len(set(folders)) == 40


def endless(started):
    """A job that ends when it is told to, at its next window."""

    def work(job):
        count = job.counting(lambda share, sentence: None)
        started.set()
        while True:
            count(1, 2)
            time.sleep(0.01)

    return work


def test_a_cancelled_caller_stops_its_job(tmp_path):
    jobs, started = Jobs(tmp_path, keep=60), threading.Event()

    async def cancelled():
        task = asyncio.create_task(jobs.run("one", endless(started)))
        await asyncio.to_thread(started.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await jobs.run("one", lambda job: "the thread is free again")

    assert asyncio.run(cancelled()) == "the thread is free again"
    jobs.close()
    assert len(list(tmp_path.iterdir())) == 1


def test_the_end_of_the_server_stops_its_jobs(tmp_path):
    jobs, started = Jobs(tmp_path, keep=60), threading.Event()

    async def closed():
        task = asyncio.create_task(jobs.run("one", endless(started)))
        await asyncio.to_thread(started.wait, 30)
        await asyncio.to_thread(jobs.close)
        with pytest.raises(Cancelled):
            await task

    asyncio.run(closed())
    assert list(tmp_path.iterdir()) == []


def test_what_is_repeated_survives_a_failure(capfd):
    done = []

    def work():
        done.append(len(done))
        if len(done) == 1:
            raise PermissionError("no")
        if len(done) == 3:
            raise SystemExit  # ends the thread, which would run beside all later tests

    repeat_forever(work, 0.01)
    for _ in range(500):
        if len(done) == 3:
            break
        time.sleep(0.01)
    assert done == [0, 1, 2]
    assert capfd.readouterr().err == "crossearth app: PermissionError in the background: no\n"


def test_two_predictions_at_once(tmp_path):
    found = {}

    def work(seed):
        ids = write_patches(tmp_path / f"{seed}.tif", seed)
        with jobs.running(str(seed)) as job:
            result = predict(tmp_path / f"{seed}.tif", model, job.folder)
        found[seed] = (read_map(result.report.files[0]) == ids).all()

    model, jobs = stub_model(), Jobs(tmp_path / "results", keep=60)
    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {1: True, 2: True}
