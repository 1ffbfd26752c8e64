"""A model's windows, swept over a scene of any size and blended without seams."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..inference.windows import WindowCounter, WindowScorer, normalize_windows, window_sides
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..progress import progress_bar
from ..raster.scene import Scene
from .background import Background, ahead
from .blending import Blend, BlockWriter, taper
from .parts import Batch, Part, part_batches


@torch.inference_mode()
def predict_part(
    scene: Scene,
    part: Part,
    model: CrossEarthForSemanticSegmentation,
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

    Scores of overlapping windows are summed with weights tapered towards the window's edge; blocks leave the sum as
    soon as no later window reaches them. Windows are read ahead of the model and written behind it, in threads of
    their own. Pixels without data enter the model as the image mean and get no label, except in a resampled scene:
    there the edge of the data is blurred, all pixels of windows with data are labeled, and `scene.read_valid` must
    decide on the scene's own grid.

    Args:
        scene: What to map, read at `scene.grid`.
        part: One of `scene_parts`, or a run of them made `whole`.
        model: A `CrossEarthForSemanticSegmentation`, in eval mode.
        processor: Gives the normalization.
        write: Called in another thread, one call at a time, as `write(row, col, labels, scores)`, once for every
            pixel of the part: (h, w) uint8 labels, 255 without data; (K, h, w) float32 sums of weighted scores, of no
            meaning without data. Blocks are as wide as the part and, but for the scene's last rows, 256 rows high.
        window: Side of the window in pixels, a multiple of 16.
        stride: Step between windows in pixels.
        batch_size: Windows per forward pass, all of one row.
        tta: Whether to average scores over flips, as `WindowScorer` does.
        on_batch: Called with the number of windows after every batch.

    Raises:
        InputError: for a scene that cannot be read to its end, too little memory.
    """
    height, width = scene.grid.height, scene.grid.width
    side_y, side_x = window_sides(height, width, window)
    weights = torch.outer(taper(side_y), taper(side_x)).to(model.device)  # (side_y, side_x)
    scorer = WindowScorer(model, tta=tta)
    read = partial(_read, scene, min(side_y, height), min(side_x, width))
    batches = part_batches(scene.grid, part, window, stride, batch_size)
    with Background() as behind, closing(ahead(read, batches)) as read_ahead:
        # Beside an accelerator the sums are made in the other thread too. A model on all cores of a CPU would lose one
        # to it and let the others wait; between two batches all of them add.
        alone = model.device.type == "cpu"
        finish = partial(behind.submit, write) if alone else write
        blend = Blend(part, model.config.num_labels, finish, ignore_valid=scene.is_resampled)
        if alone:
            add = blend.add
        else:
            add = partial(behind.submit, blend.add)
        for batch, pixels, valid in read_ahead:
            add(batch, valid, _score(scorer, processor, pixels, valid, weights))
            if on_batch is not None:
                on_batch(len(batch.cols))


def _read(scene: Scene, height: int, width: int, batch: Batch) -> tuple[Batch, np.ndarray, np.ndarray]:
    """A batch with the (b, 3, height, width) uint8 pixels and (b, height, width) validity of its windows."""
    left = batch.cols[0]
    span = scene.read(batch.row, left, height, batch.cols[-1] + width - left)  # overlapping pixels are read once
    starts = [col - left for col in batch.cols]
    pixels = np.stack([span.pixels[:, :, start : start + width] for start in starts])
    valid = np.stack([span.valid[:, start : start + width] for start in starts])
    return batch, pixels, valid


def _score(
    scorer: WindowScorer, processor: CrossEarthImageProcessor, pixels: np.ndarray, valid: np.ndarray, weights: Tensor
) -> list[Tensor | None]:
    """Weighted scores (K, side_y, side_x) of each of b windows as `_read` gives them; None where one holds no data."""
    with_data = [bool(window.any()) for window in valid]
    if not any(with_data):
        return [None] * len(valid)
    if not all(with_data):
        pixels, valid = pixels[with_data], valid[with_data]
    if valid.all():
        holes = None
    else:
        holes = torch.from_numpy(valid).to(weights.device)
    crops = normalize_windows(torch.from_numpy(pixels).to(weights.device), holes, processor)  # (b', 3, h, w)
    missing = (weights.shape[0] - crops.shape[2], weights.shape[1] - crops.shape[3])
    if any(missing):
        crops = F.pad(crops, (0, missing[1], 0, missing[0]))
    scores = iter(scorer(crops).mul_(weights).cpu())
    return [next(scores) if some else None for some in with_data]


@contextmanager
def counted_windows(total: int, *, shown: bool, tell: WindowCounter | None) -> Iterator[Callable[[int], None]]:
    """A function that is told the windows just done: it moves a progress bar and calls `tell` with done and total."""
    done = 0
    with progress_bar(total=total, desc="predicting", unit="window", shown=shown) as bar:

        def count(windows: int) -> None:
            nonlocal done
            done += windows
            bar.update(windows)
            if tell is not None:
                tell(done, total)

        yield count
