"""SynthEarth: reproducible, labeled exactly, plausible in meters, different between domains, lossless on disk."""

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
from scipy import ndimage

from crossearth_hf.errors import InputError
from crossearth_hf.labels import get_label_set
from crossearth_hf.synthetic import DOMAINS, generate_scene, synthetic_dataset, write_scene
from crossearth_hf.synthetic.drawing import cast_shadows

LABELS = get_label_set("land-cover")
LAND, BUILDING, ROAD, WATER, VEGETATION = range(5)


def digest(scene):
    return hashlib.sha256(
        scene.image.tobytes() + scene.labels.tobytes() + str(scene.transform).encode()
    ).hexdigest()


@pytest.fixture(scope="module")
def scenes():
    """One 512 px scene of every domain."""
    return {domain: generate_scene(domain, 3, 512, 512) for domain in DOMAINS}


@pytest.mark.parametrize("domain", DOMAINS)
def test_same_arguments_same_bits(domain):
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    first = digest(generate_scene(domain, 7, 96, 120))
    with ThreadPoolExecutor(2) as pool:  # side by side with another scene
        again, other = pool.map(lambda seed: digest(generate_scene(domain, seed, 96, 120)), [7, 8])
    assert first == again != other
    assert np.array_equal(np.random.get_state()[1], before), "the global random state was used"


@pytest.mark.parametrize("size", [(1, 1), (1, 75), (210, 3), (64, 64), (130, 90)])
def test_any_size(size):
    for domain, spec in DOMAINS.items():
        scene = generate_scene(domain, 1, *size)
        assert scene.image.shape == (*size, 3)
        assert scene.labels.shape == size
        assert scene.image.dtype == scene.labels.dtype == np.uint8
        assert scene.labels.max() <= VEGETATION
        assert scene.transform.a == -scene.transform.e == spec.ground_sampling_distance


def test_every_class_is_present(scenes):
    for domain, scene in scenes.items():
        shares = np.bincount(scene.labels.ravel(), minlength=5) / scene.labels.size
        assert len(shares) == 5
        assert shares.min() >= 0.02, (
            f"{domain}: {dict(zip(LABELS.classes, shares.round(3), strict=True))}"
        )
        assert shares.max() <= 0.65


def surviving_road(domain, diameter):
    """Share of the road area that a disc of `diameter` meters can reach without leaving the road."""
    gsd = DOMAINS[domain].ground_sampling_distance
    road = generate_scene(domain, 0, 400, 400).labels == ROAD
    centers = ndimage.distance_transform_edt(road) * gsd >= diameter / 2
    reached = ndimage.distance_transform_edt(~centers) * gsd < diameter / 2
    return (reached & road).sum() / road.sum()


@pytest.mark.parametrize("domain", ["tropical-town", "coarse-hazy"])  # 0.3 m and 1 m
def test_roads_are_as_wide_as_the_region_says(domain):
    side, main = DOMAINS[domain].region.streets
    assert surviving_road(domain, 0.8 * side) > 0.9
    assert surviving_road(domain, 1.3 * side) < 0.9
    assert surviving_road(domain, 0.8 * main) > 0.3
    assert surviving_road(domain, 1.3 * main) < 0.1  # junctions only


def test_houses_have_the_size_of_houses(scenes):
    for domain, scene in scenes.items():
        parts, count = ndimage.label(scene.labels == BUILDING)
        area = np.bincount(parts.ravel())[1:] * DOMAINS[domain].ground_sampling_distance ** 2
        assert count > 15
        assert 15 < np.median(area) < 1500, f"{domain}: {np.median(area)} square meters"


def test_only_season_sun_and_bands_differ_between_the_temperate_domains(scenes):
    summer, winter, infrared = (
        scenes[name] for name in ("temperate-summer", "temperate-winter", "irrg-summer")
    )
    assert np.array_equal(summer.labels, winter.labels)
    assert np.array_equal(summer.labels, infrared.labels)
    green = summer.labels == VEGETATION
    assert infrared.image[green, 0].mean() > summer.image[green, 0].mean() + 40
    assert infrared.image[green, 0].mean() > 1.4 * infrared.image[green, 1].mean()  # the red edge
    # snow
    assert winter.image[summer.labels == LAND].mean() > summer.image[summer.labels == LAND].mean()


@pytest.mark.parametrize(
    ("azimuth", "shadow"),
    [
        (90, np.s_[30:34, 10:30]),  # the sun in the east, the shadow in the west
        (180, np.s_[10:30, 30:34]),  # the sun in the south, the shadow in the north, up the picture
        (270, np.s_[30:34, 34:54]),
    ],
)
def test_shadow_of_a_tower(azimuth, shadow):
    height = np.zeros((64, 64), dtype=np.float32)
    height[30:34, 30:34] = 10
    expected = np.zeros((64, 64), dtype=bool)
    expected[shadow] = True
    cast = cast_shadows(height, (45, azimuth), 0.5)  # 10 m at 45 degrees are 20 pixels of 0.5 m
    assert not cast[30:34, 30:34].any()
    assert np.count_nonzero(cast ^ expected) <= 4, "one row of pixels at the tip may differ"


def test_shadows_lie_in_the_picture_but_not_in_the_labels(scenes):
    """Ground just behind a house, seen from the sun, is darker than ground just before it."""
    for domain, scene in scenes.items():
        if domain == "temperate-winter":  # trees cast longer shadows than houses there
            continue
        azimuth = np.radians(DOMAINS[domain].sun[1])
        step = 4 * np.array([-np.cos(azimuth), np.sin(azimuth)])  # rows and columns towards the sun
        houses = (scene.labels == BUILDING).astype(float)
        open_ground = np.isin(scene.labels, (LAND, ROAD))
        lit = open_ground & (ndimage.shift(houses, step, order=0) > 0)
        dark = open_ground & (ndimage.shift(houses, -step, order=0) > 0)
        assert scene.image[dark & ~lit].mean() < 0.85 * scene.image[lit & ~dark].mean(), domain


def color_table(domain):
    """The most frequent class of every color, 8 levels per band: what color alone can tell."""
    counts = np.ones((8**3, 5))
    for seed in (0, 1):
        scene = generate_scene(domain, seed, 256, 256)
        np.add.at(counts, (color_index(scene), scene.labels.ravel()), 1)
    return counts.argmax(1)


def color_index(scene):
    return (scene.image // 32 @ np.array([64, 8, 1])).ravel()


def mean_iou(predicted, labels):
    counts = np.bincount(5 * labels.ravel().astype(int) + predicted, minlength=25).reshape(5, 5)
    return (counts.diagonal() / (counts.sum(0) + counts.sum(1) - counts.diagonal())).mean()


def test_color_does_not_solve_a_domain_and_carries_over_even_less():
    names = ["temperate-summer", "irrg-summer", "tropical-town"]
    unseen = [[generate_scene(name, seed, 256, 256) for seed in (2, 3)] for name in names]
    tables = [color_table(name) for name in names]
    scores = np.array(
        [
            [np.mean([mean_iou(table[color_index(s)], s.labels) for s in pair]) for pair in unseen]
            for table in tables
        ]
    )
    own, foreign = scores.diagonal(), scores[~np.eye(len(names), dtype=bool)]
    assert own.max() < 0.65
    assert foreign.max() < own.min() - 0.05
    assert foreign.mean() < own.mean() - 0.15


def test_geotiff_round_trip(tmp_path):
    scene = generate_scene("desert-city", 4, 70, 300)
    image_path, labels_path = write_scene(scene, tmp_path / "town.tif")
    assert labels_path == tmp_path / "town_labels.tif"
    with rasterio.open(image_path) as image, rasterio.open(labels_path) as labels:
        assert np.array_equal(image.read().transpose(1, 2, 0), scene.image)
        assert np.array_equal(labels.read(1), scene.labels)
        assert image.crs == labels.crs == "EPSG:32640"
        assert image.crs.is_projected
        assert image.transform == labels.transform == scene.transform
        assert image.res == (0.6, 0.6)
        assert image.profile["tiled"]
        assert labels.colormap(1)[WATER][:3] == LABELS.colors[WATER]
        west, south, east, north = image.bounds
    assert 160_000 < west < east < 840_000  # where UTM zones are valid
    assert 0 < south < north < 9_500_000
    assert (
        generate_scene("desert-city", 5, 1, 1).transform
        != generate_scene("desert-city", 4, 1, 1).transform
    )


def test_scenes_are_not_overwritten_unasked(tmp_path):
    scene = generate_scene("river-delta", 0, 8, 8)
    mine = tmp_path / "new_labels.tif"
    mine.write_text("dear")
    with pytest.raises(InputError, match=r"new_labels\.tif exists already"):
        write_scene(scene, tmp_path / "new.tif")
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]
    assert mine.read_text() == "dear"
    write_scene(scene, tmp_path / "new.tif", overwrite=True)
    with rasterio.open(mine) as labels:
        assert np.array_equal(labels.read(1), scene.labels)


def test_dataset_keeps_every_bit():
    rows = synthetic_dataset("irrg-summer", 2, size=48, seed=5)
    assert rows.column_names == ["image", "label", "domain", "seed"]
    assert list(rows["seed"]) == [5, 6]
    for row in rows:
        scene = generate_scene("irrg-summer", row["seed"], 48, 48)
        assert row["domain"] == "irrg-summer"
        assert row["label"].mode == "L"
        assert np.array_equal(np.array(row["image"]), scene.image)
        assert np.array_equal(np.array(row["label"]), scene.labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("atlantis", 0), "unknown SynthEarth domain 'atlantis'; choose one of temperate-summer"),
        (("desert-city", -1), "seed"),
        (("desert-city", 0, 0, 5), "0x5"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        generate_scene(*arguments)


def test_dataset_needs_scenes_and_its_package(monkeypatch):
    with pytest.raises(InputError, match="1 or more scenes, not 0"):
        synthetic_dataset("desert-city", 0)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install crossearth-hf\[train\]"):
        synthetic_dataset("desert-city", 1, size=8)


@pytest.mark.parametrize("size", [(16_385, 1), (1, 100_000_000)])
def test_a_scene_that_memory_cannot_hold_is_refused(size):
    sentence = (
        f"a scene of {size[0]}x{size[1]} px is too large to draw; give a size of 16384 or less"
    )
    with pytest.raises(InputError, match=sentence):
        generate_scene("temperate-summer", 0, *size)
