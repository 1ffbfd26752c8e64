"""Model cards: what they take from reports, what they refuse, and that a person's text survives."""

import json
import logging
import re
from hashlib import sha256

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from published import refusal
from tiny_model import tiny_config
from transformers import DINOv3ViTConfig

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor, InputError
from crossearth_hf.evaluation.numbers import ABSENT
from crossearth_hf.hub.model_card import fill, write_model_card
from crossearth_hf.labels import get_label_set
from crossearth_hf.scenarios.scenarios import SCENARIOS, VERSION
from crossearth_hf.scenarios.source_datasets import DATASETS

ISPRS = get_label_set("isprs")
TRAINING = {
    "model": "large",
    "output_dir": "/home/someone/runs/a",
    "train_data": ["hf:/home/someone/data/potsdam:potsdam_irrg:train"],
    "label_set": "isprs",
    "style_probability": 0.1,
    "objective": "multitask",
    "max_steps": 2000,
    "seed": 0,
}


def entry(mean_iou=0.5, **changes):
    """What a report says of P(i)2V, with made-up scores."""
    ious = {name: 0.1 * (index + 1) for index, name in enumerate(ISPRS.classes)}
    fields = {
        "kind": "scenario",
        "slug": "Pi2V",
        "scenario": "P(i)2V",
        "benchmark_version": VERSION,
        "ours": False,
        "source": "potsdam_irrg",
        "target": "vaihingen",
        "unseen": True,
        "label_set": "isprs",
        "classes": list(ISPRS.classes),
        "colors": [list(color) for color in ISPRS.colors],
        "scored_classes": list(ISPRS.classes),
        "data": {
            "images": 398,
            "pixels": 1000,
            "fingerprint": "f" * 64,
            "incomplete": False,
            "layout": "confirmed",
        },
        "window": 512,
        "stride": 341,
        "scale": 1.0,
        "seconds": 1.0,
        "confusion_matrix": [],
        "scores": {
            "mean_iou": mean_iou,
            "mean_f1": 0.6,
            "accuracy": 0.7,
            "foreground_iou": None,
            "iou": ious,
            "f1": ious,
            "boundary_iou": 0.25,
            "expected_calibration_error": 0.05,
        },
        "intervals": {
            "level": 0.95,
            "resamples": 100,
            "mean_iou": [0.45, 0.55],
            "foreground_iou": None,
            "iou": {},
        },
        "reliability": {},
        "images": [],
        "published": {"CrossEarth": 67.5},
    }
    return fields | changes


def folder_entry(**changes):
    data = {"images": 18, "pixels": 9, "fingerprint": "d" * 64, "incomplete": False, "layout": None}
    fields = {
        "kind": "folder",
        "slug": "harbor",
        "scenario": None,
        "benchmark_version": None,
        "source": None,
    }
    fields |= {"target": "folder harbor", "published": {}, "data": data}
    return entry(**(fields | changes))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two seeds of one model."""
    folders = [tmp_path_factory.mktemp("models") / name for name in ("first", "second")]
    config = tiny_config(id2label=ISPRS.id2label, label2id=ISPRS.label2id)
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        CrossEarthForSemanticSegmentation(config).save_pretrained(folder)
        CrossEarthImageProcessor().save_pretrained(folder)
    return folders


@pytest.fixture
def write_report(tmp_path, saved):
    def write(
        entries,
        *,
        name="report",
        model=0,
        training=TRAINING,
        selection="last checkpoint",
        **changes,
    ):
        weights = (saved[model] / "model.safetensors").read_bytes()
        facts = {
            "name": "tiny",
            "sha256": sha256(weights).hexdigest(),
            "config_sha256": "c" * 64,
            "classes": list(ISPRS.classes),
            "parameters": 1234567,
            "training": training,
        }
        report = {
            "format": "crossearth-report/1",
            "created": "2026-01-01T00:00:00+00:00",
            "model": facts | changes,
            "software": {"crossearth_hf": "0.1.0"},
            "protocol": {
                "selection": selection,
                "seed": 0,
                "blending": "uniform",
                "dtype": "float32",
                "device": "cpu",
            },
            "entries": entries,
            "means": {},
        }
        folder = tmp_path / name
        folder.mkdir()
        (folder / "report.json").write_text(json.dumps(report))
        return folder

    return write


def read(path):
    text = path.read_text()
    return text, yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, flags=re.S)[1])


def row(text, start):
    return next(line for line in text.splitlines() if line.startswith(f"| {start}"))


def test_the_index_has_the_numbers_of_the_report(tmp_path, saved, write_report):
    scored = {"P(i)2V": entry(), "harbor": folder_entry(mean_iou=0.25)}
    text, data = read(
        write_model_card(saved[0], [write_report(scored)], out=tmp_path / "card.md", license="mit")
    )
    assert (data["license"], data["library_name"], data["pipeline_tag"]) == (
        "mit",
        "transformers",
        "image-segmentation",
    )
    [index] = data["model-index"]
    vaihingen, harbor = index["results"]
    assert vaihingen["task"]["type"] == "image-segmentation"
    place = vaihingen["dataset"]
    assert (place["type"], place["config"], place["split"]) == ("vaihingen", "vaihingen", "test")
    assert place["args"] == {"window": 512, "stride": 341, "scale": 1.0}
    values = {metric["name"]: (metric["type"], metric["value"]) for metric in vaihingen["metrics"]}
    assert values["mean IoU"] == ("mean_iou", 0.5)
    assert values["accuracy"] == ("accuracy", 0.7)
    assert values["IoU car"] == ("iou", 0.5)
    assert "foreground IoU" not in values
    assert harbor["metrics"][0]["value"] == 0.25
    assert "| P(i)2V (potsdam_irrg → vaihingen) | 398 | 512, 341, 1 | 50.0 [45.0, 55.0] |" in text
    assert "CrossEarth 67.5" in row(text, "P(i)2V (")
    assert "Mean over P(i)2V, harbor: mean IoU 37.5." in text
    assert "There is one training run" in text


def test_it_reads_as_the_hub_reads_it(tmp_path, saved, write_report):
    card = ModelCard.load(
        write_model_card(saved[0], [write_report({"P(i)2V": entry()})], out=tmp_path / "card.md")
    )
    assert card.data.model_name == "first"
    assert {result.metric_name for result in card.data.eval_results} >= {
        "mean IoU",
        "accuracy",
        "IoU building",
    }


def test_training_is_told_without_paths_of_the_machine(tmp_path, saved, write_report):
    text, _ = read(
        write_model_card(saved[0], [write_report({"P(i)2V": entry()})], out=tmp_path / "card.md")
    )
    assert "someone" not in text
    assert row(text, "data") == "| data | `hf:potsdam:potsdam_irrg:train` |"
    assert "10% of the images, alpha 0.1" in row(text, "Earth-Style Injection")
    assert "masked image modeling" in row(text, "Multi-Task Training")
    for name, use in (("potsdam", "training"), ("vaihingen", "scores")):
        license = row(text, f"[{DATASETS[name].title}]")
        assert f"), {use} |" in license
        assert DATASETS[name].license in license
    assert row(text, "weights | not") == "| weights | not stated |  |"


def test_a_recipe_of_an_earlier_release_is_told_as_one_of_today(tmp_path, saved, write_report):
    today = TRAINING | {
        "objective": "segmentation",
        "per_device_train_batch_size": 2,
        "logging_steps": 10,
    }
    old = TRAINING | {
        "objective": "masks",
        "steps": 2000,
        "batch_size": 2,
        "log_every": 50,
        "seed": 1,
    }
    del old["max_steps"]
    ours = write_report({"P(i)2V": entry()}, name="ours", training=old | {"seed": 0})
    text, _ = read(write_model_card(saved[0], [ours], out=tmp_path / "old.md"))
    assert row(text, "steps") == "| steps | 2000 of 2 crops a process |"
    assert row(text, "objective") == "| objective | segmentation |"
    reports = [
        write_report({"P(i)2V": entry()}, name="today", training=today),
        write_report({"P(i)2V": entry()}, name="seed", model=1, training=old),
    ]
    assert "(2 runs)" in read(write_model_card(saved[0], reports, out=tmp_path / "card.md"))[0]


def test_unknown_training_is_called_unknown(tmp_path, saved, write_report):
    report = write_report({"harbor": folder_entry()}, training=None)
    text, _ = read(write_model_card(saved[0], [report], out=tmp_path / "card.md"))
    assert "Neither the model's folder nor its report states how it was trained." in text
    assert "as stated by their owners" in row(text, "harbor | as")


def test_seeds_give_mean_and_deviation(tmp_path, saved, write_report):
    reports = [
        write_report({"P(i)2V": entry(0.5)}, name="a"),
        write_report(
            {"P(i)2V": entry(0.6)},
            name="b",
            model=1,
            training=TRAINING | {"seed": 1, "output_dir": "x"},
        ),
    ]
    text, data = read(write_model_card(saved[0], reports, out=tmp_path / "card.md"))
    # the sample's deviation of 50 and 60
    assert "| 50.0 [45.0, 55.0] | 55.0 ± 7.1 (2 runs) |" in text
    assert data["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.5, (
        "the published weights' own score"
    )
    assert "One training run" not in text


def test_in_domain_scores_stand_apart(tmp_path, saved, write_report):
    seen = folder_entry(unseen=False, mean_iou=0.9)
    report = write_report({"P(i)2V": entry(), "harbor": seen})
    text, _ = read(write_model_card(saved[0], [report], out=tmp_path / "card.md"))
    unseen, in_domain = text.split("### In-domain")
    assert "90.0" not in unseen
    assert "| harbor | 18 |" in in_domain
    assert "Mean over" not in text
    report = write_report({"harbor": seen}, name="seen")
    text, _ = read(write_model_card(saved[0], [report], out=tmp_path / "card.md"))
    assert "### Unseen" not in text
    assert "No unseen target was scored" in text


def test_an_oracle_is_called_one_everywhere(tmp_path, saved, write_report):
    report = write_report({"P(i)2V": entry()}, selection="chosen on the target (oracle)")
    text, data = read(write_model_card(saved[0], [report], out=tmp_path / "card.md"))
    metrics = data["model-index"][0]["results"][0]["metrics"]
    assert all(
        metric["name"].endswith("checkpoint chosen on the target (oracle)") for metric in metrics
    )
    assert "### Unseen targets (oracle)" in text


def test_limits_come_from_the_data(tmp_path, saved, write_report):
    data = entry()["data"] | {"incomplete": True, "layout": "assumed"}
    changed = entry(data=data, scored_classes=["building", "car"])
    text, _ = read(
        write_model_card(saved[0], [write_report({"P(i)2V": changed})], out=tmp_path / "card.md")
    )
    limits = text.split("## Limits")[1].split("## Use")[0]
    assert "P(i)2V: means over the labeled classes only (building, car)." in limits
    assert "The data are incomplete" in limits
    assert "layout of this data set's archives could not be confirmed" in limits
    cells = ["P(i)2V", ABSENT, "20.0", ABSENT, ABSENT, "50.0", ABSENT]
    assert row(text, f"P(i)2V | {ABSENT}") == f"| {' | '.join(cells)} |"


def test_two_scenarios_with_one_target_are_one_result(tmp_path, saved, write_report):
    twin = entry(
        scenario="P(r)2V",
        source="potsdam_rgb",
        slug="Pr2V",
        published=SCENARIOS["P(r)2V"].published,
    )
    report = write_report({"P(i)2V": entry(), "P(r)2V": twin})
    text, data = read(write_model_card(saved[0], [report], out=tmp_path / "card.md"))
    assert len(data["model-index"][0]["results"]) == 1
    assert row(text, "P(r)2V (")


def test_a_persons_text_survives(tmp_path, saved, write_report):
    out = write_model_card(
        saved[0], [write_report({"P(i)2V": entry(0.5)})], out=tmp_path / "card.md", license="mit"
    )
    first = out.read_text()
    assert write_model_card(saved[0], [tmp_path / "report"], out=out).read_text() == first
    mine = first.replace("## Intended use\n", "## Intended use\n\nFor harbors, by hand.\n")
    mine = mine.replace("license: mit\n", "license: mit\nbase_model: someone/base\n")
    mine = re.sub(r"<!-- generated: use -->.*?<!-- end: use -->\n", "", mine, flags=re.S)
    out.write_text(mine)
    text, data = read(
        write_model_card(saved[0], [write_report({"P(i)2V": entry(0.25)}, name="new")], out=out)
    )
    assert "For harbors, by hand." in text
    assert (data["license"], data["base_model"]) == ("mit", "someone/base")
    assert "trust_remote_code" not in text, "a part that a person took out stays out"
    assert "25.0 [" in text
    assert "50.0 [" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "card.md",
        "new",
        "report",
        "stac.json",
    ]


def test_another_license_takes_the_name_of_the_old_one_with_it(tmp_path, saved, write_report):
    report, out = write_report({"P(i)2V": entry()}), tmp_path / "card.md"
    write_model_card(saved[0], [report], out=out, license="other")
    own = "license: other\nlicense_name: see-card\nlicense_link: https://example.org/terms\n"
    out.write_text(out.read_text().replace("license: other\n", own))
    for same in (None, "other"):
        text, data = read(write_model_card(saved[0], [report], out=out, license=same))
        assert (data["license"], data["license_name"]) == ("other", "see-card")
        assert "weights | see-card" in text
    text, data = read(write_model_card(saved[0], [report], out=out, license="cc-by-4.0"))
    assert data["license"] == "cc-by-4.0"
    assert not {"license_name", "license_link"} & data.keys()
    assert "weights | cc-by-4.0" in text


def test_a_license_that_the_hub_does_not_know_is_refused(tmp_path, saved, write_report):
    for license, sentence in (
        ("cc-by4.0", "did you mean cc-by-4.0?"),
        ("foo", "use 'other' for any other"),
    ):
        words = refusal(
            write_model_card, saved[0], [tmp_path], out=tmp_path / "card.md", license=license
        )
        assert f"no license '{license}'" in words
        assert sentence in words


def test_a_card_without_metadata_gets_some_and_nothing_is_printed(
    tmp_path, saved, write_report, capsys, caplog
):
    out, report = tmp_path / "card.md", write_report({"P(i)2V": entry()})
    logging.getLogger("huggingface_hub").addHandler(caplog.handler)
    out.write_text("<!-- generated: use -->\n<!-- end: use -->\n")
    assert read(write_model_card(saved[0], [report], out=out))[1]["model-index"]
    template = tmp_path / "template.md"
    template.write_text("# {{ model_name }}\n<!-- generated: use -->\n<!-- end: use -->\n")
    _, data = read(write_model_card(saved[0], [report], out=tmp_path / "new.md", template=template))
    assert data["library_name"] == "transformers"
    assert (capsys.readouterr(), caplog.text) == (("", ""), "")


def test_a_card_written_by_hand_is_not_lost(tmp_path, saved, write_report):
    out, report = tmp_path / "card.md", write_report({"P(i)2V": entry()})
    out.write_text("---\nlicense: mit\n---\n# mine\n")
    assert "no generated parts" in refusal(write_model_card, saved[0], [report], out=out)
    assert out.read_text().endswith("# mine\n")
    write_model_card(saved[0], [report], out=out, overwrite=True)
    assert "# first" in out.read_text()


def test_damaged_marks_and_cards_are_refused(tmp_path, saved, write_report):
    out, report = tmp_path / "card.md", write_report({"P(i)2V": entry()})
    for text, sentence in (
        ("---\nlicense: mit\n---\n<!-- generated: scores -->\n", "lacks its '<!-- end: NAME -->'"),
        ("<!-- generated: prizes -->\n<!-- end: prizes -->\n", "'prizes' is unknown"),
        ("---\nlicense: [\n---\n<!-- generated: use -->\n<!-- end: use -->\n", "cannot be read"),
        (
            "---\nmodel-index: [{}]\n---\n<!-- generated: use -->\n<!-- end: use -->\n",
            "cannot be read",
        ),
    ):
        out.write_text(text)
        assert sentence in refusal(write_model_card, saved[0], [report], out=out)
        assert out.read_text() == text


def test_marks_are_filled_in_place():
    text = "a\n<!-- generated: x -->\nold\n<!-- end: x -->\nb <!-- generated: y -->\n"
    assert fill(text, {"x": "new\\1"}) == text.replace("old", "new\\1")


def test_reports_of_another_model_are_refused(tmp_path, saved, write_report):
    own = write_report({"P(i)2V": entry()}, name="own")
    other = write_report(
        {"P(i)2V": entry()}, name="other", model=1, training=TRAINING | {"style_probability": 0.0}
    )
    silent = write_report({"P(i)2V": entry()}, name="silent", model=1, training=None)
    wider = write_report({"P(i)2V": entry()}, name="wider", model=1, config_sha256="e" * 64)
    for report in (other, silent, wider):
        assert "another model" in refusal(write_model_card, saved[0], [own, report])
        assert "0 of these are on the weights" in refusal(write_model_card, saved[0], [report])
    assert "2 of these are on the weights" in refusal(write_model_card, saved[0], [own, own])
    assert not (saved[0] / "README.md").exists()


def test_seeds_scored_otherwise_are_refused(tmp_path, saved, write_report):
    own = write_report({"P(i)2V": entry()}, name="own")
    data = entry()["data"] | {"fingerprint": "0" * 64}
    for name, change in (("data", {"data": data}), ("scale", {"scale": 2.0})):
        other = write_report({"P(i)2V": entry(**change)}, name=name, model=1)
        assert "so a spread makes no sense" in refusal(write_model_card, saved[0], [own, other])
    other = write_report(
        {"P(i)2V": entry()}, name="chosen", model=1, selection="chosen on the target (oracle)"
    )
    assert "differently" in refusal(write_model_card, saved[0], [own, other])


def test_wrong_folders_and_versions_are_refused(tmp_path, saved, write_report):
    report = write_report({"P(i)2V": entry(benchmark_version="0")})
    assert "version 0" in refusal(write_model_card, saved[0], [report])
    assert "does not hold config.json" in refusal(write_model_card, tmp_path, [report])
    assert "no report.json" in refusal(write_model_card, saved[0], [tmp_path])
    good = write_report({"P(i)2V": entry()}, name="good")
    assert ".md" in refusal(write_model_card, saved[0], [good], out=tmp_path / "card.txt")
    assert "template" in refusal(
        write_model_card, saved[0], [good], out=tmp_path / "c.md", template=tmp_path / "no.md"
    )


@pytest.mark.parametrize("family", ["dinov2", "dinov3_vit"])
def test_the_license_of_a_pretrained_vit_is_named(tmp_path, saved, write_report, family):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((saved[0] / "model.safetensors").read_bytes())
    config = tiny_config(
        id2label=ISPRS.id2label, label2id=ISPRS.label2id, pretrained_backbone="someone/vit"
    )
    if family == "dinov3_vit":
        config = config.for_backbone(
            DINOv3ViTConfig(hidden_size=64, num_attention_heads=4, num_hidden_layers=4)
        )
    config.save_pretrained(folder)
    CrossEarthImageProcessor().save_pretrained(folder)
    text, _ = read(write_model_card(folder, [write_report({"P(i)2V": entry()})], license="other"))
    if family == "dinov2":
        assert (
            "| pretrained ViT: DINOv2 (someone/vit) | apache-2.0 | https://github.com/facebookresearch/"
            in text
        )
        assert "Built with" not in text
    else:
        assert (
            "| pretrained ViT: DINOv3 (someone/vit) | dinov3-license | https://ai.meta.com/" in text
        )
        assert "\nBuilt with DINOv3." in text
    assert (
        "pretrained ViT"
        not in write_model_card(
            saved[0], [tmp_path / "report"], out=tmp_path / "card.md"
        ).read_text()
    )


def test_a_stac_item_stands_beside_it(tmp_path, saved, write_report):
    pystac = pytest.importorskip("pystac")
    mlm = pytest.importorskip("pystac.extensions.mlm")
    card = write_model_card(
        saved[0], [write_report({"P(i)2V": entry()})], out=tmp_path / "card.md", license="cc-by-4.0"
    )
    item = pystac.Item.from_file(str(tmp_path / "stac.json"))
    described = mlm.MLMExtension.ext(item)
    assert described.mlm_name == ModelCard.load(card).data.model_name == item.id
    assert described.tasks == ["semantic-segmentation"]
    assert described.total_parameters == 1234567
    assert item.properties["license"] == "cc-by-4.0"
    (image,), (classes,) = described.input, described.output
    assert (image.bands, image.input.shape) == (["red", "green", "blue"], [-1, 3, -1, -1])
    # ImageNet's mean and deviation of red, for values in 0..255
    scaling = image.properties[
        "value_scaling"
    ]  # one for each band, where pystac expects a lone one
    assert scaling[0] == pytest.approx({"type": "z-score", "mean": 123.675, "stddev": 58.395})
    assert [known["title"] for known in classes.properties["classification:classes"]] == list(
        ISPRS.classes
    )
    weights = item.assets["model"]
    assert mlm.AssetGeneralMLMExtension.ext(weights).artifact_type == "safetensors"
    assert (tmp_path / weights.href).resolve() == saved[0] / "model.safetensors"
    plain = item.clone()
    plain.stac_extensions = []  # their schemas are not on this machine
    plain.validate()


def test_a_foreign_item_is_not_lost(tmp_path, saved, write_report):
    (tmp_path / "stac.json").write_text('{"mine": true}')
    with pytest.raises(InputError, match=r"stac\.json is not a STAC item of a model"):
        write_model_card(saved[0], [write_report({"P(i)2V": entry()})], out=tmp_path / "card.md")
    assert not (tmp_path / "card.md").exists()
