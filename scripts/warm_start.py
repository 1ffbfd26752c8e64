"""A warm start for a model without pretrained backbone: the ViT learns to label its patches before the head is trained.

`python scripts/warm_start.py --config FILE.yaml` takes the flags of `train.py` and writes a model folder that `train.py`
starts from (`--model`). A linear layer, thrown away afterwards, predicts the class of each 4x4 px cell from the patch
tokens of the four pyramid blocks. Our choice, for the small shipped model: Mask2Former's matching gives a ViT without
pretraining little to learn from (the card has the figures), and a step costs a third of the full one.
"""

import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from crossearth_hf.augmentation import CropSettings, TrainingCrops
from crossearth_hf.data import load_sources
from crossearth_hf.errors import InputError
from crossearth_hf.image_processing_crossearth import CrossEarthImageProcessor
from crossearth_hf.labels import IGNORE_INDEX, get_label_set
from crossearth_hf.modeling_crossearth import CrossEarthModel
from crossearth_hf.train_config import TrainConfig, parse_train_config
from crossearth_hf.training import build_model, learning_rate_at, param_groups

CELL = 4  # pixels: the resolution of the masks


class PatchClassifier(nn.Module):
    """Backbone, adapters and a linear layer that labels the cells of every patch."""

    def __init__(self, model: CrossEarthModel, num_labels: int) -> None:
        super().__init__()
        self.model, self.num_labels = model, num_labels
        width = 4 * model.config.backbone_config.hidden_size
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, (16 // CELL) ** 2 * num_labels))

    def forward(self, pixel_values: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of (B, 3, H, W) images with (B, H, W) labels, 255 ignored."""
        states = self.model(pixel_values, output_hidden_states=True).hidden_states
        prefix = self.model.backbone.num_prefix_tokens
        tokens = torch.cat([states[i + 1][:, prefix:] for i in self.model.config.out_indices], dim=-1)  # (B, N, 4D)
        height, width = (side // 16 for side in pixel_values.shape[-2:])
        maps = self.head(tokens).transpose(1, 2).unflatten(2, (height, width))
        logits = F.pixel_shuffle(maps, 16 // CELL).float()  # (B, K, H/4, W/4)
        cells = labels[:, CELL // 2 :: CELL, CELL // 2 :: CELL]
        return F.cross_entropy(logits, cells, ignore_index=IGNORE_INDEX)


def warm_start(config: TrainConfig) -> Path:
    """Trains the backbone and writes the model, its head untrained, to `config.output_dir`."""
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    set_seed(config.seed)
    label_set, processor = get_label_set(config.label_set), CrossEarthImageProcessor()
    model = build_model(config, label_set)
    network = PatchClassifier(model.model, len(label_set.classes))
    optimizer = torch.optim.AdamW(param_groups(network, config.weight_decay), lr=config.learning_rate)
    settings = CropSettings(
        size=config.crop_size or model.config.image_size,
        scale_range=(config.scale_range[0], config.scale_range[1]),
        relative_to_crop=config.relative_to_crop,
        rotate=config.rotate,
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
    )
    sources = load_sources(config.train_data, label_set)
    crops = TrainingCrops(sources, config.train_weights, settings, config.seed, config.batch_size * config.steps)
    loader = DataLoader(crops, config.batch_size, num_workers=config.num_workers)
    network, optimizer, loader = accelerator.prepare(network, optimizer, loader)
    bar = tqdm(loader, desc="warm start", unit="step")
    started, mean = time.monotonic(), 0.0
    for step, batch in enumerate(bar):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, config)
        loss = network(**batch)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(network.parameters(), config.max_grad_norm or float("inf"))
        optimizer.step()
        optimizer.zero_grad()
        mean += (loss.item() - mean) / min(step + 1, config.log_every)
        bar.set_postfix(loss=f"{mean:.3f}")
    model.save_pretrained(config.output_dir)
    processor.save_pretrained(config.output_dir)
    tqdm.write(f"{config.steps} steps in {time.monotonic() - started:.0f} s, last loss {mean:.3f}")
    return Path(config.output_dir)


def main() -> int:
    """Reads the command line and trains; 2 is the exit code of a user's mistake."""
    try:
        folder = warm_start(parse_train_config(sys.argv[1:]))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote the warm start to {folder}: train it with train.py --model {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
