"""Many scenes: one map each, failures apart, nothing done twice, nothing half-written."""

import json
import os
import threading

import numpy as np
import pytest
import rasterio
from rasters import write_raster
from stub_model import ColorModel

from crossearth_hf import CrossEarthImageProcessor
from crossearth_hf.errors import InputError
from crossearth_hf.files.working_folders import mark
from crossearth_hf.prediction.many_scenes import MapFolders, map_scenes, write_missing_items
from crossearth_hf.prediction.mapper import SceneMapper
from crossearth_hf.prediction.part_writing import compute_part
from crossearth_hf.prediction.scene_list import ListedScene, list_scenes
from crossearth_hf.prediction.workers import WorkersLost
from crossearth_hf.raster.area import box_area
from crossearth_hf.raster.finished_map import FinishedMap
from crossearth_hf.raster.scene import Reading
from crossearth_hf.raster.writing import JOB_TAG


class Model(ColorModel):
    """Learned at 0.5 m, as the scenes are; raises on request."""

    def __init__(self, fault=None, after=0, sharpness=8.0):
        super().__init__(sharpness)
        self.config.sharpness = sharpness
        self.config.ground_sampling_distance = 0.5
        self.fault, self.after = fault, after

    def forward(self, pixel_values):
        if self.fault is not None and len(self.batches) == self.after:
            raise self.fault
        return super().forward(pixel_values)


class Threads:
    """Stands in for `Workers`: computes parts where they are asked for, and remembers in which threads."""

    slots, device_type = 2, "cpu"

    def __init__(self, model):
        self.model, self.threads, self.stopped = model, set(), False

    def runner(self, source):
        def run(jobs):
            self.threads.add(threading.get_ident())
            with source.reading.open(source.path) as scene:
                for job in reversed(jobs):
                    if self.stopped:
                        raise InputError("stopped")
                    compute_part(job, scene, self.model, CrossEarthImageProcessor())
                    yield job

        return run

    def stop(self):
        self.stopped = True


def mapper(model=None, workers=None, **options):
    return SceneMapper(
        model or Model(),
        CrossEarthImageProcessor(),
        64,
        43,
        workers=workers and Threads(workers),
        **options,
    )


@pytest.fixture
def scenes(tmp_path):
    """A folder of three scenes of one color each, and one that is none."""
    root = tmp_path / "in"
    (root / "north").mkdir(parents=True)
    for channel, name in enumerate(("a", "b", "north/c")):
        pixels = np.full((3, 70, 90), 20, np.uint8)
        pixels[channel] = 230
        write_raster(root / f"{name}.tif", pixels)
    (root / "broken.tif").write_text("no raster")
    return root


def classes(path):
    with rasterio.open(path) as source:
        return np.unique(source.read(1)).tolist()


def files(folder):
    """All files below a folder but the legends beside the maps."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(
        str(path.relative_to(folder)) for path in found if path.suffix not in (".qml", ".xml")
    )


def run(scenes, folders, used=None, **options):
    used = used or mapper()
    found = list_scenes([str(scenes)], folders.folders)
    todo = found if options.get("overwrite") else folders.unfinished(found, used.job)
    return {
        result.scene.name: result
        for result in map_scenes(todo, folders, used, progress=False, **options)
    }


@pytest.mark.parametrize("shared", [False, True])
def test_one_map_each_and_a_failure_apart(scenes, tmp_path, shared):
    folders = MapFolders.checked(
        tmp_path / "maps", confidence=tmp_path / "x/sure", preview=tmp_path / "maps"
    )
    used = mapper(workers=Model() if shared else None)
    results = run(scenes, folders, used)
    assert files(tmp_path / "maps") == [
        "a.png",
        "a.tif",
        "b.png",
        "b.tif",
        "north/c.png",
        "north/c.tif",
    ]
    assert files(tmp_path / "x") == ["sure/a.tif", "sure/b.tif", "sure/north/c.tif"]
    assert [classes(tmp_path / "maps" / f"{name}.tif") for name in ("a", "b", "north/c")] == [
        [0],
        [1],
        [2],
    ]
    assert (
        "broken.tif is damaged or is not a raster that GDAL can read" in results["broken"].problem
    )
    assert {name: result.problem is None for name, result in results.items()} == {
        "a": True,
        "b": True,
        "north/c": True,
        "broken": False,
    }
    assert results["north/c"].report.pixels.tolist() == [0, 0, 70 * 90]
    if shared:
        assert threading.get_ident() not in used.workers.threads


def test_tiles_without_data_are_skipped_and_how_others_were_read_is_told(tmp_path):
    (tmp_path / "in").mkdir()
    full = np.full((3, 70, 90), 7, np.uint8)
    write_raster(tmp_path / "in" / "empty.tif", full, nodata=7)
    write_raster(tmp_path / "in" / "full.tif", full)
    results = run(tmp_path / "in", MapFolders.checked(tmp_path / "maps"))
    assert results["empty"].problem is None
    assert results["empty"].skipped.startswith(
        "skipped, has no pixel with data; check its nodata value"
    )
    assert "bands 1,2,3 of 3 as RGB, uint8, all pixels valid" in results["full"].summary
    assert files(tmp_path / "maps") == ["full.tif"]


def test_scenes_in_the_folder_of_results_are_not_lost(scenes, tmp_path):
    with pytest.raises(
        InputError, match=r"north/c\.tif is in the folder of the results but is not a result"
    ):
        list_scenes([str(scenes)], [scenes / "north"])


def test_what_is_no_map_is_not_taken_for_a_finished_one(scenes, tmp_path):
    folders = MapFolders.checked(tmp_path / "maps")
    (tmp_path / "maps" / "a.tif").write_text("garbage")
    results = run(scenes, folders)
    assert "a.tif exists" in results["a"].problem
    assert (tmp_path / "maps" / "a.tif").read_text() == "garbage"


def test_a_rerun_maps_what_is_missing(scenes, tmp_path):
    folders = MapFolders.checked(tmp_path / "maps", preview=tmp_path / "pictures")
    run(scenes, folders)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "maps").rglob("*.tif")}
    (tmp_path / "maps/b.tif").unlink()
    (tmp_path / "pictures/b.png").unlink()
    write_raster(scenes / "broken.tif", np.full((3, 20, 20), 20, np.uint8))
    assert run(scenes, folders).keys() == {"b", "broken"}
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "maps").rglob("*.tif")}
    assert [path.name for path in before if after[path] != before[path]] == ["b.tif"]
    assert run(scenes, folders) == {}
    assert run(scenes, folders, overwrite=True).keys() == {"a", "b", "north/c", "broken"}


@pytest.mark.parametrize(
    "other",
    [
        {"model": Model(sharpness=4)},
        {"reading": Reading(bands=(3, 2, 1))},
        {"reading": Reading(nodata=(7,))},
        {"reading": Reading(area=box_area((8.9, 44, 9.1, 46)))},
        {"tta": True},
    ],
)
def test_maps_of_another_job_are_named(scenes, tmp_path, other):
    folders = MapFolders.checked(tmp_path / "maps")
    run(scenes, folders)
    before = (tmp_path / "maps/a.tif").read_bytes()
    with pytest.raises(InputError, match=r"maps/a\.tif and 2 other maps were made with another"):
        run(scenes, folders, mapper(**other))
    assert (tmp_path / "maps/a.tif").read_bytes() == before
    run(scenes, folders, mapper(**other), overwrite=True)
    assert run(scenes, folders, mapper(**other)).keys() == {"broken"}


def test_devices_batches_and_bands_that_nobody_named_make_no_other_job(scenes, tmp_path):
    folders = MapFolders.checked(tmp_path / "maps")
    run(scenes, folders, mapper(workers=Model()))
    with FinishedMap(tmp_path / "maps/a.tif") as finished:
        assert finished.job == mapper().job
    (scenes / "a.tif").touch()
    assert run(scenes, folders, mapper(batch_size=1)).keys() == {"broken"}


@pytest.mark.parametrize("tag", ["", "0.0.9 abc"])
def test_maps_of_other_versions_are_finished(scenes, tmp_path, tag):
    folders = MapFolders.checked(tmp_path / "maps")
    run(scenes, folders)
    for path in (tmp_path / "maps").rglob("*.tif"):
        with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as target:
            target.update_tags(**{JOB_TAG: tag})
    assert run(scenes, folders, mapper(tta=True)).keys() == {"broken"}


def test_missing_items_are_written_from_finished_maps(scenes, tmp_path):
    folders = MapFolders.checked(tmp_path / "maps")
    found = list_scenes([str(scenes)], [])
    run(scenes, folders, mapper(stac=True))
    expected = json.loads((tmp_path / "maps/a.json").read_text())
    (tmp_path / "maps/a.json").unlink()
    (tmp_path / "maps/b.json").write_text("mine")
    (problem,) = write_missing_items(found, folders, mapper(stac=True))
    assert "b.json is not a STAC item of a map" in problem
    item = json.loads((tmp_path / "maps/a.json").read_text())
    for one in (expected, item):
        del one["properties"]["created"], one["properties"]["datetime"]
    assert item == expected
    assert write_missing_items(found, folders, mapper(tta=True)) == []


def test_files_that_stand_alone_are_not_replaced(scenes, tmp_path):
    """Maps of an earlier run without confidence, perhaps by another model: only a person can tell."""
    run(scenes, MapFolders.checked(tmp_path / "maps"))
    folders = MapFolders.checked(tmp_path / "maps", confidence=tmp_path / "sure")
    results = run(scenes, folders)
    assert "a.tif exists already; add --overwrite" in results["a"].problem
    assert files(tmp_path / "sure") == []


def test_an_interrupted_job_is_finished_by_the_next(scenes, tmp_path):
    folders = MapFolders.checked(tmp_path / "maps")
    with pytest.raises(KeyboardInterrupt):
        run(scenes, folders, mapper(Model(fault=KeyboardInterrupt(), after=1)))
    assert len(files(tmp_path / "maps")) <= 1
    assert {name for name, result in run(scenes, folders).items() if result.problem} == {"broken"}
    assert files(tmp_path / "maps") == ["a.tif", "b.tif", "north/c.tif"]


def test_files_that_a_killed_run_has_left_are_replaced(scenes, tmp_path):
    """Killed between the moves of map and confidence, or of an old map's successors: the parts still stand."""
    folders = MapFolders.checked(tmp_path / "maps", confidence=tmp_path / "sure")
    run(scenes, folders)
    (tmp_path / "sure/a.tif").unlink()
    for name in ("a", "b"):
        parts = tmp_path / f"maps/.{name}.tif.parts"
        parts.mkdir()
        outputs = [str(tmp_path / f"maps/{name}.tif"), str(tmp_path / f"sure/{name}.tif")]
        mark(parts, scene=os.path.realpath(scenes / f"{name}.tif"), outputs=outputs)
    (tmp_path / "maps/b.tif").write_text("old")
    assert {name: result.problem is None for name, result in run(scenes, folders).items()} == {
        "a": True,
        "b": True,
        "broken": False,
    }
    assert classes(tmp_path / "maps/b.tif") == [1]
    assert files(tmp_path / "maps") == ["a.tif", "b.tif", "north/c.tif"]


def test_whoever_stops_listening_stops_the_workers(scenes, tmp_path):
    folders = MapFolders.checked(tmp_path / "maps")
    used = mapper(workers=Model())
    results = map_scenes(list_scenes([str(scenes)], []), folders, used, progress=False)
    next(results)
    results.close()
    assert used.workers.stopped
    assert all(name.endswith(".tif") for name in files(tmp_path / "maps"))


@pytest.mark.parametrize("shared", [False, True])
def test_a_fault_with_one_scene_does_not_cost_the_others(scenes, tmp_path, shared):
    folders = MapFolders.checked(tmp_path / "maps")
    model = Model(fault=ZeroDivisionError("ours"), after=0)
    used = mapper(model, workers=model if shared else None)
    results = run(scenes, folders, used)
    assert all(result.problem for result in results.values())
    assert str(scenes / "a.tif") + ": ZeroDivisionError: ours" == results["a"].problem


def test_lost_workers_end_the_whole_job(scenes, tmp_path):
    class Lost(Threads):
        def runner(self, source):
            raise WorkersLost("the connection was lost")

    folders = MapFolders.checked(tmp_path / "maps")
    used = SceneMapper(Model(), CrossEarthImageProcessor(), 64, 43, workers=Lost(Model()))
    with pytest.raises(WorkersLost, match="the connection was lost"):
        run(scenes, folders, used)
    assert used.workers.stopped
    assert files(tmp_path / "maps") == []


def test_problems_known_beforehand(tmp_path):
    folders = MapFolders.checked(tmp_path / "maps")
    bad = ListedScene("STAC item x", "x", problem="item x has no asset")
    long = ListedScene("n" * 5000, "n" * 5000)  # a line of a list that names nothing
    assert folders.unfinished([bad, long], mapper().job) == [bad, long]
    results = list(map_scenes([bad, long], folders, mapper(), progress=False))
    assert results[0].problem == "item x has no asset"
    assert "File name too long" in results[1].problem


def test_advice_unless_a_resolution_is_asked_for(scenes, tmp_path):
    class Fine(Model):
        def __init__(self):
            super().__init__()
            self.config.ground_sampling_distance = 0.1

    folders = MapFolders.checked(tmp_path / "maps")
    assert "--resolution 0.1 may give" in run(scenes, folders, mapper(Fine()))["a"].advice
    folders = MapFolders.checked(tmp_path / "again")
    results = run(scenes, folders, mapper(Fine(), reading=Reading(bands=(1,), resolution=1.0)))
    assert results["a"].advice is None
    assert results["b"].report is not None


@pytest.mark.parametrize(
    ("folders", "sentence"),
    [
        ({"confidence": "maps"}, "cannot hold two kinds"),
        ({"confidence": "other", "probabilities": "maps/../other"}, "cannot hold two kinds"),
        ({"preview": "file"}, "is a file; several scenes need a folder"),
        ({"preview": "file/below"}, "cannot be made: Not a directory"),
    ],
)
def test_folders_that_do_not_serve(tmp_path, folders, sentence):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=sentence):
        MapFolders.checked(
            tmp_path / "maps", **{name: tmp_path / folder for name, folder in folders.items()}
        )


def test_the_bar_moves_with_windows_and_ends_full(scenes, tmp_path, capsys):
    folders = MapFolders.checked(tmp_path / "maps")
    list(map_scenes(list_scenes([str(scenes)], []), folders, mapper()))
    shown = capsys.readouterr().err
    assert "4 of 4 scenes: 100%" in shown
