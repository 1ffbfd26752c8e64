"""The script of the ablation: what fails is named, the rest goes on, Ctrl-C ends it."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crossearth_hf.errors import InputError

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import run_ablation


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Runs the script in threads; a cell is trained by writing its score down, unless `failing` says what happens."""
    banks = []
    monkeypatch.setattr(run_ablation, "ProcessPoolExecutor", ThreadPoolExecutor)
    monkeypatch.setattr(run_ablation, "start_worker", lambda threads: None)
    monkeypatch.setattr(run_ablation, "prepare_banks", lambda names, data, out: banks.append(names))

    def start(*flags, failing=None):
        def execute(run, config, data):
            if failing and run.variant.name == "rein":
                raise failing
            folder = Path(config.output_dir)
            folder.mkdir(parents=True)
            scores = {"EPFL 90-99": {"mean_iou": 0.5}, "CIL": {"mean_iou": 0.3}}
            result = {"experiment": "epfl", "variant": run.variant.name, "seed": run.seed, "start": None}
            result |= {"config": {"mixed_precision": "no"}, "checkpoints": [{"step": 1, "scores": scores}]}
            (folder / "result.json").write_text(json.dumps(result))

        monkeypatch.setattr(run_ablation, "execute", execute)
        places = ["--data", "data", "--start", "start", "--peer", "peer", "--out", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["ablation.py", *places, "--experiments", "epfl", "--seeds", "0", *flags])
        return run_ablation.main()

    start.banks = banks
    return start


def rows(folder):
    return [line.split(" | ")[0].strip("| ") for line in (folder / "ablation.md").read_text().splitlines()[4:]]


def test_a_cell_that_fails_is_named_and_the_others_are_written(start, tmp_path, capsys):
    assert start("--variants", "rein", "full", "lora", failing=InputError("the data are gone")) == 2
    assert start.banks == [{"epfl"}]
    assert f"error: {tmp_path / 'epfl' / 'rein' / 'seed0'}: the data are gone" in capsys.readouterr().err
    assert rows(tmp_path) == ["lora", "full"]
    assert start("--table") == 0
    assert f"wrote {tmp_path / 'ablation.json'}, " in capsys.readouterr().out
    assert start.banks == [{"epfl"}], "the table runs nothing"


def test_a_loss_that_is_no_number_is_such_a_failure(start, capsys):
    assert start("--variants", "rein", "full", failing=FloatingPointError("the loss of step 3 is nan")) == 2
    assert "seed0: the loss of step 3 is nan" in capsys.readouterr().err


def test_ctrl_c_ends_it(start, tmp_path, capsys):
    assert start("--variants", "rein", failing=KeyboardInterrupt()) == 130
    assert "finished runs are kept, the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "ablation.md").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [(("--workers", "0"), "--workers 0 cannot run anything"), (("--variants", "paris"), "unknown variant 'paris'")],
)
def test_mistakes(start, capsys, flags, sentence):
    assert start(*flags) == 2
    assert f"error: {sentence}" in capsys.readouterr().err


def test_a_table_of_nothing(start, capsys):
    assert start("--table") == 2
    assert "holds no finished run" in capsys.readouterr().err
