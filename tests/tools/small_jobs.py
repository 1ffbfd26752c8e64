"""Maps of a small scene by a tiny model_folder, for tests that look at the files around them."""

import os
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil

from crossearth_hf import cli

PIXELS = np.random.default_rng(0).integers(1, 256, (3, 64, 80), dtype=np.uint8)


def predict(model_folder, *arguments):
    return cli.main(
        ["predict", *map(str, arguments), "--model", str(model_folder), "--device", "cpu"]
    )


def content(folder):
    """All below a folder: what files hold, where links lead, None for folders."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = (
            os.readlink(path)
            if path.is_symlink()
            else path.read_bytes()
            if path.is_file()
            else None
        )
    return found


def refused(capsys, code, *words):
    """One sentence that holds the words, and exit code 2."""
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2, sentence
    assert sentence.startswith("crossearth: error: ")
    for word in words:
        assert str(word) in sentence


def vrt_of(path, source):
    """A VRT at `path` that refers to `source`, written as it is."""
    rasterio.shutil.copy("in.tif", path, driver="VRT")
    text = Path(path).read_text()
    assert 'relativeToVRT="1">in.tif<' in text
    Path(path).write_text(text.replace('relativeToVRT="1">in.tif<', f'relativeToVRT="0">{source}<'))
