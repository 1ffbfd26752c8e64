"""Sweeps a model's windows over a scene of any size, and blends them without seams."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..inference.windows import (
    Network,
    WindowCounter,
    WindowScorer,
    normalize_windows,
    window_sides,
)
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..progress import progress_bar
from ..raster.scene import Scene
from .background import Background, ahead
from .blending import Blend, BlockWriter, taper
from .parts import Batch, Part, part_batches


@torch.inference_mode()
def predict_part(
    scene: Scene,
    part: Part,
    model: Network,
    processor: CrossEarthImageProcessor,
    write: BlockWriter,
    *,
    window: int,
    stride: int,
    batch_size: int = 4,
    tta: bool = False,
    on_batch: Callable[[int], None] | None = None,
) -> None:
    """Labels and scores of a part of a scene, block by block, from top to bottom.

    Scores of overlapping windows are summed with weights that taper towards the window's edge; a block is written as
    soon as no later window reaches it. Other threads read windows ahead of the model and write behind it. Pixels
    without data enter the model as the image mean and get no label, except in a resampled scene: there the edge of the
    data is blurred, so all pixels of windows with data are labeled, and `scene.read_valid` decides on the scene's own
    grid. Pixels outside the scene's area get no label, and only windows that touch it are computed.

    Args:
        scene: Scene to map, read at `scene.grid`.
        part: One of `scene_parts`, or the `whole` of a run of them.
        model: A `CrossEarthForSemanticSegmentation`, in eval mode, or what an engine makes of it.
        processor: Defines the normalization.
        write: Called in another thread, one call at a time, as `write(row, col, labels, scores, counted)`, once for
            each pixel of the part: (h, w) uint8 labels, 255 for no data; (K, h, w) float32 sums of weighted scores,
            undefined where there is no data; (h, w) bool pixels with data in the area. Blocks have the width of the
            part and, except at the scene's end, 256 rows.
        window: Side of the window in pixels, a multiple of 16.
        stride: Step between windows in pixels.
        batch_size: Windows per forward pass, all of one row.
        tta: Whether to average scores over flips, as `WindowScorer` does.
        on_batch: Called with the number of windows after each batch.

    Raises:
        InputError: The scene cannot be read to its end, or there is too little memory.
    """
    height, width = scene.grid.height, scene.grid.width
    side_y, side_x = window_sides(height, width, window)
    weights = torch.outer(taper(side_y), taper(side_x)).to(model.device)  # (side_y, side_x)
    scorer = WindowScorer(model, tta=tta)
    read = partial(_read, scene, min(side_y, height), min(side_x, width))
    batches = part_batches(scene.grid, part, window, stride, batch_size, scene.placed_area)
    with Background() as behind, closing(ahead(read, batches)) as read_ahead:
        # With an accelerator, the other thread also makes the sums. On a CPU, that would take a core from the model and
        # let the others wait; so all cores make the sums, between two batches.
        alone = model.device.type == "cpu"
        finish = partial(behind.submit, write) if alone else write
        blend = Blend(part, model.config.num_labels, finish, ignore_valid=scene.is_resampled)
        if alone:
            add = blend.add
        else:
            add = partial(behind.submit, blend.add)
        for batch, pixels, valid, counted in read_ahead:
            needed = valid if scene.is_resampled else counted
            add(batch, counted, _score(scorer, processor, pixels, valid, needed, weights))
            if on_batch is not None:
                on_batch(len(batch.cols))


def _read(
    scene: Scene, height: int, width: int, batch: Batch
) -> tuple[Batch, np.ndarray, np.ndarray, np.ndarray]:
    """A batch with the (b, 3, height, width) uint8 pixels and (b, height, width) validity of its windows.

    The last are the pixels that count, (b, height, width) bool: in the scene's area, if it has one, and valid.
    """
    if not batch.cols:
        none = np.zeros((0, height, width), dtype=bool)
        return batch, np.zeros((0, 3, height, width), dtype=np.uint8), none, none
    left = batch.cols[0]
    # reads overlapping pixels once
    span = scene.read(batch.row, left, height, batch.cols[-1] + width - left)
    starts = [col - left for col in batch.cols]
    pixels = np.stack([span.pixels[:, :, start : start + width] for start in starts])
    valid = np.stack([span.valid[:, start : start + width] for start in starts])
    counted = valid
    if scene.placed_area is not None:
        inside = scene.placed_area.mask(batch.row, left, *span.valid.shape)
        counted = valid & np.stack([inside[:, start : start + width] for start in starts])
    return batch, pixels, valid, counted


def _score(
    scorer: WindowScorer,
    processor: CrossEarthImageProcessor,
    pixels: np.ndarray,
    valid: np.ndarray,
    needed: np.ndarray,
    weights: Tensor,
) -> list[Tensor | None]:
    """Weighted scores (K, side_y, side_x) of each of the b windows of `_read`; None for one without needed pixels."""
    with_data = [bool(window.any()) for window in needed]
    if not any(with_data):
        return [None] * len(valid)
    if not all(with_data):
        pixels, valid = pixels[with_data], valid[with_data]
    if valid.all():
        holes = None
    else:
        holes = torch.from_numpy(valid).to(weights.device)
    # (b', 3, h, w)
    crops = normalize_windows(torch.from_numpy(pixels).to(weights.device), holes, processor)
    missing = (weights.shape[0] - crops.shape[2], weights.shape[1] - crops.shape[3])
    if any(missing):
        crops = F.pad(crops, (0, missing[1], 0, missing[0]))
    scores = iter(scorer(crops).mul_(weights).cpu())
    return [next(scores) if some else None for some in with_data]


@contextmanager
def counted_windows(
    total: int, *, shown: bool, tell: WindowCounter | None
) -> Iterator[Callable[[int], None]]:
    """A function that takes the number of windows just finished, moves a progress bar and calls `tell`."""
    done = 0
    with progress_bar(total=total, desc="predicting", unit="window", shown=shown) as bar:

        def count(windows: int) -> None:
            nonlocal done
            done += windows
            bar.update(windows)
            if tell is not None:
                tell(done, total)

        yield count
