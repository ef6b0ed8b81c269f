"""Claims about hosts, slices and launchers, by processes with their variables."""

import subprocess
import uuid

import pytest
from helpers import processes, tiny

STEPS = {"steps": 4, "decay_steps": 2, "log_every": 2}
BOOT_ID = "/proc/sys/kernel/random/boot_id"  # by which JAX tells hosts apart


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("hosts")
    tiny.write_photos(root / "train", tiny.HR_SIZES)
    return root


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """The words that start a command as on another host."""
    path = tmp_path_factory.mktemp("boot") / "id"
    path.write_text(f"{uuid.uuid4()}\n")
    script = f'mount --bind {path} {BOOT_ID} && exec "$@"'
    words = ["unshare", "-m", "sh", "-c", script, "sh"]
    try:
        done = subprocess.run([*words, "cat", BOOT_ID], capture_output=True, text=True)
    except OSError:
        pytest.skip("there is no unshare")
    if done.stdout != path.read_text():
        pytest.skip("no mount namespaces here")
    return words


def start(place, name, environments, second=()):
    started = []
    for i, environment in enumerate(environments):
        args = tiny.command(place / name, place / "train", **STEPS)
        args = [*second, *args] if i else args
        environment = {"BTSRN_CACHE": str(place / "cache")} | environment
        started.append(tiny.start(args, **environment))
    return started


def slices(i):
    """What GKE tells the only host of each of two slices."""
    return {
        "MEGASCALE_NUM_SLICES": "2",
        "MEGASCALE_SLICE_ID": str(i),
        "MEGASCALE_COORDINATOR_ADDRESS": "localhost",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
    }


def open_mpi(i):
    return {
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(i),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(i),
    }


def mpich(i):
    return {"PMI_SIZE": "2", "PMI_RANK": str(i), "MPI_LOCALRANKID": str(i)}


def test_two_slices_on_two_hosts_train_as_one(place, elsewhere):
    """Two hosts of any kind were refused by JAX's own mesh, with a traceback."""
    address = {"JAX_COORDINATOR_ADDRESS": f"localhost:{processes.free_port()}"}
    started = start(place, "hosts", [slices(i) | address for i in (0, 1)], elsewhere)
    said = [tiny.finish(process) for process in started]
    assert "2 x cpu" in said[0]
    assert processes.step_of(place / "hosts") == STEPS["steps"]
    for i, text in enumerate(said):
        ours = [line for line in text.splitlines() if not line.startswith("[Gloo]")]
        assert all(line.startswith(f"[{i}/2] ") for line in ours), text


def test_open_mpi_4_says_itself_where_the_others_are(place):
    port = {"JAX_COORDINATOR_PORT": str(processes.free_port())}
    uri = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911"}
    started = start(place, "mpi4", [open_mpi(i) | uri | port for i in (0, 1)])
    said = [tiny.finish(process) for process in started]
    assert "2 x cpu" in said[0]
    assert processes.step_of(place / "mpi4") == STEPS["steps"]


@pytest.mark.parametrize("launcher", [slices, open_mpi, mpich])
def test_processes_that_cannot_find_each_other_never_train_apart(place, launcher):
    run = place / launcher.__name__
    started = start(place, run.name, [launcher(i) for i in (0, 1)])
    for i, process in enumerate(started):
        text = tiny.finish(process, 2)
        (line,) = text.splitlines()
        assert line.startswith(f"[{i}/2] error: ")
        assert f"process {i} of 2" in line
        assert "JAX_COORDINATOR_ADDRESS=HOST:PORT" in line
    assert not run.exists()
