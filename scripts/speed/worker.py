"""The process of one contestant: it builds its job, then runs it whenever a line on its standard input says so."""

import ctypes
import gc
import json
import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .jobs import Case, Job, Outcome, Setup


def build(setup: Setup) -> Job:
    """The contestant's job; only its own libraries are imported, since they count in its memory."""
    if setup.family == "baseline":
        from . import baseline  # noqa: PLC0415

        return baseline.build(setup)
    if setup.family in ("ours", "previous", "forward"):
        from . import package  # noqa: PLC0415

        if setup.family == "forward":
            return package.build_forward(setup)
        return package.build(setup)
    from . import peers  # noqa: PLC0415

    return peers.build(setup)


def read_setup(line: str) -> Setup:
    """The setup that `process.Contestant` sent."""
    fields = json.loads(line)
    paths = {
        name: Path(fields[name]) if fields[name] else None
        for name in ("model", "scene", "corner", "folder")
    }
    return Setup(**(fields | paths | {"case": Case(**fields["case"])}))


class Memory:
    """Peak memory since `reset`, in bytes: CUDA's, or what the process had resident."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")

    def reset(self) -> None:
        """Starts a new measurement, without the garbage of what went before."""
        gc.collect()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        # glibc and Linux; elsewhere the peak is that since the start
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> int:
        """Bytes."""
        if self.cuda:
            return torch.cuda.max_memory_allocated()
        with suppress(OSError):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Worker:
    """Answers commands about one job."""

    def __init__(self, setup: Setup) -> None:
        torch.set_num_threads(setup.threads)
        torch.manual_seed(0)
        self.setup, self.memory = setup, Memory(setup.device)
        self.job: Job = build(setup)
        self.outcome: Outcome | None = None
        self.memory.reset()

    def answer(self, command: str) -> dict[str, Any]:
        """Does what one of "warm_up", "run" and "result" names."""
        if command == "result":
            path = self.setup.folder / "outcome.npy"
            np.save(path, torch.as_tensor(self.outcome).cpu().numpy())
            return {"outcome": str(path)}
        started, processor = time.perf_counter(), time.process_time()
        if command == "warm_up":
            self.outcome = self.job.warm_up()
        else:
            self.outcome = self.job.run()
        if self.memory.cuda:
            torch.cuda.synchronize()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - processor
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": self.memory.peak()}


def main() -> None:
    """Reads a setup and then commands, a line each; answers each with a line of JSON."""
    with suppress(OSError):  # where memory ends, this process is to go, and none of its neighbors
        Path("/proc/self/oom_score_adj").write_text("1000")
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not be read as an answer
    worker = None
    for line in sys.stdin:
        try:
            if worker is None:
                worker = Worker(read_setup(line))
                package_file = getattr(sys.modules.get("crossearth_hf"), "__file__", None)
                reply: dict[str, Any] = {
                    "loaded_bytes": worker.memory.peak(),
                    "package": package_file,
                }
            else:
                reply = worker.answer(json.loads(line))
        except (MemoryError, torch.OutOfMemoryError):
            reply = {"error": "out of memory"}
        except (
            Exception
        ) as error:  # whatever stops one contestant is to be told, not to stop the others
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            if "can't allocate memory" in reason:
                reason = "out of memory"
            reply = {"error": reason}
        replies.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
