"""Computes parts of a map and writes their files."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from affine import Affine

from ..errors import InputError
from ..inference.windows import Network
from ..labels import label_set_of
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..raster.cog import BlockFile, Layer, map_layers
from ..raster.grid import Grid
from ..raster.scene import Scene
from .blending import confidences, probabilities
from .part_jobs import BLOCKS, CONFIDENCE, PartJob, layer_file, refusals
from .parts import whole
from .sweep import predict_part


def compute_part(
    job: PartJob,
    scene: Scene,
    model: Network,
    processor: CrossEarthImageProcessor,
) -> None:
    """Computes a part unless it is finished; two processes may compute the same part.

    Args:
        job: One of `PartJobs`.
        scene: The same file, opened in the same way.
        model: In eval mode. Parts fit together to the last bit if all workers use the same weights, precision, type of
            device and number of threads.
        processor: Defines the normalization.

    Raises:
        InputError: The part cannot be computed (see `predict_part`) or written.
    """
    if not job.is_finished:
        compute_run([job], scene, model, processor)


def compute_run(
    jobs: Sequence[PartJob],
    scene: Scene,
    model: Network,
    processor: CrossEarthImageProcessor,
    on_batch: Callable[[int], None] | None = None,
) -> None:
    """Computes consecutive parts of a column in one sweep; each is finished with its last row."""
    settings = jobs[0].settings
    layers = map_layers(label_set_of(model.config), float_shares=settings.float_shares)
    chosen = [layers[name] for name in settings.layers]
    with _PartWriter(jobs, chosen, model.config.confidence_temperature) as writer:
        predict_part(
            scene,
            whole([job.part for job in jobs]),
            model,
            processor,
            writer.write,
            window=settings.window,
            stride=settings.stride,
            batch_size=settings.batch_size,
            tta=settings.tta,
            on_batch=on_batch,
        )


class _PartWriter:
    """Writes the blocks of a sweep into the files of one part after the other.

    Args:
        jobs: Jobs of the parts, from top to bottom.
        layers: Layers to write.
        temperature: The model's `config.confidence_temperature`.
    """

    def __init__(
        self, jobs: Sequence[PartJob], layers: Sequence[Layer], temperature: float | None
    ) -> None:
        self._jobs, self._layers, self._temperature = iter(jobs), layers, temperature
        self._job: PartJob | None = None  # the job whose files are open
        self._folder = Path()
        self._files: list[BlockFile] = []
        self._sure = [0.0, 0]  # sum of confidences, pixels

    def __enter__(self) -> "_PartWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._job is not None:
            for file in self._files:
                with suppress(InputError):  # the first error is already being raised
                    file.__exit__(kind, error, trace)
            shutil.rmtree(self._folder, ignore_errors=True)

    def write(
        self, row: int, col: int, labels: np.ndarray, scores: np.ndarray, counted: np.ndarray
    ) -> None:
        """Writes a block into its part; `predict_part` calls it."""
        job = self._job or self._open()
        values = {
            "labels": lambda: labels,
            "confidence": lambda: confidences(labels, scores, self._temperature),
            "probabilities": lambda: probabilities(labels, scores, self._temperature),
        }
        for layer, file in zip(self._layers, self._files, strict=True):
            file.write(row - job.part.top, col - job.part.left, layer.stored(values[layer.name]()))
        confidence = values["confidence"]()
        self._sure[0] += float(confidence.sum(where=counted, dtype=np.float64))
        self._sure[1] += int(counted.sum())
        if row + len(labels) == job.part.bottom:
            self._finish(job)

    def _open(self) -> PartJob:
        """Opens the files of the next part."""
        job = next(self._jobs)
        with refusals(job.output):
            self._folder = Path(
                tempfile.mkdtemp(prefix=f"{job.folder.name}-", dir=job.folder.parent)
            )
        self._job, self._files, self._sure = job, [], [0.0, 0]
        part = job.part
        grid = Grid(part.right - part.left, part.bottom - part.top, None, Affine.identity())
        for layer in self._layers:
            self._files.append(
                BlockFile(layer_file(self._folder, layer.name), grid, layer, job.output)
            )
        return job

    def _finish(self, job: PartJob) -> None:
        """Closes the files of a part and moves them into place."""
        for file in self._files:
            with file:
                pass
        blocks: dict[str, Any] = {
            layer.name: [tuple(asdict(block).values()) for block in file.blocks]
            for layer, file in zip(self._layers, self._files, strict=True)
        }
        blocks[CONFIDENCE] = self._sure
        with refusals(job.output):
            (self._folder / BLOCKS).write_text(json.dumps(blocks))
            try:
                os.replace(self._folder, job.folder)
            except OSError:
                if not job.is_finished:  # by another process
                    raise
                shutil.rmtree(self._folder, ignore_errors=True)
        self._job = None
