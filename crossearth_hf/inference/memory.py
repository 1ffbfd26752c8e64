"""How the C library handles freed memory. This concerns only glibc, the usual C library of Linux."""

import ctypes
import sys
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of malloc.h
_LARGEST = 2**31 - 1  # what mallopt takes


def keep_freed_memory() -> None:
    """Keeps freed memory in the process, for the next tensor of the main thread.

    By default glibc returns each tensor of more than 32 MiB to the system, which then clears the same pages again: a
    tenth of the time of a ViT-L in bfloat16. Applies to the whole process; peak memory hardly changes.
    """
    option = _from_glibc("mallopt")
    if option is not None:
        option(_MMAP_THRESHOLD, _LARGEST)
        option(_TRIM_THRESHOLD, _LARGEST)


def return_freed_memory() -> None:
    """Returns memory freed between blocks still in use to the system; glibc keeps 0.6 GiB after a ViT-L's pass."""
    trim = _from_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _from_glibc(name: str) -> Any:
    """A function of the C library, or None."""
    if sys.platform == "linux":
        return getattr(ctypes.CDLL(None), name, None)
    return None
