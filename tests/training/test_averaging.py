"""The moving average of weights, against torch's own and in runs."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_model import tiny_config
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from training_runs import losses, make_workplace, settings

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor
from crossearth_hf.cli import main
from crossearth_hf.inference.loading import load_model
from crossearth_hf.training.averaging import WeightAverage
from crossearth_hf.training.trainer import Trainer, train


def test_it_is_torchs_average_after_the_first_steps():
    torch.manual_seed(0)
    network = nn.Linear(4, 3)
    network.bias.requires_grad_(False)
    average = WeightAverage(network, 0.5)
    average.steps = 100  # (1 + 100) / (10 + 100) is above 0.5
    expected = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    expected.update_parameters(network)  # torch's first update copies
    for _ in range(5):
        with torch.no_grad():
            network.weight.add_(torch.randn(3, 4))
        average.update()
        expected.update_parameters(network)
    torch.testing.assert_close(average.averages["weight"], expected.module.weight)
    assert "bias" not in average.averages


def test_the_start_is_forgotten():
    network = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(100.0)
        average = WeightAverage(network, 0.999)
        network.weight.fill_(1.0)
    for _ in range(100):
        average.update()
    assert average.averages["weight"].item() == pytest.approx(1.0, abs=0.01)


def test_weights_come_back_after_the_block():
    network = nn.Linear(2, 2)
    average = WeightAverage(network, 0.9)
    with torch.no_grad():
        network.weight.add_(1.0)
    trained, kept = network.weight.clone(), average.averages["weight"].clone()
    with average.applied():
        assert network.weight.equal(kept)
    assert network.weight.equal(trained)
    assert average.averages["weight"].equal(kept)


def test_a_run_saves_the_average_and_resumes_to_the_last_bit(tmp_path, monkeypatch):
    workplace = make_workplace(tmp_path)
    plain, averaged, resumed = (tmp_path / name for name in ("plain", "averaged", "resumed"))
    train(settings(workplace, plain))
    train(settings(workplace, averaged, ema_decay=0.9, save_steps=2))
    weights, average = (load_file(folder / "model.safetensors") for folder in (plain, averaged))
    assert losses(plain) == losses(averaged)
    changed = [name for name, tensor in weights.items() if not tensor.equal(average[name])]
    assert len(changed) > len(weights) / 2

    cut = Trainer._save_checkpoint

    def stop(trainer):
        cut(trainer)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_checkpoint", stop)
        with pytest.raises(KeyboardInterrupt):
            train(settings(workplace, resumed, ema_decay=0.9, save_steps=2))
    train(settings(workplace, resumed, ema_decay=0.9, save_steps=2, resume_from_checkpoint=True))
    again = load_file(resumed / "model.safetensors")
    assert all(tensor.equal(again[name]) for name, tensor in average.items())


@pytest.fixture
def two_models(tmp_path):
    """Folders of two models of one architecture."""
    folders = []
    for seed in range(2):
        torch.manual_seed(seed)
        folder = tmp_path / f"model{seed}"
        CrossEarthForSemanticSegmentation(tiny_config(class_factors=[0.5] * 6)).save_pretrained(
            folder
        )
        CrossEarthImageProcessor().save_pretrained(folder)
        folders.append(folder)
    return folders


@pytest.mark.parametrize(("flags", "share"), [([], 0.5), (["--weights", "1,3"], 0.75)])
def test_the_command_writes_the_mean_of_models(two_models, tmp_path, capsys, flags, share):
    out = tmp_path / "out"
    assert main(["average", *map(str, two_models), str(out), *flags]) == 0
    said = capsys.readouterr()
    assert f"with the weights {1 - share:g}, {share:g}" in said.out
    assert "the average is not calibrated, though a model was" in said.err
    first, second, mean = (load_file(folder / "model.safetensors") for folder in (*two_models, out))
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, (1 - share) * first[name] + share * second[name])
    model, _ = load_model(out)
    assert model.config.class_factors is None


def test_a_model_of_an_earlier_release_lacks_fields_that_have_their_defaults(two_models, tmp_path):
    path = two_models[0] / "config.json"
    fields = json.loads(path.read_text())
    assert fields.pop("mim_hidden_only") is False
    fields["backbone_config"]["_name_or_path"] = "elsewhere/dinov2-small"
    path.write_text(json.dumps(fields))
    assert main(["average", *map(str, two_models), str(tmp_path / "out")]) == 0


def test_a_trained_backbone_and_its_frozen_start_can_be_averaged(two_models, tmp_path):
    path = two_models[0] / "config.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"freeze_backbone": not fields["freeze_backbone"]}))
    assert main(["average", *map(str, two_models), str(tmp_path / "out")]) == 0


def test_what_a_run_leaves_beside_its_model_is_not_copied(two_models, tmp_path):
    (two_models[0] / "checkpoint").mkdir()
    for name in ("checkpoint/optimizer.bin", "log.jsonl"):
        (two_models[0] / name).write_text("large")
    (two_models[0] / "train.yaml").write_text("seed: 1\n")
    assert main(["average", *map(str, two_models), str(tmp_path / "out")]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "train.yaml" in names
    assert not names & {"checkpoint", "log.jsonl"}


def test_models_that_cannot_be_averaged_are_refused(two_models, tmp_path, capsys):
    torch.manual_seed(0)
    other = tmp_path / "other"
    CrossEarthForSemanticSegmentation(
        tiny_config(num_queries=12, rein_num_tokens=12)
    ).save_pretrained(other)
    CrossEarthImageProcessor().save_pretrained(other)
    first, second = map(str, two_models)
    for models, flags, message in (
        ([first], [], "an average needs two models or more, not 1"),
        ([first, str(other)], [], "differ in num_queries, rein_num_tokens"),
        ([first, second], ["--weights", "1,-1"], "must be 2 numbers, 0 or more"),
        ([first, second], ["--weights", "1"], "must be 2 numbers, 0 or more"),
        ([first, str(tmp_path / "none")], [], "does not exist"),
    ):
        assert main(["average", *models, str(tmp_path / "out"), *flags]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["average", first, second, first]) == 2
