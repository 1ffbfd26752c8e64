"""Tiles lie where the benchmark cut them."""

import numpy as np

from crossearth_hf.builders import vaihingen
from crossearth_hf.builders.tiling import windows

# (width, height) in pixels of the published orthophotos of Vaihingen.
VAIHINGEN = {
    "area1": (1919, 2569), "area2": (2428, 2767), "area3": (2006, 3007), "area4": (1887, 2557), "area5": (1887, 2557),
    "area6": (1887, 2557), "area7": (1887, 2557), "area8": (1887, 2557), "area10": (1887, 2557), "area11": (1893, 2566),
    "area12": (1922, 2575), "area13": (2818, 2558), "area14": (1919, 2565), "area15": (1919, 2565),
    "area16": (1919, 2565), "area17": (2336, 1281), "area20": (1866, 2315), "area21": (1903, 2546),
    "area22": (1903, 2546), "area23": (1903, 2546), "area24": (1903, 2546), "area26": (2995, 1783),
    "area27": (1917, 3313), "area28": (1917, 2567), "area29": (1917, 2563), "area30": (1934, 2563),
    "area31": (1980, 2555), "area32": (1980, 2555), "area33": (1581, 2555), "area34": (1388, 2555),
    "area35": (2805, 1884), "area37": (1996, 1995), "area38": (3816, 2550),
}  # fmt: skip


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
