"""Claims of images/crops.py: the busiest parts of an image."""

import numpy as np

from btsrn_jax import images


def test_the_busiest_squares_come_in_order_and_overlap_by_half_at_most():
    image = np.zeros((20, 60), np.uint8)
    image[4:8, 40:44] = np.random.default_rng(0).integers(100, 256, (4, 4))
    image[10:14, 5:9] = np.random.default_rng(1).integers(0, 60, (4, 4))
    first, *others = found = images.busiest_squares(image, 10, 9)
    assert first == images.busiest_square(image, 10)
    for i, (top, left) in enumerate(found):
        for y, x in found[:i]:
            assert max(abs(top - y), abs(left - x)) >= 5
    assert 30 < first[1] <= 40
    assert any(left <= 5 for _, left in others)


def test_an_image_of_the_squares_size_has_one():
    image = np.zeros((8, 8, 3), np.uint8)
    assert images.busiest_squares(image, 8, 3) == [(0, 0)]
