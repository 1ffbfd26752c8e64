"""The map of a scene while it is being made, small, for the page."""

import copy
import io
from base64 import b64encode
from itertools import chain
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..inference.windows import resolve_window, window_sides
from ..labels import IGNORE_INDEX
from ..model.configuration_crossearth import CrossEarthConfig
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..model.semantic_scores import semantic_scores
from ..prediction.parts import joined, part_batches, scene_parts, whole
from ..raster.grid import Grid

_LONGEST = 512  # pixels
BATCH_SIZE = 4


class Growth:
    """Classes of the windows that were mapped so far, at most 512 pixels on a side.

    The map itself blends windows that overlap; here, the later one lies on top. Batches in which a window holds no
    data are left out.

    Args:
        grid: `Scene.grid`.
        config: The model's.
    """

    def __init__(self, grid: Grid, config: CrossEarthConfig) -> None:
        window, stride = resolve_window(config, None, None)
        parts = scene_parts(grid, window, config.num_labels)
        in_order = (parts[number] for number in range(len(parts)))
        runs = joined(in_order, lambda part: part)  # as `predict_map` sweeps them
        self._batches = chain.from_iterable(
            part_batches(grid, whole(run), window, stride, BATCH_SIZE) for run in runs
        )
        self._sides = window_sides(grid.height, grid.width, window)
        self._scale = min(1.0, _LONGEST / max(grid.height, grid.width))
        shape = [max(1, round(size * self._scale)) for size in (grid.height, grid.width)]
        self.labels = np.full(shape, IGNORE_INDEX, np.uint8)
        self._found: list[np.ndarray] = []  # (h, w) classes of windows that were not placed yet

    def watched(
        self, model: CrossEarthForSemanticSegmentation
    ) -> CrossEarthForSemanticSegmentation:
        """The same model with the same weights, whose answers are collected here; other users of it notice nothing."""
        twin, forward = copy.copy(model), model.forward

        def collecting(*arguments: Any, **options: Any) -> Any:
            output = forward(*arguments, **options)
            self._collect(output)
            return output

        twin.__dict__["forward"] = collecting
        return twin

    def place(self) -> None:
        """Places what was found since the last call, which is the next batch."""
        found, self._found = self._found, []
        batch = next(self._batches, None)
        if batch is None or len(found) != len(batch.cols):
            return
        for col, labels in zip(batch.cols, found, strict=True):
            self._place(batch.row, col, labels)

    def address(self) -> str:
        """The classes as a gray PNG in a data URL; 255 where the map is not made yet."""
        stream = io.BytesIO()
        Image.fromarray(self.labels).save(stream, "PNG")
        return f"data:image/png;base64,{b64encode(stream.getvalue()).decode()}"

    def _collect(self, output: Any) -> None:
        masks = output.masks_queries_logits
        with torch.inference_mode():
            scores = semantic_scores(output.class_queries_logits, masks, tuple(masks.shape[-2:]))
        self._found.extend(scores.argmax(dim=1).byte().cpu().numpy())

    def _place(self, row: int, col: int, labels: np.ndarray) -> None:
        rows = self._pixels(row, self._sides[0], self.labels.shape[0])
        cols = self._pixels(col, self._sides[1], self.labels.shape[1])
        from_rows = ((rows + 0.5) / self._scale - row) * labels.shape[0] / self._sides[0]
        from_cols = ((cols + 0.5) / self._scale - col) * labels.shape[1] / self._sides[1]
        inside_rows = from_rows.astype(int).clip(0, labels.shape[0] - 1)
        inside_cols = from_cols.astype(int).clip(0, labels.shape[1] - 1)
        self.labels[np.ix_(rows, cols)] = labels[np.ix_(inside_rows, inside_cols)]

    def _pixels(self, start: int, side: int, size: int) -> np.ndarray:
        """Pixels of the small map that a window covers along an axis."""
        first = round(start * self._scale)
        last = round((start + side) * self._scale)
        return np.arange(first, min(max(last, first + 1), size))
