"""Checkpoints: Orbax behind checksums. Save, verify, restore anywhere.

A checkpoint is a nested dict of arrays, readable without this package. The config and a
SHA-256 of every array lie beside it: Orbax restores a flipped bit without a word.
"""

import contextlib
import hashlib
import itertools
import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from btsrn_jax import mesh, storage
from btsrn_jax.errors import InputError, first_line
from btsrn_jax.progress import logger
from btsrn_jax.trees import digests, flatten, nest

FOLDER = "checkpoints"
DAMAGED = "damaged"
METRICS = "metrics/metrics"
ROOT_METADATA = "_CHECKPOINT_METADATA"
COMMITTED = "commit_success.txt"
# The score of what was not validated, or gave nan, which Orbax would rank highest.
NO_SCORE = -1e30


class SaveFailed(RuntimeError):
    """A checkpoint could not be written; those before it are intact."""


class Checkpoints:
    """The checkpoints of one run directory: the two latest and the best are kept.

    Collective: all processes of a run call every method together; the first one writes.
    Opening removes what a killed run left half-written, and Orbax refuses a folder with
    an unreadable checkpoint: call `set_damaged_aside` before. To read a run that may be
    going on, use `load_parameters`, which changes nothing.
    """

    def __init__(self, workdir: pathlib.Path) -> None:
        self.folder = folder_of(workdir)
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

    def save(
        self, step: int, state: Any, config: Mapping, psnr: float | None = None
    ) -> None:
        """Starts saving; the arrays may be changed as soon as this returns.

        Args:
          step: the number of steps attempted. One that is saved already is left alone.
          state: a pytree of arrays.
          config: the resolved config, JSON-compatible.
          psnr: of the validation at this step, in dB, if there was one.

        Raises:
          SaveFailed: this save or the one before it failed, such as on a full disk.
        """
        if step in self.manager.all_steps():
            return
        arrays = flatten(state)
        about = {"config": config, "sha256": _digests(arrays, config)}
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(nest(arrays)), about=ocp.args.JsonSave(about)
        )
        with self._named_failure():
            self.manager.save(step, args=items, metrics=_metrics(step, psnr))

    def set_score(self, step: int, psnr: float) -> None:
        """Adds the validation PSNR to a saved step, once its saving has ended."""
        self.wait()
        path = self.folder / str(step) / METRICS
        if mesh.is_first() and path.exists():
            storage.write(path, json.dumps(_metrics(step, psnr)))
        mesh.barrier()
        self.manager.reload()

    def wait(self) -> None:
        """Returns when everything is on disk; raises SaveFailed."""
        with self._named_failure():
            self.manager.wait_until_finished()

    def close(self) -> None:
        """Waits until everything is on disk, and releases the manager."""
        with self._named_failure():
            self.manager.close()

    def restore_latest(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """Returns (step, {path: array}) of the newest whole checkpoint, or None.

        Damaged ones are named, and moved to `damaged/` in the run directory.
        """
        found = None
        for step in steps_in(self.folder)[::-1]:
            error = None
            try:
                arrays, _ = read_step(self.folder, step)
            except Exception as caught:  # a damaged file can raise anything
                error = caught
            # All processes continue from the same step.
            if not mesh.gather(error is not None).any():
                found = step, arrays
                break
            if mesh.is_first():
                move_aside(self.folder, step, error)
            mesh.barrier()
        self.manager.reload()
        return found

    @contextlib.contextmanager
    def _named_failure(self) -> Iterator[None]:
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
                f" checkpoints there: {whole}. Mend the cause and give the same command"
                " again: it continues from the newest of these, or begins anew"
            ) from error


def folder_of(workdir: pathlib.Path) -> Any:
    """Returns the folder of a run's checkpoints, absolute as Orbax wants it."""
    workdir = storage.path(workdir)
    return (workdir if storage.in_bucket(workdir) else workdir.resolve()) / FOLDER


def steps_in(folder: pathlib.Path) -> list[int]:
    """Returns the steps of all finished checkpoints, ascending."""
    if not folder.is_dir():  # an empty folder does not exist in a bucket
        return []
    found = [p for p in folder.iterdir() if p.name.isdigit()]
    # Buckets cannot rename, so Orbax writes a marker once a checkpoint is complete.
    if storage.in_bucket(folder):
        found = [p for p in found if (p / COMMITTED).exists()]
    return sorted(int(p.name) for p in found)


def best_first(folder: pathlib.Path) -> list[int]:
    """Returns the steps by validation PSNR; the latest first where none has one."""

    def key(step):
        try:
            score = score_of(folder, step)
        except (OSError, ValueError):
            score = None
        return NO_SCORE if score is None else score, step

    return sorted(steps_in(folder), key=key, reverse=True)


def set_damaged_aside(folder: pathlib.Path) -> None:
    """Moves checkpoints with unreadable metadata aside; the first process does.

    A single one would keep Orbax from opening the folder. Collective.
    """
    if mesh.is_first():
        for step in steps_in(folder):
            try:
                json.loads((folder / f"{step}/{ROOT_METADATA}").read_text())
                score_of(folder, step)
            except (OSError, ValueError) as error:
                move_aside(folder, step, error)
    mesh.barrier()


def move_aside(folder: pathlib.Path, step: int, error: Exception | None) -> None:
    """Moves a damaged checkpoint to `damaged/`: somebody may want to look at it.

    `error` says what is wrong; None if only other processes met it.
    """
    source = folder / str(step)
    target = folder.parent / DAMAGED / str(step)
    for number in itertools.count(1):
        if not target.exists():
            break
        target = target.with_name(f"{step}-{number}")
    storage.move(source, target)
    why = first_line(error) if error else "another process could not read it"
    logger.warning(
        f"checkpoint {source} is damaged ({why}); moved to {target}; the newest whole"
        " checkpoint is used, if there is one"
    )


def newest_whole(
    folder: pathlib.Path, steps: list[int]
) -> tuple[int, dict[str, np.ndarray], dict] | None:
    """Returns (step, {path: array}, config) of the first of `steps` that is whole.

    None where none is. Each damaged one is logged, and stays where it is.
    """
    for step in steps:
        try:
            return step, *read_step(folder, step)
        except Exception as error:  # a damaged file can raise anything
            logger.warning(
                f"checkpoint {folder / str(step)} is damaged ({first_line(error)})"
            )
    return None


def read_step(folder: pathlib.Path, step: int) -> tuple[dict[str, np.ndarray], dict]:
    """Returns ({path: array}, config) of one checkpoint, verified by its checksums;
    raises whatever a damaged file leads to."""
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
    differing = sorted(name for name, _ in expected.items() ^ found.items())
    if differing:
        names = ", ".join(list(dict.fromkeys(differing))[:3])
        raise ValueError(f"checksum mismatch in {names}")
    return arrays, about["config"]


def score_of(folder: pathlib.Path, step: int) -> float | None:
    """Returns the validation PSNR at a step; None where there was none; raises
    ValueError for a damaged file."""
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
    """Returns what Orbax ranks by, and a checksum: a digit may become another digit."""
    known = psnr is not None and math.isfinite(psnr)
    psnr = float(psnr) if known else NO_SCORE
    digest = hashlib.sha256(f"{step} {psnr!r}".encode()).hexdigest()
    return {"psnr": psnr, "sha256": digest}


def _rank(metrics):
    return float(metrics["psnr"])


def load_parameters(run: pathlib.Path) -> tuple[int, dict, dict]:
    """Reads the best checkpoint of a run directory, for inference.

    Returns:
      The step; its config, resolved, as a nested dict; and the variables: `params`
      (averaged ones where the run keeps them) and, if there are any, `batch_stats`.
      InputError where there is no run, or no whole checkpoint.
    """
    folder = folder_of(run)
    if not folder.is_dir():
        raise InputError(f"{run} is no run directory: it has no {FOLDER}/")
    found = newest_whole(folder, best_first(folder))
    if found is None:
        raise InputError(f"{folder} holds no whole checkpoint")
    step, arrays, config = found
    state = nest(arrays)
    variables = {"params": state.get("ema") or state["params"]}
    return step, config, variables | state.get("model_state", {})


def _digests(arrays, config):
    text = json.dumps(config, sort_keys=True)
    return digests(arrays) | {"config": hashlib.sha256(text.encode()).hexdigest()}
