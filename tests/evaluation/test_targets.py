"""What is to be scored: windows, scales, classes; and what is refused before anything is predicted."""

import numpy as np
import pytest
from benchmark_data import write_domain, write_halves
from tiny_model import tiny_config

from crossearth_hf.errors import InputError
from crossearth_hf.evaluation.targets import FolderTarget, ScenarioTarget, resolve_class_map
from crossearth_hf.labels import get_label_set
from crossearth_hf.scenarios.domains import DOMAINS

LAND_COVER, ISPRS = get_label_set("land-cover"), get_label_set("isprs")


def config_of(label_set):
    return tiny_config(
        num_labels=len(label_set.classes), id2label=label_set.id2label, label2id=label_set.label2id
    )


def scenario_task(code, data, config, *, with_source=False, **options):
    return ScenarioTarget(code, data, **options).task(code, config, with_source=with_source)


def folder_task(folder, name, config, **options):
    return FolderTarget(folder, **options).task(name, config)


def tiles(count, size=(24, 32), classes=6):
    rng = np.random.default_rng(0)
    return [
        (rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, classes, size, np.uint8))
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    write_domain(folder, "vaihingen", tiles(3))
    write_domain(folder, "potsdam_irrg", tiles(2), split="train", incomplete=False)
    write_domain(folder, "rescuenet", tiles(1, (30, 40), classes=5))
    write_domain(folder, "massachusetts_road", tiles(1, classes=2))
    write_domain(folder, "casid_sub", tiles(1, classes=5), benchmark_version="0")
    write_domain(folder, "loveda_rural", [], splits={"test": {"images": 0}})
    return folder


def test_a_scenario_has_the_recipe_and_the_target(data):
    task = scenario_task("P(i)2V", data, config_of(ISPRS), with_source=True)
    assert (task.name, task.target, task.window, task.stride, task.scale) == (
        "P(i)2V",
        "vaihingen",
        512,
        341,
        1,
    )
    assert (task.unseen, task.class_map, task.scored) == (True, None, ISPRS.classes)
    assert (task.build.images, task.build.incomplete, task.build.layout) == (3, True, "confirmed")
    images = task.images()
    assert [task.image_name(image) for image in images] == [
        "vaihingen[0]",
        "vaihingen[1]",
        "vaihingen[2]",
    ]
    np.testing.assert_array_equal(images[1].read()[1], tiles(3)[1][1])
    # the source has no test split here, so its training images
    assert len(task.source_images()) == 2
    assert (task.label_ids()[[0, 5, 255]] == [0, 5, 255]).all()


def test_windows_and_sizes_that_a_scenario_or_a_person_asks_for(data):
    isprs = config_of(ISPRS)
    assert [
        getattr(scenario_task("P(i)2V", data, isprs, window=250), side)
        for side in ("window", "stride")
    ] == [
        256,
        round(250 * 341 / 512),
    ]
    rescue = scenario_task("P(i)2Res", data, config_of(get_label_set("rescue")))
    assert DOMAINS["rescuenet"].fit == 512
    assert rescue.scale_of(rescue.images()[0]) * 40 == pytest.approx(512)
    whole = scenario_task("D2M", data, config_of(get_label_set("road")))
    assert whole.window == 1504  # one window holds an image of 1500
    assert scenario_task("D2M", data, config_of(get_label_set("road")), window=512).window == 512
    with pytest.raises(InputError, match="window 0 must be at least 1"):
        scenario_task("P(i)2V", data, isprs, window=0)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("P(i)2v", "unknown scenario 'P\\(i\\)2v'; did you mean P\\(i\\)2V"),
        ("V2P(i)", "no image of potsdam_irrg, split 'test'"),
        ("V2P(r)", "potsdam_rgb is not a built domain"),
        ("Tem2Sub", "built for version 0 of the benchmark"),
        ("U2R", "no image of loveda_rural"),
    ],
)
def test_scenarios_without_data_are_refused(data, code, sentence):
    with pytest.raises(InputError, match=sentence):
        scenario_task(code, data, config_of(ISPRS))


def test_a_partial_copy_is_refused(tmp_path):
    write_domain(tmp_path, "vaihingen", tiles(2), splits={"test": {"images": 398}})
    with pytest.raises(InputError, match="has 2 images, but 398 were built"):
        scenario_task("P(i)2V", tmp_path, config_of(ISPRS)).images()


def test_data_that_were_built_again_are_read_again(tmp_path):
    for pairs in (tiles(2), tiles(2)[::-1]):
        write_domain(tmp_path, "vaihingen", pairs)
        images = scenario_task("P(i)2V", tmp_path, config_of(ISPRS)).images()
        np.testing.assert_array_equal(images[0].read()[1], pairs[0][1])


def test_a_damaged_build_is_refused(tmp_path):
    write_domain(tmp_path, "vaihingen", tiles(1), splits=None)
    with pytest.raises(InputError, match=r"damaged build\.json"):
        scenario_task("P(i)2V", tmp_path, config_of(ISPRS))


def test_a_folder_has_the_models_window_and_classes(tmp_path):
    folder = write_halves(tmp_path / "some" / "town")
    task = folder_task(
        f"{folder}:a", "Town", config_of(LAND_COVER), labeled=["vegetation", "building"], scale=0.5
    )
    assert (task.window, task.stride, task.scale, task.unseen) == (64, 43, 0.5, True)
    assert task.target == "town:a"
    assert task.scored == ("building", "vegetation")
    assert task.label_ids()[:6].tolist() == [0, 1, 0, 0, 4, 0]
    assert task.label_ids()[255] == 255
    assert [task.image_name(image) for image in task.images()] == ["a"]
    assert not folder_task(str(folder), "Town", config_of(LAND_COVER), in_domain=True).unseen


def test_classes_of_another_set_are_mapped():
    given = {
        "land": "impervious_surface",
        "road": "impervious_surface",
        "water": "clutter",
        "vegetation": "tree",
    }
    resolved = resolve_class_map(LAND_COVER.classes, ISPRS, given, "P(i)2V")
    assert resolved == given | {"building": "building"}
    task = folder_task("x", "x", config_of(LAND_COVER), classes="isprs", class_map=given)
    assert task.prediction_ids().tolist() == [0, 1, 0, 5, 3]
    part = folder_task(
        "x", "x", config_of(LAND_COVER), classes="isprs", class_map=given, labeled=["tree"]
    )
    assert part.prediction_ids().tolist() == [0, 0, 0, 0, 3]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            None,
            "the model's classes are land, .*those of P\\(i\\)2V are impervious_surface.*--class-map",
        ),
        ({"land": "grass"}, "names 'grass'"),
        ({"sand": "tree"}, "names 'sand'"),
        ({"land": "tree", "water": "clutter"}, "leaves out road, vegetation"),
    ],
)
def test_maps_that_do_not_fit_are_refused(given, sentence):
    with pytest.raises(InputError, match=sentence):
        resolve_class_map(LAND_COVER.classes, ISPRS, given, "P(i)2V")


def test_a_map_between_equal_sets_is_refused():
    with pytest.raises(InputError, match="leave the map out"):
        resolve_class_map(ISPRS.classes, ISPRS, {"tree": "car"}, "P(i)2V")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"labeled": ["houses"]}, "'houses' is not a class of the label set 'land-cover'"),
        ({"scale": 0}, "scale 0 must be above 0"),
        ({"scale": float("nan")}, "scale nan"),
        ({"classes": "moon"}, "'moon' is not a label set"),
        ({"name": " "}, "printable characters"),
        ({"name": "a\nb"}, "printable characters"),
        ({"window": 32, "stride": 40}, "stride 40"),
    ],
)
def test_options_of_a_folder_that_are_refused(options, sentence):
    options = {"name": "Town"} | options
    with pytest.raises(InputError, match=sentence):
        folder_task("folder", config=config_of(LAND_COVER), **options)
