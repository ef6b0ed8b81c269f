"""Claims about several processes, tested over the loopback interface."""

import signal
import sys

import jax
import numpy as np
import pytest
from helpers import processes, tiny
from PIL import Image

from btsrn_jax import mesh, trees
from btsrn_jax.training import step as train

PROCESSES = 2
STEPS = {
    "steps": 10,
    "decay_steps": 5,
    "log_every": 5,
    "checkpoint_every": 5,
    "eval_every": 10,
}


def addressed(port, process):
    """What tells JAX where this process belongs."""
    return {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
        "JAX_NUM_PROCESSES": str(PROCESSES),
        "JAX_PROCESS_ID": str(process),
        "BTSRN_HEARTBEAT_SECONDS": "10",
    }


def slurm(job, process):
    """What `srun` tells its tasks."""
    return {
        "SLURM_JOB_ID": str(job),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(PROCESSES),
        "SLURM_PROCID": str(process),
        "SLURM_LOCALID": str(process),
        "SLURM_STEP_NUM_NODES": "1",
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("distributed")
    tiny.write_photos(root / "train", tiny.HR_SIZES)
    tiny.write_photos(root / "val", [(64, 64), (48, 80), (40, 40)], seed=2)
    return root


def launch(place, name, *flags, devices=2, environment=None, **train):
    args = tiny.command(
        place / name, place / "train", *flags, sets=place / "val", **(STEPS | train)
    )
    environment = environment or {}
    return tiny.start(args, devices, BTSRN_CACHE=str(place / "cache"), **environment)


def together(place, name, *flags, **train):
    port = processes.free_port()
    return [
        launch(place, name, *flags, environment=addressed(port, i), **train)
        for i in range(PROCESSES)
    ]


def parameters(run):
    step, arrays, metrics = processes.final(run)
    params = {
        k: np.frombuffer(v, np.float32) for k, v in arrays.items() if "param" in k
    }
    return step, np.concatenate([params[k] for k in sorted(params)]), metrics


@pytest.fixture(scope="module")
def alone(place):
    """Parameters before the first step, and the run of one process on one device."""
    on = mesh.make_mesh(jax.devices()[:1])
    state = train.create_state(train.make_recipe(tiny.config(), on), on)
    params = trees.flatten({"params": state.params})
    start = np.concatenate([np.ravel(params[k]) for k in sorted(params)])
    tiny.finish(launch(place, "alone", devices=1))
    return start, parameters(place / "alone")


def test_two_processes_of_two_devices_train_as_one(place, alone):
    """The same batches everywhere; what is left is rounding, which Adam amplifies. The
    first process saves, writes the metrics and shows the table."""
    started = together(place, "two")
    said = [tiny.finish(process) for process in started]
    assert "4 x cpu" in said[0]
    assert "validation.csv" in said[0]
    assert "validation.csv" not in said[1]
    start, (_, expected, metrics) = alone
    step, found, ours = parameters(place / "two")
    assert step == 10
    change = np.linalg.norm(expected - start)
    assert change > 0.1
    assert np.linalg.norm(found - expected) < 1e-3 * change
    assert ours.keys() == metrics.keys()
    assert ours[5]["loss"] == pytest.approx(metrics[5]["loss"], rel=1e-4)
    assert ours[10].keys() == metrics[10].keys()
    for name in ("psnr_ntire", "psnr_modern/val", "psnr_benchmark/val"):
        assert ours[10][name] == pytest.approx(metrics[10][name], abs=1e-3)
    # One of the three images was enlarged by the second process.
    shown, alone = (
        {path.name: Image.open(path) for path in (place / run / "pictures").iterdir()}
        for run in ("two", "alone")
    )
    assert sorted(shown) == [f"val_photo{i}-10.png" for i in range(3)]
    for name, picture in shown.items():
        difference = np.asarray(picture, int) - np.asarray(alone[name], int)
        assert np.abs(difference).max() <= 1
    assert len(list((place / "two").glob("events.out.*"))) == 1


def test_slurms_variables_are_enough_and_host_memory_gives_the_same_batches(
    place, alone
):
    """Two tasks of a Slurm step, with one device each; images stay on the host."""
    job = processes.free_port()  # Slurm's port follows from its job
    started = [
        launch(place, "slurm", "--config.data.cache=host", devices=1, environment=env)
        for env in (slurm(job, i) for i in range(PROCESSES))
    ]
    said = [tiny.finish(process) for process in started]
    assert "2 x cpu" in said[0]
    assert "kept on the host" in said[0]
    start, (_, expected, _) = alone
    _, found, metrics = parameters(place / "slurm")
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected - start)
    assert 0 <= metrics[10]["data_wait"] <= 1


ROWS = """
import sys
sys.path.append("tests")
import pathlib
from helpers import tiny
from btsrn_jax import mesh
from btsrn_jax.data import host_store, open_batches
from btsrn_jax.training import distributed
from btsrn_jax.training import step as train
distributed.join(False)
asked, cut = set(), host_store.cut
def spy(store, drawn, side, target, rows, *more):
    asked.update(range(rows.start, rows.stop))
    return cut(store, drawn, side, target, rows, *more)
host_store.cut = spy
on = mesh.make_mesh()
folder = pathlib.Path(sys.argv[1])
store = host_store.make_store(tiny.pairs(), 2, "host", 0, folder)
recipe = train.make_recipe(tiny.config(), on)
feeder = open_batches(store, recipe, on, 0, 3)
[feeder(step) for step in range(3)]
feeder.close()
print("rows", sorted(asked))
"""


def test_each_process_reads_only_its_rows_of_the_batch(tmp_path):
    port = processes.free_port()
    started = [
        tiny.start(
            [sys.executable, "-c", ROWS, str(tmp_path / "store")],
            2,
            **addressed(port, i),
        )
        for i in range(PROCESSES)
    ]
    said = [tiny.finish(process) for process in started]
    assert "rows [0, 1, 2, 3]" in said[0]
    assert "rows [4, 5, 6, 7]" in said[1]


def test_a_checkpoint_of_two_processes_is_continued_by_one(place, alone):
    start, (_, expected, _) = alone
    for process in together(place, "moved", steps=4):
        tiny.finish(process)
    text = tiny.finish(launch(place, "moved", devices=1))
    assert "continuing from step 4" in text
    step, found, metrics = parameters(place / "moved")
    assert step == 10
    assert list(metrics) == [4, 5, 10]
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected - start)


def test_a_process_that_never_joins_ends_the_others_with_one_message(place):
    port = processes.free_port()
    environment = addressed(port, 0) | {"BTSRN_JOIN_SECONDS": "3"}
    text = tiny.finish(launch(place, "lonely", environment=environment), 1, timeout=60)
    errors = [line for line in text.splitlines() if "error" in line.lower()]
    assert len(errors) == 1, text
    for part in (f"localhost:{port}", "process 0 of 2", "3 s"):
        assert part in errors[0]


def test_a_process_that_dies_ends_the_others_and_all_continue(place):
    """kill -9 of one of two in the middle; the other ends in bounded time; all started
    again reach the end. A preemption of one is then the stop of both."""
    run = place / "mortal"
    many = {"steps": 4000, "decay_steps": 1000}
    started = together(place, "mortal", **many)
    processes.until(started[0], lambda: processes.step_of(run) >= 10)
    started[1].kill()
    started[1].communicate()
    ended_by_another(started[0])

    reached = processes.step_of(run)
    started = together(place, "mortal", **many)
    processes.until(started[0], lambda: processes.step_of(run) >= reached + 10)
    started[1].send_signal(signal.SIGTERM)  # one is enough
    said = [tiny.finish(process, 75) for process in started]
    assert all("continuing from step" in text for text in said)
    assert all("saved; the same command continues" in text for text in said)
    steps = [line["step"] for line in processes.lines(run)]
    assert steps == sorted(set(steps))


def test_a_second_start_of_several_ends_and_the_first_goes_on(place):
    """At the same address, where joining it would end the first, and at another one."""
    run = place / "twice"
    ports = processes.free_port(), processes.free_port()

    def start(port):
        return [
            launch(place, "twice", steps=200000, environment=addressed(port, i))
            for i in range(PROCESSES)
        ]

    first = start(ports[0])
    processes.until(first[0], lambda: processes.step_of(run) >= 10)
    for port in ports:
        said = [tiny.finish(process, 2, timeout=60) for process in start(port)]
        assert "is in use by another run" in said[0]
    reached = processes.step_of(run)
    processes.until(first[0], lambda: processes.step_of(run) > reached)
    first[1].send_signal(signal.SIGHUP)  # the end of one's terminal stops both
    for process in first:
        tiny.finish(process, 75)
    assert not (run / "run.lock").exists()


def ended_by_another(process):
    """Waits for the end of a process that has lost another one: within a minute.

    Mostly the connection breaks, and main says so; where it does not, the missing
    heartbeat is noticed, and JAX ends the process in its own words.
    """
    text = tiny.finish(process, code=None, timeout=60)
    assert process.returncode not in (0, -signal.SIGKILL), text  # by the time-out
    assert "start all of them again" in text or "another task died" in text
    assert "Traceback" not in text
    return text


BUG = """
import sys
from btsrn_jax import main
from btsrn_jax.training import preemption
def bug(self, step):
    raise {error}("a bug of ours")
if {buggy}:
    preemption.Preemption.should_stop = bug
main.main()
"""


@pytest.mark.parametrize(("error", "buggy"), [("KeyError", 1), ("RuntimeError", 0)])
def test_a_bug_in_one_process_is_told_with_its_traceback_and_ends_the_others(
    place, error, buggy
):
    """Whatever its type: it ended in a wait for the other process of up to a day, and
    that of a RuntimeError, taken for a lost process, lost its traceback."""
    port = processes.free_port()
    command = tiny.command(place / f"bug{buggy}", place / "train", **STEPS)[3:]
    started = [
        tiny.start(
            [sys.executable, "-c", BUG.format(error=error, buggy=i == buggy), *command],
            2,
            BTSRN_CACHE=str(place / "cache"),
            **addressed(port, i),
        )
        for i in range(PROCESSES)
    ]
    text = tiny.finish(started[buggy], 1)
    assert f"[{buggy}/2] Traceback" in text
    assert f"[{buggy}/2] {error}: " in text
    assert "a bug of ours" in text
    ended_by_another(started[1 - buggy])


def test_a_signal_ends_an_evaluation_of_several_processes_at_once(place):
    """The first one works, the others wait for it: all end with 75."""
    large = tiny.write_photos(place / "large", [(640, 640)])
    for process in together(place, "evaluated", steps=1):
        tiny.finish(process)
    flags = ["--mode=eval", f"--config.eval.sets=('{large}',)"]
    started = together(place, "evaluated", *flags, steps=1)
    tiny.until_said(started[0], "evaluation on val")
    for process in started:
        process.send_signal(signal.SIGTERM)
    for process in started:
        tiny.finish(process, 75, timeout=20)
    assert not (place / "evaluated" / "evaluation.csv").exists()


def test_distributed_without_an_address_is_a_users_mistake(place):
    text = tiny.finish(launch(place, "nowhere", "--distributed"), 2)
    assert "JAX_COORDINATOR_ADDRESS" in text
    assert "Traceback" not in text
