"""Cases for `tests/tools/fuzz.py`: a small workplace, and ways to damage files, documents and command lines."""

import argparse
import io
import json
import pickle
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import torch
from benchmark_data import write_pair
from miniature_archives import class_map, loveda, picture
from published import ORACLE_CONFIG, tiny_tensors
from rasters import write_raster
from safetensors.torch import save_file
from tiny_model import tiny_config

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor, cli
from crossearth_hf.labels import get_label_set
from crossearth_hf.training.recipe import field_descriptions

CANARY = "canary"
"""Name of the file that hostile pickles try to make in the current folder."""

# Few signs, each of a kind that has broken programs; hypothesis would first build tables of all of Unicode.
_SIGNS = "a1 .-/:*[{%\"'\\\n\t\x7f\u00e9\u0663\u202e\u2028\udcff\U0001f30d"
_TEXT = st.text(st.sampled_from(_SIGNS), max_size=6)


def make_workplace(root: Path) -> Path:
    """Small inputs of every kind."""
    root.mkdir(parents=True)
    torch.manual_seed(0)
    names = get_label_set("isprs")
    model = CrossEarthForSemanticSegmentation(
        tiny_config(id2label=names.id2label, label2id=names.label2id)
    )
    model.save_pretrained(root / "model")
    CrossEarthImageProcessor().save_pretrained(root / "model")
    pixels = picture(0, 40, 48).transpose(2, 0, 1)
    write_raster(root / "scene.tif", pixels)
    write_raster(
        root / "tiled.tif", pixels, tiled=True, blockxsize=16, blockysize=16, compress="deflate"
    )
    floats = pixels[:1].astype(np.float32)
    floats[0, :3, :2] = np.nan
    floats[0, 3:5] = np.inf
    write_raster(root / "floats.tif", floats, nodata=-1.0, compress="lzw")
    write_raster(root / "palette.png", pixels[:1] // 32, driver="PNG", transform=None)
    write_raster(root / "bare.jpg", pixels, driver="JPEG", transform=None)
    torch.save({"state_dict": tiny_tensors()}, root / "source.pth")
    save_file(tiny_tensors(), root / "source.safetensors")
    (root / "given.yaml").write_text(ORACLE_CONFIG)
    write_pair(root / "town", "0", picture(1, 40, 48), class_map(1, 40, 48, 6))
    write_raster(root / "town" / "mask.tif", class_map(1, 40, 48, 6)[None], nodata=255)
    loveda(root / "raw", {"Train/Rural": ("1",), "Val/Rural": ("5",)}, size=32)
    report = [
        "evaluate",
        str(root / "model"),
        "--folder",
        str(root / "town"),
        "--name",
        "Town",
        "--device",
        "cpu",
    ]
    if cli.main([*report, "--bootstrap", "5", "--examples", "1", "--out", str(root / "report")]):
        raise SystemExit("the report of the workplace cannot be made")
    return root


_EXTREME = (0, 1, 2**15 - 1, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 70), st.sampled_from(_EXTREME), st.floats(), _TEXT
)
JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=6,
)


@st.composite
def damages(draw: st.DrawFn, names: Sequence[str]) -> tuple[str, list[tuple[str, float, bytes]]]:
    """A file of the workplace and what happens to its bytes, at places given as shares of its head or of the whole."""
    kinds = st.sampled_from(("set", "head", "cut", "insert", "drop", "number"))
    number = st.sampled_from(_EXTREME).map(lambda value: (value % 2**32).to_bytes(4, "little"))
    content = st.one_of(st.binary(min_size=1, max_size=4), number)
    steps = st.lists(
        st.tuples(kinds, st.floats(0, 1, exclude_max=True), content), min_size=1, max_size=5
    )
    return draw(st.sampled_from(tuple(names))), draw(steps)


def damaged(content: bytes, steps: list[tuple[str, float, bytes]]) -> bytes:
    """`content` after the steps of `damages`."""
    data = bytearray(content)
    for kind, share, patch in steps:
        head = min(len(data), 400)
        place = int(share * (head if kind in ("head", "number") else len(data)))
        if kind == "cut":
            del data[place:]
        elif kind == "drop":
            del data[place : place + len(patch)]
        elif kind == "insert":
            data[place:place] = patch
        else:
            data[place : place + len(patch)] = patch
    return bytes(data)


@st.composite
def json_changes(draw: st.DrawFn, least: int = 1) -> list[tuple[float, str, Any]]:
    """Changes of a JSON document, `least` to three: a value, given as a share of all, is replaced or removed."""
    step = st.tuples(
        st.floats(0, 1, exclude_max=True), st.sampled_from(("replace", "remove")), JSON
    )
    return draw(st.lists(step, min_size=least, max_size=3))


def changed(document: Any, steps: list[tuple[float, str, Any]]) -> Any:
    """`document` after the steps of `json_changes`."""
    document = json.loads(json.dumps(document))
    for share, kind, value in steps:
        places = list(_places(document))
        if not places:
            break
        holder, key = places[int(share * len(places))]
        if kind == "replace":
            holder[key] = value
        else:
            del holder[key]
    return document


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value."""
    pairs = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    for key, value in list(pairs):
        yield document, key
        yield from _places(value)


HOSTILE = (
    ("os", "system", (f"touch {CANARY}",)),
    ("posix", "system", (f"touch {CANARY}",)),
    ("builtins", "eval", (f"open('{CANARY}', 'w')",)),
    ("builtins", "exec", (f"open('{CANARY}', 'w')",)),
    ("builtins", "open", (CANARY, "w")),
    ("io", "open", (CANARY, "w")),
    ("pathlib", "Path.touch", (CANARY,)),
    ("subprocess", "Popen", (("touch", CANARY),)),
    ("runpy", "_run_code", (f"open('{CANARY}', 'w')", {})),
    ("torch.serialization", "load", (CANARY,)),
    ("torch.hub", "load", (".", CANARY)),
    ("operator", "attrgetter", ("system",)),
    ("importlib", "import_module", ("os",)),
    ("numpy", "save", (CANARY, 1)),
    ("functools", "partial", ()),
)
FRAMES = ("call", "object", "state", "key", "tensor")


class _Hostile:
    """Unpickles into a call of a named function."""

    def __init__(self, module: str, name: str, arguments: tuple[Any, ...]) -> None:
        self.named, self.arguments = (module, name), arguments


class _Pickler(pickle._Pickler):  # type: ignore[name-defined]  # the one in Python writes any opcode we like
    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_hostile(self, thing: _Hostile) -> None:
        """GLOBAL and REDUCE, without the function being there."""
        module, name = thing.named
        self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        self.save(thing.arguments)
        self.write(pickle.REDUCE)
        self.memoize(thing)

    dispatch[_Hostile] = save_hostile


def hostile_pickle(
    which: tuple[str, str, tuple[Any, ...]], frame: str, zipped: bool, tensors: bytes
) -> bytes:
    """A checkpoint that names a function where a tensor, its state or its name should be; zipped as torch does."""
    thing = _Hostile(*which)
    content: Any = {
        "call": {"state_dict": thing},
        "object": thing,
        "state": {"state_dict": {"weight": [thing]}, "meta": {"epoch": thing}},
        "key": {"state_dict": {"weight": 1}, "optimizer": [thing, thing]},
        "tensor": {"meta": thing, "state_dict": {"backbone.cls_token": thing}},
    }[frame]
    buffer = io.BytesIO()
    _Pickler(buffer, 2).dump(content)
    if not zipped:
        return buffer.getvalue()
    with (
        zipfile.ZipFile(io.BytesIO(tensors)) as source,
        zipfile.ZipFile(into := io.BytesIO(), "w") as target,
    ):
        for member in source.infolist():
            own = member.filename.endswith("data.pkl")
            target.writestr(member.filename, buffer.getvalue() if own else source.read(member))
    return into.getvalue()


_WORDS = (
    "scene.tif", "floats.tif", "bare.jpg", "town", "town:0*", "model", "model/config.json", "source.pth", "given.yaml",
    "source.safetensors", "report", "raw", "out", "out.tif", "out.png", "out.safetensors", "out.md", "new/out.tif", ".",
    "..", "/", "", " ", "-", "--", "nowhere.tif", "/dev/null", "/proc/self/mem", "org/name", "org/name:file.pth",
    "isprs", "loveda", "temperate-summer", "P(i)2V", "U2R,R2U", "auto", "cpu", "cuda", "meta", "mps:9", "a=b",
    "raw=raw", "town=report", "1,2,3", "3", "1,,2", "0", "-1", "1", "2", "16", "47", "64", "0.5", "nan", "inf", "-inf",
    "1e400",
    "1e-320", "999999999999", str(2**63), str(-(2**63)), "\u0663", "0x10", "caf\u00e9", "\udcff", "a\nb", "*",
    "[", "{0}", "%s",
)  # fmt: skip
_SUITABLE = {
    "scene": ("scene.tif", "floats.tif", "new.tif"), "map": ("out.tif",), "preview": ("out.png",),
    "image": ("scene.tif",), "confidence": ("c.tif",), "model": ("model",), "checkpoint": ("source.pth",),
    "output_dir": ("out",), "config": ("given.yaml",), "label_set": ("isprs",), "domain": ("temperate-summer",),
    "size": ("8", "33"), "folder": ("town", "town/images", "report"), "repo_id": ("org/name",),
    "reports": ("report",), "raw_dir": ("raw",), "out_dir": ("out",), "name": ("loveda", "Town"),
    "domains": ("loveda_rural",), "device": ("cpu",), "draws": ("1",),
    "out": ("new", "out.png", "out.md", "out.safetensors"), "template": ("given.yaml",), "code": ("P(i)2V",),
    "bootstrap": ("5",), "window": ("16", "64"), "stride": ("7", "16"), "dtype": ("float32",), "workers": ("1",),
}  # fmt: skip
_UNSAFE = ("--push", "--really", "--help", "-h")


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The real parser of every command but `app`, which would serve, and `launch`, which ends as what it starts."""
    [commands] = [
        action
        for action in cli._parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    return {
        name: parser for name, parser in commands.choices.items() if name not in ("app", "launch")
    }


@st.composite
def argument_lists(draw: st.DrawFn) -> list[str]:
    """A command with flags that it has, and words that suit them or do not."""
    name = draw(st.sampled_from(sorted(parsers())))
    words, result = st.sampled_from(_WORDS) | _TEXT, [name]
    for action in parsers()[name]._actions:
        flag = next(iter(action.option_strings), None)
        if flag in _UNSAFE or (flag and draw(st.integers(0, 2)) and not action.required):
            continue
        suitable = _SUITABLE.get(action.dest, ()) or tuple(map(str, action.choices or ()))
        takes = (
            0 if action.nargs == 0 else draw(st.integers(1, 2)) if action.nargs in ("*", "+") else 1
        )
        for _ in range(takes):
            values = st.sampled_from(suitable) if suitable and draw(st.integers(0, 5)) else words
            result += [draw(values)] if flag is None else [flag, draw(values)]
        result += [flag] if flag and not takes else []
    return result[: draw(st.integers(1, 60))]


@st.composite
def training_flags(draw: st.DrawFn) -> list[str]:
    """Flags of `crossearth train`, all required ones among them."""
    names = draw(st.lists(st.sampled_from([*field_descriptions(), "config", "stepz"]), max_size=8))
    words = st.sampled_from(_WORDS) | _TEXT
    flags = ["--model=tiny", "--output_dir=out", "--train_data=town"]
    for name in names:
        flags += [f"--{name}", *draw(st.lists(words, max_size=2))]
    return flags
