"""Orbax behind a thin module: save, verify, restore anywhere, parameters only.

A checkpoint is a nested dict of arrays, readable without this package. Beside it lie
the config and a SHA-256 per array: Orbax restores a flipped bit without a word.
"""

import contextlib
import hashlib
import json
import math
import pathlib
import sys
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

from btsrn_jax import mesh, storage
from btsrn_jax.errors import InputError, first_line

FOLDER = "checkpoints"
DAMAGED = "damaged"
METRICS = "metrics/metrics"
ROOT_METADATA = "_CHECKPOINT_METADATA"
COMMITTED = "commit_success.txt"
# A score for "not validated" and for nan, which Orbax would rank above all others.
NO_SCORE = -1e30


class SaveFailed(RuntimeError):
    """A checkpoint could not be written; those before it are intact."""


class Checkpoints:
    """The checkpoints of one run directory: the two latest and the best are kept.

    Several processes call every method together; the first one writes. A program that
    only reads must use `newest_whole`: opening cleans up after a killed run.
    """

    def __init__(self, workdir: pathlib.Path, log: Callable[[str], None] = print):
        self.folder = _absolute(workdir) / FOLDER
        self.log = log
        if mesh.is_first():
            self.folder.mkdir(parents=True, exist_ok=True)
            # A single unreadable file of these keeps Orbax from opening the folder.
            for step in steps_in(self.folder):
                try:
                    json.loads((self.folder / f"{step}/{ROOT_METADATA}").read_text())
                    score_of(self.folder, step)
                except (OSError, ValueError) as error:
                    move_aside(self.folder, step, error, self.log)
        mesh.gather(0)  # the others wait
        self.manager = ocp.CheckpointManager(
            self.folder,
            item_handlers={
                "state": ocp.PyTreeCheckpointHandler(),
                "about": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                best_fn=_rank,
                preservation_policy=AnyPreservationPolicy(
                    [LatestN(2), BestN(get_metric_fn=_rank, n=1)]
                ),
                cleanup_tmp_directories=True,
            ),
        )

    def save(self, step: int, state: Any, config: Mapping, psnr: float | None = None):
        """Starts saving; the arrays may be changed as soon as this returns.

        Args:
          step: the number of updates made; one that is saved already is left alone.
          state: a pytree of arrays.
          config: the resolved config, JSON-compatible.
          psnr: of the validation at this step, if there was one.

        Raises:
          SaveFailed: this save, or the one before it, met a full disk or the like.
        """
        if step in self.manager.all_steps():
            return
        arrays = flatten(state)
        about = {"config": config, "sha256": _digests(arrays, config)}
        with self._named_failure():
            self.manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(nest(arrays)),
                    about=ocp.args.JsonSave(about),
                ),
                metrics=_metrics(step, psnr),
            )

    def set_score(self, step: int, psnr: float) -> None:
        """Adds the validation PSNR to a saved step; waits for its saving to end."""
        self.wait()
        path = self.folder / str(step) / METRICS
        if mesh.is_first() and path.exists():
            storage.write(path, json.dumps(_metrics(step, psnr)))
        mesh.gather(0)
        self.manager.reload()

    def wait(self) -> None:
        """Returns when everything is on disk; raises SaveFailed."""
        with self._named_failure():
            self.manager.wait_until_finished()

    @contextlib.contextmanager
    def _named_failure(self):
        try:
            yield
        except jax.errors.JaxRuntimeError:
            raise  # another process is lost, not the disk
        except Exception as error:  # a failure of the file system comes in many types
            reason = first_line(error)
            for cause in (error, error.__cause__, error.__context__):
                if isinstance(cause, OSError) and cause.strerror:
                    reason = cause.strerror
            if "ENOSPC" in str(error) or "No space left" in str(error):
                reason = "no space left on the device"
            whole = ", ".join(map(str, steps_in(self.folder))) or "none"
            raise SaveFailed(
                f"could not write a checkpoint to {self.folder}: {reason}; whole"
                f" checkpoints there: {whole}. The same command continues from the last"
            ) from error

    def close(self) -> None:
        """Waits and releases the manager."""
        with self._named_failure():
            self.manager.close()

    def restore_latest(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """(step, {path: array}) of the newest whole checkpoint, or None.

        Damaged ones are named, and moved to `damaged/` in the run directory.
        """
        found = newest_whole(self.folder, latest_first(self.folder), self.log, True)
        self.manager.reload()
        return found and found[:2]

    def score(self, step: int) -> float | None:
        """The validation PSNR at a step, None where there was none."""
        return score_of(self.folder, step)


def _absolute(workdir):
    """As Orbax wants it."""
    workdir = storage.path(workdir)
    return workdir if storage.in_bucket(workdir) else workdir.resolve()


def steps_in(folder: pathlib.Path) -> list[int]:
    """The steps of all finished checkpoints, ascending."""
    if not folder.is_dir():  # a bucket has no empty ones
        return []
    found = [p for p in folder.iterdir() if p.name.isdigit()]
    if storage.in_bucket(folder):  # nor a rename: Orbax marks what is finished
        found = [p for p in found if (p / COMMITTED).exists()]
    return sorted(int(p.name) for p in found)


def latest_first(folder: pathlib.Path) -> list[int]:
    """Steps in the order in which a run wants to continue from them."""
    return steps_in(folder)[::-1]


def best_first(folder: pathlib.Path) -> list[int]:
    """Steps by validation PSNR; by age where none was validated."""

    def key(step):
        try:
            score = score_of(folder, step)
        except (OSError, ValueError):
            score = None
        return NO_SCORE if score is None else score, step

    return sorted(steps_in(folder), key=key, reverse=True)


def newest_whole(
    folder: pathlib.Path, steps: list[int], log: Callable, move: bool = False
) -> tuple[int, dict[str, np.ndarray], dict] | None:
    """The first of these checkpoints that is whole.

    Args:
      folder: with one folder a step.
      steps: to try, in this order.
      log: is told of every damaged one.
      move: to `damaged/` beside `folder`, so that it is not met again.

    Returns:
      (step, {path: array}, config), or None.
    """
    for step in steps:
        error = None
        try:
            arrays, config = read_step(folder, step)
        except Exception as caught:  # a damaged file can raise anything
            error = caught
        if not move:
            if error is None:
                return step, arrays, config
            log(f"checkpoint {folder / str(step)} is damaged ({first_line(error)})")
            continue
        # All processes continue from the same step.
        if not mesh.gather(error is not None).any():
            return step, arrays, config
        if mesh.is_first():
            move_aside(folder, step, error, log)
        mesh.gather(0)
    return None


def read_step(folder: pathlib.Path, step: int) -> tuple[dict[str, np.ndarray], dict]:
    """({path: array}, config) of one checkpoint, compared with the checksums that were
    written with it; raises whatever a damaged file leads to."""
    about = json.loads((folder / f"{step}/about/metadata").read_text())
    score_of(folder, step)
    # The handler itself: a Checkpointer would wait for the other processes of a run.
    handler = ocp.PyTreeCheckpointHandler()
    path = folder / f"{step}/state"
    tree = handler.metadata(path).tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    restored = handler.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
    handler.close()
    arrays = flatten(restored)
    expected, found = about["sha256"], _digests(arrays, about["config"])
    wrong = sorted(
        name
        for name in expected.keys() | found.keys()
        if expected.get(name) != found.get(name)
    )
    if wrong:
        raise ValueError(f"checksum mismatch in {', '.join(wrong[:3])}")
    return arrays, about["config"]


def score_of(folder: pathlib.Path, step: int) -> float | None:
    """The validation PSNR at a step, None without; ValueError where it is damaged."""
    path = folder / str(step) / METRICS
    try:
        values = json.loads(path.read_text())
        psnr = float(values["psnr"])
        if values != _metrics(step, psnr):
            raise ValueError("checksum mismatch")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name}: {error}") from None
    return None if psnr <= NO_SCORE else psnr


def _metrics(step, psnr):
    """What Orbax ranks by, and a checksum: a digit may flip into another digit."""
    known = psnr is not None and math.isfinite(psnr)
    psnr = float(psnr) if known else NO_SCORE
    digest = hashlib.sha256(f"{step} {psnr!r}".encode()).hexdigest()
    return {"psnr": psnr, "sha256": digest}


def _rank(metrics):
    return float(metrics["psnr"])


def move_aside(folder: pathlib.Path, step: int, error: Exception, log: Callable):
    """Out of the way, not deleted: somebody may want to look."""
    source = folder / str(step)
    target = folder.parent / DAMAGED / str(step)
    number = 1
    while target.exists():
        target = target.with_name(f"{step}-{number}")
        number += 1
    storage.move(source, target)
    log(
        f"checkpoint {source} is damaged ({first_line(error)}); moved to {target}, the"
        " one before it is used"
    )


def _to_stderr(text):
    print(text, file=sys.stderr)


def load_parameters(
    run: pathlib.Path, log: Callable[[str], None] | None = None
) -> tuple[int, dict, dict]:
    """The best checkpoint of a run directory, for inference.

    Returns:
      step, its config (resolved, as a nested dict), and variables: `params` (averaged
      ones where the run keeps them) and, where there are any, `batch_stats`.
    """
    folder = _absolute(run) / FOLDER
    if not folder.is_dir():
        raise InputError(f"{run} is no run directory: it has no {FOLDER}/")
    found = newest_whole(folder, best_first(folder), log or _to_stderr)
    if found is None:
        raise InputError(f"{folder} holds no whole checkpoint")
    step, arrays, config = found
    state = nest(arrays)
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
    """{"params/in/kernel": array} -> {"params": {"in": {"kernel": array}}}; ValueError
    names a path that is an array and a folder."""
    tree = {}
    for path, array in sorted(arrays.items()):  # a folder's name before what is in it
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
            if not isinstance(node, dict):
                raise ValueError(f"{path} lies in {folder}, which is an array")
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
