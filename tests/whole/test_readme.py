"""What the README shows works, and what it claims about the shipped model is so."""

import re
import runpy
from pathlib import Path

import pytest
from rasters import with_legend

from crossearth_hf.cli import main

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder that looks like a clone where the README's commands are typed."""
    (tmp_path / "hub_cards").symlink_to(ROOT / "hub_cards")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_and_the_lines_of_python(clone, capsys):
    (block,) = [block for block in blocks("bash") if "crossearth synth" in block]
    commands = [line.split() for line in block.splitlines() if line.startswith("crossearth ")]
    assert [command[1] for command in commands] == ["synth", "predict"]
    (clone / "demo").mkdir()
    commands[0] += ["--size", "300"]  # the scene of the README takes longer than a test may
    for command in commands:
        assert main(command[1:]) == 0
    assert "building" in capsys.readouterr().out
    names = {path.name for path in (clone / "demo").iterdir()}
    assert names == {
        "scene.tif",
        "scene_labels.tif",
        *with_legend("map.tif"),
        "preview.png",
    }
    (clone / "lines.py").write_text("".join(blocks("python")))
    results = runpy.run_path(str(clone / "lines.py"))
    assert results["labels"].shape == (256, 256)
    assert results["report"].areas["building"]["hectares"] > 0


def test_files_and_commands_that_it_names_exist():
    for path in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / path).exists(), path
    for command in re.findall(r"`crossearth ([\w-]+)", README):
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
