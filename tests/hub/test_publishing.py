"""Publishing: what of a folder goes to the Hub, what stays, and that nothing leaves without `really`."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from published import refusal
from safetensors.torch import load_file, save_file
from tiny_model import tiny_config
from transformers import DINOv3ViTConfig

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor
from crossearth_hf.hub.publishing import plan_upload, publish

CARD = "---\nlicense: mit\n---\n# model\n"


class StubHub:
    """Stands for `HfApi`: remembers what it was asked for."""

    def __init__(self, private=False, error=None):
        self.private, self.error = private, error
        self.created, self.commits = [], []

    def create_repo(self, repo_id, *, repo_type, private, exist_ok):
        if self.error:
            raise self.error
        self.created.append((repo_id, repo_type, private, exist_ok))

    def repo_info(self, repo_id, *, repo_type):
        return SimpleNamespace(private=self.private)

    def create_commit(self, repo_id, operations, *, commit_message, repo_type):
        content = {operation.path_in_repo: operation.path_or_fileobj for operation in operations}
        self.commits.append((repo_id, repo_type, content))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    CrossEarthForSemanticSegmentation(tiny_config()).save_pretrained(folder)
    CrossEarthImageProcessor().save_pretrained(folder)
    return folder


@pytest.fixture
def model(tmp_path, saved):
    """A folder ready to be published, whose files may be changed."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in saved.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture
def dataset(tmp_path):
    """Two configurations of two splits, as Parquet files with a card."""
    datasets = pytest.importorskip("datasets")
    picture = Image.new("RGB", (8, 8))
    folder = tmp_path / "data"
    configs = []
    for domain in ("one", "two"):
        (folder / domain).mkdir(parents=True)
        for split in ("train", "test"):
            rows = datasets.Dataset.from_dict(
                {"image": [picture], "label": [picture.convert("L")], "name": ["a"]}
            )
            rows = rows.cast_column("image", datasets.Image()).cast_column(
                "label", datasets.Image()
            )
            rows.to_parquet(folder / domain / f"{split}-00000-of-00001.parquet")
        files = "".join(
            f"  - split: {split}\n    path: {domain}/{split}-*.parquet\n"
            for split in ("train", "test")
        )
        configs.append(f"- config_name: {domain}\n  data_files:\n{files}")
        build = {"dataset": "loveda", "incomplete": domain == "two"}
        (folder / domain / "build.json").write_text(json.dumps(build))
    (folder / "README.md").write_text(
        f"---\nlicense: mit\nconfigs:\n{''.join(configs)}---\n# data\n"
    )
    return folder


def test_nothing_leaves_in_a_dry_run(model):
    hub = StubHub()
    upload = publish(model, "someone/model", api=hub)
    assert not hub.created
    assert not hub.commits
    assert {file.as_posix() for file in upload.files} == {path.name for path in model.iterdir()}
    weights = (model / "model.safetensors").stat().st_size
    assert f" {weights / 1e6:.1f} MB  model.safetensors\n" in upload.describe()
    total = sum(path.stat().st_size for path in model.iterdir())
    assert f" {total / 1e6:.1f} MB  in {len(upload.files)} files" in upload.describe()


def test_a_model_goes_in_one_commit_with_its_code(model):
    hub = StubHub()
    publish(model, "someone/model", really=True, api=hub)
    assert hub.created == [("someone/model", "model", False, True)]
    [(repo_id, kind, content)] = hub.commits
    assert (repo_id, kind) == ("someone/model", "model")
    assert {
        "modeling_crossearth.py",
        "configuration_crossearth.py",
        "model.safetensors",
        "README.md",
    } <= set(content)
    assert all(path == str(model / name) for name, path in content.items())


def test_what_stays_is_named_with_its_reason(model, tmp_path):
    outside = tmp_path / "secret.txt"
    outside.write_text("mine")
    for name in (
        "pytorch_model.bin",
        "old.pth",
        "Other.PT",
        "x.ckpt",
        "y.pkl",
        ".token",
        "log.jsonl",
        "a.log",
    ):
        (model / name).write_text("x")
    for name in ("checkpoint", "checkpoint-500", ".git", "tensorboard"):
        (model / name).mkdir()
        (model / name / "model.safetensors").write_text("x")
    (model / "pictures").mkdir()
    (model / "pictures" / "map.png").write_text("x")
    (model / "leak.txt").symlink_to(outside)
    (model / "lost.txt").symlink_to(tmp_path / "nothing")
    (model / "folder").symlink_to(tmp_path)
    (model / "alias.md").symlink_to(model / "README.md")
    hub = StubHub()
    upload = publish(model, "someone/model", really=True, api=hub)
    reasons = {
        "pickle": {"pytorch_model.bin", "old.pth", "Other.PT", "x.ckpt", "y.pkl"},
        "run": {"log.jsonl", "a.log", "checkpoint/", "checkpoint-500/", "tensorboard/"},
        "hidden": {".token", ".git/"},
        "link": {"leak.txt", "lost.txt", "folder/"},
    }
    assert set(upload.left_out) == set().union(*reasons.values())
    for word, names in reasons.items():
        assert all(word in upload.left_out[name] for name in names)
        assert all(f"left out  {name}: " in upload.describe() for name in names)
    [(_, _, content)] = hub.commits
    assert {"pictures/map.png", "alias.md"} <= set(content)
    assert not set(content) & set(upload.left_out)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "preprocessor_config.json", "README.md"]
)
def test_an_incomplete_model_stays(model, name):
    (model / name).unlink()
    assert f"has no {name}" in refusal(publish, model, "someone/model", really=True, api=StubHub())


def test_weights_behind_a_link_are_named(model, tmp_path):
    (model / "model.safetensors").rename(tmp_path / "blob")
    (model / "model.safetensors").symlink_to(tmp_path / "blob")
    assert "link out of the folder" in refusal(publish, model, "someone/model")


def test_a_model_that_does_not_load_stays(model):
    weights = load_file(model / "model.safetensors")
    weights.pop("class_predictor.weight")
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    assert "class_predictor.weight" in refusal(
        publish, model, "someone/model", really=True, api=StubHub()
    )
    (model / "model.safetensors").write_bytes(b"no weights")
    assert "cannot be loaded" in refusal(
        publish, model, "someone/model", really=True, api=StubHub()
    )


def test_code_that_strangers_would_miss_is_asked_for(model):
    (model / "loss_crossearth.py").rename(model / "elsewhere.py")
    assert "lacks the module loss_crossearth.py" in refusal(publish, model, "someone/model")
    config = json.loads((model / "config.json").read_text())
    config.pop("auto_map")
    (model / "config.json").write_text(json.dumps(config))
    assert "names no code" in refusal(publish, model, "someone/model")


def test_a_card_needs_yaml_and_better_a_license(model):
    (model / "README.md").write_text("---\nlibrary_name: transformers\n---\n# model\n")
    assert publish(model, "someone/model").notes == (
        "README.md states no license; add one with `crossearth card --license`",
    )
    (model / "README.md").write_text("# model\n")
    assert "no YAML" in refusal(publish, model, "someone/model")
    (model / "README.md").write_text("---\nlicense: [\n---\n")
    assert "repair its YAML" in refusal(publish, model, "someone/model")


def test_a_data_set_goes_with_all_its_files(dataset):
    hub = StubHub()
    upload = publish(dataset, "someone/data", dataset=True, really=True, api=hub)
    [(_, kind, content)] = hub.commits
    assert kind == "dataset"
    assert {"README.md", "one/train-00000-of-00001.parquet", "two/build.json"} <= set(content)
    assert upload.notes == ("two is incomplete",)


def test_a_data_set_that_does_not_load_stays(dataset):
    (dataset / "two" / "test-00000-of-00001.parquet").write_bytes(b"no table")
    assert "does not load" in refusal(publish, dataset, "someone/data", dataset=True)
    (dataset / "two" / "test-00000-of-00001.parquet").unlink()
    assert "the split test, configuration two" in refusal(
        publish, dataset, "someone/data", dataset=True
    )


def test_images_that_may_not_be_shared_go_to_private_repositories_only(dataset):
    (dataset / "one" / "build.json").write_text(
        json.dumps({"dataset": "potsdam", "incomplete": False})
    )
    assert "add --private" in refusal(publish, dataset, "someone/data", dataset=True)
    hub = StubHub(private=True)
    publish(dataset, "someone/data", dataset=True, private=True, really=True, api=hub)
    assert hub.created == [("someone/data", "dataset", True, True)]
    assert len(hub.commits) == 1
    open_hub = StubHub(private=False)
    sentence = refusal(
        publish, dataset, "someone/data", dataset=True, private=True, really=True, api=open_hub
    )
    assert "is public" in sentence
    assert not open_hub.commits


def test_wrong_names_and_a_hub_that_refuses(model, tmp_path):
    assert "not a name of a repository" in refusal(publish, model, "a/b/c")
    assert "is not a folder" in refusal(plan_upload, model / "config.json")
    (tmp_path / "empty").mkdir()
    assert "holds no file" in refusal(plan_upload, tmp_path / "empty")
    hub = StubHub(error=ConnectionError("no route\nto the Hub"))
    assert "no route to the Hub" in refusal(publish, model, "someone/model", really=True, api=hub)


def test_derivatives_of_dinov3_go_with_license_and_notice(tmp_path):
    folder = tmp_path / "model"
    sizes = {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
    }
    vit = DINOv3ViTConfig(**sizes, num_register_tokens=2)
    CrossEarthForSemanticSegmentation(tiny_config().for_backbone(vit)).save_pretrained(folder)
    CrossEarthImageProcessor().save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    assert "without the DINOv3 License" in refusal(publish, folder, "me/model")
    (folder / "LICENSE").write_text("Apache License\n")
    assert "put a copy beside the weights as LICENSE.md" in refusal(publish, folder, "me/model")
    (folder / "LICENSE.md").write_text("DINOv3 License\nLast Updated: August 14, 2025\n")
    assert "does not say 'Built with DINOv3'" in refusal(publish, folder, "me/model")
    (folder / "README.md").write_text(f"{CARD}\nBuilt with DINOv3.\n")
    assert Path("LICENSE.md") in publish(folder, "me/model").files
