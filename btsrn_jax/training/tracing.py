"""A profile of some steps: which operations take the time of a step."""

import contextlib
import pathlib
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax

from btsrn_jax import mesh, storage
from btsrn_jax.errors import first_line
from btsrn_jax.progress import logger

FOLDER = pathlib.PurePath("plugins", "profile")  # where TensorBoard's plugin looks


class Trace:
    """Records the steps that `train.profile` names by JAX's profiler.

    The files are `plugins/profile/TIME/HOST.*` in the run directory. Of several
    processes the first one is recorded. A trace that cannot be written is one line, and
    the run goes on.

    Args:
      workdir: the run directory.
      profile: (first step, number of steps); () for none.
      start: the step from which the run continues.
      pause: gives the context in which the trace is begun and written, so that this is
        no time of a step.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        profile: Sequence[int],
        start: int,
        pause: Callable[[], AbstractContextManager],
    ) -> None:
        first, count = profile or (0, 0)
        self._home, self._pause, self._begun = storage.path(workdir), pause, None
        self._first, self._last = max(first, start + 1), first + count - 1
        if profile and self._last <= start:
            steps = _steps(first, self._last)
            logger.info(f"no profile: {steps} lie behind step {start}")
        self._reached = 0
        if not mesh.is_first():
            self._last = -1

    @contextlib.contextmanager
    def step(self, step: int, state: Any) -> Iterator[None]:
        """A context in which a step is dispatched: it is recorded if it is one of those
        that were named.

        Args:
          step: its number, from 1.
          state: what the step before returns. The first step that is recorded waits for
            it, so that no part of another step is in the trace.
        """
        if not self._first <= step <= self._last:
            yield
            return
        if step == self._first:
            with self._pause():
                self._begin(state)
        self._reached = step
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield

    def end(self, step: int, state: Any) -> None:
        """Writes the trace after the last step that is recorded.

        Args:
          step: the latest one.
          state: what it returns, which is waited for.
        """
        if step == self._last and self._begun is not None:
            with self._pause():
                jax.block_until_ready(state)
                self.close()

    def close(self) -> None:
        """Writes what is recorded, if anything is: also of steps that were stopped."""
        if self._begun is None:
            return
        folder, self._begun = self._begun, None
        try:
            jax.profiler.stop_trace()
            where = self._upload(folder)
        except (RuntimeError, OSError) as error:
            logger.warning(f"no profile was written: {first_line(error)}")
            return
        logger.info(
            f"profile of {_steps(self._first, self._reached)}: {where}; open it:"
            f" pip install xprof && xprof --logdir {shlex.quote(str(self._home))}"
        )

    def _begin(self, state):
        jax.block_until_ready(state)
        folder = self._home
        if storage.in_bucket(self._home):
            folder = pathlib.Path(tempfile.mkdtemp())
        try:
            jax.profiler.start_trace(str(folder))
        except RuntimeError as error:  # a program around this one records already
            logger.warning(f"no profile: {first_line(error)}")
            return
        self._begun = folder

    def _upload(self, folder):
        """Returns the folder of the trace, once it lies in the run directory."""
        made = max((folder / FOLDER).iterdir())  # they are named by their time
        where = self._home / FOLDER / made.name
        if folder != self._home:
            for file in made.iterdir():
                storage.write(where / file.name, file.read_bytes())
            shutil.rmtree(folder)
        return where


def _steps(first, last):
    return f"step {first}" if first == last else f"steps {first} to {last}"
