"""`crossearth train`: its exit codes, each with one sentence."""

import sys

import pytest

from crossearth_hf.cli import main

ARGUMENTS = ["train", "--model", "tiny.json", "--train_data", "data", "--output_dir", "run"]


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (
            FloatingPointError("the loss is not a number"),
            1,
            "crossearth: error: the loss is not a number",
        ),
        (
            KeyboardInterrupt(),
            130,
            "crossearth: interrupted; --resume_from_checkpoint resumes from the last checkpoint",
        ),
    ],
)
def test_a_run_that_ends_early(monkeypatch, capsys, error, code, sentence):
    def train(config):
        raise error

    monkeypatch.setattr("crossearth_hf.training.trainer.train", train)
    with pytest.raises(SystemExit) as end:
        main(ARGUMENTS)
    assert end.value.code == code
    assert capsys.readouterr().err.strip() == sentence


@pytest.mark.parametrize(("rank", "lines"), [(None, 1), ("0", 1), ("1", 0)])
def test_one_process_says_where_the_model_is(monkeypatch, capsys, rank, lines):
    monkeypatch.setattr("crossearth_hf.training.trainer.train", lambda config: "run")
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert main(ARGUMENTS) == 0
    assert len(capsys.readouterr().out.splitlines()) == lines


def test_without_the_extra(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "crossearth_hf.training.trainer", raising=False)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert main(ARGUMENTS) == 2
    sentence = "train needs 'accelerate'; install it with pip install 'crossearth-hf[train]'"
    assert capsys.readouterr().err.strip() == f"crossearth: error: {sentence}"


def test_the_help_names_the_fields(capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", "--help"])
    assert end.value.code == 0
    assert "--train_data" in capsys.readouterr().out
