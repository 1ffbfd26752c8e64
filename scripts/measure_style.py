"""What Earth-Style Injection costs in training: per styled image, and per step with every image styled.

`python scripts/measure_style.py --preset large-512 --batch_size 2 --bf16 --out cost.json`, on random data. Steps with
and without injection take turns, so that whatever else the machine does touches them alike. A step is forward, backward
and AdamW of the segmentation model. At probability p the mean cost of a step is p times what is printed here.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from crossearth_hf import CrossEarthConfig, CrossEarthForSemanticSegmentation
from crossearth_hf.files.outputs import staged
from crossearth_hf.model.configuration_crossearth import PRESETS
from crossearth_hf.model.earth_style import EarthStyle, StyleSettings, image_seed


def _fastest_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "cpu"


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="tiny")
    parser.add_argument(
        "--size", type=int, help="side of the images in pixels; the preset's by default"
    )
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument(
        "--repeats", type=int, default=10, help="timed rounds, after two of warm-up"
    )
    parser.add_argument("--device", default=_fastest_device())
    parser.add_argument(
        "--bf16",
        action="store_true",
        help="autocast the model to bfloat16; injection stays in float32",
    )
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--out", type=Path, help="JSON file; printed in any case")
    return parser.parse_args(arguments)


def make_step(args: argparse.Namespace, config: CrossEarthConfig) -> Callable[[torch.Tensor], None]:
    """A training step of the segmentation model on (B, 3, H, W) images, whose labels stay the same."""
    model = CrossEarthForSemanticSegmentation(config).to(args.device).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)
    size = args.size or config.image_size
    cells = torch.randint(
        0, config.num_labels, (args.batch_size, size // 16, size // 16), device=args.device
    )
    labels = cells.repeat_interleave(16, 1).repeat_interleave(16, 2)

    def step(images: torch.Tensor) -> None:
        with torch.autocast(args.device.partition(":")[0], torch.bfloat16, enabled=args.bf16):
            loss = model(pixel_values=images, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds_of(work: Callable[[], Any], device: str) -> float:
    """Wall time of `work`, to its end on the device."""
    started = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Median seconds of a plain step, a styled step and the injection alone, and the median ratio of the steps."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    config = CrossEarthConfig.from_preset(args.preset)
    size = args.size or config.image_size
    images = torch.rand(args.batch_size, 3, size, size, device=args.device)
    step, style = make_step(args, config), EarthStyle.from_file().to(args.device)
    settings = StyleSettings(probability=1.0)

    def inject() -> torch.Tensor:
        return style.inject(images, settings, [image_seed(0, i) for i in range(args.batch_size)])[0]

    works = {"plain": lambda: step(images), "styled": lambda: step(inject()), "injection": inject}
    rounds = [
        {name: seconds_of(w, args.device) for name, w in works.items()}
        for _ in range(args.repeats + 2)
    ][2:]
    seconds = {name: statistics.median(times[name] for times in rounds) for name in works}
    return {
        "seconds": seconds,
        "seconds_per_styled_image": seconds["injection"] / args.batch_size,
        "step_ratio_all_styled": statistics.median(
            times["styled"] / times["plain"] for times in rounds
        ),
        "injection_per_plain_step": statistics.median(
            times["injection"] / times["plain"] for times in rounds
        ),
        "rounds": rounds,
    }


def main() -> int:
    """Measures, prints and writes the report."""
    args = parse(sys.argv[1:])
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    device = "CPU"
    if args.device.startswith("cuda"):
        device = torch.cuda.get_device_name()
    report = {"settings": settings, "device": device, "torch": torch.__version__, **measure(args)}
    text = json.dumps(report, indent=2) + "\n"
    print(text, end="")
    if args.out:
        with staged([args.out.resolve()]) as (stage,):
            stage.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
