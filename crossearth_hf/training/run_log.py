"""The log of a run, and lines for the person who watches it."""

import sys
import time
from typing import Any

import torch
from accelerate import Accelerator

from .run_folder import RunFolder


class RunLog:
    """Writes losses and scores of all processes to `log.jsonl` and to the tracker.

    Args:
        accelerator: The processes of the run, and its tracker.
        folder: Folder of the run.
    """

    def __init__(self, accelerator: Accelerator, folder: RunFolder) -> None:
        self._accelerator, self._folder = accelerator, folder

    def mean(self, losses: list[dict[str, torch.Tensor]]) -> dict[str, float]:
        """Mean of each loss over passes and processes; empty if every step was skipped."""
        if not losses:
            return {}
        stacked = torch.stack([torch.stack(list(loss.values())) for loss in losses]).mean(0)
        means = self._accelerator.reduce(stacked, "mean").tolist()
        return dict(zip(losses[0], means, strict=True))

    def write(self, step: int, values: dict[str, dict[str, Any]], started: float) -> None:
        """Writes a line of the log: losses directly and scores under "eval"; the tracker gets all numbers."""
        if self._accelerator.is_main_process:
            line = values.get("train", {"eval": values.get("eval")})
            seconds = round(time.monotonic() - started, 3)
            self._folder.log({"step": step, **line, "seconds": seconds})
        numbers = {}
        for group, scores in values.items():
            for name, value in scores.items():
                if isinstance(value, int | float):
                    numbers[f"{group}/{name}"] = value
        self._accelerator.log(numbers, step=step)


def say(text: str) -> None:
    """A line for the person who watches the run."""
    print(text, file=sys.stderr)


def loss_parts(losses: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
    """Each kind of loss, summed over the decoder's outputs."""
    parts: dict[str, torch.Tensor] = {}
    for name, value in (losses or {}).items():
        part = name.rstrip("0123456789").rstrip("_")
        parts[part] = parts.get(part, 0) + value.detach()
    return parts
