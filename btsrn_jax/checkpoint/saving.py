"""Saves checkpoints: the two latest of a run and its best, by Orbax.

A checkpoint is a nested dict of arrays, readable without this package. The config and a
SHA-256 of every array lie beside it: Orbax restores a flipped bit without a word.
"""

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from btsrn_jax import mesh, storage
from btsrn_jax.checkpoint.reading import (
    METRICS,
    Damaged,
    ReadFailed,
    checksums,
    folder_of,
    read_step,
    score_record,
    steps_in,
)
from btsrn_jax.errors import Failure, first_line
from btsrn_jax.trees import flatten, nest


class SaveFailed(Failure):
    """A checkpoint could not be written; those before it are intact."""


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
            storage.literal(self.folder),
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
        about = {"config": config, "sha256": checksums(arrays, config)}
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(nest(arrays)), about=ocp.args.JsonSave(about)
        )
        with self._named_failure():
            self.manager.save(step, args=items, metrics=score_record(step, psnr))
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
            storage.write(path, json.dumps(score_record(step, psnr)))
        mesh.barrier()
        self.manager.reload()

    def is_saving(self) -> bool:
        """Returns True while a checkpoint is being written in the background."""
        return self.manager.is_saving_in_progress()

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


def _rank(metrics):
    return float(metrics["psnr"])
