"""Claims about the pictures of validations."""

import numpy as np
import pytest
from PIL import Image

from btsrn_jax import resize
from btsrn_jax.evaluation import Input
from btsrn_jax.training import snapshots


def test_every_set_has_its_turn():
    sets = ["Set5"] * 5 + ["Set14"] * 2
    assert snapshots.choose(sets) == [0, 5, 1]
    assert snapshots.choose(["a", "a", "b", "c", "d"]) == [0, 2, 3]
    assert snapshots.choose([]) == []


@pytest.mark.parametrize("size", [(70, 90), (64, 64), (40, 100), (8, 6)])
@pytest.mark.parametrize("grey", [False, True])
def test_a_crop_shows_bicubic_the_network_and_the_original(size, grey):
    rng = np.random.default_rng(0)
    hr = rng.integers(0, 256, size if grey else (*size, 3), np.uint8)
    rgb = np.stack([hr] * 3, 2) if grey else hr
    lr = resize.imresize(rgb, 1 / 2)
    sheet = snapshots.draw(Input(lr, hr, []), 255 - rgb, 2)
    assert sheet.shape == snapshots.SHAPE
    h, w = (min(length, snapshots.SIDE) for length in size)
    starts = [i * (snapshots.SIDE + snapshots.GAP) for i in range(3)]
    bicubic, sr, original = (sheet[:h, x : x + w] for x in starts)
    windows = np.lib.stride_tricks.sliding_window_view(rgb, (h, w, 3))[:, :, 0]
    matches = np.argwhere((windows == original).all(axis=(2, 3, 4)))
    assert len(matches) == 1
    top, left = matches[0]
    assert np.array_equal(sr, 255 - original)
    enlarged = resize.imresize(lr, 2)[top : top + h, left : left + w]
    assert np.array_equal(bicubic, enlarged)


def test_of_many_steps_some_are_kept_spread_over_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots, "KEPT", 5)
    folder = tmp_path / snapshots.FOLDER
    folder.mkdir()
    (folder / "Set5_a-mine.png").touch()
    (folder / "Set5_a-1.jpg").touch()
    blank = np.zeros(snapshots.SHAPE, np.uint8)
    for step in range(10, 510, 10):
        for name in ("Set5/a", "Set5/a-1"):
            snapshots.write(tmp_path, step, name, blank)
    for name in ("Set5_a", "Set5_a-1"):
        steps = [p.stem.removeprefix(f"{name}-") for p in folder.glob(f"{name}-*.png")]
        steps = sorted(int(step) for step in steps if step.isdecimal())
        assert len(steps) == 5
        assert steps[0] == 10
        assert steps[-1] == 500
        assert max(np.diff(steps)) <= 4 * min(np.diff(steps))
    assert {"Set5_a-mine.png", "Set5_a-1.jpg"} <= {p.name for p in folder.iterdir()}


@pytest.mark.parametrize("name", ["写真" * 100, "a" * 250, "\udce9t\udce9", ".."])
def test_any_name_of_an_image_names_a_file(tmp_path, name):
    snapshots.write(tmp_path, 2**31, f"val/{name}", np.zeros(snapshots.SHAPE, np.uint8))
    (path,) = (tmp_path / snapshots.FOLDER).iterdir()
    assert path.name.endswith(f"-{2**31}.png")
    with Image.open(path) as picture:
        assert picture.size == snapshots.SHAPE[1::-1]
