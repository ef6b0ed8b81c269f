"""Claims about checkpoints: exact, and never silently wrong."""

import contextlib
import errno
import gc
import json
import os
import pathlib
import random
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import disks, processes

from btsrn_jax import checkpoint, mesh, storage, trees
from btsrn_jax.checkpoint import reading
from btsrn_jax.errors import InputError

# TensorStore reports to a loop that Orbax has closed after the first error.
pytestmark = processes.LATE
CONFIG = {"scale": 2, "train": {"seed": 7}}


def state(step):
    """A pytree with the kinds of leaves that training has."""
    rng = np.random.default_rng(step)
    params = {"in": {"kernel": rng.normal(size=(3, 40)), "bias": rng.normal(size=40)}}
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    return {
        "step": jnp.int32(step),
        "params": params,
        "opt_state": (jax.tree.map(lambda x: x * x, params), jnp.int32(step)),
        "ema": {},
    }


def arrays(step):
    return {k: np.asarray(v) for k, v in trees.flatten(state(step)).items()}


def same(found, step):
    expected = arrays(step)
    return found.keys() == expected.keys() and all(
        found[k].dtype == v.dtype and found[k].tobytes() == v.tobytes()
        for k, v in expected.items()
    )


@pytest.fixture
def run(tmp_path):
    """A run directory with checkpoints of steps 1 (30 dB) and 2 (31 dB)."""
    return make(tmp_path / "run")


def make(workdir, *steps):
    checkpoints = checkpoint.Checkpoints(workdir)
    for step in steps or (1, 2):
        checkpoints.save(step, state(step), CONFIG, 29.0 + step)
    checkpoints.close()
    return workdir


@pytest.fixture
def restore(caplog):
    """restore(workdir): what a continuing run would restore, and what it would say."""

    def restore(workdir):
        caplog.clear()
        found = checkpoint.restore_latest(workdir / "checkpoints")
        checkpoint.Checkpoints(workdir).close()  # Orbax opens what is left
        return found, [r.getMessage() for r in caplog.records if r.name == "btsrn"]

    return restore


def test_what_is_restored_is_what_was_saved_bit_for_bit(run, restore):
    (step, found), said = restore(run)
    assert step == 2
    assert same(found, 2)
    assert not said
    filled = trees.fill(state(0), found)
    assert jax.tree.structure(filled) == jax.tree.structure(state(0))


def test_a_checkpoint_may_be_saved_by_eight_devices_and_restored_by_one(
    tmp_path, restore
):
    on = mesh.replicated(mesh.make_mesh())
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(1, jax.device_put(state(1), on), CONFIG)
    checkpoints.close()
    (step, found), _ = restore(tmp_path)
    assert step == 1
    assert same(found, 1)


def test_the_two_latest_and_the_best_are_kept(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    scores = {1: 30.0, 2: 33.0, 3: None, 4: 31.0, 5: float("nan"), 6: float("inf")}
    for step, psnr in scores.items():
        checkpoints.save(step, state(step), CONFIG, psnr)
        checkpoints.wait()
    assert checkpoint.steps_in(checkpoints.folder) == [2, 5, 6]
    assert checkpoint.best_first(checkpoints.folder) == [2, 6, 5]
    assert checkpoint.score_of(checkpoints.folder, 5) is None
    checkpoints.close()
    assert checkpoint.load_parameters(tmp_path)[0] == 2


def test_a_score_may_follow_its_checkpoint(tmp_path, restore):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    for step, psnr in {1: 30.0, 2: 32.0, 3: float("nan"), 4: 31.0, 5: 30.5}.items():
        checkpoints.save(step, state(step), CONFIG)
        checkpoints.set_score(step, psnr)
    checkpoints.close()
    assert checkpoint.best_first(tmp_path / "checkpoints") == [2, 4, 5]
    assert restore(tmp_path)[0][0] == 5


def test_where_nothing_was_validated_the_latest_is_the_best(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, state(step), CONFIG)
    checkpoints.close()
    assert checkpoint.load_parameters(tmp_path)[0] == 2


def test_parameters_come_with_their_config_averaged_where_there_are_averages(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    averaged = state(1) | {"ema": {"in": {"kernel": jnp.ones(3)}}}
    checkpoints.save(1, averaged, CONFIG)
    checkpoints.close()
    step, config, variables = checkpoint.load_parameters(tmp_path)
    assert (step, config) == (1, CONFIG)
    np.testing.assert_array_equal(variables["params"]["in"]["kernel"], np.ones(3))


def test_reading_changes_nothing_in_a_run_that_may_be_going_on(run):
    """A checkpoint that is being written must not be taken for rubbish."""
    unfinished = run / "checkpoints" / "3.orbax-checkpoint-tmp-0"
    unfinished.mkdir()
    before = sorted(map(str, run.rglob("*")))
    assert checkpoint.load_parameters(run)[0] == 2
    assert sorted(map(str, run.rglob("*"))) == before


def test_no_run_directory_is_a_users_mistake(tmp_path):
    with pytest.raises(InputError, match="no run directory"):
        checkpoint.load_parameters(tmp_path)


def contents(folder):
    """{path: bytes} of all files."""
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def flip(path, rng):
    """Flips one bit of a file."""
    data = bytearray(path.read_bytes())
    bit = rng.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    return bit


def test_one_flipped_bit_anywhere_is_harmless_or_noticed(tmp_path, restore):
    """A hundred of them, half in files taken alike, half by size. Harmless means that
    the very same arrays are restored; else the checkpoint is named and moved aside, and
    the one before it is used."""
    whole, rng = make(tmp_path / "whole"), random.Random(0)
    newest = whole / "checkpoints" / "2"
    files = sorted(p.relative_to(newest) for p in newest.rglob("*") if p.is_file())
    files = [p for p in files if (newest / p).stat().st_size]
    sizes = [(newest / p).stat().st_size for p in files]
    noticed = 0
    for i in range(100):
        run = tmp_path / f"run{i}"
        shutil.copytree(whole, run)
        file = rng.choice(files) if i % 2 else rng.choices(files, sizes)[0]
        bit = flip(run / "checkpoints" / "2" / file, rng)
        (step, found), said = restore(run)
        what = f"bit {bit} of {file}: step {step}, {said}"
        if step == 2:
            assert same(found, 2), what
            assert checkpoint.score_of(run / "checkpoints", 2) == 31.0, what
        else:
            noticed += 1
            assert step == 1, what
            assert same(found, 1), what
            assert str(run / "checkpoints" / "2") in said[0], what
            assert (run / "damaged" / "2").is_dir(), what
            assert checkpoint.load_parameters(run)[0] == 1, what
        shutil.rmtree(run)
    assert noticed >= 20  # many bytes are compressed text, or read by nobody


def test_every_flipped_bit_of_array_data_is_noticed(tmp_path, caplog):
    whole, rng = make(tmp_path / "whole"), random.Random(1)
    folder = whole / "checkpoints"
    files = [p for p in folder.glob("2/state/**/d/*") if p.is_file()]
    largest = max(files, key=lambda p: p.stat().st_size)
    data = largest.read_bytes()
    for _ in range(10):
        flip(largest, rng)
        caplog.clear()
        step, found, _ = checkpoint.newest_whole(folder, [2, 1])
        assert (step == 1 and "2 is damaged" in caplog.text) or same(found, 2)
        largest.write_bytes(data)


DAMAGES = {
    "truncated": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "emptied": lambda p: p.write_bytes(b""),
    "deleted": lambda p: p.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_the_checkpoint_before_it_used(
    run, restore, damage
):
    """Every file of a checkpoint in turn."""
    whole = run.with_name("whole")
    run.rename(whole)
    newest = whole / "checkpoints" / "2"
    used = []
    for file in [p.relative_to(newest) for p in newest.rglob("*") if p.is_file()]:
        shutil.copytree(whole, run)
        DAMAGES[damage](run / "checkpoints" / "2" / file)
        (step, found), said = restore(run)
        assert same(found, step), file
        assert step == 2 or (step == 1 and "damaged" in said[0]), file
        used.append(step)
        shutil.rmtree(run)
    assert used.count(1) >= 4  # metrics, about, manifests, data


def test_where_all_are_damaged_nothing_is_moved_and_one_line_says_so(run, restore):
    for step in (1, 2):
        (run / "checkpoints" / str(step) / "about" / "metadata").write_text("{")
    before = contents(run)
    with pytest.raises(checkpoint.ReadFailed, match=r"every .*--workdir, or remove"):
        restore(run)
    assert contents(run) == before
    with pytest.raises(InputError, match="no whole checkpoint"):
        checkpoint.load_parameters(run)


def test_what_cannot_be_read_now_is_no_damage_and_stays_where_it_is(run, restore):
    """Each file and folder in turn is a link in a circle, which no one can follow, not
    even root. A whole checkpoint beside it is not used in its place."""
    for path in sorted((run / "checkpoints" / "2").rglob("*"), reverse=True):
        away = path.rename(run / "away")
        path.symlink_to(path.name)
        before = contents(run)
        for read in (restore, checkpoint.load_parameters):
            with pytest.raises(checkpoint.ReadFailed, match=r"^.*symbolic links.*$"):
                read(run)
        assert contents(run) == before
        path.unlink()
        away.rename(path)


def test_a_folder_that_cannot_be_listed_now_is_not_empty(run, restore):
    """Of no new run is it said that it has no checkpoints."""
    (run / "checkpoints").rename(run / "away")
    (run / "checkpoints").symlink_to("checkpoints")
    for read in (restore, checkpoint.load_parameters, checkpoint.Checkpoints):
        with pytest.raises((OSError, checkpoint.ReadFailed), match="symbolic links"):
            read(run)


@pytest.mark.usefixtures("collected")
def test_where_no_more_files_may_be_opened_nothing_is_damaged(run, restore):
    before, (soft, hard) = contents(run), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) - 1, hard))
    try:
        with pytest.raises((checkpoint.ReadFailed, OSError), match="Too many open"):
            restore(run)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert contents(run) == before
    assert restore(run)[0][0] == 2


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ESTALE, "Stale file handle"),
        ImportError("No module named 'gcsfs'"),
        MemoryError(),
        RuntimeError("Unable to initialize backend 'cuda'"),
        AssertionError(),
        ValueError("UNAVAILABLE: the bucket does not answer"),
        ValueError("RESOURCE_EXHAUSTED: Error reading local file"),
        ValueError("SOMETHING_NEW: of a later TensorStore"),
    ],
    ids=repr,
)
def test_what_is_not_known_to_be_damage_is_not_taken_for_it(run, error):
    with (
        pytest.raises(checkpoint.ReadFailed, match="may be whole, and nothing"),
        reading.classified(run / "checkpoints/2"),
    ):
        raise error


NAMES = (
    "proj [2026]",
    "a[!b]",
    "a*b",
    "a**b",
    "a?b",
    "{a,b}",
    "50%",
    "a#b",
    "-a",
    "ü 写",
    "a:b",
    "a\nb",
)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_no_character_of_a_path_is_taken_for_a_pattern(tmp_path, restore, name):
    """Beside a folder that the pattern would find."""
    make(tmp_path / "ab" / "run", 5)
    run = make(tmp_path / name / "run")
    assert restore(run)[0][0] == 2
    assert same(restore(run)[0][1], 2)
    moved = run.rename(tmp_path / "moved [1]")
    assert checkpoint.load_parameters(moved)[0] == 2


@pytest.mark.parametrize(
    "place", ["/tmp/a\\b/run", "/tmp/\udcff", "/s3/run", "gs://b/[1]"]
)
def test_a_path_that_would_be_taken_for_another_one_is_refused(place):
    with pytest.raises(InputError, match=r"expected|taken for a bucket"):
        storage.check_array_path(place)


def test_the_first_checkpoint_is_read_back_before_more_work_rests_on_it(
    tmp_path, monkeypatch
):
    """With Orbax's own idea of the path, in which nothing can be found."""
    monkeypatch.setattr(storage, "literal", lambda path: path)
    checkpoints = checkpoint.Checkpoints(tmp_path / "proj [2026]")
    with pytest.raises(checkpoint.SaveFailed, match=r"cannot be read back: NOT_FOUND"):
        checkpoints.save(1, state(1), CONFIG)
    checkpoints.close()


def test_a_score_changed_by_hand_is_noticed(run, restore):
    path = run / "checkpoints" / "1" / "metrics" / "metrics"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"psnr": 39.0}))
    _, said = restore(run)
    assert "/1 is damaged" in said[0]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    with disks.mounted(tmp_path / "disk", "1m") as place:
        yield place


@pytest.fixture
def collected():
    """Files that Orbax leaves open when a write fails are collected here, and not in
    whatever test comes next."""
    yield
    gc.collect()


# Orbax does not close the files that it could not write.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("collected")
def test_a_full_disk_is_told_and_costs_nothing_that_was_saved(small_disk, restore):
    checkpoints = checkpoint.Checkpoints(small_disk)
    checkpoints.save(1, state(1), CONFIG)
    checkpoints.wait()
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            continue
    with pytest.raises(checkpoint.SaveFailed) as error:  # noqa: PT012
        checkpoints.save(2, state(2), CONFIG)
        checkpoints.wait()  # a save in the background fails here
    text = str(error.value)
    assert "\n" not in text
    assert "pace left" in text
    assert str(small_disk) in text
    assert "checkpoints there: 1." in text
    with contextlib.suppress(checkpoint.SaveFailed):  # it says so again
        checkpoints.close()

    ballast.unlink()
    step, found = checkpoint.restore_latest(small_disk / "checkpoints")
    assert step == 1
    assert same(found, 1)
    checkpoints = checkpoint.Checkpoints(small_disk)
    checkpoints.save(2, state(2), CONFIG)
    checkpoints.close()
    assert restore(small_disk)[0][0] == 2
    assert not list(pathlib.Path(small_disk).glob("checkpoints/*tmp*"))


def test_fill_names_the_array_that_does_not_fit():
    with pytest.raises(ValueError, match=r"params/in/bias is not in the checkpoint"):
        trees.fill(state(0), _without(arrays(0), "params/in/bias"))
    with pytest.raises(ValueError, match=r"extra is not in the model"):
        trees.fill(state(0), arrays(0) | {"extra": np.zeros(1)})
    wrong = arrays(0) | {"params/in/bias": np.zeros(3)}
    with pytest.raises(ValueError, match=r"bias is \(3,\), \(40,\) was expected"):
        trees.fill(state(0), wrong)


def _without(tree, name):
    return {k: v for k, v in tree.items() if k != name}


def test_saving_a_step_twice_keeps_the_first(run, restore):
    checkpoints = checkpoint.Checkpoints(run)
    checkpoints.save(2, state(3), CONFIG)
    checkpoints.close()
    assert same(restore(run)[0][1], 2)
    assert os.listdir(run / "checkpoints") != []
