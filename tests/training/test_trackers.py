"""Claims about trackers: what they are told, and that they stop no training. Weights &
Biases: tests/system/test_tracker_processes.py."""

import contextlib
import struct
import sys
import threading

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2

from btsrn_jax import config as schema
from btsrn_jax.errors import InputError
from btsrn_jax.training import metrics_log, trackers

CONFIG = {"eval": {"protocol": "ntire", "best_set": ""}}
PICTURE = np.arange(4 * 10 * 3, dtype=np.uint8).reshape(4, 10, 3)


def open_log(folder, tracker="tensorboard", start=0):
    return metrics_log.MetricsLog(folder, start, tracker=tracker, config=CONFIG)


def events(folder):
    """The events of all files, read as the format's page says: a length with its CRC,
    then that many bytes with theirs."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack_from("<Q", data)
            found.append(event_pb2.Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_tensorboard_has_every_value_and_picture(tmp_path):
    with open_log(tmp_path, start=3) as log:
        log.write(5, loss=0.5)
        log.write(10, loss=0.25, **{"psnr_ntire/Set5": 30.0})
        log.picture(10, "Set5/baby", PICTURE)
    found = events(tmp_path)
    assert found[0].file_version == "brain.Event:2"
    assert (found[1].step, found[1].session_log.status) == (4, 1)  # what was is cut off
    values = [(event.step, v) for event in found[2:] for v in event.summary.value]
    scalars = [(s, v.tag, v.simple_value) for s, v in values if not v.HasField("image")]
    assert scalars == [
        (5, "loss", 0.5),
        (10, "loss", 0.25),
        (10, "psnr_ntire/Set5", 30),
    ]
    ((step, tag, size),) = [
        (s, v.tag, (v.image.height, v.image.width))
        for s, v in values
        if v.HasField("image")
    ]
    assert (step, tag, size) == (10, "pictures/Set5/baby", (4, 10))
    saved = Image.open(tmp_path / "pictures" / "Set5_baby-10.png")
    assert np.array_equal(saved, PICTURE)


def test_no_tracker_leaves_metrics_and_pictures(tmp_path):
    with open_log(tmp_path, "none") as log:
        log.write(5, loss=0.5)
        log.picture(5, "a", PICTURE)
    assert {p.name for p in tmp_path.iterdir()} == {"metrics.jsonl", "pictures"}


class Kept(trackers.Tracker):
    """Keeps what it is told."""

    def __init__(self, run):
        self.told = run
        Kept.last = self
        self.heard = []

    def log(self, step, values):
        self.heard.append((step, values))

    def finish(self, summary, failed):
        self.heard.append((summary, failed))


def test_a_tracker_is_told_the_run_its_values_and_the_figures_of_the_best_step(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(trackers.TRACKERS, "kept", Kept)
    with (
        contextlib.suppress(ZeroDivisionError),
        open_log(tmp_path / "run", "kept", 5) as log,
    ):
        log.write(10, psnr_ntire=30.0, score=41.0, **{"ssim_ntire/a": 0.5})
        log.write(20, psnr_ntire=31.0)  # is its score, too
        log.write(30, loss=1.0)
        raise ZeroDivisionError
    told = Kept.last.told
    assert (told.name, told.folder, told.start) == ("run", tmp_path / "run", 5)
    assert told.config == CONFIG
    *values, (summary, failed) = Kept.last.heard
    assert [step for step, _ in values] == [10, 20, 30]
    assert summary == {
        "best/step": 10,
        "best/score": 41.0,
        "best/psnr_ntire": 30.0,
        "best/ssim_ntire/a": 0.5,
    }
    assert failed


class Broken(trackers.Tracker):
    """Fails in one of its methods."""

    where = ""

    def __init__(self, run):
        self.fail("__init__")

    def fail(self, method):
        if method == self.where:
            raise ConnectionError("the network is down\nfor long")

    def log(self, step, values):
        self.fail("log")

    def picture(self, step, name, image):
        self.fail("picture")

    def finish(self, summary, failed):
        self.fail("finish")


@pytest.mark.parametrize("where", ["__init__", "log", "picture", "finish"])
def test_a_tracker_that_fails_is_one_line_and_all_files_are_there(
    tmp_path, monkeypatch, caplog, where
):
    monkeypatch.setattr(Broken, "where", where)
    monkeypatch.setitem(trackers.TRACKERS, "broken", Broken)
    with open_log(tmp_path, "broken") as log:
        for step in range(1, 4):
            log.write(step, loss=0.5)
            log.picture(step, "a", PICTURE)
    assert [record.getMessage() for record in caplog.records] == [
        "the tracker broken failed (the network is down); training goes on without"
    ]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    assert len(list((tmp_path / "pictures").iterdir())) == 3


@pytest.mark.parametrize(("waiting", "reason"), [(3, "3 values behind"), (99, "0.2 s")])
def test_a_tracker_that_hangs_stops_neither_the_steps_nor_the_end(
    tmp_path, monkeypatch, caplog, waiting, reason
):
    free = threading.Event()

    class Hanging(trackers.Tracker):
        def log(self, step, values):
            free.wait(60)

    monkeypatch.setitem(trackers.TRACKERS, "hanging", Hanging)
    monkeypatch.setattr(trackers, "FINISH_SECONDS", 0.2)
    monkeypatch.setattr(trackers, "MOST_WAITING", waiting)
    with open_log(tmp_path, "hanging") as log:
        for step in range(20):
            log.write(step, loss=0.5)
    free.set()
    (record,) = caplog.records
    assert reason in record.getMessage()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 20


def test_a_full_disk_below_tensorboard_is_one_line(tmp_path, caplog, monkeypatch):
    """SummaryWriter's thread died of it with a traceback, and its end hung."""
    with open("/dev/full", "wb", buffering=0) as full:

        class Full(trackers.TensorBoard):
            def __init__(self, run):
                super().__init__(run)
                writer = self._file._py_recordio_writer
                writer._writer.close()
                writer._writer = full

        monkeypatch.setitem(trackers.TRACKERS, "tensorboard", Full)
        with open_log(tmp_path) as log:
            log.write(1, loss=0.5)
    (record,) = caplog.records
    assert "No space left" in record.getMessage()


@pytest.mark.parametrize("left", ["nothing", "a folder of W&B's runs"])
def test_a_missing_package_is_one_line_with_the_command(tmp_path, monkeypatch, left):
    """Also where W&B has left a folder `wandb`, which Python takes for a package."""
    if left == "nothing":
        monkeypatch.setitem(sys.modules, "wandb", None)
    else:
        (tmp_path / "wandb").mkdir()
        monkeypatch.delitem(sys.modules, "wandb", raising=False)
        monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(InputError) as caught:
        trackers.check_tracker("wandb")
    assert str(caught.value) == (
        "config.train.tracker=wandb needs pip install 'btsrn-jax[wandb]'"
    )


def test_every_tracker_of_the_config_is_there():
    assert set(trackers.TRACKERS) == set(schema.FIELDS["train.tracker"].allowed)
    for name in ("tensorboard", "none"):
        trackers.check_tracker(name)
    with pytest.raises(InputError, match=r"training/trackers\.py lacks it"):
        trackers.check_tracker("aim")
