"""`crossearth report` from folder to folder: complete, self-contained, the same every time, whole or not at all."""

import base64
import io
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from report_folders import entry, pictures, region_features, scenario_entry, write_report

from crossearth_hf.errors import InputError
from crossearth_hf.reporting import report as job
from crossearth_hf.reporting import style


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Coarse pictures and fonts as drawings: `save` itself is tested with the figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "_DPI", 60)
        patch.setitem(style._RC, "pdf.fonttype", 3)
        yield


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("reports"), []
    for name, quality in (("good", 0.8), ("poor", 0.4)):
        kept = pictures("road", quality, 1, images=1, side=32)
        entries = {
            "D2M": scenario_entry("D2M", kept),
            "mine <b>": entry("road", kept, slug="mine", unseen=False),
        }
        features = {"D2M": region_features(2, 1.0, 0, regions=8)}
        made.append(
            write_report(root / name, entries, name=name, examples={"D2M": kept}, features=features)
        )
    return made


@pytest.fixture(scope="module")
def written(reports, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "report"
    return job.write_report(reports, out, progress=False)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_what_was_written_is_listed_and_complete(written, reports):
    out = written[0].parent
    names = [path.relative_to(out).as_posix() for path in written]
    figures = [
        "scores",
        "reliability",
        "classes-01-D2M",
        "examples-01-D2M",
        "features-01-D2M",
        "classes-02-mine",
    ]
    assert names == [
        "report.html",
        "report.md",
        *(f"figures/{name}.{end}" for name in figures for end in ("png", "pdf")),
    ]
    assert set(contents(out)) == set(names)
    assert not list(out.parent.glob(".crossearth-*"))


def test_the_page_holds_every_picture(written):
    page = written[0].read_text(encoding="utf-8")
    sources = re.findall(r'<img src="(data:image/webp;base64,[^"]+)" alt="([^"]+)"', page)
    assert len(sources) == page.count("<img") == 6
    for source, alt in sources:
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
            assert image.width > 100
        assert len(alt) > 20
    assert "mine &lt;b&gt;" in page
    assert "<b>" not in page


def test_markdown_names_pictures_that_exist(written):
    text = written[1].read_text(encoding="utf-8")
    links = re.findall(r"\]\((figures/[^)]+)\)", text)
    assert len(links) == 6
    assert all((written[1].parent / link).is_file() for link in links)


def test_a_second_call_writes_the_same_bytes_in_its_place(written, reports):
    out = written[0].parent
    before = contents(out)
    with pytest.raises(InputError, match="exists already"):
        job.write_report(reports, out, progress=False)
    (out / "figures" / "stale.png").touch()
    job.write_report(reports, out, overwrite=True, progress=False)
    assert contents(out) == before


def test_a_failure_leaves_everything_as_it_was(reports, tmp_path, monkeypatch):
    out = tmp_path / "out"
    (out / "figures").mkdir(parents=True)
    (out / "report.html").write_text("old")
    broken = tmp_path / "broken"
    shutil.copytree(reports[0], broken)
    (broken / "examples" / "D2M" / "000.npz").write_bytes(b"x")
    monkeypatch.setattr(job, "save", lambda figure, path: [])  # pictures are not what this is about
    with pytest.raises(InputError, match=r"000\.npz cannot be read"):
        job.write_report([broken], out, overwrite=True, progress=False)
    assert contents(out) == {"report.html": b"old"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "out"]


def test_other_folders_are_not_replaced(reports, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "file").touch()
    for out, sentence in [
        (tmp_path / "photos", "was not written by"),
        (tmp_path / "file", "was not written by"),
        (reports[0] / "page", "overlap"),
        (tmp_path / "file" / "out", "does not exist"),
    ]:
        with pytest.raises(InputError, match=sentence):
            job.write_report(reports, out, overwrite=True, progress=False)
    parent = reports[0].parent
    (parent / "figures").mkdir()
    (parent / "report.html").touch()
    with pytest.raises(InputError, match="overlap"):
        job.write_report(reports, parent, overwrite=True, progress=False)
    assert (reports[0] / "report.json").exists()


def test_what_a_person_put_into_a_report_is_not_lost(reports, written, tmp_path):
    shutil.copytree(written[0].parent, tmp_path / "out")
    (tmp_path / "out/notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt would be lost"):
        job.write_report(reports, tmp_path / "out", overwrite=True, progress=False)
    assert (tmp_path / "out/notes.txt").read_text() == "mine"


def test_the_template_comes_with_the_package():
    assert Path(job.__file__).with_name("page.html").is_file()
