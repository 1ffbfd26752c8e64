"""No command loses a file: not one that it reads, not a person's own beside its outputs, nothing of a scene's place."""

import gzip
import os
import shutil
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from conftest import tiny_config
from miniature_archives import loveda
from rasterio.rpc import RPC
from rasters import write_raster
from training_runs import make_workplace, settings

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor, cli
from crossearth_hf.benchmarking import report_folder
from crossearth_hf.builders import build_dataset
from crossearth_hf.errors import InputError
from crossearth_hf.geotiff import Scene
from crossearth_hf.model_card import write_model_card
from crossearth_hf.outputs import check_output, staged
from crossearth_hf.scene_files import files_of
from crossearth_hf.training import run_folder
from crossearth_hf.training.run_folder import RunFolder
from crossearth_hf.training.trainer import train
from crossearth_hf.working_folders import alone_in, clear_abandoned, mark, move_into_place, working_folder

PIXELS = np.random.default_rng(0).integers(1, 256, (3, 64, 80), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    CrossEarthForSemanticSegmentation(tiny_config()).save_pretrained(folder)
    CrossEarthImageProcessor().save_pretrained(folder)
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_raster(tmp_path / "in.tif", PIXELS)
    return tmp_path


def predict(model, *arguments):
    return cli.main(["predict", *map(str, arguments), "--model", str(model), "--device", "cpu"])


def content(folder):
    """All below a folder: what files hold, where links lead, None for folders."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


def refused(capsys, code, *words):
    """One sentence that holds the words, and exit code 2."""
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2, sentence
    assert sentence.startswith("crossearth: error: ")
    for word in words:
        assert str(word) in sentence


# --- the same file


def vrt_of(path, source):
    """A VRT at `path` that refers to `source`, written as it is."""
    rasterio.shutil.copy("in.tif", path, driver="VRT")
    text = Path(path).read_text()
    assert 'relativeToVRT="1">in.tif<' in text
    Path(path).write_text(text.replace('relativeToVRT="1">in.tif<', f'relativeToVRT="0">{source}<'))


def nested(place):
    vrt_of("inner.vrt", "in.tif")
    rasterio.shutil.copy("inner.vrt", "outer.vrt", driver="VRT")
    Path("outer.vrt").write_text(
        Path("inner.vrt").read_text().replace('relativeToVRT="0">in.tif<', 'relativeToVRT="1">inner.vrt<')
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
def test_no_output_replaces_a_file_that_the_scene_is_made_of(place, model, capsys, kind, output):
    scene = NAMES[kind](place)
    before = content(place)
    named = ["in.tif"] if output == "MAP" else ["m.tif", output, "in.tif"]
    refused(capsys, predict(model, scene, *named, "--overwrite"), "same file")
    assert content(place) == before


@pytest.mark.parametrize("prefix", ["/vsigzip/{}", "/vsizip/{{{}}}/in.tif"])
def test_no_output_replaces_an_archive(place, model, capsys, prefix):
    if "gzip" in prefix:
        Path("a.tif").write_bytes(gzip.compress(Path("in.tif").read_bytes()))
    else:
        with zipfile.ZipFile("a.tif", "w") as archive:
            archive.write("in.tif")
    before = content(place)
    refused(capsys, predict(model, prefix.format("a.tif"), "a.tif", "--overwrite"), "same file")
    assert content(place) == before


def test_no_output_takes_away_side_files_that_are_read(place, model, capsys):
    shutil.copy("in.tif", "m.tif.ovr")
    vrt_of("v.vrt", "m.tif.ovr")
    write_raster(place / "m.tif", PIXELS)
    before = content(place)
    refused(capsys, predict(model, "v.vrt", "m.tif", "--overwrite"), "same file", "m.tif.ovr")
    assert content(place) == before


def test_a_scene_of_another_name_is_no_false_alarm(place, model):
    """The VRT refers to the file beside it, not to the one of that name in the current folder."""
    (place / "tiles").mkdir()
    shutil.copy("in.tif", "tiles/in.tif")
    rasterio.shutil.copy("tiles/in.tif", "tiles/v.vrt", driver="VRT")
    assert predict(model, "tiles/v.vrt", "in.tif", "--overwrite") == 0
    assert rasterio.open("in.tif").count == 1


@pytest.mark.parametrize("order", [("a.vrt", "b.vrt"), ("b.vrt", "a.vrt")])
def test_no_output_of_a_job_replaces_a_file_of_any_of_its_scenes(place, model, capsys, order):
    (place / "tiles").mkdir()
    shutil.move("in.tif", "tiles/a.tif")
    for name in order:
        rasterio.shutil.copy("tiles/a.tif", name, driver="VRT")
    before = content(place)
    refused(capsys, predict(model, *order, "tiles", "--overwrite"), "same file", "tiles/a.tif")
    assert content(place) == before
    refused(capsys, predict(model, *order, "maps", "--confidence", "tiles", "--overwrite"), "same file", "tiles/a.tif")
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
    refused(capsys, cli.main(["synth", "temperate-summer", "s.tif", "--size", "32", "--overwrite"]), "same file")
    assert content(place) == before


def test_a_template_is_no_place_for_a_card(tmp_path, model):
    template = tmp_path / "card.md"
    template.write_text("<!-- generated: summary -->\n<!-- end: summary -->\n")
    with pytest.raises(InputError, match="same file"):
        write_model_card(model, [], out=template, template=template)
    assert "generated" in template.read_text()


def test_a_build_replaces_only_builds(tmp_path):
    loveda(tmp_path / "raw", {"Train/Rural": ("1",), "Val/Rural": ("2",)})
    build = partial(build_dataset, "loveda", domains=["loveda_rural"], allow_incomplete=True, overwrite=True)
    out = tmp_path / "out"
    for name, words in [
        ("loveda_rural/mine.txt", "was not written by a build"),
        (".loveda_rural-unfinished/mine.txt", "was not made by crossearth"),
        (".lock", "in the way"),
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
    (out / "preview.png").write_text("mine")
    with pytest.raises(InputError, match=r"preview\.png would be replaced"):
        build(tmp_path / "raw", out, overwrite=False)


def test_a_run_touches_only_checkpoints(tmp_path):
    for name, words in [
        (".checkpoint.tmp/mine.txt", "was not written by a training run"),
        (".checkpoint.old/mine.txt", "was not written by a training run"),
        ("checkpoint/mine.txt", "was not written by a training run"),
        ("train.yaml", "would be replaced"),
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
        train(settings(workplace, tmp_path / "run", steps=2, schedule_steps=2))
    monkeypatch.setattr(report_folder, "_LOCK_SECONDS", 0.2)
    report = report_folder.ReportFolder(tmp_path / "report", {"name": "x"}, report_folder.Protocol("last", "f", "cpu"))
    (tmp_path / "report").mkdir()
    with alone_in(tmp_path / "report", "-"), pytest.raises(InputError, match="another process has been writing"):
        report.add("a", {}, [], None)


# --- what lies beside the outputs


def test_only_marked_working_folders_are_removed(tmp_path):
    for name in ("notes", "abcdefgh", "empty"):
        (tmp_path / f".crossearth-{name}").mkdir()
    (tmp_path / ".crossearth-notes/mine.txt").write_text("mine")
    (tmp_path / ".crossearth-abcdefgh/m.tif.replaced").mkdir()
    (tmp_path / ".crossearth-abcdefgh/m.tif.replaced/m.tif").write_text("mine")
    (tmp_path / "victim").mkdir()
    (tmp_path / ".crossearth-link").symlink_to("victim")
    (tmp_path / ".crossearth-file").write_text("mine")
    os.mkfifo(tmp_path / ".crossearth-fifo")
    mark(tmp_path / "victim", results=["a.txt"])
    before = [path.name for path in sorted(tmp_path.rglob("*"))]
    check_output(tmp_path / "new.txt", (".txt",), overwrite=False)
    clear_abandoned(tmp_path)
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == before
    ours = tmp_path / ".crossearth-12345678"
    (ours / "m.tif.replaced").mkdir(parents=True)
    (ours / "other.replaced").mkdir()
    (ours / "m.tif.replaced/m.tif").write_text("old")
    (ours / "other.replaced/other").write_text("not named in the note")
    ours.chmod(0o700)
    mark(ours, name=ours.name, results=["m.tif"])
    clear_abandoned(tmp_path)
    assert not ours.exists()
    assert (tmp_path / "m.tif").read_text() == "old"
    assert not (tmp_path / "other").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_a_working_folder_of_another_user_stays(tmp_path):
    foreign = tmp_path / ".crossearth-12345678"
    foreign.mkdir()
    mark(foreign, results=[])
    os.chown(foreign, 12345, 12345)
    clear_abandoned(tmp_path)
    assert foreign.exists()


def parts_link(parts):
    (parts.parent / "victim").mkdir()
    (parts.parent / "victim/mine.txt").write_text("mine")
    parts.symlink_to("victim")


def parts_file(parts):
    parts.write_text("mine")


def parts_of_a_person(parts):
    (parts / "0000").mkdir(parents=True)
    (parts / "0000/labels.tif").write_text("mine")


def parts_with_a_note(parts):
    parts.mkdir()
    mark(parts, scene="", outputs=[])
    (parts / "notes.txt").write_text("mine")


def parts_with_a_link(parts):
    (parts.parent / "victim").mkdir()
    (parts.parent / "victim/blocks.json").write_text("mine")
    parts.mkdir()
    mark(parts, scene="", outputs=[])
    (parts / "0000").symlink_to("../victim")


def parts_of_another_user(parts):
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    parts.mkdir()
    mark(parts, scene="", outputs=[])
    os.chown(parts, 12345, 12345)


@pytest.mark.parametrize(
    "lay",
    [parts_link, parts_file, parts_of_a_person, parts_with_a_note, parts_with_a_link, parts_of_another_user],
)
def test_what_lies_in_the_place_of_kept_parts_is_named_and_stays(place, model, capsys, lay):
    lay(place / ".m.tif.parts")
    before = content(place)
    refused(capsys, predict(model, "in.tif", "m.tif"), place / ".m.tif.parts", "move it away")
    assert content(place) == before


@pytest.mark.parametrize("has_note", [False, True])
def test_leftover_parts_are_no_leave_to_overwrite(place, model, capsys, has_note):
    """A person's folder, or the parts of another scene, say nothing about the files that are there."""
    (place / ".m.tif.parts").mkdir()
    if has_note:
        mark(place / ".m.tif.parts", scene=str(place / "other.tif"), outputs=[str(place / "m.tif")])
    (place / "m.tif").write_text("mine")
    before = content(place)
    refused(capsys, predict(model, "in.tif", "m.tif"), "exists already")
    assert content(place) == before


def test_leftover_parts_are_leave_to_replace_their_own_outputs_only(place, model, capsys):
    (place / ".m.tif.parts").mkdir()
    mark(place / ".m.tif.parts", scene=str(place / "in.tif"), outputs=[str(place / "m.tif")])
    (place / "m.tif").write_text("of the killed run")
    (place / "c.tif").write_text("mine")
    refused(capsys, predict(model, "in.tif", "m.tif", "--confidence", "c.tif"), "c.tif exists already")
    assert (place / "c.tif").read_text() == "mine"
    assert predict(model, "in.tif", "m.tif") == 0


@pytest.mark.parametrize("ending", [".ovr", ".aux.xml", ".msk"])
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_side_files_without_their_map_stay(place, model, capsys, ending, overwrite):
    (place / f"m.tif{ending}").write_text("mine")
    before = content(place)
    refused(capsys, predict(model, "in.tif", "m.tif", *overwrite), f"m.tif{ending}", "move it away")
    assert content(place) == before


def test_side_files_that_cannot_be_removed_are_told_before_the_work(place, model, capsys):
    (place / "m.tif").write_text("old")
    (place / "m.tif.msk").mkdir()
    before = content(place)
    refused(capsys, predict(model, "in.tif", "m.tif", "--overwrite"), "m.tif.msk is a folder")
    assert content(place) == before


def test_side_files_go_with_the_map_that_is_replaced(place, model):
    (place / "m.tif").write_text("old")
    for ending in (".ovr", ".aux.xml", ".msk"):
        (place / f"m.tif{ending}").write_text("old")
    assert predict(model, "in.tif", "m.tif", "--overwrite") == 0
    assert sorted(content(place)) == ["in.tif", "m.tif"]


def killed_at(operation, act):
    """Runs `act` in a child that is killed before its `operation`-th move; whether it was."""
    child = os.fork()
    if child == 0:
        calls = iter(range(operation))
        for name in ("replace", "rename"):
            real = getattr(os, name)

            def counted(source, target, real=real):
                if next(calls, None) is None:
                    os.kill(os.getpid(), 9)
                real(source, target)

            setattr(os, name, counted)
        try:
            act()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] != 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a child")
@pytest.mark.parametrize("old", [(), (".ovr",), (".aux.xml", ".ovr")])
@pytest.mark.parametrize("new", [(), (".aux.xml",)])
def test_a_kill_leaves_no_map_beside_the_side_files_of_another(tmp_path, old, new):
    """Before the next call the map is old with its side files, new with its own, or not there; after it never mixed."""

    def state(folder):
        return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}

    was = {f"m.tif{ending}": "old" for ending in ("", *old)}
    becomes = {f"m.tif{ending}": "new" for ending in ("", *new)}
    kills = 0
    for operation in range(20):
        folder = tmp_path / f"{operation}"
        folder.mkdir()
        for name in was:
            (folder / name).write_text("old")

        def replace(folder=folder):
            with staged([folder / "m.tif"]) as (stage,):
                for name in becomes:
                    stage.with_name(name).write_text("new")

        if not killed_at(operation, replace):
            break
        kills += 1
        found = state(folder)
        assert "m.tif" not in found or found in (was, becomes)
        clear_abandoned(folder)
        assert state(folder) in (was, becomes)
        assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    assert state(folder) == becomes
    assert kills >= (2 if not (old or new) else 4)


def test_a_move_that_fails_puts_the_map_and_its_side_files_back(tmp_path, monkeypatch):
    stage = tmp_path / "work/m.tif"
    stage.parent.mkdir()
    for path, text in ((stage, "new"), (tmp_path / "m.tif", "old"), (tmp_path / "m.tif.ovr", "old")):
        path.write_text(text)
    replace = os.replace

    def fails(source, target):
        if Path(source) == stage:
            raise OSError(1, "Operation not permitted")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="not permitted"):
        move_into_place(stage, tmp_path / "m.tif")
    assert [(tmp_path / name).read_text() for name in ("m.tif", "m.tif.ovr")] == ["old", "old"]


# --- where a scene lies

EXOTIC = {
    "rotated pole": "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +to_meter=0.0174532925199433",
    "tilted perspective": "+proj=tpers +h=5500000 +lat_0=40",
    "peirce": "+proj=peirce_q",
    "s2": "+proj=s2",
    "compound": "EPSG:7415",
    "geographic 3D": "EPSG:4979",
    "bound": "+proj=utm +zone=32 +ellps=bessel +towgs84=598.1,73.7,418.2,0.202,0.045,-2.455,6.7",
    "site": 'ENGCRS["Site",EDATUM["d"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]',
}


@pytest.mark.parametrize("kind", EXOTIC)
def test_the_crs_travels_also_where_geotiff_cannot_hold_it(place, model, capsys, kind):
    with rasterio.open(
        "s.tif", "w", driver="GTiff", width=80, height=64, count=3, dtype="uint8", crs=EXOTIC[kind],
        transform=rasterio.Affine(0.01, 0, 1, 0, -0.01, 2),
    ) as scene:  # fmt: skip
        scene.write(PIXELS)
    (place / "out").mkdir()
    assert predict(model, "s.tif", "out/m.tif", "--confidence", "out/c.tif") == 0
    with rasterio.open("s.tif") as scene, rasterio.open("out/m.tif") as map_file, rasterio.open("out/c.tif") as other:
        assert scene.crs is not None
        assert map_file.crs == scene.crs
        assert other.crs == scene.crs
        assert map_file.transform == scene.transform
    has_side_file = (place / "out/m.tif.aux.xml").exists()
    assert ("GeoTIFF cannot hold the CRS" in capsys.readouterr().out) == has_side_file
    assert has_side_file == (place / "out/c.tif.aux.xml").exists()
    assert predict(model, "in.tif", "out/m.tif", "--overwrite") == 0  # a map without side file takes its place
    assert sorted(content(place / "out")) == ["c.tif", *["c.tif.aux.xml"] * has_side_file, "m.tif"]


LINE, SAMPLE = [0.0, 0, -1, *[0.0] * 17], [0.0, 1, *[0.0] * 18]
ONE = [1.0, *[0.0] * 19]
COEFFICIENTS = RPC(
    height_off=100, height_scale=500, lat_off=45, lat_scale=0.1, long_off=9, long_scale=0.1, line_off=32,
    line_scale=32, samp_off=40, samp_scale=40, line_num_coeff=LINE, line_den_coeff=ONE, samp_num_coeff=SAMPLE,
    samp_den_coeff=ONE, err_bias=1.0, err_rand=0.5,
)  # fmt: skip


@pytest.mark.parametrize("driver", ["GTiff", "VRT"])
def test_rpcs_travel(place, model, capsys, driver):
    write_raster(place / "s.tif", PIXELS, transform=None, rpcs=COEFFICIENTS)
    if driver == "VRT":
        rasterio.shutil.copy("s.tif", "s.vrt", driver="VRT")
    scene = "s.tif" if driver == "GTiff" else "s.vrt"
    assert predict(model, scene, "m.tif", "--confidence", "c.tif") == 0
    for name in ("m.tif", "c.tif"):
        with rasterio.open(name) as result:
            assert result.rpcs == COEFFICIENTS
            assert result.transform.is_identity
    printed = capsys.readouterr()
    assert "georeferenced by RPCs" in printed.err
    assert "RPCs" in printed.out
    refused(capsys, predict(model, scene, "n.tif", "--resolution", "1"), "gdalwarp -rpc")


# --- names


def test_files_of_scenes(place):
    vrt_of("v.vrt", "vrt://GTIFF_DIR:1:in.tif")
    with rasterio.open("v.vrt") as scene:
        assert {"v.vrt", "in.tif"} <= set(files_of(scene))


@pytest.mark.parametrize("kind", ["link", "latin-1"])
def test_a_source_behind_a_vrt_of_any_name_is_an_input(tmp_path, kind):
    """A VRT in a VRT whose name does not end in .vrt, behind a link or in another encoding."""
    pixels = np.zeros((3, 40, 40), dtype=np.uint8)
    (tmp_path / "sub").mkdir()
    source = write_raster(tmp_path / "sub" / "in.tif", pixels)
    inner = tmp_path / "sub" / "v"
    with rasterio.open(source) as dataset:
        rasterio.shutil.copy(dataset, inner, driver="VRT")
    text = inner.read_text().replace(str(source), "in.tif").replace('relativeToVRT="0"', 'relativeToVRT="1"')
    if kind == "latin-1":
        text = '<?xml version="1.0" encoding="ISO-8859-1"?>' + text.replace(
            "</VRTDataset>", "<Metadata><MDI key='a'>\u00e9</MDI></Metadata></VRTDataset>"
        )
    inner.write_bytes(text.encode("latin-1"))
    name = inner
    if kind == "link":
        name = tmp_path / "l"
        name.symlink_to(inner)
    outer = tmp_path / "o.vrt"
    with rasterio.open(name) as dataset:
        rasterio.shutil.copy(dataset, outer, driver="VRT")
    with Scene(outer) as scene:
        assert os.path.realpath(source) in {os.path.realpath(file) for file in scene.stamps}


def test_a_folder_with_a_copied_note_stays(tmp_path):
    with working_folder(tmp_path, ["a.tif"]) as made:
        own = tmp_path / ".crossearth-diary"
        shutil.copytree(made, own)
    (own / "diary.txt").write_text("mine")
    clear_abandoned(tmp_path)
    assert (own / "diary.txt").read_text() == "mine"
