"""Validation: how good the network is at a step, and when that is asked."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from btsrn_jax import evaluation, inference, mesh, metrics
from btsrn_jax.checkpoint import Checkpoints
from btsrn_jax.data import Pair, evaluation_sets, origin
from btsrn_jax.progress import logger
from btsrn_jax.training.metrics_log import MetricsLog


@dataclasses.dataclass(frozen=True)
class Validation:
    """The images by which a network is judged, and the compiled upscaler for them."""

    sets: Mapping[str, list[Pair]]
    """The pairs of each set, by its name; they were checked."""

    upscale: inference.TiledUpscaler
    """Called with variables and an image."""

    ensemble: bool
    """True where `upscale` averages the eight flips and rotations."""

    config: ConfigDict
    """Of the run."""

    def upscaler(self, variables: Mapping) -> evaluation.Upscaler:
        """Returns these weights as `evaluation` takes them; compiles nothing anew."""
        function = functools.partial(self.upscale, variables)
        name, scale = self.config.model.name, self.config.scale
        return evaluation.Upscaler(name, scale, self.ensemble, function)

    def __call__(self, variables: Mapping[str, Any]) -> float:
        """Returns the mean PSNR over the images of all sets, in dB, by which steps are
        ranked: `metrics.mean_psnr`, or 100 where no image has an error.

        Images without error are left out, and named in the log. Of each set the first
        `eval.max_images` count: the same at every step, or scores would not compare.
        Collective: every process takes its share of the images, on its own devices.
        """
        if mesh.process_count() > 1:
            variables = jax.tree.map(np.asarray, variables)
        upscaler, settings = self.upscaler(variables), self.config.eval
        images = [
            (name, pair)
            for name, pairs in self.sets.items()
            for pair in pairs[: settings.max_images]
        ]
        found = np.full(len(images), np.nan)
        for i in range(jax.process_index(), len(images), mesh.process_count()):
            name, pair = images[i]
            rows = evaluation.evaluate_set(
                name, [pair], upscaler, [settings.protocol], progress=False
            )
            found[i] = rows[0].psnr
        psnr = np.nansum(mesh.gather(found), axis=0)
        perfect = [
            f"{name}/{pair.name}"
            for (name, pair), value in zip(images, psnr, strict=True)
            if value == metrics.WITHOUT_ERROR
        ]
        if perfect:
            logger.info(f"no error in {', '.join(perfect)}: left out of the mean")
        mean = metrics.mean_psnr(psnr)
        return metrics.WITHOUT_ERROR if mean is None else mean


def prepare_validation(
    config: ConfigDict, devices: Mesh, ensemble: bool = False
) -> Validation | None:
    """Lists and checks the evaluation sets of a config; None where it has none.

    Raises:
      InputError: names every image that cannot be used.
    """
    sets = evaluation_sets(config)
    if not sets:
        return None
    for name, pairs in sets.items():
        logger.info(f"{name}: {len(pairs)} images, {origin(pairs)}")
    on = devices if mesh.process_count() == 1 else mesh.local()
    upscale = inference.tiled_upscaler(config, on, ensemble)
    return Validation(sets, upscale, ensemble, config)


def is_due(config: ConfigDict, step: int) -> bool:
    """Returns True for the steps to validate: every `eval_every`, and the last."""
    return step % config.train.eval_every == 0 or step == config.train.steps


def score(
    validation: Validation,
    variables: Mapping[str, Any],
    step: int,
    log: MetricsLog,
    checkpoints: Checkpoints,
) -> None:
    """Adds the score of a saved step to its checkpoint and its line of metrics.

    A continued run finds it in the metrics where the run before it got so far.
    """
    protocol = validation.config.eval.protocol
    known = log.last(step).get(f"psnr_{protocol}", math.nan)
    psnr = float(mesh.gather(np.float64(known))[0, 0])
    if math.isnan(psnr):
        psnr = validation(variables)
        log.write(step, **{f"psnr_{protocol}": psnr})
        logger.info(f"step {step}: validation PSNR ({protocol}) {psnr:.3f}")
    checkpoints.set_score(step, psnr)
