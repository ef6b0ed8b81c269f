"""Claims about what people see while something runs."""

import io
import logging
import re
import sys

import pytest

from btsrn_jax import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def train():
    shown = progress.TrainingProgress(10, 100, batch_size=16)
    for step in range(11, 101):
        shown.update(step, loss=0.5, learning_rate=1e-3)
    shown.close()


def test_training_is_lines_where_there_is_no_terminal(capsys):
    """At the least the last step: loss, learning rate, rates, time left; in a log
    nothing is written over, and no step stands there twice."""
    progress.log_to_stderr(1, 4)
    train()
    text = capsys.readouterr().err
    assert "\r" not in text
    assert text.count("100/100 steps") == 1
    for line in text.splitlines():
        assert line.startswith("[1/4] training: ")
    for part in ("loss 0.5", "learning rate 0.001", "steps/s", "patches/s", "left"):
        assert part in text


def test_training_is_a_bar_on_a_terminal_with_messages_above(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    progress.log_to_stderr()
    train()
    logging.getLogger("btsrn").info("next")
    text = screen.getvalue()
    assert "\r" in text
    assert re.search(r"100/100 steps, loss 0.5, learning rate 0.001, \S+ patch", text)
    assert text.splitlines()[-1].endswith("next")


def test_what_is_not_training_counts_for_no_rate(monkeypatch):
    """Eighty seconds of validation in the middle of ten steps that take a second."""
    now = [1000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    shown = progress.TrainingProgress(0, 100, batch_size=16)
    shown._bar._time = lambda: now[0]
    shown._bar.start_t = shown._bar.last_print_t = now[0]
    assert shown.rate is None
    for step in range(1, 11):
        now[0] += 1
        shown.update(step, loss=0.5, learning_rate=1e-3)
        if step == 5:
            with shown.paused():
                now[0] += 80
    assert shown.rate == pytest.approx(1)
    shown.close()


def test_a_message_of_several_lines_is_marked_in_each(capsys):
    progress.log_to_stderr(0, 2)
    logging.getLogger("btsrn").info("one\ntwo")
    assert capsys.readouterr().err == "[0/2] one\n[0/2] two\n"
