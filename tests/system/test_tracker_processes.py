"""Claims about runs that Weights & Biases follows, without a network."""

import json
import struct

import pytest
from helpers import processes, tiny
from wandb.proto import wandb_internal_pb2

STEPS = {"decay_steps": 10, "log_every": 1, "eval_every": 2, "checkpoint_every": 2}
STEPS["tracker"] = "wandb"


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """launch(environment, entry, **train) -> a process of the run `run`; nobody is
    logged in."""
    monkeypatch.setenv("HOME", str(tmp_path))  # its .netrc
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    photos = tiny.write_photos(tmp_path / "photos")

    def launch(environment, entry=("-m", "btsrn_jax.main"), **train):
        train = STEPS | train
        command = tiny.command(tmp_path / "run", photos, sets=photos, **train)
        command[1:3] = entry
        known = {"BTSRN_CACHE": str(tmp_path / "cache")}
        return tiny.start(command, **known, **environment)

    return launch


def records(folder):
    """What W&B would send of an offline run: lists of records by their type. The file
    is a log as LevelDB's page has it, after a header of 7 bytes."""
    (path,) = folder.glob("run-*.wandb")
    data, at, whole, found = path.read_bytes(), 7, b"", {}
    while at < len(data):
        if 32768 - at % 32768 < 7:  # no place for a header in this block
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record.FromString(whole)
            name, whole = record.WhichOneof("record_type"), b""
            found.setdefault(name, []).append(getattr(record, name))
    return found


def values(items):
    return {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for item in items
    }


def test_an_offline_run_has_config_metrics_pictures_and_final_figures_and_is_continued(
    launch, tmp_path
):
    offline = {"WANDB_MODE": "offline"}
    said = tiny.finish(launch(offline, steps=4))
    assert "watch it: at Weights & Biases" in said
    run = tmp_path / "run"
    assert f"offline; to send it: wandb sync {run}/wandb/offline-run-" in said
    assert "Traceback" not in said
    tiny.finish(launch(offline, steps=6))
    identity = (run / "wandb-id").read_text().strip()
    folders = sorted((run / "wandb").glob("offline-run-*"))
    assert len(folders) == 2  # one id, a part for each start
    assert all(folder.name.endswith(identity) for folder in folders)
    assert not list(run.glob("events.out.*"))
    steps, logged = [], processes.lines(run)
    for folder, validated in zip(folders, ({2, 4}, {6}), strict=True):
        found = records(folder)
        (about,) = found["run"]
        assert (about.run_id, about.display_name) == (identity, "run")
        assert about.project == "btsrn-jax"
        config = {item.key: json.loads(item.value_json) for item in about.config.update}
        assert config["train"]["steps"] == max(validated)
        assert config["model"]["features"] == 8
        history = [values(line.item) for line in found["history"]]
        steps += [line["step"] for line in history if "loss" in line]
        summary = {}
        for update in found["summary"]:
            summary |= values(update.update)
        (best,) = [line for line in logged if line["step"] == summary["best/step"]]
        assert summary["best/psnr_ntire"] == best["psnr_ntire"]
        assert summary["best/ssim_rgb/photos"] == best["ssim_rgb/photos"]
        name = "pictures/photos/photo0/path"
        assert {line["step"] for line in history if name in line} == validated
        assert found["exit"][0].exit_code == 0
        media = list((folder / "files" / "media").rglob("*.png"))
        assert len(media) == 3 * len(validated)
    assert steps == [1, 2, 3, 4, 5, 6]
    shown = {path.name for path in (run / "pictures").iterdir()}
    assert shown == {f"photos_photo{i}-{s}.png" for i in range(3) for s in (2, 4, 6)}


def test_a_server_that_is_not_reached_stops_no_training(launch, tmp_path):
    environment = {
        "WANDB_BASE_URL": f"http://127.0.0.1:{processes.free_port()}",
        "WANDB_API_KEY": "a" * 40,
        "WANDB_INIT_TIMEOUT": "2",
    }
    said = tiny.finish(launch(environment, steps=2), timeout=120)
    warned = [line for line in said.splitlines() if "cannot be reached" in line]
    assert len(warned) == 1, said
    assert "kept offline" in warned[0]
    assert "Traceback" not in said
    assert [line["step"] for line in processes.lines(tmp_path / "run")] == [1, 2]
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert records(folder)["history"]


# With another code where JAX was loaded.
REFUSED = """
import os, sys
from btsrn_jax import main
os._exit = lambda code: sys.exit(code + 10 * ("jax" in sys.modules))
main.main()
"""


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({}, "wandb login, or WANDB_API_KEY, or WANDB_MODE=offline"),
        ({"WANDB_API_KEY": "short"}, "WANDB_API_KEY invalid"),
        ({"WANDB_MODE": "offlin"}, "'offlin'"),
    ],
)
def test_what_weights_and_biases_lacks_is_one_line_before_anything_is_done(
    launch, tmp_path, environment, part
):
    process = launch(environment, entry=["-c", REFUSED], steps=2)
    (line,) = tiny.finish(process, 2).splitlines()
    assert line.startswith("error: config.train.tracker=wandb")
    assert part in line
    assert not (tmp_path / "run").exists()
