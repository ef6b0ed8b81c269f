"""Reads checkpoints, each array verified by its checksum.

Damaged checkpoints are told from those that cannot be read for the moment: only the
former are passed over.
"""

import contextlib
import hashlib
import itertools
import json
import math
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

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


class ReadFailed(Failure):
    """Checkpoints cannot be read now, or none of them is whole; nothing was moved."""


class Damaged(ValueError):
    """A checkpoint's files can be read, and are missing, malformed or not what they
    were."""


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
      ReadFailed: the folder cannot be read.
    """
    try:
        if not storage.is_there(folder):  # an empty folder does not exist in a bucket
            return []
        found = [p for p in folder.iterdir() if p.name.isdigit()]
        # Buckets cannot rename, so Orbax marks a checkpoint once it is complete.
        if storage.in_bucket(folder):
            found = [p for p in found if (p / COMMITTED).exists()]
    except Exception as error:
        raise ReadFailed(f"cannot list {folder}: {first_line(error)}") from error
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
    with classified(folder / str(step)):
        # Orbax tells badly why a file cannot be read, and leaves tasks behind.
        for file in storage.files(folder / str(step)):
            file.read_bytes()
        about = json.loads((folder / f"{step}/about/metadata").read_text())
        expected = about["sha256"]
        _read_score(folder, step)
        # The tree is what was saved under checksums, not what Orbax's files say. The
        # handler itself: a Checkpointer would wait for the other processes of a run.
        as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
        tree = nest({name: as_numpy for name in expected if name != "config"})
        handler = ocp.PyTreeCheckpointHandler()
        path = storage.literal(folder / f"{step}/state")
        restored = handler.restore(path, args=ocp.args.PyTreeRestore(restore_args=tree))
        handler.close()
        arrays = flatten(restored)
        found = checksums(arrays, about["config"])
        differing = sorted(name for name, _ in expected.items() ^ found.items())
        if differing:
            names = ", ".join(list(dict.fromkeys(differing))[:3])
            raise Damaged(f"checksum mismatch in {names}")
    return arrays, about["config"]


def check_metadata(folder: pathlib.Path, step: int) -> None:
    """Raises Damaged or ReadFailed where Orbax could not open a folder for the small
    files of one checkpoint in it."""
    with classified(folder / str(step)):
        json.loads((folder / f"{step}/{ROOT_METADATA}").read_text())
        _read_score(folder, step)


def score_of(folder: pathlib.Path, step: int) -> float | None:
    """Returns the validation PSNR at a step; None where there was none; raises Damaged
    or ReadFailed as `read_step` does."""
    with classified(folder / str(step)):
        return _read_score(folder, step)


def _read_score(folder, step):
    path = folder / str(step) / METRICS
    try:
        values = json.loads(path.read_text())
        psnr = float(values["psnr"])
        if values != score_record(step, psnr):
            raise ValueError("checksum mismatch")
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path.name}: {error}") from None
    return None if psnr <= NO_SCORE else psnr


@contextlib.contextmanager
def classified(place: Any) -> Iterator[None]:
    """Turns whatever reading the checkpoint `place` raises into Damaged or ReadFailed.

    What is not known to be damage is not taken for it.
    """
    try:
        yield
    except Damaged:
        raise
    except Exception as error:
        status = re.match(r"([A-Z]+(?:_[A-Z]+)*): ", str(error))
        known = status is None or status[1] in DAMAGE_STATUS
        if isinstance(error, DAMAGE) and known:
            raise Damaged(first_line(error)) from error
        raise ReadFailed(
            f"cannot read the checkpoint {place}: {first_line(error)}. It may be whole,"
            " and nothing was changed: mend the cause, and give the same command again"
        ) from error


def score_record(step, psnr):
    """Returns what Orbax ranks by, and a checksum: a digit may become another digit."""
    known = psnr is not None and math.isfinite(psnr)
    psnr = float(psnr) if known else NO_SCORE
    digest = hashlib.sha256(f"{step} {psnr!r}".encode()).hexdigest()
    return {"psnr": psnr, "sha256": digest}


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


def checksums(arrays, config):
    text = json.dumps(config, sort_keys=True)
    return digests(arrays) | {"config": hashlib.sha256(text.encode()).hexdigest()}
