"""Twenty polygons on one raster train a model, and score it."""

import numpy as np
import pytest
import shapely
from rasters import PLACE, write_raster
from training_runs import losses, make_workplace, settings
from vectors import write_layer

from crossearth_hf.errors import InputError
from crossearth_hf.evaluation import run
from crossearth_hf.evaluation.targets import FolderTarget
from crossearth_hf.labels import get_label_set
from crossearth_hf.training.run_classes import run_classes
from crossearth_hf.training.trainer import train

CLASSES = get_label_set("land-cover").classes


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A raster of colored fields, 40 pixels a side, of which 20 hold a polygon of 12 pixels a side."""
    root = make_workplace(tmp_path_factory.mktemp("polygons"))
    rng = np.random.default_rng(0)
    fields = rng.permutation(np.arange(100) % 5).reshape(10, 10)
    ids = np.kron(fields, np.ones((40, 40), dtype=np.int64))
    bands = np.stack([40 * ids + 20, 200 - 40 * ids, 30 * ids]) + rng.integers(0, 9, (3, 400, 400))
    write_raster(root / "ortho.tif", bands.astype(np.uint8), tiled=True)
    shapes, kinds = [], []
    for row, col in np.argwhere(fields >= 0)[::5]:
        corner = PLACE @ (col * 40 + 14, row * 40 + 14)
        shapes.append(shapely.box(corner[0], corner[1] - 6, corner[0] + 6, corner[1]))
        kinds.append(CLASSES[fields[row, col]])
    write_layer(root / "labels.gpkg", shapes, {"kind": kinds})
    (root / "mine.yaml").write_text(
        "images: ortho.tif\npolygons: labels.gpkg\nclass_column: kind\n"
    )
    return root


def test_without_classes_the_run_says_which_ones_the_polygons_name(workplace):
    config = settings(workplace, "unused", train_data=str(workplace / "mine.yaml"), classes=[])
    with pytest.raises(
        InputError, match="add --classes building,land,road,vegetation,water in the order"
    ):
        run_classes(config)


def test_twenty_polygons_lower_the_loss(workplace, tmp_path, capsys):
    source = str(workplace / "mine.yaml")
    changes = {
        "train_data": source,
        "max_steps": 80,
        "crop_size": 32,  # the loss is that of the polygons alone, which should cover many of its points
        "relative_to_crop": False,
        "scale_range": [0.8, 1.2],
    }
    folder = train(settings(workplace, tmp_path / "run", **changes))
    told = capsys.readouterr().err
    assert "(ignored)    98.20 %" in told  # 20 of 144 pixels each on 400 x 400
    values = np.array([loss for _, loss, _ in losses(folder)])
    assert values[-5:].mean() < 0.8 * values[:5].mean()
    report = run.evaluate(folder, {"mine": FolderTarget(source)}, device="cpu")
    assert report["mine"].pixels == 20 * 144
