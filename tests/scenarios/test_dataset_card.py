"""The card tells machines what `load_dataset` needs and people what the data are; both go to the Hub."""

from types import SimpleNamespace

import numpy as np
import pytest
from huggingface_hub import DatasetCard
from miniature_archives import loveda, potsdam
from PIL import Image

from crossearth_hf.cli import main
from crossearth_hf.errors import InputError
from crossearth_hf.hub.publishing import publish
from crossearth_hf.labels import get_label_set
from crossearth_hf.scenarios.build import build_dataset
from crossearth_hf.scenarios.build.mosaic import DomainPicture, draw_mosaic

NAMES = {f"{part}/{scene}": ("1", "2") for part in ("Train", "Val") for scene in ("Urban", "Rural")}


@pytest.fixture
def built(tmp_path):
    loveda(tmp_path / "raw", NAMES)
    return build_dataset(
        "loveda", tmp_path / "raw", tmp_path / "out", allow_incomplete=True, workers=1
    )


def test_what_machines_read(built):
    card = DatasetCard.load(built.out_dir / "README.md")
    data = card.data.to_dict()
    assert data["license"] == "cc-by-nc-sa-4.0"
    assert data["task_categories"] == ["image-segmentation"]
    assert [config["config_name"] for config in data["configs"]] == ["loveda_urban", "loveda_rural"]
    assert data["configs"][1]["data_files"][1] == {
        "split": "test",
        "path": "loveda_rural/test-*.parquet",
    }
    assert built.builds["loveda_urban"]["fingerprint"] in data["configs"][0]["description"]
    info = data["dataset_info"][0]
    assert [feature["name"] for feature in info["features"]] == ["image", "label", "name"]
    assert [(split["name"], split["num_examples"]) for split in info["splits"]] == [
        ("train", 2),
        ("test", 2),
    ]


def test_what_people_read(built):
    text = (built.out_dir / "README.md").read_text()
    assert "CC BY-NC-SA 4.0" in text
    assert "@inproceedings" in text or "@article" in text
    assert "| 5 | forest | `#00ff00` |" in text
    assert (
        "**Incomplete**: train 2 (the benchmark counts 1156), test 2 (the benchmark counts 677)."
        in text
    )
    assert "the paper prints 667; the published validation set has 677" in text
    assert "Scenarios: R2U, U2R" in text


def test_domains_of_several_builds_share_a_card(tmp_path):
    potsdam(tmp_path / "raw", tiles=("2_10",), size=(40, 50))
    for domain in ("potsdam_irrg", "potsdam_rgb"):
        build_dataset(
            "potsdam", tmp_path / "raw", tmp_path / "out", domains=[domain], allow_incomplete=True
        )
    card = DatasetCard.load(tmp_path / "out/README.md")
    assert [config["config_name"] for config in card.data.configs] == [
        "potsdam_rgb",
        "potsdam_irrg",
    ]
    assert card.data.license == "other"
    assert "It does not allow passing the images on" in card.text


@pytest.mark.parametrize("flags", [{}, {"overwrite": True}])
def test_a_folder_holds_one_data_set_for_its_card_states_one_license(built, tmp_path, flags):
    potsdam(tmp_path / "other", tiles=("2_10",), size=(40, 50))
    card = (built.out_dir / "README.md").read_text()
    with pytest.raises(
        InputError, match=r"holds loveda_urban of the data set loveda.*a folder per data set"
    ):
        build_dataset("potsdam", tmp_path / "other", built.out_dir, allow_incomplete=True, **flags)
    assert (built.out_dir / "README.md").read_text() == card
    assert not list(built.out_dir.glob("*potsdam*"))


def test_a_card_written_by_hand_is_kept(tmp_path):
    loveda(tmp_path / "raw", NAMES)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/README.md").write_text("mine")
    with pytest.raises(InputError, match="was not written by a build"):
        build_dataset("loveda", tmp_path / "raw", tmp_path / "out", allow_incomplete=True)
    assert (tmp_path / "out/README.md").read_text() == "mine"


def test_the_picture_shows_images_above_their_labels(built):
    label_set = get_label_set("loveda")
    image, labels = np.full((64, 96, 3), (90, 80, 70), np.uint8), np.full((64, 96), 5, np.uint8)
    labels[:, 48:] = 255
    page = draw_mosaic(
        [
            DomainPicture("a", label_set, [(image, labels)] * 3),
            DomainPicture("b", label_set, [(image, labels)]),
        ]
    )
    pixels = np.array(page)
    shown = {
        color: (pixels == color).all(axis=2).sum()
        for color in ((90, 80, 70), (0, 255, 0), (200, 200, 200))
    }
    assert shown[90, 80, 70] == 4 * 192 * 192
    # and the legends
    assert 4 * 192 * 96 <= min(shown[0, 255, 0], shown[200, 200, 200]) < 4 * 192 * 96 + 600
    assert Image.open(built.out_dir / "preview.png").width == page.width


class StubApi:
    """What `HfApi` would do, written down."""

    def __init__(self, private=True):
        self.private, self.created, self.sent = private, None, None

    def create_repo(self, repository, **options):
        self.created = repository, options

    def repo_info(self, repository, **options):
        return SimpleNamespace(private=self.private)

    def create_commit(self, repository, operations, **options):
        self.committed = repository, options["repo_type"]
        self.sent = [operation.path_in_repo for operation in operations]


def test_a_build_is_ready_to_be_pushed(built):
    (built.out_dir / ".loveda_urban-unfinished").mkdir()
    (built.out_dir / ".loveda_urban-unfinished/plan.txt").touch()
    api = StubApi()
    publish(built.out_dir, "me/loveda", dataset=True, private=True, really=True, api=api)
    assert api.created == ("me/loveda", {"repo_type": "dataset", "private": True, "exist_ok": True})
    shards = [f"{split}-00000-of-00001.parquet" for split in ("test", "train")]
    domains = [
        f"{name}/{file}"
        for name in ("loveda_rural", "loveda_urban")
        for file in ("build.json", *shards)
    ]
    assert sorted(api.sent) == sorted(["README.md", "preview.png", *domains])


@pytest.fixture
def hub(monkeypatch):
    """Takes the place of the Hub behind the command line."""
    api = StubApi()
    monkeypatch.setattr("crossearth_hf.hub.publishing.HfApi", lambda: api)
    monkeypatch.setattr("crossearth_hf.files.downloads._answers", lambda: True)
    return api


def build_by_command(tmp_path, *flags):
    loveda(tmp_path / "raw", NAMES)
    where = [str(tmp_path / name) for name in ("raw", "out")]
    return main(
        ["build-dataset", "loveda", *where, "--workers", "1", "--domains", "loveda_rural", *flags]
    )


def test_a_build_is_pushed_on_request(tmp_path, hub, capsys):
    assert build_by_command(tmp_path, "--allow-incomplete", "--push", "me/loveda") == 0
    assert hub.created == ("me/loveda", {"repo_type": "dataset", "private": True, "exist_ok": True})
    assert hub.committed == ("me/loveda", "dataset")
    written = [
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")
    ]
    assert sorted(hub.sent) == sorted(written)
    assert {"README.md", "loveda_rural/train-00000-of-00001.parquet"} <= set(written)
    said = capsys.readouterr().out
    assert "loveda_rural is incomplete" in said
    assert said.endswith("pushed to me/loveda\n")


def test_nothing_is_pushed_unless_asked_for(tmp_path, hub, capsys):
    assert build_by_command(tmp_path, "--allow-incomplete") == 0
    assert hub.created is hub.sent is None
    assert "pushed to" not in capsys.readouterr().out


def test_a_build_that_fails_is_not_pushed(tmp_path, hub, capsys):
    assert build_by_command(tmp_path, "--push", "me/loveda") == 2
    assert hub.created is hub.sent is None
    assert "--allow-incomplete" in capsys.readouterr().err


def test_a_build_is_not_pushed_to_a_public_repository(tmp_path, hub, capsys):
    hub.private = False
    assert build_by_command(tmp_path, "--allow-incomplete", "--push", "me/loveda") == 2
    assert hub.sent is None
    assert "me/loveda exists and is public" in capsys.readouterr().err
    assert (tmp_path / "out" / "loveda_rural" / "build.json").is_file()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--push", "my name"), "'my name' is not a name of a repository; write ORGANIZATION/NAME"),
        (
            ("--path", "images=A", "--path", "images=B"),
            "--path names images twice; give each key one place",
        ),
    ],
)
def test_flags_are_checked_before_the_build(tmp_path, hub, capsys, flags, sentence):
    assert build_by_command(tmp_path, "--allow-incomplete", *flags) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_may_not_be_passed_on_stays_private(tmp_path):
    potsdam(tmp_path / "raw", tiles=("2_10", "2_13"), size=(40, 50))
    build_dataset(
        "potsdam",
        tmp_path / "raw",
        tmp_path / "out",
        domains=["potsdam_rgb"],
        allow_incomplete=True,
    )
    with pytest.raises(InputError, match="does not let others publish it"):
        publish(
            tmp_path / "out", "me/potsdam", dataset=True, private=False, really=True, api=StubApi()
        )
