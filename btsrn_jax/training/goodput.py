"""Where the time of a run goes: shares of its sessions, patches a second, utilisation.

A session is one process's work on a run, from reading its images to the last step that
it makes. Its figures are in metrics.jsonl, in the line of that step.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from btsrn_jax import mesh, network
from btsrn_jax.progress import logger
from btsrn_jax.training.metrics_log import MetricsLog
from btsrn_jax.training.peak import peak_of
from btsrn_jax.training.preemption import Stopped
from btsrn_jax.training.step import Recipe

# `other` is the rest: images are read and listed, a profile is written.
PARTS = (
    "steps",
    "data_wait",
    "validation",
    "checkpoint",
    "compile",
    "restore",
    "other",
)
SECONDS, SHARE = "session_seconds", "share_"
RATE, UTILISATION = "patches_per_second", "utilisation"
MEASURED_FROM = 10.0  # seconds of training: a peak is not measured for less


class TimeSplit:
    """A clock that counts every moment to one part of a run; it begins in `other`."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._part, self._since = "other", time.monotonic()

    def switch(self, part: str) -> str:
        """Counts the time from now on to a part; returns the part until now."""
        now, before = time.monotonic(), self._part
        self._seconds[before] += now - self._since
        self._part, self._since = part, now
        return before

    @contextlib.contextmanager
    def part(self, part: str) -> Iterator[None]:
        """A context whose time is counted to a part, and to no other."""
        before = self.switch(part)
        try:
            yield
        finally:
            self.switch(before)

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds of each part until now."""
        self.switch(self._part)
        return dict(self._seconds)

    def training(self) -> float:
        """Returns the seconds of steps until now, and of their waits for data."""
        found = self.seconds
        return found["steps"] + found["data_wait"]


@dataclasses.dataclass(frozen=True)
class Session:
    """The time of one session, or of several together."""

    seconds: Mapping[str, float]
    """Of each of PARTS."""

    patches: float
    """Patches that were trained on."""

    utilisation: float | None
    """The share of what the devices can compute that the steps did compute; None where
    that is not known."""

    count: int = 1
    """How many sessions these are."""

    @property
    def total(self) -> float:
        """The seconds of all parts."""
        return sum(self.seconds.values())

    @property
    def training(self) -> float:
        """The seconds of steps and of their waits for data."""
        return self.seconds["steps"] + self.seconds["data_wait"]

    @property
    def rate(self) -> float | None:
        """Patches a second of training; None without any time of it."""
        return self.patches / self.training if self.training else None

    def to_metrics(self) -> dict[str, float]:
        """Returns the figures by their names in metrics.jsonl."""
        values = {SECONDS: self.total}
        values |= {SHARE + part: s / self.total for part, s in self.seconds.items()}
        values |= {RATE: self.rate, UTILISATION: self.utilisation}
        return {name: float(f"{x:.5g}") for name, x in values.items() if x is not None}

    def describe(self) -> str:
        """Returns the figures in words, the largest part first."""
        parts = sorted(self.seconds.items(), key=lambda item: -item[1])
        shares = [(part, f"{100 * s / self.total:.1f}") for part, s in parts]
        text = ", ".join(
            f"{part.replace('_', ' ')} {share} %"
            for part, share in shares
            if share != "0.0"
        )
        if self.rate:
            text += f"; {self.rate:.3g} patches/s"
        if self.utilisation:
            text += f", {100 * self.utilisation:.0f} % of what the devices can compute"
        return f"time: {text}"


def read_sessions(lines: Sequence[Mapping[str, Any]]) -> list[Session]:
    """Returns the sessions that a run's lines of metrics tell of, in their order.

    A session that was killed, or ended by a signal while it did not step, has left
    nothing.
    """
    found = []
    for line in lines:
        if line.get(SECONDS, 0) > 0:
            total = line[SECONDS]
            seconds = {part: line.get(SHARE + part, 0.0) * total for part in PARTS}
            session = Session(seconds, 0.0, line.get(UTILISATION))
            patches = line.get(RATE, 0.0) * session.training
            found.append(dataclasses.replace(session, patches=patches))
    return found


def together(sessions: Sequence[Session]) -> Session | None:
    """Returns the sum of sessions; None if there are none.

    Utilisation is the mean over the time of those sessions that know theirs.
    """
    if not sessions:
        return None
    seconds = {part: sum(s.seconds[part] for s in sessions) for part in PARTS}
    known = [s for s in sessions if s.utilisation is not None]
    time_known = sum(s.training for s in known)
    used = sum(s.utilisation * s.training for s in known)
    return Session(
        seconds,
        sum(s.patches for s in sessions),
        used / time_known if time_known else None,
        len(sessions),
    )


@contextlib.contextmanager
def recorded(
    split: TimeSplit,
    log: MetricsLog,
    recipe: Recipe,
    devices: Mesh,
    start: int,
    last: int,
) -> Iterator[None]:
    """A context for the steps of a session. At its end the first process says where the
    time went, and writes it into the line of the last step.

    Nothing is written where a session fails, and where it made no step.

    Args:
      split: of the session.
      log: where the figures are written.
      recipe: of a step.
      devices: the mesh.
      start: the step from which the run continues.
      last: the last step of the run.
    """
    stopped = None
    try:
        yield
    except Stopped as stop:
        stopped = stop
    reached = stopped.step if stopped else last
    if mesh.is_first() and reached > start:
        session = Session(split.seconds, (reached - start) * recipe.batch_size, None)
        session = dataclasses.replace(
            session, utilisation=_utilisation(session, recipe, devices)
        )
        log.write(reached, **session.to_metrics())
        logger.info(session.describe())
    if stopped:
        raise stopped


def _utilisation(session, recipe, devices):
    dtype = recipe.model.compute.dtype
    most = peak_of(devices, dtype, measure=session.training > MEASURED_FROM)
    if most is None or session.rate is None:
        return None
    return session.rate * network.train_flops(recipe.model, recipe.side) / most
