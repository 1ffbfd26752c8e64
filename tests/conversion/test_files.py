"""Weight files: damaged, of other kinds, malicious, on the Hub."""

import os
import pickle
import subprocess
import zipfile

import pytest
import torch
from published import convert_tensors, meta_model, refusal, tiny_tensors, write_config
from safetensors.torch import load_file, save_file
from tiny_model import tiny_config

from crossearth_hf.conversion import convert
from crossearth_hf.conversion import files as checkpoint_files
from crossearth_hf.conversion.files import read_weights

PUBLISHED = tiny_tensors()


@pytest.mark.parametrize("name", ["full.pth", "full.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_files_are_refused(tmp_path, name, share):
    path = tmp_path / name
    torch.save(PUBLISHED, path) if name.endswith("pth") else save_file(PUBLISHED, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    message = refusal(convert, path, tmp_path / "out", config=write_config(tmp_path))
    assert "download it again" in message
    assert "\n" not in message
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_files_of_other_kinds_are_refused(tmp_path):
    out = tmp_path / "out"
    (tmp_path / "text.pth").write_text("hello\n" * 100)
    (tmp_path / "text.safetensors").write_text("hello\n" * 100)
    (tmp_path / "scene.tif").write_bytes(b"II*\0")
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    torch.jit.save(
        torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "script.pth"
    )
    for name in ("text.pth", "text.safetensors", "zip.pth", "script.pth"):
        assert "is not a weight file or is incomplete" in refusal(convert, tmp_path / name, out)
    assert "ends in '.tif'" in refusal(convert, tmp_path / "scene.tif", out)
    assert "is a folder without config.json" in refusal(convert, tmp_path, out)
    assert "does not exist" in refusal(convert, tmp_path / "absent.pth", out)
    assert "does not exist" in refusal(convert, "absent.pth", out)


def test_our_own_format_is_recognized_as_no_checkpoint(tmp_path):
    convert_tensors(tmp_path, PUBLISHED)
    message = refusal(convert, tmp_path / "out" / "model.safetensors", tmp_path / "again")
    assert "no segmentation head" in message
    assert "class_predictor" in message


class Call:
    """Calls `function` when it is unpickled by Python's own unpickler."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "call",
    [
        lambda path: Call(os.system, f"touch {path}"),
        lambda path: Call(eval, f"open({str(path)!r}, 'w').close()"),
        lambda path: Call(exec, f"open({str(path)!r}, 'w').close()"),
        lambda path: Call(open, str(path), "w"),
        lambda path: Call(torch.save, 1, str(path)),
        lambda path: Call(subprocess.check_call, ["touch", str(path)]),
        lambda path: Call(getattr, Call(__import__, "os"), "system"),
        lambda path: Call(torch.hub.load_state_dict_from_url, "file:///etc/hostname", str(path)),
    ],
)
@pytest.mark.parametrize("place", ["beside", "first", "value", "state_dict", "plain"])
def test_pickled_calls_never_run(tmp_path, call, place):
    marker, path, out = tmp_path / "marker", tmp_path / "evil.pth", tmp_path / "out"
    payload = call(marker)
    content = {
        "beside": {"state_dict": PUBLISHED, "message_hub": payload},
        "first": {"message_hub": payload, "state_dict": PUBLISHED},
        "value": {"state_dict": PUBLISHED | {"backbone.cls_token": payload}},
        "state_dict": {"state_dict": payload},
        "plain": payload,
    }[place]
    if place == "plain":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    if place in ("beside", "first"):
        report = convert(path, out, config=write_config(tmp_path))
        assert report.inert_objects
        assert len(load_file(out / "model.safetensors")) == len(
            meta_model(tiny_config()).state_dict()
        )
    else:
        refusal(convert, path, out, config=write_config(tmp_path))
        assert not out.exists()
    assert not marker.exists()


def test_the_marker_would_have_been_made(tmp_path):
    """The attack of the test above works on an unpickler that trusts its file."""
    torch.save(
        {"message_hub": Call(os.system, f"touch {tmp_path / 'marker'}")}, tmp_path / "evil.pth"
    )
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "name", [b"torch._utils\n_rebuild_parameter", b"collections\nOrderedDict", b"a\nb"]
)
@pytest.mark.parametrize("attribute", [b"__defaults__", b"__call__", b"__setstate__", b"__doc__"])
def test_pickles_cannot_change_what_they_name(tmp_path, name, attribute):
    # A foreign global, so that PyTorch's own reader refuses; then BUILD with slots: setattr(name, attribute, (1,)).
    program = (
        b"\x80\x02cos\nsystem\n0c"
        + name
        + b"\nN}U"
        + bytes([len(attribute)])
        + attribute
        + b"K\x01\x85s\x86b."
    )
    with zipfile.ZipFile(tmp_path / "evil.pth", "w") as archive:
        archive.writestr("evil/data.pkl", program)
        archive.writestr("evil/version", "3")
    assert "cannot be made inert" in refusal(read_weights, tmp_path / "evil.pth")


def test_parameters_and_ordered_dicts_beside_foreign_objects_are_read(tmp_path):
    parameters = torch.nn.ParameterDict({"x": torch.nn.Parameter(torch.ones(2))})
    tensors = {name: torch.nn.Parameter(tensor) for name, tensor in PUBLISHED.items()}
    report, model = convert_tensors(tmp_path, tensors | {"style.x": parameters["x"]})
    assert report.training_only == ["style.x"]
    assert torch.equal(model.class_predictor.bias, PUBLISHED["decode_head.cls_embed.bias"])


def test_hub_names(monkeypatch, tmp_path):
    asked = []

    def download(repo, file, **options):
        asked.append((repo, file))
        save_file(PUBLISHED, tmp_path / "hub.safetensors")
        return str(tmp_path / "hub.safetensors")

    monkeypatch.setattr("crossearth_hf.files.downloads.is_online", lambda: True)
    monkeypatch.setattr("crossearth_hf.files.downloads.hf_hub_download", download)
    for name in ("some-org/cross.earth:runs/full.pth", "some-org/cross.earth/runs/full.pth"):
        convert(name, tmp_path / "out", config=write_config(tmp_path), overwrite=True)
    assert asked == [("some-org/cross.earth", "runs/full.pth")] * 2
    assert checkpoint_files.locate("some-org/dinov2", folder=True).name == "hub.safetensors"
    assert asked[-1] == ("some-org/dinov2", "model.safetensors")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert "does not exist" in refusal(convert, "runs/last/full.pth", tmp_path / "new")
    assert len(asked) == 3
    # A repository, not a file of it, is asked for what transformers writes.
    assert "config.json cannot be read" in refusal(
        convert, "some-org/cross.earth", tmp_path / "new"
    )
    assert ("some-org/cross.earth", "config.json") in asked


def test_hub_offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refusal(convert, "some-org/crossearth:full.pth", tmp_path / "out")
    assert "cannot be downloaded from the Hub" in message
    assert "\n" not in message
