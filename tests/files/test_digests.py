"""Hashes of files are those of their whole content."""

import hashlib

import pytest

from crossearth_hf.files import digests


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 200])
def test_files_of_any_number_of_blocks(tmp_path, monkeypatch, size):
    monkeypatch.setattr(digests, "_BLOCK_BYTES", 64)
    content = bytes(range(256))[:size]
    (tmp_path / "file").write_bytes(content)
    assert digests.file_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_the_published_example(tmp_path):
    """'abc' of FIPS 180-4, https://csrc.nist.gov/projects/cryptographic-standards-and-guidelines/example-values."""
    (tmp_path / "file").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digests.file_sha256(str(tmp_path / "file")) == expected
