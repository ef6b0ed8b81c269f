"""The scores of a run's checkpoints: when they are measured, and where they go."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from btsrn_jax import evaluation, mesh, metrics
from btsrn_jax.checkpoint import Checkpoints
from btsrn_jax.progress import logger
from btsrn_jax.training.metrics_log import MetricsLog
from btsrn_jax.training.validation import Figures, Measuring, Validation


def is_due(config: ConfigDict, step: int) -> bool:
    """Returns True for the steps to validate: every `eval_every`, and the last."""
    return step % config.train.eval_every == 0 or step == config.train.steps


class Scores:
    """Validates saved steps. A score is added to its checkpoint, and figures to the
    step's line of metrics, as soon as they are taken, some steps later.

    Collective: every process calls every method at the same steps.

    Args:
      validation: None: nothing is validated.
      log: where figures and pictures go.
      checkpoints: where scores go.
      every: steps between two looks of several processes for figures that are taken.
    """

    def __init__(
        self,
        validation: Validation | None,
        log: MetricsLog,
        checkpoints: Checkpoints,
        every: int,
    ) -> None:
        self._validation, self._log = validation, log
        self._checkpoints, self._every = checkpoints, every
        self._pending: tuple[int, Measuring] | None = None

    def begin(self, step: int, variables: Callable[[], Mapping[str, Any]]) -> None:
        """Validates a step; returns after the forward passes.

        A continued run finds the score in its metrics where the run before it got so
        far.

        Args:
          step: which is saved.
          variables: returns those of the network.
        """
        self.wait()
        protocol = self._validation.config.eval.protocol
        line = self._log.last(step)
        known = line.get("score", line.get(f"psnr_{protocol}", math.nan))
        known = float(mesh.gather(np.float64(known))[0, 0])
        if math.isnan(known):
            self._pending = step, self._validation(variables())
        else:
            self._checkpoints.set_score(step, known)

    def look(self, step: int) -> None:
        """Records figures if they are taken by now. Costs nothing where there are
        none; several processes ask each other at every `every`th step."""
        if self._pending is None:
            return
        if mesh.process_count() > 1 and step % self._every:
            return
        measured = self._pending[1].done() and not self._checkpoints.is_saving()
        if mesh.gather(measured).all():
            self.wait()

    def wait(self) -> None:
        """Records figures that are being taken, once they are. To be called before the
        next checkpoint is saved: the best one is chosen among those with a score."""
        pending, self._pending = self._pending, None
        if pending is not None:
            step, measuring = pending
            self._record(step, measuring.figures())

    def _record(self, step, figures: Figures):
        settings = self._validation.config.eval
        protocol, best_set = settings.protocol, settings.best_set
        found = figures.psnr(protocol)
        mean = metrics.mean_psnr(found.values())
        rank = metrics.rank(figures.psnr(protocol, best_set).values())
        values = {f"psnr_{protocol}": mean, "score": None if mean == rank else rank}
        values = {name: x for name, x in values.items() if x is not None}
        means = figures.means()
        self._log.write(step, **values, **means)
        for name, picture in figures.snapshots.items():
            self._log.picture(step, name, picture)
        text = evaluation.as_text(mean, ".3f") or "none"
        perfect = [k for k, v in found.items() if v == metrics.WITHOUT_ERROR]
        text += f", without {', '.join(perfect)}: no error there" if perfect else ""
        if len(figures.groups) > 1:
            of_each = [means.get(f"psnr_{protocol}/{name}") for name in figures.groups]
            texts = [evaluation.as_text(x, ".3f") or "none" for x in of_each]
            each = zip(figures.groups, texts, strict=True)
            text += "; " + ", ".join(map(" ".join, each))
        logger.info(f"step {step}: validation PSNR ({protocol}) {text}")
        self._checkpoints.set_score(step, rank)
