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
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from btsrn_jax import mesh, storage
from btsrn_jax.errors import Failure, InputError, first_line
from btsrn_jax.progress import logger
from btsrn_jax.trees import digests, flatten, nest

FOLDER = "checkpoints"
DAMAGED = "damaged"
METRICS = "metrics/metrics"
ROOT_METADATA = "_CHECKPOINT_METADATA"
COMMITTED = "commit_success.txt"
# The score of what was not validated, or gave nan, which Orbax would rank highest.
NO_SCORE = -1e30


# What Orbax and this module raise for files that are missing, truncated or malformed.
# All else may be a matter of the machine, and pass.
DAMAGE = (
    *(FileNotFoundError, IsADirectoryError, NotADirectoryError),
    *(ValueError, KeyError, IndexError, TypeError, AttributeError, NotImplementedError),
)
# TensorStore's errors are ValueErrors that begin with a status; of these the same.
DAMAGE_STATUS = ("DATA_LOSS", "NOT_FOUND", "OUT_OF_RANGE", "FAILED_PRECONDITION")


class SaveFailed(Failure):
    """A checkpoint could not be written; those before it are intact."""


class ReadFailed(Failure):
    """Checkpoints cannot be read now, or none of them is whole; nothing was moved."""


class Damaged(ValueError):
    """A checkpoint's files can be read, and are missing, malformed or not what they
    were."""


class Checkpoints:
    """The checkpoints of one run directory: the two latest and the best are kept.

    Collective: all processes of a run call every method together; the first one writes.
    Opening removes what a killed run left half-written, and Orbax refuses a folder with
    a damaged checkpoint: call `restore_latest` before. To read a run that may be going
    on, use `load_parameters`, which changes nothing.
    """

    def __init__(self, workdir: pathlib.Path) -> None:
        self.folder = folder_of(workdir)
        self._proven = bool(steps_in(self.folder))
        self.manager = ocp.CheckpointManager(
            storage.for_orbax(self.folder),
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

        The first checkpoint of a run is read back, before more work rests on it.

        Args:
          step: the number of steps attempted. One that is saved already is left alone.
          state: a pytree of arrays.
          config: the resolved config, JSON-compatible.
          psnr: of the validation at this step, in dB, if there was one.

        Raises:
          SaveFailed: this save or the one before it failed, such as on a full disk, or
            the first checkpoint cannot be read back.
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
        if not self._proven:
            self.wait()
            if mesh.is_first():
                self._read_back(step)
            self._proven = True

    def _read_back(self, step):
        try:
            read_step(self.folder, step)
        except (Damaged, ReadFailed) as error:
            raise SaveFailed(
                f"the first checkpoint was written to {self.folder / str(step)} and"
                f" cannot be read back: {first_line(error)}. Take another --workdir"
            ) from error

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
    """Returns the folder of a run's checkpoints, absolute as Orbax wants it; raises
    InputError for a path that Orbax would take for another one."""
    workdir = storage.path(workdir)
    workdir = workdir if storage.in_bucket(workdir) else workdir.resolve()
    storage.check_array_path(workdir)
    return workdir / FOLDER


def steps_in(folder: pathlib.Path) -> list[int]:
    """Returns the steps of all finished checkpoints, ascending; none without a folder.

    Raises:
      OSError: the folder may not be read.
    """
    if not storage.is_there(folder):  # an empty folder does not exist in a bucket
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
        except Damaged:
            score = None
        return NO_SCORE if score is None else score, step

    return sorted(steps_in(folder), key=key, reverse=True)


def restore_latest(
    folder: pathlib.Path,
) -> tuple[int, dict[str, np.ndarray]] | None:
    """Returns (step, {path: array}) of the newest whole checkpoint; None where there
    are no checkpoints.

    Damaged ones are then moved to `damaged/` in the run directory. Collective: all
    processes continue from the same step.

    Raises:
      ReadFailed: one cannot be read, or all are damaged. Nothing was moved.
    """
    found, damaged = None, {}
    for step in steps_in(folder)[::-1]:
        error = arrays = None
        try:
            check_metadata(folder, step)
            if found is None:
                arrays, _ = read_step(folder, step)
        except (Damaged, ReadFailed) as caught:
            error = caught
        verdict = 2 if isinstance(error, ReadFailed) else int(error is not None)
        verdict = mesh.gather(np.int32(verdict)).max()
        if verdict == 2:
            raise error or ReadFailed(
                f"another process cannot read {folder / str(step)}"
            )
        if verdict:
            damaged[step] = error
        elif found is None:
            found = step, arrays
    if damaged and found is None:
        which = "; ".join(
            f"{step}: {_reason(error)}" for step, error in damaged.items()
        )
        raise ReadFailed(
            f"every checkpoint in {folder} is damaged ({which}). Nothing was changed."
            " Take another --workdir, or remove that folder to begin anew"
        )
    if mesh.is_first():
        for step, error in damaged.items():
            move_aside(folder, step, error)
    mesh.barrier()
    return found


def move_aside(folder: pathlib.Path, step: int, error: Damaged | None) -> None:
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
    logger.warning(
        f"checkpoint {source} is damaged ({_reason(error)}); moved to {target}; the"
        " newest whole checkpoint is used"
    )


def _reason(error):
    return first_line(error) if error else "another process could not read it"


def newest_whole(
    folder: pathlib.Path, steps: list[int]
) -> tuple[int, dict[str, np.ndarray], dict] | None:
    """Returns (step, {path: array}, config) of the first of `steps` that is whole.

    None where none is. Each damaged one is logged, and stays where it is.

    Raises:
      ReadFailed: as of `read_step`.
    """
    for step in steps:
        try:
            return step, *read_step(folder, step)
        except Damaged as error:
            logger.warning(
                f"checkpoint {folder / str(step)} is damaged ({first_line(error)})"
            )
    return None


def read_step(folder: pathlib.Path, step: int) -> tuple[dict[str, np.ndarray], dict]:
    """Returns ({path: array}, config) of one checkpoint, verified by its checksums.

    Raises:
      Damaged: files are missing or malformed, or a checksum is another one.
      ReadFailed: anything else. The checkpoint may be whole.
    """
    with _classified(folder / str(step)):
        about = json.loads((folder / f"{step}/about/metadata").read_text())
        expected = about["sha256"]
        _read_score(folder, step)
        # The tree is what was saved under checksums, not what Orbax's files say. The
        # handler itself: a Checkpointer would wait for the other processes of a run.
        as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
        tree = nest({name: as_numpy for name in expected if name != "config"})
        handler = ocp.PyTreeCheckpointHandler()
        path = storage.for_orbax(folder / f"{step}/state")
        restored = handler.restore(path, args=ocp.args.PyTreeRestore(restore_args=tree))
        handler.close()
        arrays = flatten(restored)
        found = _digests(arrays, about["config"])
        differing = sorted(name for name, _ in expected.items() ^ found.items())
        if differing:
            names = ", ".join(list(dict.fromkeys(differing))[:3])
            raise Damaged(f"checksum mismatch in {names}")
    return arrays, about["config"]


def check_metadata(folder: pathlib.Path, step: int) -> None:
    """Raises Damaged or ReadFailed where Orbax could not open a folder for the small
    files of one checkpoint in it."""
    with _classified(folder / str(step)):
        json.loads((folder / f"{step}/{ROOT_METADATA}").read_text())
        _read_score(folder, step)


def score_of(folder: pathlib.Path, step: int) -> float | None:
    """Returns the validation PSNR at a step; None where there was none; raises Damaged
    or ReadFailed as `read_step` does."""
    with _classified(folder / str(step)):
        return _read_score(folder, step)


def _read_score(folder, step):
    path = folder / str(step) / METRICS
    try:
        values = json.loads(path.read_text())
        psnr = float(values["psnr"])
        if values != _metrics(step, psnr):
            raise ValueError("checksum mismatch")
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path.name}: {error}") from None
    return None if psnr <= NO_SCORE else psnr


@contextlib.contextmanager
def _classified(place: Any) -> Iterator[None]:
    """Turns whatever reading the checkpoint `place` raises into Damaged or ReadFailed.

    What is not known to be damage is not taken for it. Where it is, every file has to
    be readable: else the machine is to blame, and the error only says so badly.
    """
    try:
        yield
    except Damaged:
        raise
    except Exception as error:
        reason = error
        status = re.match(r"([A-Z]+(?:_[A-Z]+)*): ", str(error))
        known = status is None or status[1] in DAMAGE_STATUS
        if isinstance(error, DAMAGE) and known:
            try:
                for file in storage.files(place):
                    file.read_bytes()
            except FileNotFoundError:
                pass  # a run that is going on has removed it
            except Exception as caught:
                reason = caught
            if reason is error:
                raise Damaged(first_line(error)) from error
        raise ReadFailed(
            f"cannot read the checkpoint {place}: {first_line(reason)}. It may be"
            " whole, and nothing was changed: mend the cause, and give the same command"
            " again"
        ) from error


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

    Raises:
      InputError: there is no run, or no whole checkpoint.
      ReadFailed: a checkpoint cannot be read, though it may be whole.
    """
    folder = folder_of(run)
    if not storage.is_there(folder):
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
