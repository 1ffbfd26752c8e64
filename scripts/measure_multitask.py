"""Time and memory of a Multi-Task Training step against plain segmentation, on random data.

`python scripts/measure_multitask.py --preset large-512 --batch_size 1 --out cost.json`. A step is forward, backward
and AdamW. Time: on a GPU the clock's, on a CPU the processor's, which other programs do not lengthen; the variants take
turns. Memory: the peak of a process of its own; on a GPU what PyTorch allocated, on a CPU what the process held beyond
the imported libraries.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from crossearth_hf import CrossEarthConfig
from crossearth_hf.files.outputs import staged
from crossearth_hf.model.configuration_crossearth import PRESETS
from crossearth_hf.model.modeling_multitask import CrossEarthForMultiTaskTraining

VARIANTS = ("plain", "multitask", "multitask_all_styled")
STYLE_PROBABILITY = 0.1  # of the published recipe, for the mean over many steps

Step = Callable[[], None]


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
        "--repeats", type=int, default=5, help="timed steps of each variant, after one of warm-up"
    )
    parser.add_argument("--device", default=_fastest_device())
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--gradient_checkpointing", action="store_true")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument(
        "--no_memory", action="store_true", help="leave out the processes that measure memory"
    )
    parser.add_argument("--out", type=Path, help="JSON file; printed in any case")
    return parser.parse_args(arguments)


def build(args: argparse.Namespace) -> CrossEarthForMultiTaskTraining:
    """The model with both tasks, its classes those of LoveDA and the like."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = (
        CrossEarthForMultiTaskTraining(CrossEarthConfig.from_preset(args.preset))
        .to(args.device)
        .train()
    )
    if args.gradient_checkpointing:
        with warnings.catch_warnings():  # transformers 5.23 renames the method that 5.20 knows
            warnings.simplefilter("ignore", FutureWarning)
            model.gradient_checkpointing_enable()
    return model


def make_step(
    model: CrossEarthForMultiTaskTraining, variant: str, args: argparse.Namespace
) -> Step:
    """One training step of `variant`, on images that stay the same."""
    size, batch = args.size or model.config.image_size, args.batch_size
    pixels = torch.randn(batch, 3, size, size, device=args.device)
    cells = torch.randint(
        0, model.config.num_labels, (batch, size // 16, size // 16), device=args.device
    )
    inputs = {
        "pixel_values": pixels,
        "labels": cells.repeat_interleave(16, 1).repeat_interleave(16, 2),
    }
    network: torch.nn.Module = model
    if variant == "plain":
        network = model.segmentation_model()
    else:
        styled = torch.full((batch,), variant == "multitask_all_styled", device=args.device)
        inputs |= {"clean_pixel_values": pixels.clone(), "styled": styled}
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-6)

    def step() -> None:
        with torch.autocast(args.device.partition(":")[0], torch.bfloat16, enabled=args.bf16):
            loss = network(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if args.device.startswith("cuda"):
            torch.cuda.synchronize()

    return step


def seconds_of(step: Step, clock: Callable[[], float]) -> float:
    """Time of one step."""
    started = clock()
    step()
    return clock() - started


def measure_time(args: argparse.Namespace) -> dict[str, Any]:
    """Median seconds of each variant, and their median ratio to the plain step of the same round."""
    model = build(args)
    steps = {variant: make_step(model, variant, args) for variant in VARIANTS}
    for step in steps.values():
        step()
    clock = time.process_time
    if args.device.startswith("cuda"):
        clock = time.perf_counter
    rounds = [
        {variant: seconds_of(step, clock) for variant, step in steps.items()}
        for _ in range(args.repeats)
    ]
    seconds = {
        variant: statistics.median(times[variant] for times in rounds) for variant in VARIANTS
    }
    ratios = {
        name: statistics.median(times[name] / times["plain"] for times in rounds)
        for name in VARIANTS
    }
    return {"seconds": seconds, "ratio": ratios, "rounds": rounds}


def peak_memory(args: argparse.Namespace, variant: str) -> int:
    """Bytes that two steps of `variant` need at most; to be called in a fresh process."""
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    model = build(args)
    if variant == "plain":
        del model.multitask
    step = make_step(model, variant, args)
    for _ in range(2):  # AdamW's state exists from the second on
        step()
    if args.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - imported


def measure_memory(args: argparse.Namespace) -> dict[str, Any]:
    """Peak bytes of each variant and their ratio to the plain one."""
    peaks = {}
    os.environ["MALLOC_MMAP_THRESHOLD_"] = (
        "65536"  # glibc in the processes to come: what is freed is given back
    )
    for variant in VARIANTS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peaks[variant] = pool.apply(peak_memory, (args, variant))
    return {
        "bytes": peaks,
        "ratio": {variant: peak / peaks["plain"] for variant, peak in peaks.items()},
    }


def expected(ratios: dict[str, float]) -> float:
    """Mean ratio over many steps, where each image is styled with the published probability."""
    return ratios["multitask"] + STYLE_PROBABILITY * (
        ratios["multitask_all_styled"] - ratios["multitask"]
    )


def main() -> int:
    """Measures, prints and writes the report."""
    args = parse(sys.argv[1:])
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    device = "CPU"
    if args.device.startswith("cuda"):
        device = torch.cuda.get_device_name()
    report: dict[str, Any] = {"settings": settings, "device": device, "torch": torch.__version__}
    if not args.no_memory:
        report["memory"] = measure_memory(args)
        report["memory"]["expected_ratio"] = expected(report["memory"]["ratio"])
    report["time"] = measure_time(args)
    report["time"]["expected_ratio"] = expected(report["time"]["ratio"])
    text = json.dumps(report, indent=2) + "\n"
    print(text, end="")
    if args.out:
        with staged([args.out.resolve()]) as (stage,):
            stage.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
