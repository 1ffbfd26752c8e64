"""What a kill between two instructions leaves behind, and whose run a folder holds."""

import json
import os

import pytest
from training_runs import log_lines, settings

from crossearth_hf.errors import InputError
from crossearth_hf.training.run_folder import RunFolder, staging


def saved(folder, step, **changes):
    """The folder after a checkpoint of `step`."""
    folder.prepare(resume=True)
    folder.incoming.mkdir()
    (folder.incoming / "weights").write_text(str(step))
    folder.commit(settings(folder.path, folder.path, **changes), {"step": step, "processes": 1})
    return folder


def test_a_checkpoint_replaces_the_last_one(tmp_path):
    folder = saved(saved(RunFolder(tmp_path), 1), 2)
    assert (folder.checkpoint / "weights").read_text() == "2"
    assert folder.saved_state(settings(tmp_path, tmp_path), 1)["step"] == 2
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint"}


def test_a_model_or_a_log_of_another_run_is_not_overwritten(tmp_path):
    folder = RunFolder(tmp_path)
    folder.log({"step": 1})
    folder.prepare(resume=True)  # of a run that was killed before its first checkpoint
    with pytest.raises(
        InputError, match="already holds a run; continue it with --resume_from_checkpoint"
    ):
        folder.prepare(resume=False)
    (tmp_path / "config.json").write_text("{}")
    for resume in (False, True):
        with pytest.raises(
            InputError, match="already holds a model and no checkpoint of it; name another"
        ):
            folder.prepare(resume=resume)


@pytest.mark.parametrize("moves", [0, 1, 2])
def test_whenever_the_exchange_stops_a_complete_checkpoint_is_found(tmp_path, monkeypatch, moves):
    folder, left = saved(RunFolder(tmp_path), 1), [moves]
    replace = os.replace

    def stopping(source, target):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("crossearth_hf.training.run_folder.os.replace", stopping)
        patch.setattr("shutil.rmtree", lambda *_args, **_kwargs: None)
        if moves < 2:
            with pytest.raises(KeyboardInterrupt):
                saved(folder, 2)
        else:
            saved(folder, 2)  # all but the clean-up
    with pytest.raises(InputError, match="already holds a run"):
        folder.prepare(resume=False)
    folder.recover()
    step = folder.saved_state(settings(tmp_path, tmp_path), 1)["step"]
    assert (folder.checkpoint / "weights").read_text() == str(step) == ("2" if moves == 2 else "1")


@pytest.mark.parametrize(
    ("changes", "processes", "message"),
    [
        ({"seed": 4}, 1, "seed is 4 but .*checkpoint was trained with 3"),
        ({"adaptation": "lora"}, 1, r"adaptation is 'lora' but .* with 'full\+rein'"),
        ({}, 2, "processes is 2 but .* with 1"),
        ({"max_steps": 9}, 1, "schedule_steps is 9 but .* with 4"),
    ],
)
def test_another_run_is_refused(tmp_path, changes, processes, message):
    folder = saved(RunFolder(tmp_path), 1)
    with pytest.raises(InputError, match=message):
        folder.saved_state(settings(tmp_path, tmp_path, **changes), processes)


def test_what_no_step_depends_on_may_change(tmp_path):
    folder = saved(RunFolder(tmp_path), 1, schedule_steps=9)
    changes = {
        "schedule_steps": 9,
        "max_steps": 6,
        "report_to": "tensorboard",
        "dataloader_num_workers": 2,
        "save_steps": 7,
    }
    assert folder.saved_state(settings(tmp_path, "elsewhere", **changes), 1)["step"] == 1


def test_a_checkpoint_older_than_a_field_resumes_with_the_default(tmp_path):
    folder = saved(RunFolder(tmp_path), 1)
    path = folder.checkpoint / "config.json"
    fields = json.loads(path.read_text())
    del fields["frozen_dtype"]
    path.write_text(json.dumps(fields))
    assert folder.saved_state(settings(tmp_path, tmp_path), 1)["step"] == 1
    changes = {"frozen_dtype": "bfloat16", "mixed_precision": "bf16"}
    with pytest.raises(InputError, match="was trained with 'float32'"):
        folder.saved_state(settings(tmp_path, tmp_path, **changes), 1)


def test_a_checkpoint_of_an_earlier_release_is_refused(tmp_path):
    folder = saved(RunFolder(tmp_path), 1)
    path = folder.checkpoint / "config.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"log_every": fields.pop("logging_steps")}))
    sentence = "checkpoint is of an earlier release: 'log_every' is now 'logging_steps'; start in another output_dir"
    with pytest.raises(InputError, match=sentence):
        folder.saved_state(settings(tmp_path, tmp_path), 1)


def test_the_log_keeps_what_the_checkpoint_knows(tmp_path):
    folder = RunFolder(tmp_path)
    for step in (1, 2, 3):
        folder.log({"step": step})
    with open(tmp_path / "log.jsonl", "a") as log:
        log.write('{"step": 2, "lo')
    folder.keep_log_until(2)
    assert log_lines(tmp_path) == [{"step": 1}, {"step": 2}]


def test_staged_files_appear_together_or_not_at_all(tmp_path):
    (tmp_path / "kept").write_text("old")

    def broken():
        with staging(tmp_path) as temporary:
            (temporary / "kept").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
    with staging(tmp_path / "sub") as temporary:
        (temporary / "made").write_text("new")
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["made"]


@pytest.mark.parametrize(
    "content",
    ["", "null", "[]", "5", "[" * 200_000, '{"step": "x", "processes": 1}', '{"step": 3}'],
)
@pytest.mark.parametrize("name", ["run.json", "config.json"])
def test_a_damaged_checkpoint_is_one_sentence(tmp_path, name, content):
    folder = RunFolder(tmp_path)
    folder.checkpoint.mkdir()
    (folder.checkpoint / "run.json").write_text('{"step": 1, "processes": 1}')
    (folder.checkpoint / "config.json").write_text("{}")
    (folder.checkpoint / name).write_text(content)
    with pytest.raises(InputError, match="another output_dir"):
        folder.saved_state(settings(tmp_path, tmp_path), 1)
