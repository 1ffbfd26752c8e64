"""Hidden folders, kept parts and side files: what is not ours stays, and a kill leaves no mixture."""

import os
import shutil
from pathlib import Path

import pytest
from rasters import with_legend
from small_jobs import content, predict, refused

from crossearth_hf.files.outputs import check_output, staged
from crossearth_hf.files.working_folders import (
    OWN_SIDE_FILE,
    clear_abandoned,
    mark,
    move_into_place,
    working_folder,
)


def test_only_marked_working_folders_are_removed(tmp_path):
    for name in ("notes", "abcdefgh", "empty"):
        (tmp_path / f".crossearth-{name}").mkdir()
    (tmp_path / ".crossearth-notes/mine.txt").write_text("mine")
    (tmp_path / ".crossearth-abcdefgh/m.tif.replaced").mkdir()
    (tmp_path / ".crossearth-abcdefgh/m.tif.replaced/m.tif").write_text("mine")
    (tmp_path / "victim").mkdir()
    (tmp_path / ".crossearth-link").symlink_to("victim")
    (tmp_path / ".crossearth-file").write_text("mine")
    os.mkfifo(tmp_path / ".crossearth-fifo")
    mark(tmp_path / "victim", results=["a.txt"])
    before = [path.name for path in sorted(tmp_path.rglob("*"))]
    check_output(tmp_path / "new.txt", (".txt",), overwrite=False)
    clear_abandoned(tmp_path)
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == before
    ours = tmp_path / ".crossearth-12345678"
    (ours / "m.tif.replaced").mkdir(parents=True)
    (ours / "other.replaced").mkdir()
    (ours / "m.tif.replaced/m.tif").write_text("old")
    (ours / "other.replaced/other").write_text("not named in the note")
    ours.chmod(0o700)
    mark(ours, name=ours.name, results=["m.tif"])
    clear_abandoned(tmp_path)
    assert not ours.exists()
    assert (tmp_path / "m.tif").read_text() == "old"
    assert not (tmp_path / "other").exists()


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away"
)
def test_a_working_folder_of_another_user_stays(tmp_path):
    foreign = tmp_path / ".crossearth-12345678"
    foreign.mkdir()
    mark(foreign, results=[])
    os.chown(foreign, 12345, 12345)
    clear_abandoned(tmp_path)
    assert foreign.exists()


def parts_link(parts):
    (parts.parent / "victim").mkdir()
    (parts.parent / "victim/mine.txt").write_text("mine")
    parts.symlink_to("victim")


def parts_file(parts):
    parts.write_text("mine")


def parts_of_a_person(parts):
    (parts / "0000").mkdir(parents=True)
    (parts / "0000/labels.tif").write_text("mine")


def parts_with_a_note(parts):
    parts.mkdir()
    mark(parts, scene="", outputs=[])
    (parts / "notes.txt").write_text("mine")


def parts_with_a_link(parts):
    (parts.parent / "victim").mkdir()
    (parts.parent / "victim/blocks.json").write_text("mine")
    parts.mkdir()
    mark(parts, scene="", outputs=[])
    (parts / "0000").symlink_to("../victim")


def parts_of_another_user(parts):
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    parts.mkdir()
    mark(parts, scene="", outputs=[])
    os.chown(parts, 12345, 12345)


@pytest.mark.parametrize(
    "lay",
    [
        parts_link,
        parts_file,
        parts_of_a_person,
        parts_with_a_note,
        parts_with_a_link,
        parts_of_another_user,
    ],
)
def test_what_lies_in_the_place_of_kept_parts_is_named_and_stays(place, model_folder, capsys, lay):
    lay(place / ".m.tif.parts")
    before = content(place)
    refused(
        capsys, predict(model_folder, "in.tif", "m.tif"), place / ".m.tif.parts", "move it away"
    )
    assert content(place) == before


@pytest.mark.parametrize("has_note", [False, True])
def test_leftover_parts_are_no_leave_to_overwrite(place, model_folder, capsys, has_note):
    """A person's folder, or the parts of another scene, say nothing about the files that are there."""
    (place / ".m.tif.parts").mkdir()
    if has_note:
        mark(place / ".m.tif.parts", scene=str(place / "other.tif"), outputs=[str(place / "m.tif")])
    (place / "m.tif").write_text("mine")
    before = content(place)
    refused(capsys, predict(model_folder, "in.tif", "m.tif"), "exists already")
    assert content(place) == before


def test_leftover_parts_are_leave_to_replace_their_own_outputs_only(place, model_folder, capsys):
    (place / ".m.tif.parts").mkdir()
    mark(place / ".m.tif.parts", scene=str(place / "in.tif"), outputs=[str(place / "m.tif")])
    (place / "m.tif").write_text("of the killed run")
    (place / "c.tif").write_text("mine")
    refused(
        capsys,
        predict(model_folder, "in.tif", "m.tif", "--confidence", "c.tif"),
        "c.tif exists already",
    )
    assert (place / "c.tif").read_text() == "mine"
    assert predict(model_folder, "in.tif", "m.tif") == 0


@pytest.mark.parametrize("ending", [".ovr", ".aux.xml", ".msk"])
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_side_files_without_their_map_stay(place, model_folder, capsys, ending, overwrite):
    (place / f"m.tif{ending}").write_text("mine")
    before = content(place)
    refused(
        capsys,
        predict(model_folder, "in.tif", "m.tif", *overwrite),
        f"m.tif{ending}",
        "move it away",
    )
    assert content(place) == before


@pytest.mark.parametrize("name", ["m.tfw", "m.wld"])
def test_a_stale_world_file_does_not_place_a_map(place, model_folder, capsys, name):
    (place / name).write_text("1000\n0\n0\n-1000\n0\n0\n")
    before = content(place)
    refused(capsys, predict(model_folder, "in.tif", "m.tif"), name, "move it away")
    assert content(place) == before


def test_side_files_that_cannot_be_removed_are_told_before_the_work(place, model_folder, capsys):
    (place / "m.tif").write_text("old")
    (place / "m.tif.msk").mkdir()
    before = content(place)
    refused(
        capsys, predict(model_folder, "in.tif", "m.tif", "--overwrite"), "m.tif.msk is a folder"
    )
    assert content(place) == before


def test_side_files_go_with_the_map_that_is_replaced(place, model_folder):
    (place / "m.tif").write_text("old")
    for ending in (".ovr", ".aux.xml", ".msk"):
        (place / f"m.tif{ending}").write_text("old")
    assert predict(model_folder, "in.tif", "m.tif", "--overwrite") == 0
    assert sorted(content(place)) == sorted(["in.tif", *with_legend("m.tif")])
    assert "old" not in (place / "m.tif.aux.xml").read_text()


def named(ending):
    """A map, or what lies beside it; the style of QGIS replaces its ending."""
    if ending == ".qml":
        return "m.qml"
    return f"m.tif{ending}"


def killed_at(operation, act):
    """Runs `act` in a child that is killed before its `operation`-th move; whether it was."""
    child = os.fork()
    if child == 0:
        calls = iter(range(operation))
        for name in ("replace", "rename"):
            real = getattr(os, name)

            def counted(source, target, real=real):
                if next(calls, None) is None:
                    os.kill(os.getpid(), 9)
                real(source, target)

            setattr(os, name, counted)
        try:
            act()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] != 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a child")
@pytest.mark.parametrize("old", [(), (".ovr",), (".aux.xml", ".qml")])
@pytest.mark.parametrize("new", [(), (".aux.xml",), (".aux.xml", ".qml")])
def test_a_kill_leaves_no_map_beside_the_side_files_of_another(tmp_path, old, new):
    """Before the next call the map is old with its side files, new with its own, or not there; after it never mixed."""

    def state(folder):
        return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}

    was = {named(ending): f"old, {OWN_SIDE_FILE}" for ending in ("", *old)}
    becomes = {named(ending): f"new, {OWN_SIDE_FILE}" for ending in ("", *new)}
    kills = 0
    for operation in range(20):
        folder = tmp_path / f"{operation}"
        folder.mkdir()
        for name, text in was.items():
            (folder / name).write_text(text)

        def replace(folder=folder):
            with staged([folder / "m.tif"]) as (stage,):
                for name, text in becomes.items():
                    stage.with_name(name).write_text(text)

        if not killed_at(operation, replace):
            break
        kills += 1
        found = state(folder)
        assert "m.tif" not in found or found in (was, becomes)
        clear_abandoned(folder)
        assert state(folder) in (was, becomes)
        assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    assert state(folder) == becomes
    assert kills >= (2 if not (old or new) else 4)


def test_a_style_that_somebody_made_stays(place, model_folder):
    (place / "m.qml").write_text("<qgis>mine</qgis>")
    assert predict(model_folder, "in.tif", "m.tif") == 0
    assert predict(model_folder, "in.tif", "m.tif", "--overwrite") == 0
    assert (place / "m.qml").read_text() == "<qgis>mine</qgis>"
    assert sorted(content(place)) == sorted(["in.tif", *with_legend("m.tif")])


def test_our_names_and_colors_without_their_map_are_no_obstacle(place, model_folder):
    assert predict(model_folder, "in.tif", "m.tif") == 0
    (place / "m.tif").unlink()
    assert predict(model_folder, "in.tif", "m.tif") == 0
    assert sorted(content(place)) == sorted(["in.tif", *with_legend("m.tif")])


def test_a_scene_keeps_its_look_in_qgis(place, model_folder):
    """QGIS finds a style by the name without ending: in.qml would change how in.jp2 looks."""
    shutil.copy("in.tif", "m.tiff")
    assert predict(model_folder, "m.tiff", "m.tif") == 0
    assert sorted(content(place)) == ["in.tif", "m.tif", "m.tif.aux.xml", "m.tiff"]


def test_a_move_that_fails_puts_the_map_and_its_side_files_back(tmp_path, monkeypatch):
    stage = tmp_path / "work/m.tif"
    stage.parent.mkdir()
    for path, text in (
        (stage, "new"),
        (tmp_path / "m.tif", "old"),
        (tmp_path / "m.tif.ovr", "old"),
    ):
        path.write_text(text)
    replace = os.replace

    def fails(source, target):
        if Path(source) == stage:
            raise OSError(1, "Operation not permitted")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="not permitted"):
        move_into_place(stage, tmp_path / "m.tif")
    assert [(tmp_path / name).read_text() for name in ("m.tif", "m.tif.ovr")] == ["old", "old"]


def test_a_folder_with_a_copied_note_stays(tmp_path):
    with working_folder(tmp_path, ["a.tif"]) as made:
        own = tmp_path / ".crossearth-diary"
        shutil.copytree(made, own)
    (own / "diary.txt").write_text("mine")
    clear_abandoned(tmp_path)
    assert (own / "diary.txt").read_text() == "mine"
