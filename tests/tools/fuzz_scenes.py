"""Scenes of odd sizes, with undeclared fill, odd side files and symbolic links around them, for `fuzz.py`."""

import os
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import rasterio
from rasters import write_raster

from crossearth_hf import cli

Case = Any

PREDICT = ("--model", "model", "--device", "cpu", "--overwrite")

_FILLS = {
    "uint16": (0, 65535),
    "int16": (-32768, -9999, 32767),
    "int32": (-(2**31), -9999, 2**31 - 1),
    "float32": (-9999.0, -32768.0, 1e20, -3.4e38, 3.4e38),
    "float64": (-9999.0, 1e20, -1.7976931348623157e308),
}
_SIDES = ("frame", "left", "corner", "block")
_SUFFIXES = (".aux.xml", ".msk", ".ovr", ".tfw", "_rpc.txt", ".imd")
_NO_CRS = b"<PAMDataset><SRS>nonsense</SRS></PAMDataset>"
_CONTENTS = (b"", bytes(64), b"<PAMDataset/>", _NO_CRS, b"0\n0\n0\n0\nnan\ninf\n")


def size_cases() -> st.SearchStrategy[Case]:
    """Height, width, bands, and flags that change the size at which the model looks."""
    side, flags = (
        st.integers(1, 40),
        st.sampled_from(((), ("--window", "16"), ("--resolution", "2"), ("--tta",))),
    )
    return st.tuples(side, side, st.sampled_from((1, 3, 4)), flags)


def predict_size(case: Case) -> int:
    """Maps a scene of any size: there is always a map of that size."""
    height, width, bands, flags = case
    pixels = np.random.default_rng(height * 41 + width).integers(
        0, 256, (bands, height, width), dtype=np.uint8
    )
    write_raster(Path("small.tif"), pixels)
    code = cli.main(["predict", "small.tif", "out.tif", "--confidence", "c.tif", *flags, *PREDICT])
    assert code == 0, "a small scene is refused"
    with rasterio.open("out.tif") as result:
        assert result.shape == (height, width)
        assert (result.read(1) != 255).all()
    return code


@st.composite
def fill_cases(draw: st.DrawFn) -> Case:
    """Type, value of the fill, where it lies, its share, seed of the pixels."""
    dtype = draw(st.sampled_from(tuple(_FILLS)))
    fill = draw(st.sampled_from(_FILLS[dtype]))
    return (
        dtype,
        fill,
        draw(st.sampled_from(_SIDES)),
        draw(st.floats(0.08, 0.3)),
        draw(st.integers(0, 99)),
    )


def map_with_undeclared_fill(case: Case) -> int:
    """Maps a scene with a hole, declared and undeclared: the same map."""
    dtype, fill, side, share, seed = case
    pixels = np.random.default_rng(seed).normal(1500, 300, (3, 56, 64)).clip(400, 3000)
    hole = _hole(side, share, pixels.shape[1:])
    values = np.where(hole, fill, pixels.astype(dtype)).astype(dtype)
    write_raster(Path("declared.tif"), values, nodata=fill)
    write_raster(Path("undeclared.tif"), values)
    maps = []
    for name in ("declared", "undeclared"):
        code = cli.main(["predict", f"{name}.tif", f"{name}-map.tif", *PREDICT])
        assert code == 0, f"the {name} scene is refused"
        with rasterio.open(f"{name}-map.tif") as result:
            maps.append(result.read(1))
    assert ((maps[0] == 255) == hole).all(), "the declared hole is not where it is"
    assert (maps[0] == maps[1]).all(), (
        f"{(maps[0] != maps[1])[~hole].mean():.0%} of the pixels outside the hole differ"
    )
    return 0


def _hole(side: str, share: float, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: about that share of the pixels, in one piece."""
    height, width = shape
    hole = np.zeros(shape, dtype=bool)
    if side == "frame":
        inner = (1 - share) ** 0.5
        rows, cols = round(height * (1 - inner) / 2), round(width * (1 - inner) / 2)
        hole[:] = True
        hole[rows : height - rows, cols : width - cols] = False
    elif side == "left":
        hole[:, : round(width * share)] = True
    else:
        rows, cols = round(height * share**0.5), round(width * share**0.5)
        first = 0 if side == "corner" else 10
        hole[first : first + rows, first : first + cols] = True
    return hole


def side_file_cases() -> st.SearchStrategy[Case]:
    """Files beside the scene and the map: name, and content or what it is instead."""
    content = (
        st.binary(max_size=80)
        | st.sampled_from(_CONTENTS)
        | st.sampled_from(("folder", "pipe", "scene"))
    )
    stem = st.sampled_from(("scene", "out"))
    return st.lists(st.tuples(stem, st.sampled_from(_SUFFIXES), content), min_size=1, max_size=3)


def predict_beside_files(case: Case) -> int:
    """Maps a scene beside odd side files; those of the scene stay as they were, and no map without its scene's data."""
    placed = {}
    for stem, suffix, content in case:
        path = Path(
            f"{stem}.tif{suffix}"
            if suffix[0] == "." and suffix not in (".tfw", ".imd")
            else f"{stem}{suffix}"
        )
        if not path.exists():
            placed[path] = content
            _place(path, content)
    before = {path: _state(path) for path in placed if path.name.startswith("scene")}
    code = cli.main(["predict", "scene.tif", "out.tif", *PREDICT])
    assert before == {path: _state(path) for path in before}, "a side file of the scene has changed"
    assert (code == 0) == Path("out.tif").exists()
    if code == 2:  # no map was there: nothing beside it belonged to one
        assert all(path.exists() for path in placed), "a side file is gone though there is no map"
    return code


def _place(path: Path, content: bytes | str) -> None:
    if content == "folder":
        path.mkdir()
        (path / "note.txt").write_text("mine")
    elif content == "pipe":
        os.mkfifo(path)
    elif content == "scene":
        path.symlink_to("tiled.tif")
    else:
        path.write_bytes(content)


def _state(path: Path) -> bytes | str:
    """Content of a file, or what it is instead."""
    if path.is_dir():
        return "folder" if (path / "note.txt").exists() else "emptied"
    return path.read_bytes() if path.is_file() else "pipe" if path.is_fifo() else "gone"


_LINKS = (
    "out.tif",
    "c.tif",
    ".out.tif.parts",
    ".crossearth-notes",
    "out.tif.ovr",
    "out.tif.aux.xml",
    "out.tif.msk",
)
_VICTIMS = ("victim", "victim/lock", "victim/0000", "scene.tif", "tiled.tif", "nowhere")


def link_cases() -> st.SearchStrategy[Case]:
    """Symbolic links where a command writes: name, and what it points to."""
    pairs = st.tuples(st.sampled_from(_LINKS), st.sampled_from(_VICTIMS))
    return st.tuples(st.lists(pairs, min_size=1, max_size=3), st.booleans())


def predict_among_links(case: Case) -> int:
    """Maps a scene where links lie in the way; no file that they point to is lost, but for an output asked for."""
    links, from_vrt = case
    Path("victim/0000").mkdir(parents=True)
    kept = [
        Path("victim/note.txt"),
        Path("victim/0000/labels.tif"),
        Path("victim/lock"),
        Path("victim/job.json"),
    ]
    for path in kept:
        path.write_text("mine")
    for name, victim in links:
        if not os.path.lexists(name):
            Path(name).symlink_to(victim)
    scene = "scene.tif"
    if from_vrt:
        with rasterio.open("scene.tif") as source:
            rasterio.shutil.copy(source, "scene.vrt", driver="VRT")
        scene = "scene.vrt"
    before = {path: path.read_bytes() for path in (Path("scene.tif"), *kept)}
    outputs = {os.path.realpath("out.tif"), os.path.realpath("c.tif")}
    code = cli.main(["predict", scene, "out.tif", "--confidence", "c.tif", *PREDICT])
    lost = [path for path in before if not path.is_file() or path.read_bytes() != before[path]]
    for name, _ in links:
        if os.path.islink(name):
            os.unlink(name)  # so that what is hidden then was left by the command
    assert not [
        path for path in lost if path.name == "scene.tif" or os.path.realpath(path) not in outputs
    ], lost
    return code
