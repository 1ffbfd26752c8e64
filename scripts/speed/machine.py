"""What a measurement ran on."""

import platform
from pathlib import Path
from typing import Any

import torch
import transformers

# As Linux names them in /proc/cpuinfo: vector widths, and products of 8-bit integers and bfloat16.
CPU_FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def describe(threads: int, device: str) -> dict[str, Any]:
    """Processor and its instruction sets, memory, threads, versions; and the GPU where one is used."""
    info = _cpu_info()
    report: dict[str, Any] = {
        "processor": info.get("model name", platform.processor() or platform.machine()),
        "family": info.get("cpu family"),
        "cpu_flags": {flag: flag in info.get("flags", "").split() for flag in CPU_FLAGS},
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if device.startswith("cuda"):
        report["gpu"] = torch.cuda.get_device_name()
    return report


def sentence(machine: dict[str, Any]) -> str:
    """The description in a line."""
    flags = [flag for flag, present in machine["cpu_flags"].items() if present]
    parts = [
        machine["processor"],
        *([machine["gpu"]] if "gpu" in machine else []),
        f"{machine['threads']} threads",
        f"flags {', '.join(flags) or 'none of those looked for'}",
        f"PyTorch {machine['torch']}",
        f"transformers {machine['transformers']}",
    ]
    return "; ".join(parts)


def _cpu_info() -> dict[str, str]:
    """Fields of the first processor in /proc/cpuinfo; nothing where there is no such file."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    lines = path.read_text().split("\n\n")[0].splitlines()
    return {
        name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
