"""Processes that map parts of scenes, on this machine or on an existing cluster. The only user of Dask.

Dask's scheduler gives the parts of a lost worker to others; one address connects to anything that a batch system or
Kubernetes has started. A worker reads the scene and writes its parts beside the map, so both must have the same paths
on all machines. Models are loaded once per process.
"""

import asyncio
import hashlib
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from transformers.utils.logging import disable_progress_bar

from ..errors import InputError, reason_of
from ..export.engines import engine_network
from ..inference.loading import fastest_dtype, load_model, resolve_device
from ..inference.model_digest import model_digest
from ..inference.windows import Network
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..raster.scene import DEFAULT_READING, Reading, Scene, bounded_cache
from .one_scene import PartRunner
from .part_jobs import PartJob
from .part_writing import compute_part

if TYPE_CHECKING:
    from distributed import Client

_TIMEOUTS = (TimeoutError, asyncio.TimeoutError)  # one class from Python 3.11 on
_ANSWER_SECONDS = 5  # until something listens at a scheduler's address
_CONNECT_SECONDS = 30  # to a scheduler, which may be busy
_WORKERS_SECONDS = 30  # until it has one
_LOCAL_SECONDS = 120  # where all cores are busy, processes start slowly
_PAUSE = 0.2  # seconds between two looks for a scheduler
_DEFAULT_PORT = 8786  # of a Dask scheduler
_OPEN_SCENES = 8
_FORKS = "forkserver" in multiprocessing.get_all_start_methods()
_MOST_WAITING = 1000  # parts of a scene at the scheduler: enough for a growing cluster


@dataclass(frozen=True)
class ModelSource:
    """The model of a worker: arguments of `inference.load_model`, number of threads (None: unchanged), engine."""

    name: str | None
    device: str
    dtype: str
    threads: int | None = None
    engine: str | None = None


@dataclass(frozen=True)
class SceneSource:
    """The scene of a worker.

    Attributes:
        path: The scene.
        reading: How it is read.
        version: Hash of sizes and times of the scene's files, which a worker requires; None to accept any.
    """

    path: str
    reading: Reading = DEFAULT_READING
    version: str | None = None

    @classmethod
    def of(cls, scene: Scene) -> "SceneSource":
        """Where workers find an open scene."""
        if os.path.exists(scene.path):  # GDAL has other names too
            path = os.path.abspath(scene.path)
        else:
            path = scene.path
        return cls(path, scene.reading, _version(scene))


class WorkersLost(InputError):
    """No workers are left, so no scene can be mapped."""


class Workers:
    """Workers that share one model; can be used from several threads.

    Args:
        client: Connected to the scheduler.
        model: Their model; for the dtype "auto" one worker decides for all.

    Attributes:
        model: The model with the decided dtype.
        device_type: Type of their devices, by one of them: "cpu", "cuda" or "mps".

    Raises:
        InputError: Workers lack this package or the device.
    """

    def __init__(self, client: "Client", model: ModelSource) -> None:
        self._client = client
        dtype, self.device_type = _asked(client, model)
        self.model = replace(model, dtype=dtype)
        self._running: set[Any] = set()  # futures of parts, of all threads
        self._stopped = False

    @property
    def slots(self) -> int:
        """Number of parts computed at a time."""
        return sum(self._client.nthreads().values())

    def runner(self, scene: SceneSource) -> PartRunner:
        """A function that computes parts of `scene`.

        It drops the other parts and raises `InputError` if a part fails, `WorkersLost` if no workers are left.
        """

        def run(jobs: Sequence[PartJob]) -> Iterator[PartJob]:
            from distributed import as_completed  # noqa: PLC0415 - an optional dependency

            self._check_running()
            upcoming, waiting = iter(jobs), dict[Any, PartJob]()

            def submit(count: int) -> list[Any]:
                """Submits `count` more."""
                new = {
                    self._client.submit(_compute, job, scene, self.model, pure=False): job
                    for job in islice(upcoming, count)
                }
                waiting.update(new)
                self._running.update(new)
                return list(new)

            try:
                completed = as_completed(submit(_MOST_WAITING))
                self._check_running()  # `stop` may have been called in between
                for future in completed:
                    problem = _result(future)
                    if problem is not None:
                        raise InputError(problem)
                    yield waiting.pop(future)
                    self._running.discard(future)
                    completed.update(submit(1))
            finally:
                self._running.difference_update(waiting)
                self._drop(waiting)

        return run

    def stop(self) -> None:
        """Ends all runners, also in other threads; they raise `WorkersLost`."""
        self._stopped = True
        self._drop(self._running)

    def _check_running(self) -> None:
        if self._stopped:
            raise WorkersLost("the workers were stopped")

    def _drop(self, futures: Iterable[Any]) -> None:
        """Cancels calls whose results are no longer needed."""
        with suppress(Exception):  # a lost scheduler is reported elsewhere
            self._client.cancel(list(futures))


@contextmanager
def local_workers(count: int, model: ModelSource) -> Iterator[Workers]:
    """`count` processes on this machine, which share its cores and end with the block.

    Raises:
        InputError: The count is below 1, or Dask is missing.
    """
    if count < 1:
        raise InputError(f"the number of workers, {count}, must be 1 or more")
    _require_dask()
    import dask  # noqa: PLC0415 - an optional dependency
    from dask.system import CPU_COUNT  # noqa: PLC0415
    from distributed import Client, LocalCluster  # noqa: PLC0415

    share = replace(model, threads=max(1, CPU_COUNT // count))
    settings = {
        f"distributed.comm.timeouts.{kind}": f"{_LOCAL_SECONDS}s" for kind in ("connect", "tcp")
    }
    if _FORKS:
        settings["distributed.worker.multiprocessing-method"] = "forkserver"
    with dask.config.set(settings):
        if _FORKS:
            _import_once()
        try:
            cluster = LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                memory_limit=None,  # Dask's limit would end workers although there is memory
                security=True,  # anyone who reaches a scheduler can run code, also other users of this machine
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            )
        except (RuntimeError, OSError, *_TIMEOUTS) as error:
            reason = reason_of(error.__cause__ or error)
            raise InputError(
                f"the {count} workers do not start ({reason}); choose fewer, or leave --workers out"
            ) from error
        try:
            with Client(cluster) as client:
                client.register_plugin(_deaf_to_ctrl_c())
                yield Workers(client, share)
        finally:
            with suppress(*_TIMEOUTS):  # ending or killing a process takes time
                cluster.close()


@contextmanager
def cluster_workers(address: str, model: ModelSource) -> Iterator[Workers]:
    """The workers of the Dask scheduler at `address`, such as tcp://host:8786; they stay when the block ends.

    Raises:
        InputError: No scheduler answers, it has no worker, or Dask is missing.
    """
    _require_dask()
    from distributed import Client  # noqa: PLC0415 - an optional dependency
    from distributed.utils import silence_logging_cmgr  # noqa: PLC0415

    with silence_logging_cmgr(logging.CRITICAL):  # a dead scheduler is reported in a sentence
        try:
            _await_listener(address)
            client = Client(address, timeout=_CONNECT_SECONDS)
        except Exception as error:  # tls:// without certificates; other servers at that address
            raise InputError(
                f"no Dask scheduler answers at {address} ({error}); start `dask scheduler`, or check the address"
            ) from error
        with client:
            try:
                client.wait_for_workers(1, timeout=_WORKERS_SECONDS)
            except _TIMEOUTS as error:
                raise InputError(
                    f"{address} has no worker; start some with `dask worker {address}`"
                ) from error
            yield Workers(client, model)


def shared_workers(
    model: str | os.PathLike[str] | tuple[Any, ...] | None,
    device: str,
    dtype: str,
    count: int | None,
    scheduler: str | None,
    engine: str | None,
) -> AbstractContextManager[Workers | None]:
    """The workers for the duration of a block; None if this process does all the work.

    Args:
        model, device, dtype, scheduler, engine: As in `predict`.
        count: Its `workers`.

    Raises:
        InputError: Both a count and a scheduler are given, the model is a loaded one, or the device is not available;
            or as the two functions above.
    """
    if count is None and scheduler is None:
        return nullcontext()
    if count is not None and scheduler is not None:
        raise InputError(
            f"{count} workers cannot be combined with the scheduler {scheduler}; leave one of them out"
        )
    if isinstance(model, tuple):
        raise InputError(
            "workers load the model themselves; give its folder or Hub id instead of a loaded model"
        )
    if model is None:
        name = None
    elif os.path.isdir(model):
        name = os.path.abspath(model)
    else:
        name = os.fspath(model)
    source = ModelSource(name, device, dtype, engine=engine)
    if scheduler is not None:
        return cluster_workers(scheduler, source)
    resolve_device(device)  # checks the device before processes start
    return local_workers(count or 0, source)


def _await_listener(address: str) -> None:
    """Raises `OSError` or `ValueError` if nothing listens at a scheduler's address; the client would wait longer."""
    from distributed.comm import parse_address  # noqa: PLC0415 - an optional dependency
    from distributed.comm.addressing import parse_host_port  # noqa: PLC0415

    scheme, place = parse_address(address)
    if scheme not in ("tcp", "tls"):
        return
    host, port = parse_host_port(place, _DEFAULT_PORT)
    last = time.monotonic() + _ANSWER_SECONDS
    while True:
        try:
            socket.create_connection((host, port), timeout=_ANSWER_SECONDS).close()
            return
        except socket.gaierror:  # an unknown name
            raise
        except OSError:
            if time.monotonic() > last:
                raise
        time.sleep(_PAUSE)


def _require_dask() -> None:
    try:
        import distributed  # noqa: F401, PLC0415 - an optional dependency
    except ImportError as error:
        raise InputError(
            "workers need the package 'distributed'; run: pip install crossearth-hf[cluster]"
        ) from error


def _import_once() -> None:
    """Has local workers forked from one process that has imported this module, instead of importing it in each."""
    from distributed import utils  # noqa: PLC0415 - an optional dependency

    if hasattr(utils, "get_mp_context"):
        utils.get_mp_context()  # sets modules of Dask's own, the first time
    multiprocessing.get_context("forkserver").set_forkserver_preload(["distributed", __name__])


def _deaf_to_ctrl_c() -> Any:
    """A plugin that makes local workers ignore Ctrl-C, because the process that started them ends them."""
    from distributed import WorkerPlugin  # noqa: PLC0415 - an optional dependency

    class Deaf(WorkerPlugin):
        name = "deaf-to-ctrl-c"

        def setup(self, worker: Any) -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    return Deaf()


def _result(future: Any) -> Any:
    """The result or exception of a call on a worker; `InputError` or `WorkersLost` if workers failed."""
    from distributed import KilledWorker  # noqa: PLC0415 - an optional dependency

    if future.cancelled() or future.status == "lost":
        raise WorkersLost(
            "the connection to the workers was lost; run the command again, finished parts are kept"
        )
    error: BaseException | None = future.exception()
    if isinstance(error, KilledWorker):
        raise InputError(
            "one part ended several workers one after the other, perhaps for lack of memory; "
            "choose fewer workers, a smaller batch size or a smaller window"
        ) from error
    return future.result()


def _asked(client: "Client", model: ModelSource) -> tuple[str, str]:
    """The dtype in which a worker would run the model, and the type of its device; `InputError` if it cannot."""
    try:
        dtype, device_type = _result(client.submit(_resolved, model, pure=False))
    except InputError:
        raise
    except Exception as error:  # another environment may fail in any way
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"the workers cannot run this package ({reason}); install it on all machines, the scheduler's too"
        ) from error
    return dtype, device_type


def _resolved(model: ModelSource) -> tuple[str, str]:
    """The dtype for the model on this worker, and the type of its device."""
    device = resolve_device(model.device)
    if model.dtype == "auto":
        dtype = str(fastest_dtype(device)).removeprefix("torch.")
    else:
        dtype = model.dtype
    return dtype, device.type


def _compute(job: PartJob, scene: SceneSource, model: ModelSource) -> str | None:
    """Computes a part on a worker; returns an error sentence, because GDAL's errors cannot be pickled as causes."""
    from distributed import get_worker  # noqa: PLC0415 - an optional dependency

    try:
        with _loading:  # threads of a worker share one model
            network, processor = _loaded(model, job.settings.model, get_worker().name)
        with bounded_cache():
            compute_part(job, _opened(scene, threading.get_ident()), network, processor)
    except InputError as error:
        return str(error)
    return None


_loading = threading.Lock()


@lru_cache(maxsize=1)
def _loaded(
    model: ModelSource, digest: str, worker: object
) -> tuple[Network, CrossEarthImageProcessor]:
    """The model, once per process and `model_digest`; `InputError` if it differs from the caller's."""
    disable_progress_bar()  # the calling process shows the progress
    if model.threads is not None:
        torch.set_num_threads(model.threads)
    network, processor = load_model(
        model.name, device=_spread_device(model.device, worker), dtype=model.dtype
    )
    if model_digest(network, processor) != digest:
        raise InputError(
            f"the model {model.name or 'of the package'} has other weights or settings on a worker than on this "
            "machine, or the package has another version there; bring all machines to the same version"
        )
    if model.engine is not None:
        return engine_network(network, processor, model.engine), processor
    return network, processor


def _spread_device(device: str, worker: object) -> str:
    """The device of a worker; the numbered workers of one machine take its GPUs in turn."""
    count = torch.cuda.device_count()
    if device in ("auto", "cuda") and count > 1 and isinstance(worker, int):
        return f"cuda:{worker % count}"
    return device


@lru_cache(maxsize=_OPEN_SCENES)
def _opened(scene: SceneSource, thread: int) -> Scene:
    """The scene, opened once per thread, because threads cannot share GDAL's data sets."""
    opened = scene.reading.open(scene.path)
    if scene.version is not None and _version(opened) != scene.version:
        opened.close()
        raise InputError(
            f"a worker finds another file at {scene.path} than this machine; run again once all machines see the "
            "same file"
        )
    return opened


def _version(scene: Scene) -> str | None:
    """A hash of sizes and times of the scene's files, which is the same on all machines; inodes may differ."""
    stamps = [stamp and stamp[:2] for stamp in scene.stamps.values()]
    if any(stamps):
        return hashlib.sha256(repr(stamps).encode()).hexdigest()
    return None
