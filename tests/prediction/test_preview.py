"""Pictures hold the scene, the map's colors and a legend, within 1600 pixels."""

import numpy as np
import pytest
from PIL import Image

from crossearth_hf.labels import LABEL_SETS, get_label_set
from crossearth_hf.legend import Legend
from crossearth_hf.prediction.preview import draw_preview, panel_size


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (4000, 4000, (768, 768)),
        (9000, 1000, (900, 100)),
        (40, 50, (320, 400)),
        (300, 300, (768, 768)),
        (1, 9999, (1, 768)),
    ],
)
def test_panels_fit(height, width, expected):
    assert panel_size(height, width) == expected


@pytest.mark.parametrize("name", LABEL_SETS)
@pytest.mark.parametrize("shape", [(768, 768), (900, 100), (1, 768)])
def test_page(name, shape):
    label_set = get_label_set(name)
    count = len(label_set.classes)
    height, width = shape
    labels = np.arange(height * width).reshape(shape).astype(np.uint8) % count
    labels[:, : width // 4] = 255
    pixels = np.full((3, height, width), 77, dtype=np.uint8)
    page = draw_preview(pixels, labels < 255, labels, label_set, [1 / count] * count)
    assert page.width <= 1600
    assert page.height > height + 40
    colors = {
        color
        for _, color in page.crop((0, 16, page.width, 16 + height)).getcolors(maxcolors=1 << 24)
    }
    assert {(77, 77, 77), (225, 225, 225), *label_set.colors} <= colors
    legend = np.asarray(page)[height + 32 :]
    for color in label_set.colors:
        assert (legend == color).all(axis=-1).sum() >= 18 * 18
    assert (legend[-4:] == 255).all()  # nothing is cut off below
    assert (legend[:, -4:] == 255).all()  # nor at the right


def test_names_of_other_languages_are_legible():
    drawn = []
    for name in ("ä", "ß", "\u017e", "\u0416", "\u03a9", "\ue000"):
        page = Image.new("RGB", (100, 50), "white")
        Legend([((0, 0, 0), name)], 100, 20).draw(page, 0)
        drawn.append(page.tobytes())
    assert len(set(drawn)) == len(drawn)  # a font without a sign shows the same box for all
