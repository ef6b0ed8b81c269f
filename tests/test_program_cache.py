"""Claims of program_cache.py without a compiler. Processes: tests/system."""

import os

import jax
import pytest

from btsrn_jax import machine, program_cache
from btsrn_jax.errors import InputError


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A cache folder, with JAX's own settings as a user's process has them."""
    monkeypatch.setenv("BTSRN_CACHE", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


def test_each_jaxlib_platform_and_processor_has_a_folder_for_its_user_alone(
    place, monkeypatch
):
    folder = program_cache._find_folder()
    assert folder.parent == place / "compiled"
    assert folder.name.startswith(f"{jax.lib.__version__}-cpu-")
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    other = program_cache._find_folder()
    assert other.name.startswith(f"{jax.lib.__version__}-accelerator-")
    digest = machine.processor_digest()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert machine.processor_digest() != digest


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_compilation_cache_dir", "/somewhere"),
        ("jax_enable_compilation_cache", False),
        ("jax_compilation_cache_max_size", 10**9),
    ],
)
def test_what_is_set_for_jax_stays(place, name, value):
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        program_cache.keep_compiled()
        assert getattr(jax.config, name) == value
        assert not list(place.iterdir())
    finally:
        jax.config.update(name, before)


def test_it_can_be_turned_off_and_another_word_is_refused(place, monkeypatch):
    monkeypatch.setenv("BTSRN_COMPILATION_CACHE", "0")
    program_cache.keep_compiled()
    assert not list(place.iterdir())
    assert jax.config.jax_compilation_cache_dir is None
    monkeypatch.setenv("BTSRN_COMPILATION_CACHE", "off")
    with pytest.raises(InputError, match="is 'off': 0 or 1 was expected"):
        program_cache.keep_compiled()


def test_what_was_not_used_for_the_longest_time_goes_first(tmp_path):
    """Over all folders, also those of other versions; used is written or read."""
    for name, bytes_, read, written in (
        ("0.9-cpu-a/old", 40, 100, 100),
        ("0.9-cpu-a/old_but_read", 30, 900, 100),
        ("0.10-cpu-a/middle", 20, 500, 500),
        ("0.10-cpu-a/new", 10, 100, 950),
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(bytes_))
        os.utime(path, (read, written))

    def left(limit):
        program_cache.trim(tmp_path, limit)
        return {path.name for path in tmp_path.glob("*/*")}

    assert left(100) == {"old", "old_but_read", "middle", "new"}
    assert left(99) == {"old_but_read", "middle", "new"}
    assert left(45) == {"old_but_read", "new"}
    (tmp_path / "0.10-cpu-a/gone").symlink_to("nowhere")
    assert left(20) == {"gone", "new"}
    program_cache.trim(tmp_path / "nowhere", 0)
