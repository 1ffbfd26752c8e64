"""The baseline's jobs: the original's way of computing."""

import json

import numpy as np
import rasterio
import torch
from torch import Tensor

from .jobs import Job, Setup, image_of, labels_of
from .plain_inference import query_scores, slide
from .plain_network import PlainCrossEarth
from .plain_training import PlainLoss, plain_optimizer

MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def build(setup: Setup) -> Job:
    """The baseline's job in the case."""
    network = PlainCrossEarth.from_folder(setup.model).to(setup.device)
    return {"scores": scores_job, "training": training_job, "predict": predict_job}[
        setup.case.kind
    ](setup, network)


def scores_job(setup: Setup, network: PlainCrossEarth) -> Job:
    """Scores of an image, window by window."""
    pixels, window = image_of(setup.case, setup.device), setup.case.window
    return Job(
        lambda: _scores(setup, network, pixels),
        lambda: _scores(setup, network, pixels[:, :, :window, :window]),
    )


def training_job(setup: Setup, network: PlainCrossEarth) -> Job:
    """Forward, backward and AdamW, in float32."""
    config = json.loads((setup.model / "config.json").read_text())
    loss_of, optimizer = PlainLoss(config["train_num_points"]), plain_optimizer(network)
    pixels = image_of(setup.case, setup.device)
    labels = labels_of(setup.case, len(config["id2label"]), setup.device)
    losses: list[float] = []

    def step() -> list[float]:
        torch.manual_seed(len(losses))
        classes, masks = network(pixels)
        loss = loss_of(classes, masks, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        return losses

    return Job(step, step)


def predict_job(setup: Setup, network: PlainCrossEarth) -> Job:
    """A scene to a map: read whole, scored whole, written whole."""
    output, window = setup.folder / "map.tif", setup.case.window

    def run() -> Tensor:
        with rasterio.open(setup.scene) as source:
            image, profile = source.read().astype(np.float32), source.profile
        normalized = (image - np.reshape(MEAN, (3, 1, 1))) / np.reshape(DEVIATION, (3, 1, 1))
        pixels = torch.from_numpy(normalized).float()[None].to(setup.device)
        labels = _scores(setup, network, pixels)[0].argmax(dim=0).byte().cpu()
        with rasterio.open(
            output, "w", **(profile | {"count": 1, "compress": "deflate"})
        ) as target:
            target.write(labels.numpy(), 1)
        return labels

    crop = torch.zeros((1, 3, window, window), device=setup.device)
    return Job(run, lambda: _scores(setup, network, crop))


@torch.inference_mode()
def _scores(setup: Setup, network: PlainCrossEarth, pixels: Tensor) -> Tensor:
    """(1, K, H, W) scores of (1, 3, H, W) pixels with the case's window and stride."""

    def score(crop: Tensor) -> Tensor:
        classes, masks = network(crop)
        return query_scores(classes[-1], masks[-1], (crop.shape[2], crop.shape[3]))

    return slide(score, pixels, setup.case.window, setup.case.stride)
