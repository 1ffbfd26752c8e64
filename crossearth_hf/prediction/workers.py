"""Processes that map parts of scenes: on this machine, or on a cluster that exists already. The only user of Dask.

Dask's scheduler gives the parts of a lost worker to others; one address connects to whatever a batch system or
Kubernetes has started. A worker reads the scene and leaves its parts beside the map, so all machines must see both
under the same paths. Models are loaded once per process.
"""

import asyncio
import hashlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from transformers.utils.logging import disable_progress_bar

from ..errors import InputError, reason_of
from ..inference.loading import fastest_dtype, load_model, resolve_device
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..raster.scene import Scene, bounded_cache
from .kept_parts import PartJob, compute_part, model_digest
from .one_scene import PartRunner

if TYPE_CHECKING:
    from distributed import Client

_TIMEOUTS = (TimeoutError, asyncio.TimeoutError)  # one class from Python 3.11 on
_ANSWER_SECONDS = 5  # until something listens where a scheduler should be
_CONNECT_SECONDS = 30  # to a scheduler, which may be busy
_WORKERS_SECONDS = 30  # until it has one
_LOCAL_SECONDS = 120  # where all cores are busy, processes start slowly
_PAUSE = 0.2  # seconds between two looks for a scheduler
_DEFAULT_PORT = 8786  # of a Dask scheduler
_OPEN_SCENES = 8
_MOST_WAITING = 1000  # parts of a scene that the scheduler knows of: enough for a cluster to grow by


@dataclass(frozen=True)
class ModelSource:
    """What a worker loads: the arguments of `inference.load_model`, and how many threads it uses (None: unchanged)."""

    name: str | None
    device: str
    dtype: str
    threads: int | None = None


@dataclass(frozen=True)
class SceneSource:
    """What a worker opens: the arguments of `raster.scene.Scene`; with more than three channels `bands` names them.

    Attributes:
        version: Digest of sizes and times of change of the scene's files; a worker refuses others. None for any.
    """

    path: str
    bands: tuple[int, ...] | None = None
    resolution: float | None = None
    version: str | None = None
    nodata: tuple[float, ...] | None = None
    palette_as_image: bool = False

    @classmethod
    def of(cls, scene: Scene) -> "SceneSource":
        """Where workers find a scene that is open here."""
        if os.path.exists(scene.path):  # GDAL has other names too
            path = os.path.abspath(scene.path)
        else:
            path = scene.path
        return cls(
            path,
            bands=tuple(scene.bands),
            resolution=scene.resolution,
            version=_version(scene),
            nodata=scene.nodata,
            palette_as_image=scene.palette_as_image,
        )


class WorkersLost(InputError):
    """There are no workers any more: no scene can be mapped."""


class Workers:
    """Workers that share one model; safe to use from several threads.

    Args:
        client: Connected to the scheduler.
        model: What they load; of the type "auto" one worker decides for all.

    Attributes:
        model: The same, its type decided.
        device_type: Where one of them runs it, and so all: "cpu", "cuda" or "mps".

    Raises:
        InputError: for workers that lack this package or the device.
    """

    def __init__(self, client: "Client", model: ModelSource) -> None:
        self._client = client
        dtype, self.device_type = _asked(client, model)
        self.model = replace(model, dtype=dtype)
        self._running: set[Any] = set()  # futures of parts, of all threads
        self._stopped = False

    @property
    def slots(self) -> int:
        """Parts that are computed at once."""
        return sum(self._client.nthreads().values())

    def runner(self, scene: SceneSource) -> PartRunner:
        """What computes parts of `scene`.

        It drops the other parts and raises `InputError` where a part fails, `WorkersLost` where nobody is left to
        compute any.
        """

        def run(jobs: Sequence[PartJob]) -> Iterator[PartJob]:
            from distributed import as_completed  # noqa: PLC0415 - an optional dependency

            self._check_running()
            upcoming, waiting = iter(jobs), dict[Any, PartJob]()

            def submit(count: int) -> list[Any]:
                """Hands in so many more."""
                new = {
                    self._client.submit(_compute, job, scene, self.model, pure=False): job
                    for job in islice(upcoming, count)
                }
                waiting.update(new)
                self._running.update(new)
                return list(new)

            try:
                completed = as_completed(submit(_MOST_WAITING))
                self._check_running()  # `stop` may have come in between
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
        """Ends all runners, those of other threads too: they raise `WorkersLost`."""
        self._stopped = True
        self._drop(self._running)

    def _check_running(self) -> None:
        if self._stopped:
            raise WorkersLost("the workers were stopped")

    def _drop(self, futures: Iterable[Any]) -> None:
        """Takes back what nobody waits for any more."""
        with suppress(Exception):  # where the scheduler is lost, the person hears of that
            self._client.cancel(list(futures))


@contextmanager
def local_workers(count: int, model: ModelSource) -> Iterator[Workers]:
    """`count` processes on this machine, which share its cores; they end with the block.

    Raises:
        InputError: for a count below 1, or where Dask is missing.
    """
    if count < 1:
        raise InputError(f"{count} workers cannot map anything; give 1 or more")
    _require_dask()
    import dask  # noqa: PLC0415 - an optional dependency
    from dask.system import CPU_COUNT  # noqa: PLC0415
    from distributed import Client, LocalCluster  # noqa: PLC0415

    share = replace(model, threads=max(1, CPU_COUNT // count))
    patience = {f"distributed.comm.timeouts.{kind}": f"{_LOCAL_SECONDS}s" for kind in ("connect", "tcp")}
    with dask.config.set(patience):
        try:
            cluster = LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                memory_limit=None,  # a share of the machine's memory would end workers that the machine can carry
                security=True,  # who reaches a scheduler runs code: nobody else on this machine shall
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
            with suppress(*_TIMEOUTS):  # a process that was told to end, then killed, takes its time
                cluster.close()


@contextmanager
def cluster_workers(address: str, model: ModelSource) -> Iterator[Workers]:
    """The workers of the Dask scheduler at `address`, such as tcp://host:8786; they stay when the block ends.

    Raises:
        InputError: where no scheduler answers, no worker is there, or Dask is missing.
    """
    _require_dask()
    from distributed import Client  # noqa: PLC0415 - an optional dependency
    from distributed.utils import silence_logging_cmgr  # noqa: PLC0415

    with silence_logging_cmgr(logging.CRITICAL):  # what it logs where a scheduler dies, the person hears in a sentence
        try:
            _await_listener(address)
            client = Client(address, timeout=_CONNECT_SECONDS)
        except Exception as error:  # tls:// without certificates; whatever else listens there may answer anything
            raise InputError(
                f"no Dask scheduler answers at {address} ({error}); start `dask scheduler`, or check the address"
            ) from error
        with client:
            try:
                client.wait_for_workers(1, timeout=_WORKERS_SECONDS)
            except _TIMEOUTS as error:
                raise InputError(f"{address} has no worker; start some with `dask worker {address}`") from error
            yield Workers(client, model)


def _await_listener(address: str) -> None:
    """Raises `OSError` or `ValueError` where nothing listens at the address of a scheduler; the client tries longer."""
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
        except socket.gaierror:  # a name that nobody knows
            raise
        except OSError:
            if time.monotonic() > last:
                raise
        time.sleep(_PAUSE)


def _require_dask() -> None:
    try:
        import distributed  # noqa: F401, PLC0415 - an optional dependency
    except ImportError as error:
        raise InputError("workers need the package 'distributed'; run: pip install crossearth-hf[cluster]") from error


def _deaf_to_ctrl_c() -> Any:
    """A plugin for workers of this terminal: Ctrl-C is for the process that started them, which ends them."""
    from distributed import WorkerPlugin  # noqa: PLC0415 - an optional dependency

    class Deaf(WorkerPlugin):
        name = "deaf-to-ctrl-c"

        def setup(self, worker: Any) -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    return Deaf()


def _result(future: Any) -> Any:
    """What a call on a worker returned; raises what it raised, `InputError` and `WorkersLost` where workers failed."""
    from distributed import KilledWorker  # noqa: PLC0415 - an optional dependency

    if future.cancelled() or future.status == "lost":
        raise WorkersLost("the connection to the workers was lost; run the command again, finished parts are kept")
    error: BaseException | None = future.exception()
    if isinstance(error, KilledWorker):
        raise InputError(
            "one part ended several workers one after the other, as too little memory does; "
            "choose fewer workers, a smaller batch size or a smaller window"
        ) from error
    return future.result()


def _asked(client: "Client", model: ModelSource) -> tuple[str, str]:
    """The type in which a worker would run the model, and that of its device; `InputError` where it cannot."""
    try:
        dtype, device_type = _result(client.submit(_resolved, model, pure=False))
    except InputError:
        raise
    except Exception as error:  # whatever a foreign environment makes of our code
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"the workers cannot run this package ({reason}); install it on all machines, the scheduler's too"
        ) from error
    return dtype, device_type


def _resolved(model: ModelSource) -> tuple[str, str]:
    """The type in which to run the model on this worker, and that of its device."""
    device = resolve_device(model.device)
    if model.dtype == "auto":
        dtype = str(fastest_dtype(device)).removeprefix("torch.")
    else:
        dtype = model.dtype
    return dtype, device.type


def _compute(job: PartJob, scene: SceneSource, model: ModelSource) -> str | None:
    """Computes a part, on a worker; returns what is wrong with the input: GDAL's errors do not travel as causes."""
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
) -> tuple[CrossEarthForSemanticSegmentation, CrossEarthImageProcessor]:
    """The model, once per process and `model_digest`; `InputError` where it is another one here."""
    disable_progress_bar()  # this terminal shows the progress of the whole
    if model.threads is not None:
        torch.set_num_threads(model.threads)
    network, processor = load_model(model.name, device=_spread_device(model.device, worker), dtype=model.dtype)
    if model_digest(network, processor) != digest:
        raise InputError(
            f"the model {model.name or 'of the package'} has other weights or settings on a worker than where the "
            "command runs, or the package is of another version there; bring all machines to the same version"
        )
    return network, processor


def _spread_device(device: str, worker: object) -> str:
    """The device of a worker: those of one machine, which bear numbers, take its GPUs in turn."""
    count = torch.cuda.device_count()
    if device in ("auto", "cuda") and count > 1 and isinstance(worker, int):
        return f"cuda:{worker % count}"
    return device


@lru_cache(maxsize=_OPEN_SCENES)
def _opened(scene: SceneSource, thread: int) -> Scene:
    """The scene, opened once per thread: GDAL's data sets are not shared, and the stretch is measured once."""
    channels = max(3, len(scene.bands or ()))
    opened = Scene(
        scene.path,
        bands=scene.bands,
        resolution=scene.resolution,
        num_channels=channels,
        nodata=scene.nodata,
        palette_as_image=scene.palette_as_image,
    )
    if scene.version is not None and _version(opened) != scene.version:
        opened.close()
        raise InputError(
            f"a worker finds another file as {scene.path} than where the command runs; run again once all machines see "
            "the same one"
        )
    return opened


def _version(scene: Scene) -> str | None:
    """What tells files from others under their paths, on every machine: their numbers may differ between them."""
    stamps = [stamp and stamp[:2] for stamp in scene.stamps.values()]
    if any(stamps):
        return hashlib.sha256(repr(stamps).encode()).hexdigest()
    return None
