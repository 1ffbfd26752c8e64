"""Labeled images: from the text that names a source to what training and evaluation read."""

from .sources import (
    Source,
    all_images,
    load_source,
    load_sources,
    polygon_class_names,
    source_classes,
    source_folder,
)

__all__ = [
    "Source",
    "all_images",
    "load_source",
    "load_sources",
    "polygon_class_names",
    "source_classes",
    "source_folder",
]
