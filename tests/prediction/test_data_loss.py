"""No command replaces a file that it reads, or a person's own."""

import gzip
import os
import shutil
import zipfile
from functools import partial
from pathlib import Path

import pytest
import rasterio
import rasterio.shutil
from miniature_archives import loveda
from rasters import write_raster
from small_jobs import PIXELS, content, predict, refused, vrt_of
from training_runs import make_workplace, settings

from crossearth_hf import cli
from crossearth_hf.errors import InputError
from crossearth_hf.evaluation import report_folder
from crossearth_hf.files.working_folders import alone_in
from crossearth_hf.hub.model_card import write_model_card
from crossearth_hf.scenarios.build import build_dataset
from crossearth_hf.training import run_folder
from crossearth_hf.training.run_folder import RunFolder
from crossearth_hf.training.trainer import train


def nested(place):
    vrt_of("inner.vrt", "in.tif")
    rasterio.shutil.copy("inner.vrt", "outer.vrt", driver="VRT")
    Path("outer.vrt").write_text(
        Path("inner.vrt")
        .read_text()
        .replace('relativeToVRT="0">in.tif<', 'relativeToVRT="1">inner.vrt<')
    )
    return "outer.vrt"


def vrt_named_tif(place):
    vrt_of("text.vrt", "in.tif")
    return os.rename("text.vrt", "text.tif") or "text.tif"


def vrt_on(name):
    def make(place):
        vrt_of("v.vrt", name.format(size=os.path.getsize("in.tif")))
        return "v.vrt"

    return make


def vrt_as_text(place):
    vrt_of("v.vrt", "in.tif")
    return Path("v.vrt").read_text()


def hard_link(place):
    os.link("in.tif", "hard.tif")
    return "hard.tif"


def link(place):
    os.symlink("in.tif", "link.tif")
    return "link.tif"


def subfile(place):
    return f"/vsisubfile/0_{os.path.getsize('in.tif')},in.tif"


NAMES = {
    "vrt": vrt_on("in.tif"),
    "vrt in a vrt": nested,
    "vrt named .tif": vrt_named_tif,
    "vrt as text": vrt_as_text,
    "vrt on a directory": vrt_on("GTIFF_DIR:1:in.tif"),
    "vrt on a part": vrt_on("/vsisubfile/0_{size},in.tif"),
    "vrt on vrt://": vrt_on("vrt://in.tif?bands=3,2,1"),
    "directory": lambda place: "GTIFF_DIR:1:in.tif",
    "vrt://": lambda place: "vrt://in.tif?bands=1,2,3",
    "vrt:// absolute": lambda place: f"vrt://{place}/in.tif",
    "part": subfile,
    "cached": lambda place: "/vsicached?file=in.tif",
    "file://": lambda place: f"file://{place}/in.tif",
    "hard link": hard_link,
    "link": link,
}


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("output", ["MAP", "--confidence", "--probabilities"])
def test_no_output_replaces_a_file_that_the_scene_is_made_of(
    place, model_folder, capsys, kind, output
):
    scene = NAMES[kind](place)
    before = content(place)
    named = ["in.tif"] if output == "MAP" else ["m.tif", output, "in.tif"]
    refused(capsys, predict(model_folder, scene, *named, "--overwrite"), "same file")
    assert content(place) == before


@pytest.mark.parametrize("prefix", ["/vsigzip/{}", "/vsizip/{{{}}}/in.tif"])
def test_no_output_replaces_an_archive(place, model_folder, capsys, prefix):
    if "gzip" in prefix:
        Path("a.tif").write_bytes(gzip.compress(Path("in.tif").read_bytes()))
    else:
        with zipfile.ZipFile("a.tif", "w") as archive:
            archive.write("in.tif")
    before = content(place)
    refused(
        capsys, predict(model_folder, prefix.format("a.tif"), "a.tif", "--overwrite"), "same file"
    )
    assert content(place) == before


def test_no_output_takes_away_side_files_that_are_read(place, model_folder, capsys):
    shutil.copy("in.tif", "m.tif.ovr")
    vrt_of("v.vrt", "m.tif.ovr")
    write_raster(place / "m.tif", PIXELS)
    before = content(place)
    refused(
        capsys, predict(model_folder, "v.vrt", "m.tif", "--overwrite"), "same file", "m.tif.ovr"
    )
    assert content(place) == before


def test_a_scene_of_another_name_is_no_false_alarm(place, model_folder):
    """The VRT refers to the file beside it, not to the one of that name in the current folder."""
    (place / "tiles").mkdir()
    shutil.copy("in.tif", "tiles/in.tif")
    rasterio.shutil.copy("tiles/in.tif", "tiles/v.vrt", driver="VRT")
    assert predict(model_folder, "tiles/v.vrt", "in.tif", "--overwrite") == 0
    assert rasterio.open("in.tif").count == 1


@pytest.mark.parametrize("order", [("a.vrt", "b.vrt"), ("b.vrt", "a.vrt")])
def test_no_output_of_a_job_replaces_a_file_of_any_of_its_scenes(
    place, model_folder, capsys, order
):
    (place / "tiles").mkdir()
    shutil.move("in.tif", "tiles/a.tif")
    for name in order:
        rasterio.shutil.copy("tiles/a.tif", name, driver="VRT")
    before = content(place)
    refused(
        capsys, predict(model_folder, *order, "tiles", "--overwrite"), "same file", "tiles/a.tif"
    )
    assert content(place) == before
    refused(
        capsys,
        predict(model_folder, *order, "maps", "--confidence", "tiles", "--overwrite"),
        "same file",
        "tiles/a.tif",
    )
    assert {name: held for name, held in content(place).items() if name != "maps"} == before


def test_pictures_of_styles(place, capsys):
    shutil.move("in.tif", "in.png")  # still a GeoTIFF: GDAL looks inside
    rasterio.shutil.copy("in.png", "v.vrt", driver="VRT")
    before = content(place)
    refused(capsys, cli.main(["style-preview", "v.vrt", "in.png", "--overwrite"]), "same file")
    assert content(place) == before


def test_style_banks(place, capsys):
    (place / "tiles").mkdir()
    shutil.move("in.tif", "in.safetensors")
    rasterio.shutil.copy("in.safetensors", "tiles/v.vrt", driver="VRT")
    before = content(place)
    refused(capsys, cli.main(["style-bank", "tiles", "in.safetensors", "--overwrite"]), "same file")
    assert content(place) == before


def test_scene_and_labels_of_synth_on_one_file(place, capsys):
    os.symlink("in.tif", "s.tif")
    os.symlink("in.tif", "s_labels.tif")
    before = content(place)
    refused(
        capsys,
        cli.main(["synth", "temperate-summer", "s.tif", "--size", "32", "--overwrite"]),
        "same file",
    )
    assert content(place) == before


def test_a_template_is_no_place_for_a_card(tmp_path, model_folder):
    template = tmp_path / "card.md"
    template.write_text("<!-- generated: summary -->\n<!-- end: summary -->\n")
    with pytest.raises(InputError, match="same file"):
        write_model_card(model_folder, [], out=template, template=template)
    assert "generated" in template.read_text()


def test_a_build_replaces_only_builds(tmp_path):
    loveda(tmp_path / "raw", {"Train/Rural": ("1",), "Val/Rural": ("2",)})
    build = partial(
        build_dataset, "loveda", domains=["loveda_rural"], allow_incomplete=True, overwrite=True
    )
    out = tmp_path / "out"
    for name, words in [
        ("loveda_rural/mine.txt", "was not written by a build"),
        (".loveda_rural-unfinished/mine.txt", "was not made by crossearth"),
    ]:
        (out / name).parent.mkdir(parents=True)
        (out / name).write_text("mine")
        with pytest.raises(InputError, match=words):
            build(tmp_path / "raw", out)
        assert content(out)[name] == b"mine"
        shutil.rmtree(out)
    with pytest.raises(InputError, match="lies inside"):
        build(out / "loveda_rural", out)
    out.mkdir()
    (out / ".lock").write_text("mine")
    build(tmp_path / "raw", out)
    assert content(out)[".lock"] == b"mine"
    shutil.rmtree(out)
    out.mkdir()
    (out / "preview.png").write_text("mine")
    with pytest.raises(InputError, match=r"preview\.png would be replaced"):
        build(tmp_path / "raw", out, overwrite=False)


def test_a_run_touches_only_checkpoints(tmp_path):
    for name, words in [
        (".checkpoint.tmp/mine.txt", "was not written by a training run"),
        (".checkpoint.old/mine.txt", "was not written by a training run"),
        ("checkpoint/mine.txt", "was not written by a training run"),
        ("train.yaml", "would be replaced"),
        ("model.safetensors", "would be replaced"),
        ("preprocessor_config.json", "would be replaced"),
        ("earth_style.safetensors", "would be replaced"),
        ("modeling_crossearth.py", "would be replaced"),
        ("best/model.safetensors", "would be replaced"),
        ("adapter/adapter_config.json", "would be replaced"),
        ("best/config.json", "already holds a model"),
    ]:
        run = tmp_path / name.replace("/", "-")
        (run / name).parent.mkdir(parents=True)
        (run / name).write_text("mine")
        for resume in (False, True):
            with pytest.raises(InputError, match=words):
                RunFolder(run).prepare(resume=resume)
        RunFolder(run).recover()
        assert content(run)[name] == b"mine"


def test_two_processes_on_one_folder(tmp_path, monkeypatch):
    """A lock of another open file is as that of another process."""
    workplace = make_workplace(tmp_path / "work")
    monkeypatch.setattr(run_folder, "_LOCK_SECONDS", 0.2)
    (tmp_path / "run").mkdir()
    with alone_in(tmp_path / "run", "-"), pytest.raises(InputError, match="another run is writing"):
        train(settings(workplace, tmp_path / "run", max_steps=2, schedule_steps=2))
    monkeypatch.setattr(report_folder, "_LOCK_SECONDS", 0.2)
    report = report_folder.ReportFolder(
        tmp_path / "report", {"name": "x"}, report_folder.Protocol("last", "f", "cpu")
    )
    (tmp_path / "report").mkdir()
    with (
        alone_in(tmp_path / "report", "-"),
        pytest.raises(InputError, match="another process has been writing"),
    ):
        report.add("a", {}, [], None)
