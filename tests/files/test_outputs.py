"""Outputs appear together at the end or not at all."""

import errno
import os
import shutil
import tempfile

import pytest

from crossearth_hf.errors import InputError
from crossearth_hf.files.outputs import (
    check_apart,
    check_distinct,
    check_output,
    replace_folder,
    staged,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_outputs_move_into_place_together(tmp_path):
    targets = [tmp_path / "a.tif", tmp_path / "b.png"]
    targets[0].write_text("old")
    (tmp_path / "a.tif.aux.xml").write_text("statistics of the old one")
    with staged(targets) as stages:
        for stage in stages:
            stage.write_text("new")
            (stage.parent / "work").touch()
        assert targets[0].read_text() == "old"
    assert names(tmp_path) == ["a.tif", "b.png"]
    assert [target.read_text() for target in targets] == ["new", "new"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_after_an_error(tmp_path, error):
    target = tmp_path / "a.tif"
    target.write_text("old")

    def fail_halfway():
        with staged([target]) as (stage,):
            stage.write_text("half")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert names(tmp_path) == ["a.tif"]
    assert target.read_text() == "old"


def folder_with(path, content):
    path.mkdir()
    (path / content).touch()
    return path


@pytest.mark.parametrize("name", ["out", "replaced"])
def test_a_folder_takes_the_place_of_another(tmp_path, name):
    target = tmp_path / name
    for content in ("old", "new"):
        with staged([target]) as (stage,):
            folder_with(stage, content)
            (stage.parent / "work").touch()
            assert not target.exists() or names(target) == ["old"]
        assert names(target) == [content]
        assert names(tmp_path) == [name]


def test_a_folder_that_cannot_be_moved_leaves_the_old_one(tmp_path, monkeypatch):
    target, replace = folder_with(tmp_path / "out", "old"), os.replace

    def full(source, place):
        if source.is_dir() and names(source) == ["new"]:
            raise OSError(28, os.strerror(28))
        replace(source, place)

    monkeypatch.setattr(os, "replace", full)
    with (
        pytest.raises(InputError, match="No space left on device; nothing was changed"),
        staged([target]) as (stage,),
    ):
        folder_with(stage, "new")
    assert names(target) == ["old"]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("moves", [0, 1, 2])
def test_an_interruption_between_the_moves_of_a_folder(tmp_path, monkeypatch, moves):
    """Ctrl-C before the first move, after it, or after the second."""
    stage, target, aside = (folder_with(tmp_path / name, name) for name in ("new", "out", "aside"))
    replace, done = os.replace, []

    def interrupted(source, place):
        if len(done) < moves:
            replace(source, place)
        done.append(place)
        if len(done) == max(moves, 1):
            monkeypatch.setattr(os, "replace", replace)
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace_folder(stage, target, aside)
    assert names(target) == ["new" if moves == 2 else "out"]
    shutil.rmtree(aside, ignore_errors=True)
    # a second attempt
    replace_folder(stage if stage.exists() else folder_with(stage, "new"), target, aside)
    assert names(target) == ["new"]
    assert names(tmp_path) == ["out"]


def test_errors_of_the_disk_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="No space left"), staged([tmp_path / "a.tif"]):
        raise OSError(28, os.strerror(28))
    with (
        pytest.raises(InputError, match="cannot be written"),
        staged([tmp_path / "none" / "a.tif"]),
    ):
        pass
    assert names(tmp_path) == []


def test_permissions_of_new_files_are_the_usual_ones(tmp_path):
    with staged([tmp_path / "a.tif"]) as (stage,):
        stage.touch()
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.tif").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_check_output(tmp_path, monkeypatch):
    (tmp_path / "there.tif").touch()
    (tmp_path / "link.tif").symlink_to(tmp_path / "there.tif")
    assert (
        check_output(tmp_path / "new.TIF", (".tif",), overwrite=False)
        == (tmp_path / "new.TIF").resolve()
    )
    assert (
        check_output(tmp_path / "link.tif", (".tif",), overwrite=True)
        == (tmp_path / "there.tif").resolve()
    )
    for path, sentence in [
        (tmp_path / "there.tif", "exists already"),
        (tmp_path / "link.tif", "exists already"),
        (tmp_path, "is a folder"),
        (tmp_path / "a.png", "must end in .tif"),
        (tmp_path / "no" / "a.tif", "does not exist"),
    ]:
        with pytest.raises(InputError, match=sentence):
            check_output(path, (".tif",), overwrite=False)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="not writable"):
        check_output(tmp_path / "a.tif", (".tif",), overwrite=False)


def test_a_folder_that_takes_no_files_whatever_its_permissions_say(tmp_path, monkeypatch):
    def refuse(**options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(
        InputError, match=r"is not writable \(Read-only file system\); choose another one"
    ):
        check_output(tmp_path / "a.png", (".png",), overwrite=False)


def test_results_stay_apart_from_inputs(tmp_path):
    source = tmp_path / "work" / "data"
    source.mkdir(parents=True)
    (tmp_path / "link").symlink_to(source)
    for place in (source, source / "report", tmp_path / "link" / "report"):
        with pytest.raises(InputError, match=f"{place} lies in {source}, which is an input"):
            check_apart([source], place)
    with pytest.raises(
        InputError, match=f"{source} lies inside {tmp_path / 'work'}, the folder of the results"
    ):
        check_apart([source], tmp_path / "work")
    check_apart([source], tmp_path / "work" / "data-report")


def test_one_file_for_two_purposes(tmp_path):
    scene = tmp_path / "scene.tif"
    scene.touch()
    (tmp_path / "link.tif").symlink_to(scene)
    os.link(scene, tmp_path / "hard.tif")
    (tmp_path / "sub").mkdir()
    for output in (scene, tmp_path / "hard.tif", (tmp_path / "link.tif").resolve()):
        for spelling in (scene, tmp_path / "link.tif", tmp_path / "sub" / ".." / "scene.tif"):
            with pytest.raises(InputError, match="same file"):
                check_distinct([spelling], [output])
    with pytest.raises(InputError, match="same file"):
        check_distinct([scene], [tmp_path / "a.tif", tmp_path / "a.tif"])
    check_distinct([scene, "/vsimem/x"], [tmp_path / "a.tif", tmp_path / "b.tif"])
