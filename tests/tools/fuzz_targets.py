"""What `tests/tools/fuzz.py` tries: for each kind of input, how cases are drawn and how one is given to a command."""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import yaml
from fuzz_cases import (
    FRAMES,
    HOSTILE,
    JSON,
    argument_lists,
    changed,
    damaged,
    damages,
    hostile_pickle,
    json_changes,
    training_flags,
)
from fuzz_requests import request_cases, send_request
from fuzz_scenes import (
    PREDICT,
    fill_cases,
    link_cases,
    map_with_undeclared_fill,
    predict_among_links,
    predict_beside_files,
    predict_size,
    side_file_cases,
    size_cases,
)
from PIL import Image
from published import ORACLE_CONFIG
from rasters import write_raster

from crossearth_hf import cli
from crossearth_hf.conversion.config import OVERRIDES
from crossearth_hf.errors import InputError, on_one_line
from crossearth_hf.raster.scene import Scene
from crossearth_hf.training.recipe import field_descriptions, parse_train_config

Case = Any


@dataclass(frozen=True)
class Target:
    """A kind of input.

    Attributes:
        cases: Draws them.
        call: Runs a case in the current folder, a copy of the workplace, and returns the exit code; `AssertionError`
            where the result is wrong.
    """

    cases: st.SearchStrategy[Case]
    call: Callable[[Case], int]


def _damage(case: tuple[str, Any]) -> str:
    """Damages a file in place; returns its name."""
    name, steps = case
    _rewrite(name, damaged(Path(name).read_bytes(), steps))
    return name


def _rewrite(name: str, content: bytes) -> None:
    """Puts another file in the place of one that is linked to that of the workplace."""
    Path(name).unlink(missing_ok=True)
    Path(name).write_bytes(content)


_SCORE = (
    "--folder",
    "town",
    "--name",
    "Town",
    "--device",
    "cpu",
    "--bootstrap",
    "5",
    "--out",
    "new",
)


def _rasters(case: Case) -> int:
    scene = _damage(case)
    if _is_huge(scene):  # a header may rightly claim any size: its map would take hours
        return cli.main(["style-preview", scene, "out.png", "--draws", "1"])
    return cli.main(["predict", scene, "out.tif", *PREDICT])


def _is_huge(path: str) -> bool:
    try:
        with Scene(path) as scene:
            return scene.grid.height * scene.grid.width > 250_000
    except InputError:
        return False


def _label_maps(case: Case) -> int:
    mask = Path("town/masks/0.png")
    if isinstance(case, tuple) and case[0] == "values":
        _, kind, low, high, seed = case
        values = np.random.default_rng(seed).integers(low, high + 1, (40, 48)).astype(kind)
        mask.unlink()
        if kind in ("uint8", "bool"):
            Image.fromarray(values).save(mask)
        else:
            write_raster(mask.with_suffix(".tif"), values[None])
    else:
        name = _damage(case)
        if name.endswith(".tif"):
            mask.unlink()
            Path(name).rename(mask.with_suffix(".tif"))
    return cli.main(["evaluate", "model", *_SCORE])


def _model_folders(case: Case) -> int:
    name, steps = case
    if isinstance(steps, list) and steps and isinstance(steps[0][0], str):
        _damage(case)
    else:
        _rewrite(name, json.dumps(changed(json.loads(Path(name).read_text()), steps)).encode())
    return cli.main(["predict", "scene.tif", "out.tif", *PREDICT])


def _json_files(case: Case) -> int:
    """A whole JSON file that is something else, or no JSON at all."""
    name, document = case
    _rewrite(name, document if isinstance(document, bytes) else json.dumps(document).encode())
    if name.startswith("report/"):
        return cli.main(["report", "report", "--out", "new"])
    return cli.main(["predict", "scene.tif", "out.tif", *PREDICT])


def _checkpoints(case: Case) -> int:
    if case[0] == "hostile":
        _, which, frame, zipped, suffix = case
        name = f"hostile{suffix}"
        Path(name).write_bytes(
            hostile_pickle(which, frame, zipped, Path("source.pth").read_bytes())
        )
    elif case[0] == "header":
        name = _with_header("source.safetensors", case[1])
    else:
        name = _damage(case)
    return cli.main(["convert", name, "out", "--config", "given.yaml"])


def _with_header(name: str, steps: list[tuple[float, str, Any]]) -> str:
    """A safetensors file whose header, valid JSON, says something else."""
    content = Path(name).read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(changed(json.loads(content[8 : 8 + size]), steps)).encode()
    _rewrite(name, len(header).to_bytes(8, "little") + header + content[8 + size :])
    return name


def _conversion_configs(case: Case) -> int:
    _rewrite("given.yaml", _document(case, yaml.safe_load(ORACLE_CONFIG)))
    return cli.main(["convert", "source.safetensors", "out", "--config", "given.yaml"])


def _training_configs(case: Case) -> int:
    recipe = {
        "model": "tiny",
        "output_dir": "out",
        "train_data": ["town"],
        "max_steps": 3,
        "scale_range": [0.5, 2.0],
    }
    Path("run.yaml").write_bytes(_document(case, recipe))
    return _parse_training(["--config", "run.yaml"])


def _document(case: Case, document: dict[str, Any]) -> bytes:
    """Text as it stands, or `document` changed and with other fields, as YAML."""
    if isinstance(case, bytes):
        return case
    steps, fields = case
    whole = changed(document, steps)
    return yaml.safe_dump(
        {**whole, **fields} if isinstance(whole, dict) else whole, allow_unicode=True
    ).encode()


def _parse_training(arguments: list[str]) -> int:
    """What `crossearth train` does before it trains."""
    try:
        parse_train_config(arguments)
    except InputError as error:
        print(f"error: {on_one_line(str(error))}", file=sys.stderr)
        return 2
    return 0


def _reports(case: Case) -> int:
    name, steps = case
    _rewrite(name, json.dumps(changed(json.loads(Path(name).read_text()), steps)).encode())
    return cli.main(["card", "model", "--report", "report", "--out", "out.md"])


def _archives(case: Case) -> int:
    _damage(case)
    return cli.main(
        [
            "build-dataset",
            "loveda",
            "raw",
            "out",
            "--domains=loveda_rural",
            "--allow-incomplete",
            "--workers=1",
        ]
    )


_ids = st.sampled_from(((0, 5), (0, 255), (0, 6), (200, 255), (-3, 3), (0, 70_000)))
_values = st.tuples(
    st.just("values"),
    st.sampled_from(("uint8", "uint16", "int32", "float32")),
    _ids,
    st.integers(0, 9),
)


def _documents(names: Iterable[str]) -> st.SearchStrategy[Case]:
    """Bytes; or changes of a document, and fields of these names with any value or one that may suit them."""
    values = JSON | st.integers(1, 64) | st.lists(st.integers(0, 4), min_size=4, max_size=4)
    return st.binary(max_size=60) | st.tuples(
        json_changes(least=0), st.dictionaries(st.sampled_from(sorted(names)), values, max_size=3)
    )


_JSON_FILES = ("model/config.json", "model/preprocessor_config.json", "report/report.json")
_DEEP = 200_000  # brackets: more than any parser of Python's descends
_NOT_UTF8 = (b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00", bytes(100))
_DOCUMENTS = (*_NOT_UTF8, b"", b"[" * _DEEP, b'{"a":' * _DEEP, b"NaN", b"{}{}")

TARGETS = {
    "rasters": Target(damages(("scene.tif", "tiled.tif", "floats.tif", "palette.png", "bare.jpg")), _rasters),
    "label maps": Target(
        damages(("town/masks/0.png", "town/mask.tif")) | _values.map(lambda case: (*case[:2], *case[2], case[3])),
        _label_maps,
    ),
    "model folders": Target(
        st.tuples(st.sampled_from(("model/config.json", "model/preprocessor_config.json")), json_changes())
        | damages(("model/config.json", "model/preprocessor_config.json", "model/model.safetensors")),
        _model_folders,
    ),
    "JSON files": Target(st.tuples(st.sampled_from(_JSON_FILES), JSON | st.sampled_from(_DOCUMENTS)), _json_files),
    "sizes": Target(size_cases(), predict_size),
    "undeclared fill": Target(fill_cases(), map_with_undeclared_fill),
    "side files": Target(side_file_cases(), predict_beside_files),
    "symbolic links": Target(link_cases(), predict_among_links),
    "requests": Target(request_cases(), send_request),
    "checkpoints": Target(
        damages(("source.pth", "source.safetensors"))
        | st.tuples(st.just("header"), json_changes())
        | st.tuples(
            st.just("hostile"), st.sampled_from(HOSTILE), st.sampled_from(FRAMES), st.booleans(),
            st.sampled_from((".pth", ".pt", ".bin", ".safetensors")),
        ),
        _checkpoints,
    ),
    "conversion configs": Target(_documents(OVERRIDES), _conversion_configs),
    "training configs": Target(_documents(field_descriptions()), _training_configs),
    "training flags": Target(training_flags(), _parse_training),
    "reports": Target(st.tuples(st.just("report/report.json"), json_changes()), _reports),
    "archives": Target(damages(("raw/Train.zip", "raw/Val.zip")), _archives),
    "arguments": Target(argument_lists(), cli.main),
}  # fmt: skip
