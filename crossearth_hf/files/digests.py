"""Hashes of files."""

import hashlib
import os
from functools import partial

_BLOCK_BYTES = 1 << 22


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file of any size; raises `OSError` if it cannot be read."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(partial(file.read, _BLOCK_BYTES), b""):
            digest.update(block)
    return digest.hexdigest()
