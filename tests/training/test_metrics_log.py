"""Claims about what a run writes down."""

import json

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


def test_progress_names_step_loss_rate_and_time_left(capsys, monkeypatch):
    clock = iter([0.0, 0.0, 4.0, 5.0, 6.0])
    monkeypatch.setattr(metrics_log.time, "monotonic", lambda: next(clock))
    progress = metrics_log.Progress(0, 100, batch_size=16, seconds=1)
    progress.begin(0)
    progress.update(20, loss=0.5)
    text = capsys.readouterr().err
    for part in ("step 20/100", "loss 0.5", "5 steps/s", "80 patches/s", "0:00:16"):
        assert part in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (61.4, "0:01:01"), (36061, "10:01:01")]
)
def test_durations(seconds, text):
    assert metrics_log.duration(seconds) == text
