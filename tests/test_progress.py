"""Claims about what people see while something runs."""

import io
import logging
import os
import re
import select
import sys

from btsrn_jax import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def train():
    """Ninety steps, of which every thirtieth is logged."""
    shown = progress.TrainingProgress(10, 100, batch_size=16)
    for step in range(11, 101):
        if step % 30 == 10:
            values = {"loss": step / 100, "learning_rate": 1e-3, "steps_per_second": 4}
            shown.show(step, values)
        shown.advance(step)
    shown.close()


def test_training_is_a_line_for_each_logged_step_where_there_is_no_terminal(capsys):
    """Loss, learning rate, rates, time left; in a log nothing is written over."""
    progress.log_to_stderr(1, 4)
    train()
    assert capsys.readouterr().err.splitlines() == [
        f"[1/4] training: {step}/100 steps, loss {step / 100:g}, learning rate 0.001,"
        f" 4 steps/s, 00:{left} left, 64 patches/s"
        for step, left in ((40, 15), (70, "07"), (100, "00"))
    ]


def test_training_is_a_bar_on_a_terminal_with_messages_above(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    progress.log_to_stderr()
    train()
    logging.getLogger("btsrn").info("next")
    text = screen.getvalue()
    assert "\r" in text
    assert "10/100 steps" in text  # before anything is logged
    assert re.search(r"100/100 steps, loss 1, learning rate 0.001, 4 steps/s, 00", text)
    # Between two logged steps the values are those of the first.
    assert not re.search(r" (4[1-9]|[56]\d)/100 steps, loss (?!0.4,)", text)
    assert text.splitlines()[-1].endswith("next")


def test_a_terminal_without_a_size_has_a_bar_too(monkeypatch):
    reading, writing = os.openpty()  # of 0 x 0, as `script` and some containers have
    with os.fdopen(writing, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        train()
        terminal.flush()
        text = b""
        while select.select([reading], [], [], 1)[0]:  # it comes in pieces
            text += os.read(reading, 100_000)
    os.close(reading)
    text = text.decode()
    assert "100/100 steps, loss 1, learning rate 0.001, 4 steps/s, 00:00" in text


def test_a_message_of_several_lines_is_marked_in_each(capsys):
    progress.log_to_stderr(0, 2)
    logging.getLogger("btsrn").info("one\ntwo")
    assert capsys.readouterr().err == "[0/2] one\n[0/2] two\n"
