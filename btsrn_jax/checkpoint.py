"""Orbax behind a thin module: save, verify, restore anywhere, parameters only.

A checkpoint is a nested dict of arrays, readable without this package. Beside it lie
the config and a SHA-256 per array: Orbax restores a flipped bit without a word.
"""

import hashlib
import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    BestN,
    LatestN,
)

from btsrn_jax.errors import InputError

FOLDER = "checkpoints"
DAMAGED = "damaged"
# A score for "not validated" and for nan, which Orbax would rank above all others.
NO_SCORE = -1e30


class Checkpoints:
    """The checkpoints of one run directory: the two latest and the best are kept."""

    def __init__(self, workdir: pathlib.Path, log: Callable[[str], None] = print):
        self.folder = pathlib.Path(workdir).resolve() / FOLDER
        self.log = log
        self.folder.mkdir(parents=True, exist_ok=True)
        self._move_unreadable_aside()
        self.manager = ocp.CheckpointManager(
            self.folder,
            item_handlers={
                "state": ocp.PyTreeCheckpointHandler(),
                "about": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                best_fn=_score,
                preservation_policy=AnyPreservationPolicy(
                    [LatestN(2), BestN(get_metric_fn=_score, n=1)]
                ),
                cleanup_tmp_directories=True,
            ),
        )

    def save(self, step: int, state: Any, config: Mapping, psnr: float | None = None):
        """Starts saving; the arrays may be changed as soon as this returns.

        Args:
          step: the number of updates made.
          state: a pytree of arrays.
          config: the resolved config, JSON-compatible.
          psnr: of the validation at this step, if there was one.
        """
        if step in self.manager.all_steps():
            return
        arrays = flatten(state)
        about = {"config": config, "sha256": _digests(arrays, config)}
        score = NO_SCORE if psnr is None or not math.isfinite(psnr) else float(psnr)
        self.manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(nest(arrays)),
                about=ocp.args.JsonSave(about),
            ),
            metrics={"psnr": score},
        )

    def wait(self) -> None:
        """Returns when everything is on disk; raises what a save in progress met."""
        self.manager.wait_until_finished()

    def close(self) -> None:
        """Waits and releases the manager."""
        self.wait()
        self.manager.close()

    def best_step(self) -> int | None:
        """The step of the highest validation PSNR; the latest where none was validated;
        None where there is no checkpoint."""
        steps = self.manager.all_steps()
        best = self.manager.best_step() if steps else None
        if best is not None and self.score(best) is None:
            best = max(steps)
        return best

    def score(self, step: int) -> float | None:
        """The validation PSNR at a step, None where there was none."""
        metrics = self.manager.metrics(step)
        return None if metrics["psnr"] <= NO_SCORE else metrics["psnr"]

    def restore_latest(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """(step, {path: array}) of the newest whole checkpoint, or None.

        Damaged ones are named, and moved to `damaged/` in the run directory.
        """
        return self._newest_whole(sorted(self.manager.all_steps(), reverse=True))

    def restore_best(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """As `restore_latest`, of the best checkpoint if that one is whole."""
        steps = sorted(self.manager.all_steps(), reverse=True)
        best = self.best_step()
        return self._newest_whole(sorted(steps, key=lambda step: step != best))

    def _newest_whole(self, steps):
        for step in steps:
            try:
                return step, self._restore(step)
            except Exception as error:  # a damaged file can raise anything
                self._move_aside(step, error)
        return None

    def _restore(self, step):
        folder = self.folder / str(step)
        about = json.loads((folder / "about" / "metadata").read_text())
        tree = self.manager.item_metadata(step).state.tree
        restore_args = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree
        )
        restored = self.manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeRestore(restore_args=restore_args)
            ),
        )
        arrays = flatten(restored.state)
        expected, found = about["sha256"], _digests(arrays, about["config"])
        if expected != found:
            names = sorted(
                name
                for name in expected.keys() | found.keys()
                if expected.get(name) != found.get(name)
            )
            raise ValueError(f"checksum mismatch in {', '.join(names[:3])}")
        return arrays

    def _move_aside(self, step, error):
        source = self.folder / str(step)
        target = self.folder.parent / DAMAGED / str(step)
        number = 1
        while target.exists():
            target = target.with_name(f"{step}-{number}")
            number += 1
        target.parent.mkdir(exist_ok=True)
        source.rename(target)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        self.log(f"checkpoint {source} is damaged ({reason}); moved to {target}")
        if hasattr(self, "manager"):
            self.manager.reload()

    def _move_unreadable_aside(self):
        """One damaged metrics file would keep Orbax from opening the folder at all."""
        for folder in self.folder.iterdir():
            if not folder.name.isdigit():
                continue
            try:
                _score(json.loads((folder / "metrics" / "metrics").read_text()))
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._move_aside(int(folder.name), error)


def _score(metrics):
    return float(metrics["psnr"])


def load_parameters(run: pathlib.Path) -> tuple[int, dict, dict]:
    """The best checkpoint of a run directory, for inference.

    Returns:
      step, its config (resolved, as a nested dict), and variables: `params` (averaged
      ones where the run keeps them) and, where there are any, `batch_stats`.
    """
    run = pathlib.Path(run)
    if not (run / FOLDER).is_dir():
        raise InputError(f"{run} is no run directory: it has no {FOLDER}/")
    checkpoints = Checkpoints(run)
    restored = checkpoints.restore_best()
    checkpoints.close()
    if restored is None:
        raise InputError(f"{run / FOLDER} holds no checkpoint")
    step, arrays = restored
    state = nest(arrays)
    config = json.loads((run / "config.json").read_text())
    variables = {"params": state.get("ema") or state["params"]}
    return step, config, variables | state.get("model_state", {})


def flatten(tree: Any) -> dict[str, Any]:
    """{"params/low0/conv/kernel": array, ...} of any pytree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in leaves
    }


def fill(template: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """A pytree like `template` with the arrays of these paths; ValueError names a path
    that is missing, left over or of another shape."""
    expected = flatten(template)
    for name in expected.keys() | arrays.keys():
        if name not in arrays or name not in expected:
            where = "checkpoint" if name not in arrays else "model"
            raise ValueError(f"{name} is not in the {where}")
        if expected[name].shape != arrays[name].shape:
            raise ValueError(
                f"{name} is {arrays[name].shape}, {expected[name].shape} was expected"
            )
    return jax.tree.unflatten(
        jax.tree.structure(template), [arrays[name] for name in expected]
    )


def nest(arrays: Mapping[str, Any]) -> dict:
    """{"params/in/kernel": array} -> {"params": {"in": {"kernel": array}}}."""
    tree = {}
    for path, array in arrays.items():
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = array
    return tree


def _digests(arrays, config):
    digests = {}
    for name, array in arrays.items():
        array = np.asarray(array)
        data = f"{array.dtype} {array.shape}".encode() + array.tobytes()
        digests[name] = hashlib.sha256(data).hexdigest()
    text = json.dumps(config, sort_keys=True)
    return digests | {"config": hashlib.sha256(text.encode()).hexdigest()}
