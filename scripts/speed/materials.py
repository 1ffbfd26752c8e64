"""Models, scenes and releases that the cases need."""

import io
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from crossearth_hf.errors import InputError

if TYPE_CHECKING:
    from crossearth_hf import CrossEarthForSemanticSegmentation

BUNDLED = "bundled"
"""Stands for the preset of the model that came with a clone before `SMALL`."""
SMALL = "crossearth-small"
"""Stands for the preset of the model that comes with the package."""


def make_model(preset: str, folder: Path, repository: Path) -> Path:
    """Folder with a CrossEarth model: the bundled one, or one with random weights, written below `folder` once."""
    from crossearth_hf import (  # noqa: PLC0415
        CrossEarthConfig,
        CrossEarthForSemanticSegmentation,
        CrossEarthImageProcessor,
    )

    if preset == BUNDLED:
        return repository / "hub_cards" / "crossearth-tiny"
    if preset == SMALL:
        return repository / "hub_cards" / SMALL
    model = folder / preset
    if not model.exists():
        torch.manual_seed(0)
        # The loss of the published models, which the baseline computes; small presets have another.
        loss = {"ignore_unlabelled_pixels": False, "semantic_weight": 0.0}
        network = CrossEarthForSemanticSegmentation(CrossEarthConfig.from_preset(preset, **loss))
        spread_queries(network)
        network.save_pretrained(model)
        CrossEarthImageProcessor().save_pretrained(model)
    return model


@torch.no_grad()
def spread_queries(network: "CrossEarthForSemanticSegmentation") -> None:
    """Makes the queries of a random network as unlike each other as those of a trained one.

    Fresh from initialization all queries say nearly the same: which of them is matched with a class in training, and
    which class a pixel gets, would be a matter of rounding, and comparing implementations would be vain. The factors
    were chosen on ViT-L, where masks then have logits of a trained model's size and several classes share the map.
    """
    adapter, head = network.model.adapter, network.transformer_module
    queries = adapter.queries(adapter())  # (Q, C)
    deviation = queries.std(dim=0).mean()
    adapter.merge.bias.sub_(queries.mean(dim=0)).div_(deviation)
    adapter.merge.weight.div_(deviation)
    for name, weight in head.decoder.layers.named_parameters():
        if name.endswith(("out_proj.weight", "fc2.weight")):
            weight.mul_(0.05)  # what a layer adds is common to all queries
    _rescale(head.query_features.weight, 0.06)
    _rescale(head.decoder.mask_predictor.mask_embedder.get_submodule("2.0").weight, 0.6)
    _rescale(network.class_predictor.weight, 0.24)
    network.class_predictor.bias[-1] = 5  # most queries of a trained model find no object


def _rescale(weight: Tensor, deviation: float) -> None:
    weight.mul_(deviation / weight.std())


def make_scene(size: int, folder: Path) -> Path:
    """A GeoTIFF (3, size, size) uint8: a drawn town of 1024 pixels, mirrored as often as it takes."""
    from crossearth_hf.raster.writing import write_geotiff  # noqa: PLC0415
    from crossearth_hf.synthetic import generate_scene  # noqa: PLC0415

    path = folder / f"scene-{size}.tif"
    if not path.exists():
        side = min(size, 1024)
        town = generate_scene("temperate-summer", 0, side, side)
        image = np.pad(town.image, ((0, size - side), (0, size - side), (0, 0)), mode="symmetric")
        write_geotiff(path, image.transpose(2, 0, 1), crs=town.crs, transform=town.transform)
    return path


def extract_release(repository: Path, revision: str, folder: Path) -> None:
    """Writes the package as it was at a revision to `folder`, to be imported from there.

    Raises:
        InputError: the repository is not a git clone, or does not know the revision.
    """
    command = ["git", "archive", "--format", "tar", revision, "crossearth_hf"]
    try:
        archive = subprocess.run(command, cwd=repository, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(
            f"the previous release '{revision}' cannot be read from git in {repository}; name a revision of this clone "
            "with --previous, or choose --contestants without it"
        ) from error
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
