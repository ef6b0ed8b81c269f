"""Claims about a run as a whole. Runs that are killed: tests/system/test_faults.py."""

import json
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

from btsrn_jax import checkpoint, mesh, training, trees
from btsrn_jax.errors import InputError
from btsrn_jax.training import Diverged, loop
from btsrn_jax.training import step as train


@pytest.fixture
def run(tmp_path, monkeypatch, caplog):
    """run(name, devices, **train) -> exit code and what was said."""
    monkeypatch.setenv("BTSRN_CACHE", str(tmp_path / "cache"))
    photos = tiny.write_photos(tmp_path / "photos", tiny.HR_SIZES)

    def run(name, devices=1, cache="auto", **settings):
        config = tiny.config(**settings)
        config.data.source, config.data.hr_dir = "folder", str(photos)
        config.data.cache = cache
        caplog.clear()
        on = mesh.make_mesh(jax.devices()[:devices])
        code = loop.run(config, tmp_path / name, on)
        return code, caplog.text

    return run


def lines(folder):
    return [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_says_what_it_does_and_writes_it_down(run, tmp_path):
    code, said = run("a", steps=4, log_every=2)
    assert code == 0
    for part in ("parameters", "3 images", "a pass is", "1 x cpu", "on every device"):
        assert part in said
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["train"]["steps"] == 4
    assert [line["step"] for line in lines(tmp_path / "a")] == [2, 4]
    names = {"loss", "grad_norm", "learning_rate", "skipped"}
    assert names <= lines(tmp_path / "a")[0].keys()
    step, saved, _ = checkpoint.load_parameters(tmp_path / "a")
    assert (step, saved) == (4, config)


def profiled(folder):
    """The steps that each trace in a run directory annotates, and its operations."""
    found = []
    for path in sorted(folder.glob("plugins/profile/*/*.xplane.pb")):
        assert list(path.parent.glob("*.trace.json.gz"))  # for Perfetto
        planes = jax.profiler.ProfileData.from_file(str(path)).planes
        events = [event for plane in planes for x in plane.lines for event in x.events]
        stats = [(event.name, dict(event.stats)) for event in events]
        steps = [s["step_num"] for name, s in stats if name == "train"]
        modules = [s.get("hlo_module", "") for _, s in stats]
        found.append((steps, sum("train_step" in module for module in modules)))
    return found


def test_a_profile_holds_the_steps_that_were_named_and_their_operations(run, tmp_path):
    """Also where the run stops in their midst, and goes on after some of them."""
    folder = tmp_path / "a"
    _, said = run("a", steps=6, profile=(3, 2))
    (trace,) = (folder / "plugins" / "profile").iterdir()
    assert f"profile of steps 3 to 4: {trace}" in said
    assert f"xprof --logdir {folder}" in said
    ((steps, operations),) = profiled(folder)
    assert steps == [3, 4]
    assert operations > 10
    _, said = run("a", steps=8, profile=(3, 2))
    assert "no profile: steps 3 to 4 lie behind step 6" in said
    time.sleep(1)  # traces are named by the second
    _, said = run("a", steps=9, profile=(8, 2))
    assert "profile of step 9: " in said
    assert [steps for steps, _ in profiled(folder)] == [[3, 4], [9]]


def test_a_profile_that_cannot_be_written_is_one_line(run, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "plugins").write_text("a file")
    code, said = run("a", steps=4, profile=(1, 2))
    assert code == 0
    assert "no profile was written: " in said
    assert lines(tmp_path / "a")[-1]["step"] == 4


def test_a_session_leaves_the_shares_of_its_time(run, tmp_path):
    folder = tmp_path / "a"
    _, said = run("a", cache="host", steps=4, checkpoint_every=2)
    assert "time: " in said
    run("a", steps=6)
    assert "time: " not in run("a", steps=6)[1]  # complete: no step was made
    sessions = training.read_sessions(lines(folder))
    assert [line["step"] for line in lines(folder) if "session_seconds" in line] == [
        4,
        6,
    ]
    for session, patches in zip(sessions, (4 * 8, 2 * 8), strict=True):
        assert session.total == pytest.approx(sum(session.seconds.values()))
        assert all(session.seconds[part] > 0 for part in ("steps", "compile"))
        assert session.patches == pytest.approx(patches, rel=1e-3)
    assert all(session.seconds["checkpoint"] > 0 for session in sessions)
    assert sessions[0].seconds["data_wait"] > 0
    assert sessions[1].seconds["restore"] > 0


def test_a_run_moves_between_topologies_and_kinds_of_memory(run, tmp_path):
    """8 devices -> 1 -> 8, host memory -> device: the same batches all along."""
    assert run("moved", 8, cache="host", steps=2, log_every=1)[0] == 0
    code, said = run("moved", 1, cache="device", steps=4, log_every=1)
    assert code == 0
    assert "continuing from step 2" in said
    assert run("moved", 8, steps=6, log_every=1)[0] == 0
    run("straight", 1, steps=6, log_every=1)
    moved, straight = lines(tmp_path / "moved"), lines(tmp_path / "straight")
    for ours, theirs in zip(moved, straight, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    assert 0 <= moved[0]["data_wait"] <= 1
    assert "data_wait" not in moved[3]


def test_a_run_whose_loss_is_not_finite_ends_with_advice(run, tmp_path):
    """It starts from weights so large that the first loss overflows; nothing is
    learned from it, and it ends after some steps."""
    recipe = train.make_recipe(tiny.config(), mesh.make_mesh(jax.devices()[:1]))
    state = train.create_state(recipe, mesh.make_mesh(jax.devices()[:1]))
    params = jax.device_get(state.params)
    huge = jax.tree.map(lambda x: x + np.float32(1e30), params)
    huge = state._replace(params=huge)
    checkpoints = checkpoint.Checkpoints(tmp_path / "huge")
    checkpoints.save(1, huge, tiny.config().to_dict())
    checkpoints.close()
    often = {"log_every": 5, "checkpoint_every": 6}
    with pytest.raises(Diverged, match=r"20 steps.*intact.*clip_norm") as error:
        run("bad", init_from=str(tmp_path / "huge"), steps=99, **often)
    assert "\n" not in str(error.value)
    skipped = [line["skipped"] for line in lines(tmp_path / "bad")]
    assert skipped == [5, 10, 15]
    step, _, variables = checkpoint.load_parameters(tmp_path / "bad")
    assert step == 18
    jax.tree.map(np.testing.assert_array_equal, variables["params"], huge.params)


def test_a_damaged_config_is_named(run, tmp_path):
    run("a", steps=1)
    (tmp_path / "a" / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config.json is damaged"):
        run("a", steps=1)


def test_what_makes_another_run_is_refused_by_name(run):
    run("a", steps=2)
    with pytest.raises(InputError, match=r"train.batch_size was 8, now 16"):
        run("a", steps=2, batch_size=16)
    with pytest.raises(InputError, match=r"train.schedule was 'exponential'"):
        run("a", steps=2, schedule="cosine")
    # What may change: intervals, the time limit, more steps.
    assert run("a", steps=3, log_every=1, eval_every=2, time_limit=60.0)[0] == 0


def test_a_resumed_run_of_muon_is_the_uninterrupted_one(run, tmp_path):
    settings = {"optimizer": "muon", "candidates": 2, "checkpoint_every": 3}
    assert run("straight", steps=6, **settings)[0] == 0
    shutil.copytree(tmp_path / "straight", tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved" / "checkpoints" / "6")
    assert "continuing from step 3" in run("moved", steps=6, **settings)[1]
    moved, straight = (
        checkpoint.load_parameters(tmp_path / name)[2] for name in ("moved", "straight")
    )
    for ours, theirs in zip(
        jax.tree.leaves(moved), jax.tree.leaves(straight), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_state_is_restored_as_it_was_built(optimizer):
    config = tiny.config(ema=0.9, optimizer=optimizer)
    recipe = train.make_recipe(config, mesh.make_mesh())
    shapes = jax.eval_shape(lambda: train.create_state(recipe, mesh.make_mesh()))
    arrays = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), shapes)
    filled = trees.fill(shapes, trees.flatten(arrays))
    assert jax.tree.structure(filled) == jax.tree.structure(shapes)
