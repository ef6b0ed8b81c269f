"""Being told to stop: SIGTERM (preemption), SIGINT (Ctrl-C), SIGHUP (the terminal was
closed), a time limit.

While the loop steps it asks, saves, and stops. At all other times (data is read, XLA
compiles, an evaluation runs) there is nothing new to save, and the main thread may be
deep in C++ for a minute. Then a thread ends the process, once a save in progress has
finished.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Self

import jax
from jax.experimental import multihost_utils

from btsrn_jax import lock
from btsrn_jax.progress import logger

STOPPED = 75  # exit code: stopped early; the same command continues


class Stopped(Exception):
    """The run stopped early, at a step whose state is saved."""

    def __init__(self, step: int) -> None:
        super().__init__(f"at step {step}")
        self.step = step


class Preemption:
    """A context that takes the signals over, where one process runs alone.

    Several processes have to stop at the same step. There JAX's own handler, in place
    since `jax.distributed.initialize`, passes the news on, and they agree on the step.
    """

    deadline: float
    """Of `time.monotonic()`: the time limit."""

    attentive: bool
    """True while the main thread asks `should_stop`; else a signal ends the process."""

    finish: Callable[[], None]
    """Called before a signal ends the process: waits for a save in progress."""

    def __init__(self) -> None:
        self.deadline = float("inf")
        self.attentive = False
        self.finish = lambda: None
        self._signalled = threading.Event()
        self._before = {}
        self._writing = None

    def __enter__(self) -> Self:
        if jax.process_count() == 1:
            self.take_over()
        elif _hears_hangup() and threading.current_thread() is threading.main_thread():
            self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, _preempt)
        return self

    def take_over(self) -> None:
        """Installs the signal handlers, also in a run of several processes.

        To be called once the other processes only wait for this one to end.
        """
        main = threading.current_thread() is threading.main_thread()
        if self._writing is not None or not main:
            return
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        # Python's handlers wait for the main thread; these bytes do not.
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        heard = [signal.SIGTERM, signal.SIGINT]
        heard += [signal.SIGHUP] if _hears_hangup() else []
        for number in heard:
            self._before.setdefault(number, signal.signal(number, self._handle))
        threading.Thread(target=self._listen, args=(reading,), daemon=True).start()

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        if self._writing is not None:
            signal.set_wakeup_fd(-1)
            os.close(self._writing)  # ends the thread
            self._writing = None

    def signalled(self) -> bool:
        """Returns True after a signal, where one process runs alone."""
        return self._signalled.is_set()

    def should_stop(self, step: int) -> bool:
        """Returns True if the run should stop after this step: a process received a
        signal, or the time limit has passed.

        Collective: every process calls it at every step, and all get the same answer.
        """
        if jax.process_count() == 1:
            return self.signalled() or time.monotonic() > self.deadline
        if time.monotonic() > self.deadline:
            self.deadline = float("inf")
            _preempt()
        return multihost_utils.reached_preemption_sync_point(step)

    def _handle(self, number, frame):
        # A second signal of the same kind acts as usual. The end of a terminal is told
        # twice, by the kernel and by the shell.
        hangup = number == signal.SIGHUP
        signal.signal(number, signal.SIG_IGN if hangup else self._before[number])

    def _listen(self, reading):
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            while pipe.read(1):
                self._signalled.set()
                if not self.attentive:
                    self._leave()

    def _leave(self):
        try:
            self.finish()
        finally:
            logger.info("stopped; the same command continues")
            lock.release_all()
            os._exit(STOPPED)


def _hears_hangup():
    """Returns False under `nohup`, which has the end of the terminal ignored."""
    return signal.getsignal(signal.SIGHUP) != signal.SIG_IGN


def _preempt(*_):
    """Sends this process what JAX passes on to the other ones of the run."""
    os.kill(os.getpid(), signal.SIGTERM)
