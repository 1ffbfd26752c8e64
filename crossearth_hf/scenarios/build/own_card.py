"""The card of a data set that was built from a person's own images and labels."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData

from ...data.record_values import PIXEL_SIZE_COLUMN
from ...labels import LabelSet
from .dataset_card import (
    CARD_FILE,
    MARK,
    PICTURE_FILE,
    class_table,
    image_dtype,
    size_category,
    split_sizes,
    spread_tiles,
)
from .mosaic import DomainPicture, draw_mosaic

DATA_FOLDER = "data"


def write_own_card(folder: Path, title: str, label_set: LabelSet, build: Mapping[str, Any]) -> None:
    """Writes README.md and preview.png.

    Args:
        folder: Of the data set; its shards lie in `DATA_FOLDER`.
        title: Of the card.
        label_set: Classes.
        build: Content of build.json.
    """
    text = "\n\n".join(
        [
            f"---\n{_card_data(title, build).to_yaml()}\n---",
            f"{MARK}\n# {title}",
            f"![Tiles of every split with their labels]({PICTURE_FILE})",
            _usage(build),
            f"## Labels\n\n{class_table(label_set, build)}",
            "## License\n\nNot stated. Add it here and to the fields above before you pass the images on.",
            _software(build),
        ]
    )
    (folder / CARD_FILE).write_text(text + "\n", encoding="utf-8")
    blocks = [_block(folder, split, label_set, build) for split in build["splits"]]
    draw_mosaic(blocks).save(folder / PICTURE_FILE)


def _card_data(title: str, build: Mapping[str, Any]) -> DatasetCardData:
    columns = {
        "image": image_dtype(build),
        "label": "image",
        "name": "string",
        PIXEL_SIZE_COLUMN: "float64",
    }
    files = [
        {"split": split, "path": f"{DATA_FOLDER}/{split}-*.parquet"} for split in build["splits"]
    ]
    # `load_dataset` names its cache of a folder only by this YAML.
    config = {
        "config_name": "default",
        "description": f"fingerprint {build['fingerprint']}",
        "data_files": files,
    }
    features = [{"name": name, "dtype": dtype} for name, dtype in columns.items()]
    return DatasetCardData(
        pretty_name=title,
        task_categories=["image-segmentation"],
        task_ids=["semantic-segmentation"],
        tags=["remote-sensing", "earth-observation", "crossearth"],
        size_categories=[size_category(sum(facts["images"] for facts in build["splits"].values()))],
        configs=[config],
        dataset_info=[{"config_name": "default", "features": features, **split_sizes(build)}],
    )


def _usage(build: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{split} {facts['images']}" for split, facts in build["splits"].items())
    kind = "a TIFF of several bands, as bytes for rasterio"
    if build["plain_images"]:
        kind = "RGB"
    return (
        f"Images with label maps for semantic segmentation: {counts}.\n\n"
        "```bash\ncrossearth train --train_data hf:PATH_OR_REPOSITORY --output_dir runs/mine\n```\n\n"
        f"`image`: {kind}, 8 bits per band; rasters of more bits are stretched as in training. `label`: 8-bit PNG of "
        "class ids from 0, 255 is ignored, also where the image has no data. `name`: of the image, for tiles with the "
        f"corners `_x0_y0_x1_y1` in its pixels. `{PIXEL_SIZE_COLUMN}`: meters on the ground per pixel, if known. Tiles "
        f"have at most {build['tile']} pixels a side and cover an image once; {build['left_out']} tiles without labels "
        "are left out. The names of the classes are in id2label.json."
    )


def _software(build: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{package} {version}" for package, version in build["software"].items())
    return (
        f"## How it was built\n\nBy `crossearth build-dataset`; fingerprint `{build['fingerprint'][:16]}`; {packages}. "
        f"More in {DATA_FOLDER}/build.json."
    )


def _block(
    folder: Path, split: str, label_set: LabelSet, build: Mapping[str, Any]
) -> DomainPicture:
    shards = [shard for shard in build["shards"] if shard["split"] == split]
    return DomainPicture(split, label_set, spread_tiles(folder / DATA_FOLDER, shards))


def title_of(source: str) -> str:
    """Name of a data source on a card: only the name of its file or folder."""
    name = os.path.basename(os.path.abspath(source))
    if os.path.isfile(source):
        name = os.path.splitext(name)[0]
    return "".join(c if c.isprintable() else "?" for c in name)
