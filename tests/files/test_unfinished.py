"""Work that outlives an interruption: gone on from by the same job alone, and nothing else is ever removed."""

import os

import pytest

from crossearth_hf.errors import InputError
from crossearth_hf.files.unfinished import UnfinishedWork


def is_number(path):
    return path.name.isdecimal() and not path.is_symlink()


@pytest.fixture
def work(tmp_path):
    return UnfinishedWork(tmp_path / ".work", is_number, "numbers are kept there; move it away")


def begun(work, job="a", **facts):
    work.check()
    work.folder.mkdir(mode=0o700, exist_ok=True)
    work.take_up(job, **facts)
    return sorted(path.name for path in work.folder.iterdir() if is_number(path))


def test_the_same_job_finds_what_it_left_and_another_one_does_not(work):
    assert not work.exists()
    assert begun(work) == []
    (work.folder / "1").mkdir()
    (work.folder / "2").write_text("2")
    assert work.exists()
    assert begun(work) == ["1", "2"]
    assert begun(work, job="b") == []
    (work.folder / "3").mkdir()
    assert begun(work, job="a") == []
    work.remove()
    assert not os.path.lexists(work.folder)
    work.remove()


def test_what_a_stranger_puts_there_is_named_and_stays(work):
    begun(work)
    (work.folder / "mine.txt").write_text("mine")
    (work.folder / "1").mkdir()
    with pytest.raises(
        InputError, match=r"mine\.txt was not made by crossearth, and numbers are kept there"
    ):
        work.check()
    work.remove()
    assert [path.name for path in work.folder.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("lay", "sentence"),
    [
        (lambda path: path.write_text("mine"), "is not a folder"),
        (lambda path: path.symlink_to(path.parent), "is a link"),
        (lambda path: (path / "1").mkdir(parents=True), "was not made by crossearth"),
    ],
)
def test_anything_else_in_its_place_is_refused_and_left_alone(work, lay, sentence):
    lay(work.folder)
    with pytest.raises(InputError, match=sentence):
        work.check()
    assert not work.exists()
    work.remove()
    assert os.path.lexists(work.folder)


def test_a_removal_that_was_cut_short_is_not_gone_on_from(work, monkeypatch):
    begun(work)
    (work.folder / "1").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("crossearth_hf.files.unfinished.remove_marked", lambda *_: None)
        work.remove()
    assert begun(work) == []
