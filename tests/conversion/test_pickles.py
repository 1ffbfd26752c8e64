"""A thousand hostile pickles, and what the rebuilders of tensors do with senseless arguments."""

import contextlib
import io
import os
import random
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from hostile_pickles import Trusting, hostile_program
from published import refusal

from crossearth_hf.conversion.files import read_weights
from crossearth_hf.errors import InputError

COUNT = 1000
FOREIGN = b"\x80\x02cmmengine.logging\nHistoryBuffer\n0"


def remove(path: Path) -> bool:
    """Whether something was there."""
    if path.is_dir():
        shutil.rmtree(path)
        return True
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        return True
    return False


def write_zip(path: Path, program: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return path


@pytest.mark.filterwarnings("ignore")
def test_hostile_pickles_run_nothing(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "evil.pth"
    rng = random.Random(18)
    inert = 0
    for number in range(COUNT):
        program = hostile_program(marker, rng)
        # what the attack returns is often of no use to the rest
        with contextlib.suppress(Exception):
            Trusting(io.BytesIO(program)).load()
        assert remove(marker), f"pickle {number} is harmless, so it tests nothing"
        if number % 4 == 3:
            path.write_bytes(program)  # no archive: the format before PyTorch 1.6
        else:
            write_zip(path, program)
        with contextlib.suppress(InputError):
            inert += len(read_weights(path).inert_objects) > 0
        assert not os.path.lexists(marker), f"pickle {number} ran"
    assert inert > COUNT // 20, "some were read to their end, with the attack beside the tensors"


def rebuilt(name: str, arguments: bytes) -> bytes:
    """A state dict with one tensor that `name` rebuilds, beside a foreign object."""
    module, function = name.rsplit(".", 1)
    call = f"c{module}\n{function}\n".encode() + b"(" + arguments + b"tR"
    return FOREIGN + b"}X\n\x00\x00\x00state_dict}X\x01\x00\x00\x00x" + call + b"ss."


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("torch._utils._rebuild_tensor_v2", b"NK\x00))"),
        (
            "torch._tensor._rebuild_from_type_v2",
            b"cos\nsystem\nctorch\nTensor\nX\x00\x00\x00\x00\x85}",
        ),
        (
            "torch._tensor._rebuild_from_type_v2",
            b"ctorch._utils\n_rebuild_parameter\nctorch\nTensor\nN}",
        ),
        ("torch._utils._rebuild_parameter_with_state", b"NNNN"),
    ],
)
def test_senseless_rebuilding_gives_no_tensor(tmp_path, name, arguments):
    weights = read_weights(write_zip(tmp_path / "x.pth", rebuilt(name, arguments)))
    assert not weights.tensors
    assert "not a tensor" in weights.unusable["x"]


def test_rebuilders_cannot_nest_without_end(tmp_path):
    program = (
        FOREIGN
        + b"ctorch._tensor\n_rebuild_from_type_v2\nq\x00(h\x00ctorch\nTensor\nq\x01(h\x00h\x01)}t}tR."
    )
    refusal(read_weights, write_zip(tmp_path / "x.pth", program))


def test_subclasses_and_attributes_are_left_out(tmp_path):
    tensor = torch.arange(6.0).reshape(2, 3)
    tensor.note = Path("foreign")
    torch.save(
        {"state_dict": {"x": tensor, "y": torch.nn.Parameter(tensor.clone())}}, tmp_path / "x.pth"
    )
    weights = read_weights(tmp_path / "x.pth")
    assert type(weights.tensors["x"]) is torch.Tensor
    assert not hasattr(weights.tensors["x"], "note")
    assert torch.equal(weights.tensors["x"], torch.arange(6.0).reshape(2, 3))
    assert weights.inert_objects, "the attribute is of a foreign class"
