"""Two processes make the steps of one; FSDP as far as CPUs go; the shipped configurations of accelerate."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import debug_launcher
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from tiny_model import tiny_config
from training_runs import log_lines, losses, make_workplace, settings

from crossearth_hf import CrossEarthForSemanticSegmentation
from crossearth_hf.labels import get_label_set
from crossearth_hf.model.configuration_crossearth import CrossEarthConfig
from crossearth_hf.training import trainer as training
from crossearth_hf.training.adaptation import adapt
from crossearth_hf.training.baseline import FeaturePyramidSegmenter

LAND_COVER = get_label_set("land-cover")
ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "scripts" / "accelerate_configs"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return make_workplace(tmp_path_factory.mktemp("distributed"))


@pytest.fixture(scope="module")
def start(workplace):
    """A model that has learned enough for its matching to be clear: between equal costs rounding would decide."""
    return training.train(
        settings(workplace, workplace / "start", max_steps=40, learning_rate=3e-3, save_steps=40)
    )


def run_in_two(monkeypatch, *configs, fsdp=None):
    """Trains in two processes, forked."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def child():
        # of whatever ran in this process before
        AcceleratorState._reset_state(reset_partial_state=True)
        os.environ["MASTER_PORT"] = str(port)
        # accelerate knows FSDP on accelerators only: these two call themselves some
        if fsdp is not None:
            os.environ.update(fsdp)
            PartialState(cpu=True)
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_XPU
        for config in configs:
            training.train(config)

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    debug_launcher(child, num_processes=2)


def assert_same_losses(two, one):
    lines = list(zip(log_lines(two), log_lines(one), strict=True))
    assert len(lines) >= 3
    for ours, theirs in lines:
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"seconds", "waiting", "eval"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-7), (
                ours["step"],
                name,
            )
        assert ours.get("eval") == theirs.get("eval")


def compare_losses(workplace, start, folder, monkeypatch, **changes):
    changes = {
        "model": str(start),
        "max_steps": 3,
        "learning_rate": 1e-4,
        "warmup_steps": 0,
    } | changes
    training.train(settings(workplace, folder / "one", per_device_train_batch_size=4, **changes))
    run_in_two(
        monkeypatch, settings(workplace, folder / "two", per_device_train_batch_size=2, **changes)
    )
    assert_same_losses(folder / "two", folder / "one")


def compare(workplace, start, folder, monkeypatch, **changes):
    compare_losses(workplace, start, folder, monkeypatch, **changes)
    ours, theirs = (load_file(folder / run / "model.safetensors") for run in ("two", "one"))
    assert max(float((ours[key] - theirs[key]).abs().max()) for key in theirs) < 1e-5
    assert json.loads((folder / "two" / "checkpoint" / "run.json").read_text())["processes"] == 2


def test_two_processes_make_the_steps_of_one(workplace, start, tmp_path, monkeypatch):
    compare(workplace, start, tmp_path, monkeypatch, eval_data=f"{workplace / 'data'}:[345]")


@pytest.mark.parametrize(
    "changes",
    [
        {
            "objective": "multitask",
            "style_probability": 0.5,
            "style_alpha": 1.0,
            "style_block_size": 16,
        },
        pytest.param({"objective": "reconstruct"}, marks=pytest.mark.slow),
        pytest.param(
            {"adaptation": "rein+lora", "gradient_accumulation_steps": 2}, marks=pytest.mark.slow
        ),
        pytest.param({"adaptation": "frozen"}, marks=pytest.mark.slow),
    ],
    ids=lambda changes: "-".join(str(value) for value in changes.values()),
)
def test_so_does_every_other_kind_of_run(workplace, start, tmp_path, monkeypatch, changes):
    compare(workplace, start, tmp_path, monkeypatch, **changes)


def test_so_do_the_warm_start_and_the_peer(tmp_path, monkeypatch):
    """Losses alone: in untrained models some gradients are all rounding, and AdamW makes whole steps of them."""
    workplace = make_workplace(tmp_path, convolutional_stem=True)
    labels = {"id2label": LAND_COVER.id2label, "label2id": LAND_COVER.label2id}
    torch.manual_seed(0)
    FeaturePyramidSegmenter(tiny_config(num_labels=5, **labels)).save_pretrained(tmp_path / "peer")
    warm = {"objective": "features", "adaptation": "full"}
    compare_losses(workplace, tmp_path / "tiny.json", tmp_path / "warm", monkeypatch, **warm)
    compare_losses(workplace, tmp_path / "peer", tmp_path / "run", monkeypatch, adaptation="full")


def fsdp_environment():
    """What `accelerate launch` makes of the shipped FSDP configuration."""
    fields = yaml.safe_load((CONFIGS / "fsdp.yaml").read_text())["fsdp_config"]
    renamed = {"fsdp_transformer_layer_cls_to_wrap": "FSDP_TRANSFORMER_CLS_TO_WRAP"}
    values = {renamed.get(name, name.upper()): str(value).lower() if isinstance(value, bool) else str(value)
              for name, value in fields.items()}  # fmt: skip
    return values | {"ACCELERATE_USE_FSDP": "true"}


@pytest.mark.parametrize("adaptation", ["rein", pytest.param("rein+lora", marks=pytest.mark.slow)])
def test_fsdp_trains_scores_saves_and_resumes(workplace, start, tmp_path, monkeypatch, adaptation):
    changes = {
        "model": str(start),
        "learning_rate": 1e-4,
        "warmup_steps": 0,
        "adaptation": adaptation,
    }
    changes |= {
        "eval_data": f"{workplace / 'data'}:[345]",
        "eval_steps": 1,
        "save_steps": 1,
        "schedule_steps": 3,
    }
    training.train(
        settings(workplace, tmp_path / "one", per_device_train_batch_size=4, max_steps=3, **changes)
    )
    first = settings(
        workplace, tmp_path / "two", per_device_train_batch_size=2, max_steps=2, **changes
    )
    run_in_two(monkeypatch, first, fsdp=fsdp_environment())
    last = settings(
        workplace,
        tmp_path / "two",
        per_device_train_batch_size=2,
        max_steps=3,
        resume_from_checkpoint=True,
        **changes,
    )
    run_in_two(monkeypatch, last, fsdp=fsdp_environment())
    assert_same_losses(tmp_path / "two", tmp_path / "one")
    assert (tmp_path / "two" / "checkpoint" / "pytorch_model_fsdp_0" / "__1_0.distcp").is_file(), (
        "sharded"
    )
    ours = CrossEarthForSemanticSegmentation.from_pretrained(tmp_path / "two").state_dict()
    theirs = CrossEarthForSemanticSegmentation.from_pretrained(tmp_path / "one").state_dict()
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=0, atol=1e-5)
    names = ({path.name for path in (tmp_path / run).glob("*")} for run in ("two", "one"))
    assert next(names) == next(names)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_the_shipped_configurations(path):
    config = load_config_from_file(str(path))
    assert config.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    assert (
        f"accelerate launch --config_file {path.relative_to(ROOT)}"
        in path.read_text().splitlines()[1]
    )


def test_the_layers_that_fsdp_wraps_are_in_the_model_of_the_paper():
    wrapped = fsdp_environment()["FSDP_TRANSFORMER_CLS_TO_WRAP"].split(",")
    with torch.device("meta"):
        model = CrossEarthForSemanticSegmentation(CrossEarthConfig())
    adapt(model, "rein")
    found = {type(module).__name__ for module in model.modules()}
    assert set(wrapped) <= found
    assert model.get_input_embeddings() is model.model.backbone.embeddings.patch_embeddings


@pytest.mark.slow
def test_torchrun_starts_the_script(workplace, tmp_path):
    flags = [
        "--model",
        str(workplace / "tiny.json"),
        "--train_data",
        f"{workplace / 'data'}:[0-4]",
        "--max_steps",
        "3",
    ]
    flags += [
        "--logging_steps",
        "1",
        "--learning_rate",
        "1e-3",
        "--output_dir",
        str(tmp_path),
        "--per_device_train_batch_size",
        "1",
    ]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "scripts/train.py",
        *flags,
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("adaptation 'rein' trains") == 1
    assert [step for step, *_ in losses(tmp_path)] == [1, 2, 3]
    assert json.loads((tmp_path / "checkpoint" / "run.json").read_text())["processes"] == 2
