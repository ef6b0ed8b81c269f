"""Claims about compiled programs on disk: later processes start faster, and nothing
else differs. Real processes, with JAX's settings as a user's process has them."""

import contextlib
import os
import sys

import pytest
from helpers import disks, processes, runs, tiny

STEPS = {"steps": 6, "decay_steps": 3, "log_every": 3, "checkpoint_every": 3}
HIT = "Persistent compilation cache hit for 'jit_train_step'"  # as JAX says it
MISS = "PERSISTENT COMPILATION CACHE MISS for 'jit_train_step'"
TROUBLE = ("Error reading", "Error writing", "are not kept", "AOT result")


@pytest.fixture(autouse=True)
def as_a_user(monkeypatch):
    """Without the tests' own cache; JAX says what it finds."""
    for name in ("DIR", "MIN_COMPILE_TIME_SECS", "MIN_ENTRY_SIZE_BYTES"):
        monkeypatch.delenv(f"JAX_PERSISTENT_CACHE_{name}", raising=False)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("JAX_DEBUG_LOG_MODULES", "jax._src.compiler")


def start(place, name, devices=1, **environment):
    photos = place / "photos"
    if not photos.exists():
        tiny.write_photos(photos, tiny.HR_SIZES)
    args = tiny.command(place / name, photos, **STEPS)
    environment = {"BTSRN_CACHE": str(place / "cache")} | environment
    return tiny.start(args, devices, **environment)


def train(*args, **more):
    return tiny.finish(start(*args, **more))


def entries(place):
    return {path.name: path for path in place.glob("cache/compiled/*/jit_*-cache")}


def test_a_kept_program_trains_to_the_very_bits_and_a_damaged_one_is_made_anew(
    tmp_path,
):
    """The step donates its state. In three processes: with an empty cache, with a full
    one, and where every entry was cut short."""
    text = train(tmp_path, "cold")
    assert MISS in text
    kept = {name: path.stat().st_size for name, path in entries(tmp_path).items()}
    assert any(name.startswith("jit_train_step-") for name in kept)
    text = train(tmp_path, "warm")
    assert HIT in text
    assert not any(word in text for word in TROUBLE), text
    expected = processes.final(tmp_path / "cold")
    assert expected[0] == 6
    assert processes.final(tmp_path / "warm") == expected
    for path in entries(tmp_path).values():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    text = train(tmp_path, "damaged")
    assert MISS in text
    assert not any(word in text for word in TROUBLE), text
    assert processes.final(tmp_path / "damaged") == expected
    again = {name: path.stat().st_size for name, path in entries(tmp_path).items()}
    assert again.keys() == kept.keys()
    assert all(again[name] > 0.9 * size for name, size in kept.items())


JOINED = """
import jax
from btsrn_jax import program_cache, training
training.distributed.join(False)
program_cache.keep_compiled()
total = jax.jit(lambda x: x.sum())(jax.numpy.arange(4))
print("folder:", jax.config.jax_compilation_cache_dir, int(total))
"""


@pytest.mark.parametrize("caches", [("cache", "cache"), ("cache", "other")])
def test_several_processes_keep_programs_only_where_all_see_one_folder(
    tmp_path, caches
):
    """On GPUs one that compiles may wait for the others to tune its kernels with it, so
    that none may find a program where another one does not."""
    port = processes.free_port()
    started = [
        tiny.start(
            [sys.executable, "-c", JOINED],
            BTSRN_CACHE=str(tmp_path / cache),
            JAX_COORDINATOR_ADDRESS=f"localhost:{port}",
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(i),
        )
        for i, cache in enumerate(caches)
    ]
    said = [tiny.finish(process) for process in started]
    (folder,) = tmp_path.glob("cache/compiled/*")
    shared = caches[0] == caches[1]
    for text in said:
        assert f"folder: {folder if shared else None} 6" in text
    told = [text.count("is not the same folder for all processes") for text in said]
    assert told == [0 if shared else 1, 0]
    assert not list(folder.glob("seen-*"))


@pytest.fixture
def full_disk(tmp_path):
    with disks.mounted(tmp_path / "disk", "100k") as place:
        with (place / "ballast").open("wb", 0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1024)):
                continue
        os.truncate(place / "ballast", 90_000)  # room for folders
        yield place


def test_a_command_keeps_programs_and_says_in_one_line_where_it_cannot(
    tmp_path, full_disk, monkeypatch
):
    monkeypatch.delenv("JAX_DEBUG_LOG_MODULES")
    runs.make(tmp_path / "run")
    (photo, *_) = sorted(tiny.write_photos(tmp_path / "in").iterdir())
    args = ["upscale", photo, tmp_path / "a.png", "--force", "--runtime=jax"]
    args = [sys.executable, "-m", "btsrn_jax.cli", *args, f"--model={tmp_path / 'run'}"]

    def upscale(cache):
        text = tiny.finish(tiny.start(args, BTSRN_CACHE=str(cache)))
        assert "a.png" in text
        return [line for line in text.splitlines() if "not kept" in line], text

    for _ in range(2):
        _, text = upscale(tmp_path / "cache")
        assert len(text.splitlines()) == 2, text  # the model, the picture
    assert any(name.startswith("jit_upscale_tiles") for name in entries(tmp_path))
    (line,), text = upscale("/proc/cache")
    assert "/proc/cache" in line
    assert len(text.splitlines()) == 3, text
    (line,), text = upscale(full_disk)
    assert "No space left on device" in line
    assert len(text.splitlines()) == 3, text
