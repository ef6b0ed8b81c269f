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

    def __call__(self, variables: Mapping[str, Any]) -> dict[str, float]:
        """Returns the PSNR of every image of all sets by SET/IMAGE, in dB, as
        `metrics.counted` has it.

        Of each set the first `eval.max_images` count: the same at every step, or scores
        would not compare. Collective: every process takes its share of the images, on
        its own devices.
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
        names = [f"{name}/{pair.name}" for name, pair in images]
        return dict(zip(names, map(float, psnr), strict=True))


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
    """Adds the score of a saved step to its checkpoint, and its PSNR to its line of
    metrics.

    The line has the mean PSNR, without the images that have no error; where there are
    such, it also has the score, in which they count. A continued run finds both in the
    metrics where the run before it got so far.
    """
    protocol = validation.config.eval.protocol
    name, line = f"psnr_{protocol}", log.last(step)
    known = line.get("score", line.get(name, math.nan))
    rank = float(mesh.gather(np.float64(known))[0, 0])
    if math.isnan(rank):
        found = validation(variables)
        mean, rank = metrics.mean_psnr(found.values()), metrics.rank(found.values())
        values = {name: mean, "score": None if mean == rank else rank}
        log.write(step, **{k: v for k, v in values.items() if v is not None})
        text = evaluation.as_text(mean, ".3f") or "none"
        perfect = [k for k, v in found.items() if v == metrics.WITHOUT_ERROR]
        text += f", without {', '.join(perfect)}: no error there" if perfect else ""
        logger.info(f"step {step}: validation PSNR ({protocol}) {text}")
    checkpoints.set_score(step, rank)
