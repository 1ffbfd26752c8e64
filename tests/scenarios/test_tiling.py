"""Tiles lie where the benchmark cut them."""

import numpy as np
from vaihingen_areas import VAIHINGEN

from crossearth_hf.scenarios.build.readers import vaihingen
from crossearth_hf.scenarios.build.tiling import windows


def test_a_potsdam_image_gives_144_tiles():
    tiles = windows(6000, 6000, 512)
    assert len(tiles) == 144
    assert tiles[0] == (0, 0, 512, 512)
    assert tiles[11] == (0, 5488, 512, 512)  # the last column ends at the border
    assert tiles[-1] == (5488, 5488, 512, 512)


def test_the_sizes_of_vaihingen_give_the_counts_of_the_benchmark():
    counts = {
        split: sum(len(windows(VAIHINGEN[area][1], VAIHINGEN[area][0], 512)) for area in areas)
        for split, areas in vaihingen.SPLITS.items()
    }
    assert counts == {"train": 344, "test": 398}


def test_tiles_cover_every_pixel():
    for height, width in ((600, 700), (512, 1024), (513, 1025), (1281, 2336)):
        covered = np.zeros((height, width), bool)
        for row, col, tile_height, tile_width in windows(height, width, 512):
            assert (tile_height, tile_width) == (512, 512)
            assert row + 512 <= height
            assert col + 512 <= width
            covered[row : row + 512, col : col + 512] = True
        assert covered.all()


def test_small_images_and_whole_ones_are_kept():
    assert windows(300, 700, 512) == [(0, 0, 300, 512), (0, 188, 300, 512)]
    assert windows(300, 400, 512) == [(0, 0, 300, 400)]
    assert windows(1500, 1500, None) == [(0, 0, 1500, 1500)]
