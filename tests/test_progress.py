"""Progress: lines without a terminal, ten at most; loaders' bars off unless asked for."""

import sys

from transformers.utils import logging

from crossearth_hf.progress import progress_bar, quiet_loaders


def lines_of(capsys):
    return capsys.readouterr().err.splitlines()


def test_a_line_every_tenth(capsys):
    assert list(progress_bar(range(1000), desc="predicting", unit="window")) == list(range(1000))
    lines = lines_of(capsys)
    assert [line.partition(",")[0] for line in lines] == [
        f"predicting: {n}% of 1000 windows" for n in range(10, 101, 10)
    ]


def test_updates_of_any_size(capsys):
    with progress_bar(desc="training", unit="step", total=7, initial=3) as bar:
        assert lines_of(capsys) == []  # 40 % were done before
        for _ in range(4):
            bar.update()
            bar.set_postfix({"loss": 1})
    assert [line.split()[1] for line in lines_of(capsys)] == ["50%", "70%", "80%", "100%"]
    with progress_bar(desc="maps", unit="scene", total=3) as bar:
        for _ in range(30):
            bar.update(0.1)  # shares of scenes
    assert [line.split()[1] for line in lines_of(capsys)] == [f"{n}%" for n in range(10, 101, 10)]


def test_silence(capsys):
    assert list(progress_bar(iter([1, 2]), desc="a", unit="b")) == [1, 2]  # of unknown length
    assert list(progress_bar([1, 2], desc="a", unit="b", shown=False)) == [1, 2]
    assert list(progress_bar([1, 2], desc="a", unit="b", passing=True)) == [1, 2]
    assert list(progress_bar([], desc="a", unit="b")) == []
    assert lines_of(capsys) == []


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress_bar(range(3), desc="predicting", unit="window")) == [0, 1, 2]
    assert "predicting: 100%|" in capsys.readouterr().err


def test_loaders_are_as_before_after_a_job():
    before = logging.is_progress_bar_enabled(), logging.get_verbosity()
    with quiet_loaders():
        assert not logging.is_progress_bar_enabled()
    assert (logging.is_progress_bar_enabled(), logging.get_verbosity()) == before
    logging.set_verbosity_info()
    try:
        with quiet_loaders():
            assert logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity(before[1])
