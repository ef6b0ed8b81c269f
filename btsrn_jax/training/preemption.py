"""Being told to stop: SIGTERM (preemption), SIGINT (Ctrl-C), a time limit.

While the loop steps it asks, and saves. At all other times (data is read, XLA compiles,
an evaluation runs) there is nothing new to save, and the main thread may be deep in C++
for a minute: then a thread ends the process, once a save in progress has finished.
"""

import os
import signal
import sys
import threading
import time

import jax
from jax.experimental import multihost_utils

STOPPED = 75  # exit code: stopped early; the same command continues


class Preemption:
    """A context that takes the signals over, where one process runs alone.

    Several processes have to stop at the same step: there JAX's own handler, in place
    since `jax.distributed.initialize`, passes the news on, and they agree on the step.
    """

    def __init__(self):
        self.deadline = float("inf")  # of time.monotonic()
        self.attentive = False  # does the main thread ask?
        self.finish = lambda: None  # else: what is called before the process ends
        self._signalled = threading.Event()
        self._before = {}

    def __enter__(self):
        if jax.process_count() == 1:
            self.take_over()
        return self

    def take_over(self):
        """From here on this process works alone, also where others wait for its end."""
        main = threading.current_thread() is threading.main_thread()
        if self._before or not main:
            return
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        # Python's handlers wait for the main thread; these bytes do not.
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._handle)
        threading.Thread(target=self._listen, args=(reading,), daemon=True).start()

    def __exit__(self, *_):
        if self._before:
            signal.set_wakeup_fd(-1)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._before = {}
            os.close(self._writing)  # ends the thread

    def signalled(self) -> bool:
        """Whether there was a signal, where one process runs alone."""
        return self._signalled.is_set()

    def should_stop(self, step: int) -> bool:
        """Whether to stop at this step, for a signal to any process or a time that is
        over: the same answer to all, who have to ask at every step."""
        if jax.process_count() == 1:
            return self.signalled() or time.monotonic() > self.deadline
        if time.monotonic() > self.deadline:
            self.deadline = float("inf")
            os.kill(os.getpid(), signal.SIGTERM)  # as if preempted: passed on by JAX
        return multihost_utils.reached_preemption_sync_point(step)

    def _handle(self, number, frame):
        """A second signal of the same kind acts as usual."""
        signal.signal(number, self._before[number])

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
            print("stopped; the same command continues", file=sys.stderr, flush=True)
            os._exit(STOPPED)
