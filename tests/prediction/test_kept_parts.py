"""Parts computed anywhere, kept after a kill, used again by the same job only."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from rasters import with_legend, write_raster
from stub_model import ColorModel
from tiny_model import VIT, tiny_config

import crossearth_hf
from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor
from crossearth_hf.errors import InputError
from crossearth_hf.files.working_folders import alone_in
from crossearth_hf.inference.loading import load_model
from crossearth_hf.inference.model_digest import model_digest
from crossearth_hf.prediction import MapOutputs, parts, predict_map
from crossearth_hf.prediction.job_identity import job_identity
from crossearth_hf.prediction.part_jobs import PartSettings
from crossearth_hf.prediction.part_writing import compute_part
from crossearth_hf.raster.scene import Scene

PROCESSOR = CrossEarthImageProcessor()


class Weighted(ColorModel):
    """With a weight that the answers depend on."""

    def __init__(self, weight=1.0, **options):
        super().__init__(**options)
        self.weight = torch.nn.Parameter(torch.tensor(weight))

    def forward(self, pixel_values):
        outputs = super().forward(pixel_values)
        outputs.masks_queries_logits = outputs.masks_queries_logits * self.weight.detach()
        return outputs


class Broken(Weighted):
    """Raises at its forward pass number `at`."""

    def __init__(self, at, error=KeyboardInterrupt):
        super().__init__()
        self.at, self.error = at, error

    def forward(self, pixel_values):
        if len(self.batches) == self.at:
            raise self.error
        return super().forward(pixel_values)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "_COLUMN_WINDOWS", 4)
    monkeypatch.setattr(parts, "_BAND_WINDOWS", 4)


@pytest.fixture
def place(tmp_path):
    pixels = np.random.default_rng(0).integers(1, 256, (3, 600, 400), dtype=np.uint8)
    pixels[:, 100:300, 50:200] = 0
    write_raster(tmp_path / "scene.tif", pixels, nodata=0)
    (tmp_path / "out").mkdir()
    return tmp_path


def make_map(place, model=None, *, name="map", resolution=None, processor=PROCESSOR, **options):
    outputs = MapOutputs.checked(
        place / "scene.tif",
        place / "out" / f"{name}.tif",
        confidence=place / "out" / f"{name}_c.tif",
        probabilities=place / "out" / f"{name}_p.tif",
        overwrite=True,
    )
    with Scene(place / "scene.tif", resolution=resolution) as scene:
        settings = {"window": 64, "stride": 43, "progress": False} | options
        return predict_map(scene, outputs, model or Weighted(), processor, **settings)


def read(place, name="map"):
    found = []
    for suffix in ("", "_c", "_p"):
        with rasterio.open(place / "out" / f"{name}{suffix}.tif") as source:
            found.append(source.read())
    return found


def assert_same(one, other):
    for mine, others in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, others)


def elsewhere(place, model, order=reversed, resolution=None):
    """Computes parts one by one, as another process would, in another order."""

    def run(jobs):
        with Scene(place / "scene.tif", resolution=resolution) as scene:
            for job in order(jobs):
                compute_part(job, scene, model, PROCESSOR)
                compute_part(job, scene, model, PROCESSOR)  # does nothing
                yield job

    return run


@pytest.mark.parametrize("resolution", [None, 0.8])
def test_parts_computed_elsewhere_make_the_same_files(place, resolution):
    make_map(place, resolution=resolution, tta=True)
    told, model = [], Weighted()
    run = elsewhere(place, model, resolution=resolution)
    make_map(
        place,
        name="other",
        resolution=resolution,
        tta=True,
        run_parts=run,
        on_windows=lambda *numbers: told.append(numbers),
    )
    assert_same(read(place), read(place, "other"))
    assert told[-1][0] == told[-1][1]
    # windows without data are not computed
    assert 4 * told[-1][0] >= sum(shape[0] for shape in model.batches)
    assert not [path for path in (place / "out").iterdir() if path.name.startswith(".")]


def hidden(place):
    return sorted(path.name for path in (place / "out/.map.tif.parts").iterdir() if path.is_dir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError("memory"), RuntimeError("bug")])
def test_a_rerun_goes_on_from_finished_parts(place, capsys, error):
    whole = Weighted()
    make_map(place, whole, name="expected")
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        make_map(place, Broken(len(whole.batches) * 2 // 3, error))
    assert hidden(place) == ["0000", "0001", "0002"]  # the three bands of the first column
    assert "3 finished parts are kept" in capsys.readouterr().err
    assert not (place / "out/map.tif").exists()
    rest = Weighted()
    make_map(place, rest)
    assert 0 < len(rest.batches) < len(whole.batches) * 2 // 3
    assert_same(read(place), read(place, "expected"))
    assert sorted(
        path.name for path in (place / "out").iterdir() if "expected" not in path.name
    ) == [
        *with_legend("map.tif"),
        "map_c.tif",
        "map_p.tif",
    ]


def test_parts_in_the_middle_are_filled_in(place):
    expected = Weighted()
    make_map(place, expected, name="expected")

    def keep_some(jobs):
        yield from elsewhere(place, Weighted())([jobs[index] for index in (1, 3)])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_map(place, run_parts=keep_some)
    assert hidden(place) == ["0001", "0003"]
    (place / "out/.map.tif.parts/0004-left-by-a-kill").mkdir()
    make_map(place)
    assert_same(read(place), read(place, "expected"))


def overwrite(path):
    with rasterio.open(path, "r+") as scene:
        scene.write(np.full((600, 400), 7, np.uint8), 2)


CHANGES = {
    "weights": {"weight": 2.0},
    "configuration": {"config": {"num_attention_heads": 2}},
    "normalization": {"processor": CrossEarthImageProcessor(image_mean=[0.5, 0.5, 0.5])},
    "version of the package": {},
    "window": {"window": 80},
    "stride": {"stride": 40},
    "batch size": {"batch_size": 3},
    "flips": {"tta": True},
    "scene": {},
    "source of a mosaic": {},
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_job_uses_no_old_parts(place, change, monkeypatch):
    if change == "source of a mosaic":
        (place / "scene.tif").rename(place / "source.tif")
        rasterio.shutil.copy(place / "source.tif", place / "scene.tif", driver="VRT")
    with pytest.raises(KeyboardInterrupt):
        make_map(place, Broken(20))
    assert hidden(place)
    options = dict(CHANGES[change])
    if change in ("scene", "source of a mosaic"):
        overwrite(place / f"{change.split()[0]}.tif")
    if change == "version of the package":
        monkeypatch.setattr(crossearth_hf, "__version__", "another")
    weight, config = options.pop("weight", 1.0), options.pop("config", {})
    model, fresh = (Weighted(weight) for _ in range(2))
    for each in (model, fresh):
        vars(each.config).update(config)
    make_map(place, model, **options)
    make_map(place, fresh, name="fresh", **options)
    assert len(model.batches) == len(fresh.batches)
    assert_same(read(place), read(place, "fresh"))


def test_a_model_is_the_same_one_wherever_it_lies(tmp_path, config):
    PROCESSOR.save_pretrained(tmp_path / "one")
    CrossEarthForSemanticSegmentation(config).save_pretrained(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = (load_model(tmp_path / name, device="cpu") for name in ("one", "two"))
    assert model_digest(*one) == model_digest(*two)
    heads = {"backbone_config": VIT | {"num_attention_heads": 2}}
    for change in ({"out_indices": (0, 1, 2, 2)}, heads, {"group_norm_groups": 4}):
        other = CrossEarthForSemanticSegmentation(tiny_config(**change)).eval()
        other.load_state_dict(one[0].state_dict())
        assert model_digest(other, PROCESSOR) != model_digest(*one)


def test_nothing_is_left_where_no_part_was_finished(place):
    with pytest.raises(KeyboardInterrupt):
        make_map(place, Broken(3))
    assert list((place / "out").iterdir()) == []


def test_one_process_at_a_time(place):
    (place / "out/.map.tif.parts").mkdir()
    with (
        alone_in(place / "out/.map.tif.parts", "-"),
        pytest.raises(InputError, match="another process is writing"),
    ):
        make_map(place)
    make_map(place)


def test_parts_that_do_not_stand_are_told(place):
    def lazy(jobs):
        yield from jobs

    with pytest.raises(InputError, match="0000 is missing or damaged"):
        make_map(place, run_parts=lazy)
    assert list((place / "out").iterdir()) == []


def test_two_workers_on_one_part_do_no_harm(place):
    def both(jobs):
        with Scene(place / "scene.tif") as scene:
            for job in jobs:
                compute_part(
                    replace(job, folder=job.folder.with_name("other")), scene, Weighted(), PROCESSOR
                )

                class Slow(Weighted):
                    """The other worker finishes while this one computes."""

                    def forward(self, pixel_values, other=job.folder):
                        if not other.exists():
                            shutil.move(other.with_name("other"), other)
                        return super().forward(pixel_values)

                compute_part(job, scene, Slow(), PROCESSOR)
                assert sorted(path.name for path in job.folder.iterdir()) == [
                    "blocks.json",
                    "confidence.tif",
                    "labels.tif",
                    "probabilities.tif",
                ]
                yield job

    make_map(place, name="expected")
    make_map(place, run_parts=both)
    assert_same(read(place), read(place, "expected"))


def test_a_scene_that_changes_meanwhile_is_told(place):
    class Meanwhile(Weighted):
        def forward(self, pixel_values):
            with (place / "scene.tif").open("ab") as file:
                file.write(b"more")
            return super().forward(pixel_values)

    with pytest.raises(InputError, match="changed or vanished"):
        make_map(place, Meanwhile())
    assert not (place / "out/map.tif").exists()
    make_map(place, name="fresh")
    make_map(place)
    assert_same(read(place), read(place, "fresh"))


def test_parts_of_a_scene_read_otherwise_are_another_job(place):
    settings = PartSettings(
        64, 43, 1, tta=False, layers=("labels",), model="digest", device_type="cpu"
    )
    identities = []
    for options in ({}, {"nodata": ()}, {"nodata": (7,)}, {"palette_as_image": True}):
        with Scene(place / "scene.tif", **options) as scene:
            identities.append(json.dumps(job_identity(scene, Weighted(1.0), settings), default=str))
    assert len(set(identities)) == 4


def test_parts_of_an_engine_are_another_job(place):
    settings = PartSettings(
        64, 43, 1, tta=False, layers=("labels",), model="digest", device_type="cpu"
    )
    with Scene(place / "scene.tif") as scene:
        one, two = (
            job_identity(scene, Weighted(1.0), replace(settings, engine=engine))
            for engine in (None, "openvino")
        )
    assert one != two
