"""Claims about images on the host: the same batches as from the device."""

import concurrent.futures
import functools
import logging
import shutil
import threading
import types

import jax
import numpy as np
import pytest
from helpers import tiny

from btsrn_jax import mesh
from btsrn_jax.data import datasets, feeder, host_store, sampler
from btsrn_jax.errors import InputError


def recipe(**fields):
    """Returns what a recipe of training says about its patches."""
    sizes = {"seed": 0, "batch_size": 8, "side": 8, "target": 10}
    return types.SimpleNamespace(**sizes | {"candidates": 1, "margin": 0} | fields)


@pytest.fixture
def store(tmp_path):
    """Puts the tiny images into a host store."""
    found = host_store.make_store(tiny.pairs(), 2, "host", 0, tmp_path / "store")
    assert isinstance(found, host_store.HostStore)
    return found


@pytest.mark.parametrize("degraded", [None, tiny.DEGRADED])
@pytest.mark.parametrize(("devices", "candidates"), [(1, 1), (8, 1), (1, 3), (8, 3)])
def test_both_ways_give_equal_batches(store, devices, candidates, degraded):
    on = mesh.make_mesh(jax.devices()[:devices])
    more = {"candidates": candidates, "degradation": degraded}
    batch = functools.partial(sampler.batch, **more)
    quick = {"xla_backend_optimization_level": 0}  # of integers, almost
    batch = jax.jit(batch, static_argnums=(1, 3, 4, 5), compiler_options=quick)
    margin = degraded.margin(8) if degraded else 0
    asked = recipe(candidates=candidates, margin=margin)
    batches = feeder.open_batches(store, asked, on, 3, 6)
    for step in range(3, 6):
        patches = batches(step)
        assert patches.lr.sharding.is_equivalent_to(mesh.split(on), 4)
        ours = batch(patches, 0, step, 8, 8, 10)
        theirs = batch(tiny.store(), 0, step, 8, 8, 10)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    batches.close()
    assert 0 <= batches.share_waited() <= 1


def test_a_process_cuts_only_the_rows_of_its_devices(store):
    drawn = feeder.draw_on_host(store, 0, 0, 8, 8)
    whole = host_store.cut(store, drawn, 8, 8, slice(None))
    part = host_store.cut(store, drawn, 8, 8, slice(2, 4))
    for a, b in zip(part, whole, strict=True):
        np.testing.assert_array_equal(a, b[2:4])


def test_images_on_the_devices_are_the_source_of_every_step():
    on = mesh.make_mesh(jax.devices()[:2])
    store = tiny.store()
    batches = feeder.open_batches(store, None, on, 0, 9)
    assert batches(0) is batches(8) is store
    assert batches.share_waited() is None
    batches.close()


def test_auto_takes_the_device_until_the_images_do_not_fit(tmp_path):
    """LR has 40 rows of 40 pixels, 120 bytes filled up to 128. HR has 80 rows of 240
    bytes, filled up to 256."""
    need = 40 * 128 + 80 * 256
    make = functools.partial(host_store.make_store, tiny.pairs(), 2)
    fits = make("auto", need, tmp_path / "a")
    assert isinstance(fits, sampler.Store)
    assert host_store.size_on_device(fits) == need
    assert not (tmp_path / "a").exists()
    large = make("auto", need - 1, tmp_path / "b")
    assert isinstance(large, host_store.HostStore)
    assert host_store.size_on_device(large) == need
    assert isinstance(make("device", 0, tmp_path / "c"), sampler.Store)
    assert host_store.hr_sizes(large) == host_store.hr_sizes(fits)
    assert host_store.hr_sizes(fits)[1] == (24, 18)


def test_a_store_is_made_once_and_a_broken_one_is_not_used(store, tmp_path):
    folder = tmp_path / "store"
    again = host_store.open_store(folder, 2)
    np.testing.assert_array_equal(again.hr, store.hr)
    (folder / "lr.u8").write_bytes(b"short")
    assert host_store.open_store(folder, 2) is None
    assert host_store.open_store(tmp_path / "none", 2) is None


def test_a_store_that_cannot_be_read_now_is_not_made_anew(store, tmp_path):
    """A link in a circle, which no one can follow."""
    file = tmp_path / "store" / "index.json"
    file.unlink()
    file.symlink_to(file.name)
    with pytest.raises(OSError, match="symbolic links"):
        host_store.open_store(tmp_path / "store", 2)


def test_the_store_of_a_process_that_was_faster_is_taken(store, tmp_path):
    def late(folder):
        yield from tiny.pairs()
        shutil.copytree(tmp_path / "store", folder)

    found = host_store.make_store(late(tmp_path / "a"), 2, "host", 0, tmp_path / "a")
    np.testing.assert_array_equal(found.hr, store.hr)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "store"]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Makes a folder of photographs and a cache; returns the config of a run on it."""
    monkeypatch.setenv("BTSRN_CACHE", str(tmp_path / "cache"))
    config = tiny.config()
    config.data.source = "folder"
    config.data.hr_dir = str(tiny.write_photos(tmp_path / "photos"))
    return config


def test_two_that_mend_a_broken_store_at_once_both_read_the_same(store, tmp_path):
    for file in (tmp_path / "store").iterdir():
        file.write_bytes(b"broken")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        make = functools.partial(host_store.make_store, tiny.pairs(), 2, "host", 0)
        made = list(pool.map(make, [tmp_path / "store"] * 4))
    whole = host_store.open_store(tmp_path / "store", 2)
    for found in made:
        np.testing.assert_array_equal(found.hr, whole.hr)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_images_that_changed_are_another_store(photos, tmp_path):
    before = host_store.folder_for(photos, ["a"])
    assert host_store.folder_for(photos, ["a"]) == before
    assert host_store.folder_for(photos, ["b"]) != before
    tiny.write_photos(tmp_path / "photos", seed=5)
    assert host_store.folder_for(photos, ["a"]) != before


def test_a_patch_counts_where_it_bounds_smaller_copies(photos):
    found = []
    for photos.data.smaller_copies in ((), (0.5,)):
        for photos.train.patch in (16, 32):
            found.append(host_store.folder_for(photos, ["a"]))
    assert found[0] == found[1] != found[2] != found[3]


def load(config, cache):
    config.data.cache = cache
    return host_store.load_store(
        config, datasets.training_pairs(config), mesh.make_mesh(jax.devices()[:1])
    )


def test_a_host_store_outlives_a_run_on_the_device(photos, tmp_path, caplog):
    caplog.set_level(logging.INFO, "btsrn")
    made = load(photos, "host")
    (folder,) = (tmp_path / "cache/raw_x2").iterdir()
    assert f"kept on the host, in {folder}" in caplog.text
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    for cache in ("device", "auto"):  # they fit
        caplog.clear()
        store = load(photos, cache)
        assert isinstance(store, sampler.Store)
        assert store.lr.sharding.is_fully_replicated
        assert "kept on every device" in caplog.text
    again = load(photos, "host")
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    np.testing.assert_array_equal(again.hr, made.hr)


@pytest.mark.parametrize("caches", [("device",), ("auto",), ("host",), ("host",) * 2])
def test_images_smaller_than_a_patch_are_named_whichever_store_serves(photos, caches):
    """Also where a store was made before, for smaller patches."""
    *made, cache = caches
    for before in made:
        load(photos, before)
    photos.train.patch = 38
    with pytest.raises(InputError) as error:
        load(photos, cache)
    (line,) = str(error.value).splitlines()
    assert line.endswith("photo1.png: 44x36 is smaller than a patch of 38")


def test_a_broken_host_store_is_made_anew(photos, tmp_path):
    made = load(photos, "host")
    (folder,) = (tmp_path / "cache/raw_x2").iterdir()
    expected = np.array(made.hr)
    (folder / "hr.u8").write_bytes(b"short")
    np.testing.assert_array_equal(load(photos, "host").hr, expected)


def test_a_cache_that_may_not_be_written_to_matters_to_a_host_store_alone(
    photos, permissions_count, monkeypatch
):
    monkeypatch.setenv("BTSRN_CACHE", "/proc/cache")
    photos.data.hr_dir = "photos"
    assert isinstance(load(photos, "device"), sampler.Store)
    with pytest.raises(InputError, match="cannot write /proc/cache"):
        load(photos, "host")


def test_what_goes_wrong_ahead_is_raised_in_the_loop(store, monkeypatch):
    cut = host_store.cut

    def fails_once(*args):
        monkeypatch.setattr(host_store, "cut", cut)
        raise OSError(5, "Input/output error")

    on = mesh.make_mesh(jax.devices()[:1])
    monkeypatch.setattr(host_store, "cut", fails_once)
    batches = feeder.open_batches(store, recipe(), on, 0, 50)
    with pytest.raises(OSError, match="Input/output error"):
        batches(0)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("feeder")]
