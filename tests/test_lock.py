"""Claims of locks: one writer a folder, and no lock outlives its process."""

import json
import logging
import os
import shutil
import subprocess
import sys
import time

import pytest

from btsrn_jax import lock, owner
from btsrn_jax.errors import InputError

HOLD = """
import sys
from btsrn_jax import errors, lock, progress
progress.log_to_stderr()
lock.HEARTBEAT_SECONDS = float(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
try:
    with lock.hold(sys.argv[1], "run"):
        print("held", flush=True)
        sys.stdin.readline()
except errors.InputError as error:
    print(error, flush=True)
"""


class Holder(subprocess.Popen):
    """A process that takes the lock of a folder once it is told to."""

    def __init__(self, folder, beat=20):
        command = [sys.executable, "-c", HOLD, str(folder), str(beat)]
        super().__init__(command, stdin=-1, stdout=-1, stderr=-1, text=True)

    def tell(self):
        self.stdin.write("\n")
        self.stdin.flush()

    def says(self):
        return self.stdout.readline().strip()


@pytest.fixture
def start(tmp_path):
    """Starts a `Holder` of the folder "run"; it is killed in the end."""
    started = []

    def start(beat=20):
        started.append(Holder(tmp_path / "run", beat))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def holder(start):
    """Starts a `Holder` that has the lock."""

    def begin(beat=20):
        process = start(beat)
        process.tell()
        assert process.says() == "ready"
        assert process.says() == "held"
        return process

    return begin


def hold(folder):
    """Takes a lock, looks at it and gives it back."""
    with lock.hold(folder, "run"):
        return json.loads((folder / "run.lock").read_text())


@pytest.fixture
def leave(tmp_path, monkeypatch):
    """Leaves a lock of other words in the folder "run", so many seconds old."""
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.1)
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    about = hold(folder)

    def leave(age=0.0, text=None, **other):
        path, part = folder / "run.lock", folder / "part"
        part.write_text(json.dumps(about | other) if text is None else text)
        then = time.time() - age
        os.utime(part, (then, then))
        part.rename(path)
        return folder

    return leave


def test_a_second_process_is_refused_and_the_lock_of_a_killed_one_is_taken(
    holder, start, tmp_path
):
    first, second = holder(), start()
    second.tell()
    assert second.says() == "ready"
    said, path = second.says(), tmp_path / "run"
    assert said.startswith(f"{path} is in use by another run: process {first.pid} on ")
    assert "since 20" in said
    first.kill()
    while owner._status(first.pid)[0] != "Z":  # dead, and nobody has asked for its code
        time.sleep(0.01)
    assert hold(path)["process"] == os.getpid()


def test_of_several_that_take_over_at_once_one_has_it(holder, start, tmp_path):
    first = holder()
    takers = [start() for _ in range(5)]
    assert {taker.says() for taker in takers} == {"ready"}
    first.kill()
    first.wait()
    for taker in takers:
        taker.tell()
    said = [taker.says() for taker in takers]
    assert said.count("held") == 1, said
    assert sum("is in use by another run" in line for line in said) == 4, said
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.lock"]


def test_who_was_taken_over_ends_itself(holder, leave):
    process = holder(beat=0.05)
    leave(host="elsewhere", process=7)
    assert process.wait(timeout=20) == 1
    said = process.stderr.read()
    assert "run.lock is now of process 7 on elsewhere" in said
    assert said.count("\n") == 1


def test_a_lock_beats_and_comes_back_where_somebody_removes_it(leave):
    folder = leave(process=2**22 + 1)  # no process has such a number
    path = folder / "run.lock"
    with lock.hold(folder, "run"):
        os.utime(path, (0, 0))
        lock.confirm()
        assert path.stat().st_mtime > 1e9
        path.unlink()
        lock.confirm()
        assert json.loads(path.read_text())["process"] == os.getpid()
    assert not list(folder.iterdir())


def test_a_lock_of_another_host_is_taken_once_it_was_silent(leave):
    folder = leave(host="elsewhere", system="another", age=100)
    with pytest.raises(InputError, match=r"again in (20|19) s, or remove .*lock"):
        hold(folder)
    leave(host="elsewhere", system="another", age=130)
    assert hold(folder)["host"] != "elsewhere"


def test_a_lock_that_beats_by_a_slow_clock_is_not_taken(leave, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 20.0)  # of which half a second pass
    folder = leave(host="elsewhere", system="another", age=130)
    beats = f"while touch -d -130sec {folder}/run.lock; do sleep 0.1; done"
    with subprocess.Popen(["sh", "-c", beats]) as shell:
        with pytest.raises(InputError, match="on elsewhere, since"):
            hold(folder)
        shell.kill()


EARLIER = {"system": "an earlier boot pid:[4026531836]"}


@pytest.mark.parametrize(
    ("other", "taken"),
    [
        ({}, False),  # this very process
        ({"started": 1}, True),  # another process had its number
        ({"process": 2**22 + 1}, True),
        ({"process": "7"}, False),
        (EARLIER, True),  # the power was cut
        (EARLIER | {"host": "a clone of it"}, False),
        ({"system": "any boot pid:[4026532000]"}, False),  # a container
        ({"system": "b", "job": "5", "attempt": 0}, True),  # queued again by Slurm
        ({"system": "b", "job": "5", "attempt": 1}, False),  # another step of the job
        ({"system": "b", "job": "6", "attempt": 0}, False),
    ],
)
def test_a_lock_is_taken_at_once_where_its_process_is_known_to_be_gone(
    leave, monkeypatch, other, taken
):
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    if other.keys() & EARLIER.keys() and not (
        owner._text("/etc/machine-id")
        and owner._system().endswith(owner.FIRST_NAMESPACE)
    ):
        pytest.skip("this machine has no name of its own, or is a container")
    folder = leave(**other)
    if taken:
        hold(folder)
    else:
        with pytest.raises(InputError, match="is in use by another run"):
            hold(folder)


def test_a_copied_folder_is_in_use_only_until_its_lock_is_old(leave, tmp_path):
    folder = leave()
    copy = shutil.copytree(folder, tmp_path / "copy")
    os.utime(copy / "run.lock")
    with pytest.raises(InputError, match=r"or remove .*copy/run.lock"):
        hold(copy)
    os.utime(copy / "run.lock", (0, 0))
    hold(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_the_age_of_a_damaged_lock_decides(leave, text):
    folder = leave(text=text)
    with pytest.raises(InputError, match=r"process \? on \?, since \?"):
        hold(folder)
    leave(age=130, text=text)
    hold(folder)


def test_a_file_system_without_hard_links_has_locks_too(leave, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    folder = leave(started=1)
    with lock.hold(folder, "run"), pytest.raises(InputError, match="in use"):
        hold(folder)


def test_a_folder_that_only_a_lock_made_goes_with_it(tmp_path):
    folder = tmp_path / "a" / "b"
    hold(folder)
    assert not (tmp_path / "a").exists()
    with lock.hold(folder, "run"):
        (folder / "c").touch()
    assert [path.name for path in folder.iterdir()] == ["c"]


def test_that_nothing_protects_a_bucket_is_said(caplog):
    caplog.set_level(logging.WARNING, "btsrn")
    with lock.hold("gs://bucket/run", "run"):
        assert "nothing keeps a second run out of a bucket" in caplog.text
