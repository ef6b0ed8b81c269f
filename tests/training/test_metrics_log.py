"""Claims about what a run writes down."""

import json

import numpy as np
import pytest

from btsrn_jax.training import metrics_log


def lines(folder):
    text = (folder / "metrics.jsonl").read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def without_time(found):
    return [{k: v for k, v in line.items() if k != "time"} for line in found]


def test_a_step_is_one_line_whatever_is_added_to_it_later(tmp_path):
    book = metrics_log.MetricsLog(tmp_path)
    book.write(5, loss=0.5)
    book.write(10, loss=0.25)
    book.write(10, psnr_ntire=30.0)
    assert without_time(lines(tmp_path)) == [  # at once, not at the end
        {"step": 5, "loss": 0.5},
        {"step": 10, "loss": 0.25, "psnr_ntire": 30.0},
    ]
    book.write(15, loss=0.1)
    book.close()
    assert [line["step"] for line in lines(tmp_path)] == [5, 10, 15]
    assert lines(tmp_path)[0]["time"] > 1.6e9  # seconds since 1970
    assert list(tmp_path.glob("events.out.tfevents.*"))  # TensorBoard's


@pytest.mark.parametrize("logged", [True, False])
@pytest.mark.parametrize("later", [0, 1, 3])
def test_figures_that_come_late_stand_at_their_step(tmp_path, logged, later):
    """Those of a validation, while training goes on."""
    book = metrics_log.MetricsLog(tmp_path)
    book.write(5, loss=0.5)
    if logged:
        book.write(10, loss=0.25)
    for step in range(11, 11 + later):
        book.write(step, loss=0.125)
    book.write(10, psnr_ntire=30.0)
    book.write(20, loss=0.0625)
    loss = {"loss": 0.25} if logged else {}
    assert without_time(lines(tmp_path)) == [
        {"step": 5, "loss": 0.5},
        {"step": 10, **loss, "psnr_ntire": 30.0},
        *({"step": step, "loss": 0.125} for step in range(11, 11 + later)),
        {"step": 20, "loss": 0.0625},
    ]
    book.close()


def test_a_continued_run_forgets_what_came_after_its_checkpoint(tmp_path):
    book = metrics_log.MetricsLog(tmp_path)
    for step in (5, 10, 15):
        book.write(step, loss=1.0 / step)
    book.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "lo')  # killed here
    book = metrics_log.MetricsLog(tmp_path, start=10)
    assert book.last(10)["loss"] == 0.1
    assert book.last(15) == {}
    book.write(10, psnr_ntire=30.0)  # evaluated by the continued run
    book.write(15, loss=2.0)
    book.close()
    assert without_time(lines(tmp_path)) == [
        {"step": 5, "loss": 0.2},
        {"step": 10, "loss": 0.1, "psnr_ntire": 30.0},
        {"step": 15, "loss": 2.0},
    ]


def test_damaged_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "x": 1}\n[2]\n{"stop": 3}\n\xff\xfe\n{"step": 4}\n')
    assert [line["step"] for line in metrics_log.read_metrics(path)] == [1, 4]
    assert metrics_log.read_metrics(tmp_path / "none.jsonl") == []


def test_of_several_processes_one_writes(tmp_path):
    book = metrics_log.MetricsLog(tmp_path, writes=False)
    book.write(5, loss=0.5)
    assert book.last(5)["loss"] == 0.5
    book.close()
    assert not list(tmp_path.iterdir())


class Progress:
    """What is shown."""

    def __init__(self):
        self.steps, self.shown = [], []

    def advance(self, step):
        self.steps.append(step)

    def show(self, step, values):
        self.shown.append({"step": step} | values)


class Batches:
    """Of a quarter of the time."""

    def share_waited(self):
        return 0.25


def metrics_of(step):
    return {"loss": np.float32(step), "learning_rate": 0.1, "skipped": 0}


def test_metrics_are_fetched_a_step_late_and_the_loss_is_its_intervals_mean(
    tmp_path,
):
    log, progress = metrics_log.MetricsLog(tmp_path), Progress()
    clock = [7.0]
    settings = {"start": 0, "log_every": 2, "last": 5, "seconds": lambda: clock[0]}
    recorder = metrics_log.Recorder(log, progress, Batches(), **settings)
    for step in range(1, 6):
        recorder.add(step, metrics_of(step))
        assert len(progress.steps) == step - 1
        clock[0] += step  # each step takes longer than the one before
    recorder.flush()
    recorder.flush()  # nothing is recorded twice
    log.close()
    found = lines(tmp_path)
    losses = {line["step"]: line["loss"] for line in found}
    assert losses == {2: 1.5, 4: 3.5, 5: 5}
    rates = [line["steps_per_second"] for line in found]
    assert rates == [2 / (1 + 2), 2 / (3 + 4), 1 / 5]  # of these steps alone
    assert found[0]["data_wait"] == 0.25
    # The console has the same steps and the same values as the file.
    assert progress.shown == without_time(found)
    assert progress.steps == [1, 2, 3, 4, 5]


def test_no_number_that_is_not_finite_reaches_a_file(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(  # of version 0.1.0
        '{"step": 5, "loss": NaN, "psnr_ntire": Infinity, "skipped": 1.0}\n'
    )
    book = metrics_log.MetricsLog(tmp_path, start=5)
    assert "psnr_ntire" not in book.last(5)  # so it is measured again
    book.write(10, loss=float("nan"), grad_norm=float("inf"), skipped=2.0)
    book.write(10, psnr_ntire=float("-inf"))
    book.close()
    assert without_time(lines(tmp_path)) == [
        {"step": 5, "skipped": 1.0},
        {"step": 10, "skipped": 2.0},
    ]
