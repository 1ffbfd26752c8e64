"""Figures: what they show, that nothing overlaps, that colors and places can be told apart, that maps are true."""

import colorsys
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from report_folders import entry, pictures, region_features, scenario_entry, write_report
from scipy.spatial.distance import cdist

from crossearth_hf.evaluation.numbers import ABSENT
from crossearth_hf.evaluation.report_file import RegionFeatures, read_report
from crossearth_hf.labels import LABEL_SETS
from crossearth_hf.reporting.comparison import compare
from crossearth_hf.reporting.feature_map import (
    feature_figure,
    nearest_source_agreement,
    planes,
    thinned,
)
from crossearth_hf.reporting.figures import (
    class_figure,
    merged_bins,
    reliability_figure,
    score_figure,
)
from crossearth_hf.reporting.panels import WRONG, error_picture, panel_figure
from crossearth_hf.reporting.style import bar_styles, line_styles, paper_style, save, shortened
from crossearth_hf.scenarios.domains import DOMAINS
from crossearth_hf.scenarios.scenarios import SCENARIOS

LONG = "a folder with a very long name, longer than any label could be"


@pytest.fixture(autouse=True)
def style():
    with paper_style():
        yield


@pytest.fixture(scope="module")
def small():
    sets = {DOMAINS[scenario.target].label_set for scenario in SCENARIOS.values()} | {"land-cover"}
    return {name: pictures(name, 0.7, 0, images=1, side=32) for name in sets}


@pytest.fixture(scope="module")
def many(tmp_path_factory, small):
    """Two models on all scenarios and more: 32 unseen targets, some with long names."""
    root, reports = tmp_path_factory.mktemp("many"), []
    for name, shift in (("first", 0.0), ("second", 0.1)):
        entries = {
            code: scenario_entry(code, small[DOMAINS[scenario.target].label_set])
            for code, scenario in SCENARIOS.items()
        } | {
            f"{index} {LONG}": entry("land-cover", small["land-cover"], slug=f"f{index}")
            for index in range(4)
        }
        for index, made in enumerate(entries.values()):
            made["scores"]["mean_iou"] = 0.3 + 0.012 * index + shift
            made["intervals"]["mean_iou"] = None
        reports.append(write_report(root / name, entries, name=name))
    return compare(reports)


def extent(figure, text):
    return text.get_window_extent(FigureCanvasAgg(figure).get_renderer())


def drawn(figure, text):
    """(H, W) bool: the pixels that one text covers on its own."""
    shown = [
        artist
        for artist in figure.findobj(type(text))
        if artist.get_visible() and artist is not text
    ]
    for artist in shown:
        artist.set_visible(False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].min(-1) < 200
    for artist in shown:
        artist.set_visible(True)
    return pixels


def test_32_labels_around_a_radar_do_not_overlap(many):
    assert len(many.shared) == 32
    figure = score_figure(many)
    axes = figure.axes[0]
    labels = [text for text in axes.texts if not text.get_text().isdigit()]
    assert len(labels) == 32
    for artist in (
        *axes.lines,
        *axes.collections,
        axes.patch,
        *axes.spines.values(),
        *figure.legends,
    ):
        artist.set_visible(False)
    axes.grid(False)
    for tick in set(axes.texts) - set(labels):
        tick.set_visible(False)
    figure.set_dpi(60)
    figure.set_size_inches(9, 9)  # all of every label on the canvas
    covered = np.sum([drawn(figure, text) for text in labels], axis=0)
    assert covered.max() == 1
    assert covered.sum() > 32 * 20


def test_a_radar_has_one_scale_from_zero_and_a_line_per_model(many):
    figure = score_figure(many)
    axes = figure.axes[0]
    assert axes.get_ylim() == (0, 90)  # the next ten above 30 + 1.2 * 35 + 10
    lines = [line for line in axes.lines if len(line.get_xdata()) == 33]
    assert [line.get_ydata()[0] for line in lines] == pytest.approx([30, 40])
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}) == 2
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [label.rpartition(" ")[0] for label in legend] == ["first, mean", "second, mean"]
    means = [float(label.rpartition(" ")[2]) for label in legend]
    assert means == pytest.approx([np.mean(line.get_ydata()[:-1]) for line in lines], abs=0.051)


@pytest.mark.parametrize(("count", "kind"), [(2, "rectilinear"), (3, "polar")])
def test_few_targets_make_bars(tmp_path, small, count, kind):
    entries = {
        f"t{i}": entry("land-cover", small["land-cover"], slug=f"t{i}") for i in range(count)
    }
    comparison = compare([write_report(tmp_path / "r", entries)])
    assert score_figure(comparison).axes[0].name == kind


def test_nothing_shared_makes_no_figure(tmp_path, small):
    apart = {"Sub2Sub": scenario_entry("Sub2Sub", small["casid"])}
    assert score_figure(compare([write_report(tmp_path / "r", apart)])) is None


def test_bars_have_the_heights_and_intervals_of_the_report(tmp_path, small):
    made = entry(
        "land-cover",
        small["land-cover"],
        intervals={"level": 0.9, "resamples": 9, "mean_iou": [0.3, 0.55]},
    )
    made["scores"] |= {
        "mean_iou": 0.5,
        "iou": {"land": 0.25, "building": None, "road": 1.0, "water": 0.0},
    }
    axes = class_figure(compare([write_report(tmp_path / "r", {"x": made})]), "x").axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        "mean IoU", "land", "building", "road", "water", "vegetation",
    ]  # fmt: skip
    widths = [bar.get_width() for container in axes.containers[:1] for bar in container]
    assert widths == pytest.approx([50, 25, 0, 100, 0, 0])
    (bar,) = (c for c in axes.containers if hasattr(c, "has_xerr") and c.has_xerr)
    assert bar.lines[2][0].get_segments()[0][:, 0] == pytest.approx([30, 55])
    assert [text.get_text() for text in axes.texts] == [
        "50.0",
        "25.0",
        ABSENT,
        "100.0",
        "0.0",
        ABSENT,
    ]


def test_bars_with_long_class_names_do_not_overlap(tmp_path, small):
    classes = [f"{index} {LONG}" for index in range(5)]
    made = entry("land-cover", small["land-cover"], classes=classes, scored_classes=classes)
    figure = class_figure(compare([write_report(tmp_path / "r", {LONG: made})]), LONG)
    figure.draw_without_rendering()
    boxes = [extent(figure, label) for label in figure.axes[0].get_yticklabels()]
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0


def gray(color):
    red, green, blue = to_rgb(color)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_styles_differ_without_color():
    lines = line_styles(24)
    assert len({(style["marker"], style["linestyle"]) for style in lines}) == 24
    assert len({style["hatch"] for style in bar_styles(7)}) == 7
    assert all(gray(style["color"]) < 0.72 for style in lines)  # on white
    assert len({(style["facecolor"], style["hatch"]) for style in bar_styles(49)}) == 49


def test_errors_labels_and_images_differ_in_gray():
    image = np.full((8, 8, 3), 255, np.uint8)
    image[4:] = 0
    truth, prediction = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    prediction[:, 2:4], truth[:, 6:] = 1, 255
    picture = error_picture(image, truth, prediction)
    assert {tuple(color) for color in picture[:, 2:4].reshape(-1, 3).tolist()} == {
        tuple(WRONG.tolist())
    }
    right = np.asarray(Image.fromarray(picture).convert("L"))
    assert right[:, 2:4].max() < 130 < right[:, [0, 1, 4, 5]].min()
    assert {tuple(color) for color in picture[:, 6:].reshape(-1, 3).tolist()} == {
        (225,) * 3,
        (150,) * 3,
    }


def test_the_color_of_errors_is_no_class():
    colors = np.array([color for label_set in LABEL_SETS.values() for color in label_set.colors])
    assert np.linalg.norm(colors - WRONG.astype(float), axis=1).min() > 100


def test_panels_match_the_same_image_of_several_models(tmp_path):
    kept = {
        "a": pictures("isprs", 0.9, 1, images=3, side=48),
        "b": pictures("isprs", 0.3, 2, images=2, side=48),
    }
    reports = [
        write_report(tmp_path / name, {"x": entry("isprs", made)}, name=name, examples={"x": made})
        for name, made in kept.items()
    ]
    axes = np.array(panel_figure(compare(reports), "x").axes).reshape(-1, 3)
    assert [axis.get_title() for axis in axes[0]] == ["image", "a", "b"]
    assert len(axes) == 4  # a page holds two pairs of lines
    for line, index in ((0, 0), (2, 1)):  # those that both have come first
        image, truth, prediction = kept["b"][index]
        np.testing.assert_array_equal(axes[line, 0].images[0].get_array(), image)
        labeled = truth != 255
        share = 100 * (truth == prediction)[labeled].mean()
        assert axes[line + 1, 2].get_xlabel() == f"{share:.0f} % right"
    single = panel_figure(compare(reports[:1]), "x")
    assert [axis.get_title() for axis in single.axes[:4]] == ["image", "truth", "a", "error"]
    legend = [text.get_text() for text in single.legends[0].get_texts()]
    assert legend[-2:] == ["wrong", "not labeled"]
    assert (
        panel_figure(compare([write_report(tmp_path / "c", {"x": entry("isprs", kept["a"])})]), "x")
        is None
    )


def test_large_examples_are_reduced_without_new_ids(tmp_path):
    image, truth = np.zeros((1024, 700, 3), np.uint8), np.zeros((1024, 700), np.uint8)
    truth[:, 350:] = 3
    kept = [(image, truth, np.roll(truth, 100, 1))]
    figure = panel_figure(
        compare([write_report(tmp_path / "r", {"x": entry("isprs", kept)}, examples={"x": kept})]),
        "x",
    )
    shown = figure.axes[1].images[0].get_array()
    assert shown.shape == (448, 306, 3)
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) == 2


def test_reliability_of_seeds_adds_up(tmp_path, small):
    folders = []
    for index, (accuracy, count) in enumerate([(0.4, 10), (0.8, 30)]):
        bins = {"confidence": [None, 0.5], "accuracy": [None, accuracy], "count": [0, count]}
        made = entry("land-cover", small["land-cover"], reliability=bins)
        folders.append(write_report(tmp_path / str(index), {"x": made}))
    merged = merged_bins([read_report(folder).entries["x"] for folder in folders])
    assert merged.count.tolist() == [0, 40]
    assert merged.accuracy[1] == pytest.approx((0.4 * 10 + 0.8 * 30) / 40)
    line = reliability_figure(compare([], {"m": [str(f) for f in folders]})).axes[0].lines[1]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([50], pytest.approx([70]))
    without = write_report(
        tmp_path / "w", {"x": entry("land-cover", small["land-cover"], reliability=None)}
    )
    assert reliability_figure(compare([without])) is None


def features(shift=0.5, seed=0, **options):
    arrays = region_features(4, shift, seed, **options)
    return RegionFeatures(
        *(arrays[key].astype(np.float32 if arrays[key].ndim == 2 else np.int64) for key in arrays)
    )


def test_planes_are_those_of_a_singular_value_decomposition():
    made = features(regions=60)
    linear, neighbors, shares = planes(made)
    points = np.concatenate([made.source, made.target]).astype(np.float64)
    left, values, _ = np.linalg.svd(points - points.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(linear), np.abs(left[:, :2] * values[:2]), atol=1e-6)
    np.testing.assert_allclose(shares, values[:2] ** 2 / (values**2).sum(), rtol=1e-6)
    again = planes(made)
    np.testing.assert_array_equal(linear, again[0])
    np.testing.assert_array_equal(neighbors, again[1])
    nearest = np.argsort(cdist(neighbors, neighbors) + 1e9 * np.eye(120), axis=1)[:, 0]
    classes = np.concatenate([made.source_classes, made.target_classes])
    assert (classes[nearest] == classes).mean() > 0.9


def test_agreement_with_the_nearest_source_region():
    rng = np.random.default_rng(0)
    ids = [rng.permutation(np.repeat(np.arange(4), 12)) for _ in range(2)]
    made = RegionFeatures(rng.random((48, 5)), ids[0], rng.random((48, 5)), ids[1])
    agrees = made.source_classes[cdist(made.target, made.source).argmin(1)] == made.target_classes
    expected = np.mean([agrees[made.target_classes == label].mean() for label in range(4)])
    assert nearest_source_agreement(made) == pytest.approx(expected)
    assert 0 < expected < 1
    assert nearest_source_agreement(RegionFeatures(made.source[:0], made.source_classes[:0], made.target,
                                                   made.target_classes)) is None  # fmt: skip


def test_many_regions_are_thinned_the_same_way_every_time():
    made = features(regions=90)
    few = thinned(made, 30)
    assert (len(few.source), len(few.target)) == (30, 30)
    np.testing.assert_array_equal(few.source, thinned(made, 30).source)
    assert {tuple(row) for row in few.target} <= {tuple(row) for row in made.target}
    np.testing.assert_array_equal(thinned(made, 100).source, made.source)


def test_a_feature_map_per_model(tmp_path, small):
    made = {
        "x": entry("land-cover", small["land-cover"]),
        "y": entry("land-cover", small["land-cover"], slug="y"),
    }
    alike = region_features(5, 0.0, 0, regions=12) | {
        "source": np.ones((12, 16)),
        "target": np.ones((12, 16)),
    }
    kept = {"x": region_features(5, 1.0, 0, regions=12), "y": alike}
    comparison = compare([write_report(tmp_path / "r", made, features=kept)])
    figure = feature_figure(comparison, "x")
    assert [axis.get_title() for axis in figure.axes] == ["model: PCA", "model: t-SNE"]
    shown = sum(len(points.get_offsets()) for points in figure.axes[1].collections)
    assert shown == 24
    assert feature_figure(comparison, "y") is None  # all in one point


def test_saved_bytes_are_the_same_every_time(tmp_path):
    written = []
    for name in ("a", "b"):
        figure = Figure(figsize=(2, 1), layout="constrained")
        figure.subplots().set_title("$x^2$ stays as it is")
        (tmp_path / name).mkdir()
        written.append([path.read_bytes() for path in save(figure, tmp_path / name / "f")])
    assert written[0] == written[1]
    assert written[0][1].startswith(b"%PDF")
    with Image.open(tmp_path / "a" / "f.png") as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.5)
    assert b"CreationDate" not in written[0][1]


def test_names_are_shortened():
    assert shortened("short", 10) == "short"
    assert shortened("one two three four", 9, 2) == "one two\nthree fo…"
    assert max(map(len, shortened("x" * 50, 10, 2).split("\n"))) <= 10
    assert shortened("a" * 10, 10) == "a" * 10


def test_colors_are_distinct():
    hues = {colorsys.rgb_to_hls(*to_rgb(style["color"])) for style in line_styles(7)}
    assert len(hues) == 7
