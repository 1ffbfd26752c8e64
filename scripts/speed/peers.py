"""Networks of comparable size in transformers, with random weights, as transformers computes them."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    Dinov2Config,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SwinConfig,
)

from .jobs import CLASSES, Job, Setup, image_of, labels_of
from .plain_inference import query_scores, slide

STAGES = ["stage1", "stage2", "stage3", "stage4"]


def swin_large() -> nn.Module:
    """Mask2Former with Swin-L (Liu et al., ICCV 2021, table 7), the largest of its published models."""
    backbone = SwinConfig(
        embed_dim=192, depths=[2, 2, 18, 2], num_heads=[6, 12, 24, 48], window_size=12, image_size=384,
        drop_path_rate=0.3, out_features=STAGES,
    )  # fmt: skip
    return Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(backbone_config=backbone, num_labels=CLASSES)
    )


def dinov2_large() -> nn.Module:
    """Mask2Former on DINOv2-L with patches of 16 pixels: transformers gives it all four maps at stride 16."""
    backbone = Dinov2Config(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, image_size=512, patch_size=16,
        out_features=["stage8", "stage12", "stage16", "stage24"],
    )  # fmt: skip
    return Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(backbone_config=backbone, num_labels=CLASSES)
    )


def segformer_b5() -> nn.Module:
    """SegFormer-B5 (Xie et al., NeurIPS 2021, table 6)."""
    config = SegformerConfig(
        depths=[3, 6, 40, 3],
        hidden_sizes=[64, 128, 320, 512],
        decoder_hidden_size=768,
        num_labels=CLASSES,
    )
    return SegformerForSemanticSegmentation(config)


NETWORKS = {
    "mask2former-swin-l": swin_large,
    "mask2former-dinov2-l": dinov2_large,
    "segformer-b5": segformer_b5,
}


def build(setup: Setup) -> Job:
    """The job of the peer in the case; the option is a precision."""
    network = NETWORKS[setup.family]().to(setup.device, getattr(torch, setup.option))
    return {"scores": scores_job, "training": training_job}[setup.case.kind](setup, network)


def scores_job(setup: Setup, network: nn.Module) -> Job:
    """Scores of an image, window by window."""
    network.eval()
    dtype = getattr(torch, setup.option)
    pixels, window = image_of(setup.case, setup.device).to(dtype), setup.case.window

    def score(crop: Tensor) -> Tensor:
        outputs, size = network(pixel_values=crop), (crop.shape[2], crop.shape[3])
        if "logits" in outputs:
            return nn.functional.interpolate(
                outputs.logits, size=size, mode="bilinear", align_corners=False
            )
        return query_scores(outputs.class_queries_logits, outputs.masks_queries_logits, size)

    @torch.inference_mode()
    def scores(image: Tensor) -> Tensor:
        return slide(score, image, window, setup.case.stride)

    return Job(lambda: scores(pixels), lambda: scores(pixels[:, :, :window, :window]))


def training_job(setup: Setup, network: nn.Module) -> Job:
    """Forward, backward and AdamW of all weights."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    inputs: dict[str, Any] = {
        "pixel_values": image_of(setup.case, setup.device).to(getattr(torch, setup.option))
    }
    labels = labels_of(setup.case, CLASSES, setup.device)
    if setup.family == "segformer-b5":
        inputs["labels"] = labels
    else:
        present = [classes[classes != 255] for classes in (label.unique() for label in labels)]
        inputs["class_labels"] = present
        inputs["mask_labels"] = [
            (label == c[:, None, None]).float() for label, c in zip(labels, present, strict=True)
        ]

    def step() -> list[float]:
        loss = network(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return []

    return Job(step, step)
