"""Claims of cutting.py: tiles are no larger than an image needs, in few shapes."""

import types

import pytest

from btsrn_jax.inference import cutting


def runtime(step, square=False, tile=128, halo=8, batch=1):
    plan = cutting.Plan(tile, batch, batch)
    return types.SimpleNamespace(plan=plan, step=step, square=square, halo=halo)


@pytest.mark.parametrize(
    ("size", "taken"),
    [
        ((100, 60), (104, 64)),  # the next multiples of eight
        ((128, 128), (128, 128)),
        ((129, 300), (72, 104)),  # two of 65 and three of 100, and no 256 x 384
        ((1, 1), (8, 8)),
        ((1020, 678), (128, 120)),
    ],
)
def test_tiles_share_an_image_evenly(size, taken):
    assert cutting.tile_size(*size, runtime(8)) == taken
    h, w = (-(-n // t) * t for n, t in zip(size, taken, strict=True))
    assert h * w <= 1.3 * size[0] * size[1] + 15 * sum(size) + 64
    assert cutting.tile_size(*size, runtime(0)) == (128, 128)  # an accelerator's


def test_square_tiles_have_the_side_of_least_work():
    """Of 32, 64, 96 and 128 pixels, with halos of 8."""
    sides = {
        cutting.tile_size(h, w, runtime(32, square=True))
        for h, w in [(32, 30), (64, 64), (90, 96), (120, 80), (180, 144), (510, 339)]
    }
    assert sides == {(32, 32), (64, 64), (96, 96), (128, 128)}
    assert cutting.tile_size(180, 144, runtime(32, square=True)) == (96, 96)
    # (96 + 8)^2 four times is 43264; (64 + 8)^2 nine times is 46656.


def test_tiles_that_are_computed_at_once_are_as_many_as_can_be():
    """A picture of one tile is divided between two streams, and one of three tiles into
    four."""
    two, four = (runtime(8, batch=batch) for batch in (2, 4))
    assert cutting.tile_size(128, 128, two) == (128, 64)
    assert cutting.tile_size(128, 128, four) == (64, 64)
    assert cutting.tile_size(128, 384, two) == (128, 96)
    assert cutting.tile_size(256, 256, two) == (128, 128)


def test_a_tile_is_never_larger_than_the_plans():
    for tile in (12, 16, 40, 100):
        for square in (False, True):
            size = cutting.tile_size(70, 31, runtime(32, square, tile))
            assert max(size) <= tile
