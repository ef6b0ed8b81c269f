"""Claims about runs that are killed: nothing is lost, and the end is the same.

Real processes, signals and files. All share a cache of compiled programs, which lets
them start in seconds; where compilation itself is interrupted, it is left out.
"""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time

import jax
import pytest
from helpers import processes, tiny

from btsrn_jax import checkpoint, mesh
from btsrn_jax.errors import InputError

STEPS = {
    "steps": 60,
    "decay_steps": 5,
    "log_every": 5,
    "checkpoint_every": 5,
    "eval_every": 20,
}


COMPILING = "Compiling jit(train_step)"  # as JAX says it


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Photos to train on and to validate with (large enough to take a moment)."""
    root = tmp_path_factory.mktemp("faults")
    tiny.write_photos(root / "train", tiny.HR_SIZES)
    tiny.write_photos(root / "val", [(320, 320)], seed=2)
    return root


def launch(place, name, *flags, cached=True, **train):
    """Starts, or continues, the run `name`."""
    args = tiny.command(
        place / name, place / "train", *flags, sets=place / "val", **(STEPS | train)
    )
    environment = {"BTSRN_CACHE": str(place / "cache")}
    if not cached:
        # What is about to be compiled is said, and nothing is compiled already.
        environment |= {"JAX_LOG_COMPILES": "1", "JAX_ENABLE_COMPILATION_CACHE": "0"}
    return tiny.start(args, **environment)


@pytest.fixture(scope="module")
def uninterrupted(place):
    tiny.finish(launch(place, "whole"))
    step, arrays, metrics = processes.final(place / "whole")
    assert step == 60
    assert [s for s, v in metrics.items() if "psnr_ntire" in v] == [20, 40, 60]
    assert len(metrics) == 12
    return arrays, metrics


def test_a_run_killed_again_and_again_ends_as_if_nothing_had_happened(
    place, uninterrupted
):
    """kill -9 while a checkpoint is written, between two steps, during an evaluation
    (while XLA compiles: below); then the same command runs to the end: parameters,
    moments and metrics are equal to the last bit."""
    run = place / "killed"
    folder = run / "checkpoints"

    def writing():  # Orbax renames the folder when all is written
        return (
            any("tmp" in p.name for p in folder.glob("*"))
            and processes.step_of(run) >= 5
        )

    def between():
        return processes.step_of(run) >= 30

    def evaluating():  # training may go on meanwhile
        if processes.step_of(run) < 40:
            return False
        lines = [line for line in processes.lines(run) if line["step"] == 40]
        return not any("psnr_ntire" in line for line in lines)

    before = 0
    for seen in (writing, between, evaluating):
        process = launch(place, "killed")
        processes.until(process, seen)
        process.kill()
        text, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL
        if before:
            assert "continuing from step" in text, text
        before = max(checkpoint.steps_in(folder), default=0)
    text = tiny.finish(launch(place, "killed"))
    assert "continuing from step" in text

    arrays, metrics = uninterrupted
    step, found, values = processes.final(run)
    assert step == 60
    assert found == arrays
    assert values == metrics
    assert not list(folder.glob("*tmp*"))
    assert not (run / "damaged").exists()


def test_a_preempted_run_saves_exits_with_75_and_ends_the_same(place, uninterrupted):
    """SIGTERM between steps, and during an evaluation; then to the end."""
    run = place / "preempted"
    folder = run / "checkpoints"
    process = launch(place, "preempted")
    processes.until(process, lambda: processes.step_of(run) >= 5)
    process.send_signal(signal.SIGTERM)
    tiny.finish(process, 75)
    saved = checkpoint.steps_in(folder)[-1]
    assert saved >= processes.step_of(run)

    process = launch(place, "preempted")
    processes.until(
        process,
        lambda: (
            processes.step_of(run) == 40
            and "psnr_ntire" not in processes.lines(run)[-1]
        ),
    )
    process.send_signal(signal.SIGTERM)
    tiny.finish(process, 75, timeout=20)
    stopped = checkpoint.steps_in(folder)[-1]
    assert 40 <= stopped < 60  # training goes on while figures are taken

    tiny.finish(launch(place, "preempted"))
    arrays, metrics = uninterrupted
    step, found, values = processes.final(run)
    assert step == 60
    assert found == arrays
    # A stop may fall inside an interval of logging, whose mean loss then differs.
    assert values.keys() == metrics.keys()
    for at in (20, 40, 60):
        assert values[at]["psnr_ntire"] == metrics[at]["psnr_ntire"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_ended_while_it_compiles_ends_at_once_and_starts_anew(
    place, uninterrupted, number
):
    """SIGTERM: with 75, within 20 s. Started again after kill -9, it ends the same."""
    name = f"compiling{number:d}"
    process = launch(place, name, cached=False)
    tiny.until_said(process, COMPILING)
    process.send_signal(number)
    kills = number == signal.SIGKILL
    text = tiny.finish(process, -signal.SIGKILL if kills else 75, timeout=20)
    assert kills or "the same command continues" in text
    assert not checkpoint.steps_in(place / name / "checkpoints")
    if kills:
        assert "continuing" not in tiny.finish(launch(place, name))
        assert processes.final(place / name) == (60, *uninterrupted)


def test_a_signal_ends_the_closing_evaluation_and_mode_eval_at_once(place):
    """Everything is saved by then."""
    run = place / "evaluated"
    large = [
        f"--config.eval.sets=('{tiny.write_photos(place / 'large', [(640, 640)])}',)"
    ]
    few = {"steps": 4, "eval_every": 4}

    def signalled(process):
        process.send_signal(signal.SIGTERM)
        text = tiny.finish(process, 75, timeout=20)
        assert "the same command continues" in text

    process = launch(place, "evaluated", *large, **few)
    tiny.until_said(process, "validation on val")
    signalled(process)
    assert not (run / "validation.csv").exists()
    assert checkpoint.steps_in(run / "checkpoints") == [4]

    process = launch(place, "evaluated", *large, "--mode=eval", **few)
    tiny.until_said(process, "evaluation on val")
    signalled(process)
    assert not (run / "evaluation.csv").exists()


# With another code where JAX was loaded, which takes seconds and a device's memory.
REFUSED = """
import os, sys
from btsrn_jax import main
os._exit = lambda code: sys.exit(code + 10 * ("jax" in sys.modules))
main.main()
"""


def test_a_second_start_ends_at_once_and_the_first_goes_on(place):
    """The second one touches nothing. The first was started by `nohup`: a hangup does
    not stop it, and SIGTERM does. What is left is no lock."""
    run, many = place / "twice", STEPS | {"steps": 200000, "decay_steps": 1000}
    command = tiny.command(run, place / "train", **many)
    first = tiny.start(["nohup", *command], BTSRN_CACHE=str(place / "cache"))
    processes.until(first, lambda: processes.step_of(run) >= 10)
    config = (run / "config.json").read_bytes()
    text = tiny.finish(tiny.start([sys.executable, "-c", REFUSED, *command[3:]]), 2)
    assert text.count("\n") == 1, text
    assert f"{run} is in use by another run: process {first.pid} on " in text
    assert (run / "config.json").read_bytes() == config
    first.send_signal(signal.SIGHUP)
    reached = processes.step_of(run)
    processes.until(first, lambda: processes.step_of(run) >= reached + 50)
    first.send_signal(signal.SIGTERM)
    tiny.finish(first, 75)
    assert not (run / "run.lock").exists()


IN_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_terminal_that_closes_costs_nothing(place):
    """Nothing can be written to it any longer. Its end is told twice: by the kernel,
    and by the shell."""
    run = place / "terminal"
    command = tiny.command(run, place / "train", **(STEPS | {"steps": 200000}))
    terminal, screen = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL, *command],
        cwd=tiny.ROOT,
        env=os.environ | {"XLA_FLAGS": ""},
        **dict.fromkeys(("stdin", "stdout", "stderr"), screen),
    )
    os.close(screen)
    said = b""
    os.set_blocking(terminal, False)
    while processes.step_of(run) < 10:
        with contextlib.suppress(BlockingIOError):
            said += os.read(terminal, 1 << 16)  # raises where the process ends first
        time.sleep(0.01)
    os.close(terminal)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 75, said
    assert checkpoint.steps_in(run / "checkpoints")[-1] >= processes.step_of(run)
    assert not (run / "run.lock").exists()


@pytest.fixture
def in_process(place, monkeypatch):
    """Runs main in this process, on one device: one start less."""
    from btsrn_jax import main as entry

    monkeypatch.chdir(tiny.ROOT)
    monkeypatch.setenv("BTSRN_CACHE", str(place / "cache"))
    real = mesh.make_mesh
    monkeypatch.setattr(mesh, "make_mesh", lambda *_: real(jax.devices()[:1]))

    def run(name, **train):
        args = tiny.command(place / name, place / "train", **(STEPS | train))
        return entry.run(args[2:])

    return run


def test_a_time_limit_saves_exits_with_75_and_the_run_continues(in_process, place):
    """0.0001 minutes are over before the first step."""
    run = place / "limited"
    assert in_process("limited", steps=4, time_limit=0.0001) == 75
    first = checkpoint.steps_in(run / "checkpoints")
    assert first == [1]
    assert in_process("limited", steps=4) == 0
    assert processes.final(run)[0] == 4


def test_two_and_two_steps_are_four_and_steps_may_be_added(in_process, place):
    """steps=2, then steps=4 in the same directory, at equal decay_steps."""
    assert in_process("four", steps=4) == 0
    assert in_process("two", steps=2) == 0
    assert in_process("two", steps=4) == 0
    step, arrays, _ = processes.final(place / "two")
    assert step == 4
    assert arrays == processes.final(place / "four")[1]
    with pytest.raises(
        InputError, match=r"seed was 0, now 1; .*decay_steps was 5, now 7"
    ):
        in_process("two", steps=4, seed=1, decay_steps=7)


def test_a_wsd_run_changes_its_length_until_its_rate_falls(in_process, place):
    """A long run is stopped in its stable phase, made longer, stopped again, and let
    decay: it ends as a run that was planned so. From then on its length is fixed."""
    wsd, stop = {"schedule": "wsd", "ema": 0.9, "log_every": 1}, {"time_limit": 0.0001}
    assert in_process("planned", steps=10, **wsd) == 0
    assert in_process("long", steps=500, **wsd, **stop) == 75
    with pytest.raises(InputError, match=r"steps was 500, now 1\. To go on: ") as error:
        in_process("long", steps=1, **wsd)
    assert "--config.train.steps=2 --config.train.decay_share=0.2; " in str(error.value)
    assert in_process("long", steps=1000, **wsd, **stop) == 75
    assert processes.step_of(place / "long") == 2
    assert in_process("long", steps=10, **wsd) == 0
    assert processes.final(place / "long") == processes.final(place / "planned")
    rates = [line["learning_rate"] for line in processes.lines(place / "long")]
    assert rates[:9] == [pytest.approx(1e-3)] * 9
    assert rates[9] < 3e-4
    before = (place / "long" / "config.json").read_bytes()
    for change in ({"steps": 20}, {"steps": 10, "decay_share": 0.1}):
        with pytest.raises(InputError, match=r"was .*, now .* up to step 8\)"):
            in_process("long", **wsd, **change)
    assert (place / "long" / "config.json").read_bytes() == before


@processes.LATE
def test_a_damaged_checkpoint_costs_only_its_own_steps(in_process, place, capfd):
    assert in_process("damaged", steps=4, checkpoint_every=2) == 0
    whole = processes.final(place / "damaged")
    newest = place / "damaged" / "checkpoints" / "4"
    processes.flip_a_bit(newest)
    capfd.readouterr()
    assert in_process("damaged", steps=4, checkpoint_every=2) == 0
    said = capfd.readouterr().err
    assert f"{newest} is damaged" in said
    assert "continuing from step 2" in said
    again = processes.final(place / "damaged")
    assert again[:2] == whole[:2]


def test_what_cannot_be_read_for_a_moment_costs_nothing(in_process, place):
    """A link in a circle stands for a closed file, a stale disk, too many open files.
    Afterwards the run continues where it was, and under a name that is a pattern."""
    run = place / "unreadable"
    assert in_process("unreadable", steps=4, checkpoint_every=2) == 0
    files = list(run.glob("checkpoints/*/state/manifest.ocdbt"))
    for file in files:
        file.rename(file.with_name("away"))
        file.symlink_to(file.name)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    text = tiny.finish(launch(place, "unreadable", steps=6, checkpoint_every=2), code=1)
    (said,) = (line for line in text.splitlines() if "error: " in line)
    assert "cannot read the checkpoint" in said
    assert "Traceback" not in text
    for path, data in before.items():
        assert path.name == "config.json" or path.read_bytes() == data
    assert not (run / "damaged").exists()

    for file in files:
        file.with_name("away").replace(file)
    (place / "proj [2026]").mkdir()
    moved = run.rename(place / "proj [2026]" / "moved")
    assert in_process("proj [2026]/moved", steps=6, checkpoint_every=2) == 0
    assert [line["step"] for line in processes.lines(moved)] == [4, 5, 6]


@processes.LATE
def test_where_every_checkpoint_is_damaged_the_run_does_not_begin_anew(
    in_process, place
):
    assert in_process("lost", steps=2) == 0
    metrics = processes.lines(place / "lost")
    processes.flip_a_bit(place / "lost" / "checkpoints" / "2")
    with pytest.raises(checkpoint.ReadFailed, match=r"every checkpoint in .*lost"):
        in_process("lost", steps=4)
    assert checkpoint.steps_in(place / "lost" / "checkpoints") == [2]
    assert processes.lines(place / "lost") == metrics


def test_other_images_under_the_same_config_are_refused(in_process, place):
    assert in_process("data", steps=1) == 0
    extra = tiny.write_photos(place / "train" / "more", [(40, 40)])
    try:
        with pytest.raises(InputError, match="other training images"):
            in_process("data", steps=1)
    finally:
        (extra / "photo0.png").unlink()
        extra.rmdir()
