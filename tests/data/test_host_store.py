"""Claims about images on the host: the same batches as from the device."""

import dataclasses
import functools
import shutil

import jax
import numpy as np
import pytest
from helpers import tiny

from btsrn_jax import mesh
from btsrn_jax.data import host_store, sampler
from btsrn_jax.training import step as train


@pytest.fixture
def store(tmp_path):
    """The tiny images as a host store."""
    found = host_store.gather(tiny.pairs(), 2, "host", 0, tmp_path / "store")
    assert isinstance(found, host_store.HostStore)
    return found


@pytest.mark.parametrize(("devices", "candidates"), [(1, 1), (8, 1), (1, 3), (8, 3)])
def test_both_ways_give_equal_batches(store, devices, candidates):
    on = mesh.make_mesh(jax.devices()[:devices])
    recipe = train.make_recipe(tiny.config(candidates=candidates), on)
    seed, n, side, target = recipe.seed, recipe.batch_size, recipe.side, recipe.target
    batch = functools.partial(sampler.batch, candidates=candidates)
    batch = jax.jit(batch, static_argnums=(1, 3, 4, 5))
    feeder = host_store.Feeder(store, recipe, on, 3, 6)
    for step in range(3, 6):
        patches = feeder(step)
        assert patches.lr.sharding.is_equivalent_to(mesh.split(on), 4)
        ours = batch(patches, seed, step, n, side, target)
        theirs = batch(tiny.store(), seed, step, n, side, target)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    feeder.close()
    assert 0 <= feeder.share_waited() <= 1


def test_a_process_cuts_only_the_rows_of_its_devices(store):
    drawn = host_store.draw_on_host(store, 0, 0, 8, 8)
    whole = host_store.cut(store, drawn, 8, 8, slice(None))
    part = host_store.cut(store, drawn, 8, 8, slice(2, 4))
    for a, b in zip(part, whole, strict=True):
        np.testing.assert_array_equal(a, b[2:4])


def test_auto_takes_the_device_until_the_images_do_not_fit(tmp_path):
    """40 rows of 40 LR pixels, 120 bytes, in 128; 80 rows of 240 bytes in 256."""
    need = 40 * 128 + 80 * 256
    gather = functools.partial(host_store.gather, tiny.pairs(), 2)
    fits = gather("auto", need, tmp_path / "a")
    assert isinstance(fits, sampler.Store)
    assert host_store.size_on_device(fits) == need
    assert not (tmp_path / "a").exists()
    large = gather("auto", need - 1, tmp_path / "b")
    assert isinstance(large, host_store.HostStore)
    assert host_store.size_on_device(large) == need
    assert isinstance(gather("device", 0, tmp_path / "c"), sampler.Store)
    assert host_store.hr_sizes(large) == host_store.hr_sizes(fits)
    assert host_store.hr_sizes(fits)[1] == (24, 18)


def test_a_store_is_made_once_and_a_broken_one_is_not_used(store, tmp_path):
    folder = tmp_path / "store"
    again = host_store.open_store(folder, 2)
    np.testing.assert_array_equal(again.hr, store.hr)
    (folder / "lr.u8").write_bytes(b"short")
    assert host_store.open_store(folder, 2) is None
    assert host_store.open_store(tmp_path / "none", 2) is None


def test_the_store_of_a_process_that_was_faster_is_taken(store, tmp_path):
    def late(folder):
        yield from tiny.pairs()
        shutil.copytree(tmp_path / "store", folder)

    found = host_store.gather(late(tmp_path / "a"), 2, "host", 0, tmp_path / "a")
    np.testing.assert_array_equal(found.hr, store.hr)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "store"]


def test_images_that_changed_are_another_store(tmp_path, monkeypatch):
    monkeypatch.setenv("BTSRN_CACHE", str(tmp_path / "cache"))
    config = tiny.config()
    config.data.source = "folder"
    config.data.hr_dir = str(tiny.write_photos(tmp_path / "photos"))
    before = host_store.folder_for(config, ["a"])
    assert host_store.folder_for(config, ["a"]) == before
    assert host_store.folder_for(config, ["b"]) != before
    tiny.write_photos(tmp_path / "photos", seed=5)
    assert host_store.folder_for(config, ["a"]) != before


def test_what_goes_wrong_ahead_is_raised_in_the_loop(store):
    on = mesh.make_mesh(jax.devices()[:1])
    recipe = train.make_recipe(tiny.config(), on)
    recipe = dataclasses.replace(recipe, side=9)  # one is 9 x 8
    feeder = host_store.Feeder(store, recipe, on, 0, 50)
    with pytest.raises(ValueError, match="shape"):
        [feeder(step) for step in range(50)]
    feeder.close()
