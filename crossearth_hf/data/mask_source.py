"""The description of images and masks in a file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from ..labels import LabelSet
from .mask_values import MaskReading, read_as
from .polygon_classes import IGNORED


@dataclass(frozen=True)
class MaskSource:
    """Images and masks that a file describes.

    Attributes:
        place: Name of the file in messages.
        images, masks: Folders, files or patterns with *; the texts of the stars match images and masks.
        folder: Folder of relative paths.
        class_masks: Patterns of masks that show one class each, by the names of the classes, instead of `masks`.
        unlabeled: Class of pixels that none of these masks shows, or a word of `polygon_classes`.
        panoptic: JSON file with the meaning of the masks' colors, in COCO's format.
        ignored: Names of its ignored categories.
        classes: Classes of the masks, in the order of their values; None for the classes of the run.
        mask_values, mask_offset: Values of these masks, see `MaskReading`; None for those of the run.
        labeled: Names of the labeled classes; None for all.
        complete: Whether every pixel of these classes is labeled.
        group: Pattern for paths of images; images with the same found text belong together.
    """

    place: str
    images: str
    masks: str
    folder: Path
    class_masks: Mapping[str, str] = field(default_factory=dict)
    unlabeled: str = IGNORED
    panoptic: Path | None = None
    ignored: tuple[str, ...] = ()
    classes: LabelSet | None = None
    mask_values: tuple[int, ...] | None = None
    mask_offset: int | None = None
    labeled: tuple[str, ...] | None = None
    complete: bool = False
    group: re.Pattern[str] | None = None

    def reading(self, masks: MaskReading) -> MaskReading:
        """The meaning of the values of these masks; `masks` is the meaning in the run."""
        values, offset = masks.values, masks.offset
        if self.mask_values is not None or self.mask_offset is not None:
            values, offset = self.mask_values, self.mask_offset or 0
        try:
            return read_as(masks.label_set, values, offset, self.classes or masks.of_masks)
        except InputError as error:
            raise InputError(f"{self.place}: {error}") from error
