"""What the tests of training share: a folder of images, a tiny model, and runs on them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from rasters import write_raster
from tiny_model import tiny_config

from crossearth_hf.data import Source, load_sources
from crossearth_hf.training import TrainConfig, build_train_config


def make_workplace(root: Path, **config: object) -> Path:
    """Puts six 80x80 pairs, 0 to 5, into `root`/data, and a tiny model's configuration into `root`/tiny.json."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / "data" / part).mkdir(parents=True)
    for index in range(6):
        labels = np.kron(rng.integers(0, 5, (4, 4)), np.ones((20, 20))).astype(np.uint8)
        image = np.stack([40 * labels + 20, 200 - 40 * labels, 30 * labels], -1) + rng.integers(
            0, 9, (80, 80, 3)
        )
        Image.fromarray(image.astype(np.uint8)).save(root / "data" / "images" / f"{index}.png")
        Image.fromarray(labels).save(root / "data" / "masks" / f"{index}.png")
    sizes = {"num_labels": 5, "decoder_layers": 2, "encoder_layers": 1, "mim_block_size": 16}
    (root / "tiny.json").write_text(tiny_config(**(sizes | config)).to_json_string())
    return root


def write_unseen_labels(folder: Path, index: int) -> None:
    """Puts a pair in place of number `index` of a data folder: its labels lie where the image has no data."""
    image, mask = np.full((3, 80, 80), 7, np.float32), np.full((1, 80, 80), 255, np.uint8)
    image[:, :40], mask[:, :40] = np.nan, 1
    for part, values in (("images", image), ("masks", mask)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / f"{index}.png").unlink(missing_ok=True)
        write_raster(folder / part / f"{index}.tif", values)


def load_sources_unkept(*arguments: object, **options: object) -> list[Source]:
    """As where images are too many to keep: which of their pixels have data is known once they are read."""
    return load_sources(*arguments, **options, cache_bytes=0)


def settings(workplace: Path, output: Path, **changes: object) -> TrainConfig:
    """Four steps of two crops on five of the images; everything is trained."""
    values = {
        "model": str(workplace / "tiny.json"), "output_dir": str(output), "train_data": f"{workplace / 'data'}:[0-4]",
        "max_steps": 4, "per_device_train_batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 1,
        "logging_steps": 1, "dataloader_num_workers": 0, "max_grad_norm": 1.0, "seed": 3, "adaptation": "full+rein",
        "classes": "land-cover",
    }  # fmt: skip
    return build_train_config(values | changes)


def log_lines(output: Path) -> list[dict]:
    """The log of a run."""
    return [json.loads(line) for line in (Path(output) / "log.jsonl").read_text().splitlines()]


def losses(output: Path) -> list[tuple[int, float, float]]:
    """(step, loss, learning rate) of the log's lines."""
    return [
        (line["step"], line["loss"], line["lr"]) for line in log_lines(output) if "loss" in line
    ]
