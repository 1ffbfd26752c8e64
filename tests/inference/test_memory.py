"""What the C library does with freed memory, seen from outside: page faults and resident pages."""

import mmap
import platform
import subprocess
import sys

import pytest

from crossearth_hf.inference import memory

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc is told what to do"
)

# The module alone: the package takes seconds.
MODULE = f"""
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("memory", {memory.__file__!r})
memory = module_from_spec(spec)
spec.loader.exec_module(memory)
keep_freed_memory, return_freed_memory = memory.keep_freed_memory, memory.return_freed_memory
"""

FAULTS = """
import resource, torch
if {kept}:
    keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**25)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
torch.set_num_threads(1)
print(*[faults() for _ in range(24)])
"""

RESIDENT = """
import torch
from pathlib import Path
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])
keep_freed_memory()
torch.ones(2**25)
kept = resident()
return_freed_memory()
print(kept - resident())
"""


def answers(code):
    done = subprocess.run(
        [sys.executable, "-c", MODULE + code], capture_output=True, text=True, check=True
    )
    return [int(number) for number in done.stdout.split()]


def test_kept_memory_is_not_cleared_again():
    pages = 2**27 // mmap.PAGESIZE
    assert min(answers(FAULTS.format(kept=False))) > pages // 1024  # huge pages count once
    first, *later = answers(FAULTS.format(kept=True))
    assert first > pages // 1024
    # A small block behind a tensor can keep the next one, with its alignment, from fitting in its place, not for long.
    assert sum(faults < first // 10 for faults in later) >= len(later) / 2


def test_returned_memory_is_the_systems():
    assert answers(RESIDENT)[0] * mmap.PAGESIZE > 100 * 2**20
