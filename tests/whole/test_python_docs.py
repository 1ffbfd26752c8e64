"""What docs/python.md shows works, in its order, and it shows all that the package promises."""

import re
from pathlib import Path

import numpy as np
import pytest
from benchmark_data import write_domain, write_pair

import crossearth_hf
from crossearth_hf.synthetic import generate_scene, write_scene

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text()


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder like a clone, with the files that the page names, all of them tiny."""
    (tmp_path / "hub_cards").symlink_to(ROOT / "hub_cards")
    for seed, name in enumerate(("scene.tif", "other.tif")):
        write_scene(generate_scene("temperate-summer", seed, 64, 80), tmp_path / name)
    rng = np.random.default_rng(0)
    pairs = [
        (rng.integers(0, 256, (64, 64, 3), np.uint8), rng.integers(0, 5, (64, 64), np.uint8))
        for _ in range(2)
    ]
    for index, pair in enumerate(pairs):
        write_pair(tmp_path / "tiles", f"{index}", *pair)
        write_pair(tmp_path / "harvey_uav", f"{index}", *pair)
    write_domain(tmp_path / "data", "vaihingen", pairs)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_blocks_run_in_their_order(clone):
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    lines = "\n".join(blocks)
    assert "max_steps=1000" in lines
    lines = lines.replace(
        "max_steps=1000", "max_steps=1, per_device_train_batch_size=1, crop_size=64"
    )  # quick
    names = {}
    exec(compile(lines, "docs/python.md", "exec"), names)
    assert names["labels"].shape == (64, 80)
    assert sum(row["share"] for row in names["report"].areas.values()) == pytest.approx(1)
    assert (clone / names["folder"] / "model.safetensors").is_file()
    assert list(names["both"]) == ["Harvey", "P(i)2V"]
    assert {path.name for path in clone.glob("*.tif")} >= {
        "map.tif",
        "sure.tif",
        "map_of_scene.tif",
        "map_of_other.tif",
    }


@pytest.mark.parametrize("name", crossearth_hf.__all__)
def test_every_promised_name_is_shown(name):
    assert re.search(rf"\bce\.{name}\b", PAGE)


def test_it_shows_no_other_name_and_no_file_that_is_not_there():
    assert set(re.findall(r"\bce\.(\w+)", PAGE)) == set(crossearth_hf.__all__)
    for path in re.findall(r"\]\(((?!http)[^)#]+)\)", PAGE):
        assert (ROOT / "docs" / path).exists(), path


def test_the_reference_describes_every_promised_name():
    described = re.findall(
        r"^::: crossearth_hf\.(\w+)$", (ROOT / "docs" / "reference.md").read_text(), flags=re.M
    )
    assert sorted(described) == sorted(set(crossearth_hf.__all__) - {"__version__"})
