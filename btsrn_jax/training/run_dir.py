"""The run directory: whose run it holds, and whether another one may continue it.

run.lock         while a process trains here: who it is (`lock.hold`)
config.json      the resolved config; `data_sha256` of the images' names and sizes;
                 `devices` and, where known, `config_file` and `config_argument`,
                 which it was started with
metrics.jsonl    a line a logged step; beside it TensorBoard's events, or wandb/ and
                 the id of the run there, wandb-id
pictures/        fixed crops of validations (`snapshots`)
plugins/         profiles, where TensorBoard and xprof look for them
checkpoints/     a folder a step: the two latest and the best
damaged/         checkpoints that could not be read
validation.csv, validation.png, evaluation.csv, evaluation.png
"""

import hashlib
import json
import pathlib
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from btsrn_jax import checkpoint, mesh, schedules, storage
from btsrn_jax import config as schema
from btsrn_jax.data import Pair
from btsrn_jax.errors import InputError
from btsrn_jax.progress import logger
from btsrn_jax.training import announce

CONFIG = "config.json"


def open_run(
    workdir: pathlib.Path,
    config: ConfigDict,
    pairs: list[Pair],
    sizes: list[tuple[int, int]],
    devices: Mesh,
    config_file: str | None = None,
    config_argument: str | None = None,
) -> dict[str, Any]:
    """Opens a new run directory, or that of a run which this config continues.

    A start that ended before its first checkpoint does not claim the directory: another
    config may take it. Collective; the first process writes config.json.

    Args:
      workdir: the run directory; it need not exist.
      config: resolved.
      pairs: the training images.
      sizes: (height, width) in HR pixels of each of them.
      devices: what is trained on, to be written down.
      config_file: the file that the config came from, None if it did not.
      config_argument: what stood behind the file's name, as in "release.py:x2,fast".

    Returns:
      What config.json holds now.

    Raises:
      InputError: `workdir` holds a run that this config contradicts, a run on other
        images, a run of more steps, or a damaged config.json.
    """
    text = "".join(
        f"{p.name} {h} {w}\n" for p, (h, w) in zip(pairs, sizes, strict=True)
    )
    digest = hashlib.sha256(text.encode()).hexdigest()
    wanted = json.loads(json.dumps(config.to_dict()))  # tuples become lists
    path = storage.path(workdir) / CONFIG
    saved = _read(path) if storage.is_there(path) else {}
    problem = _refusal(workdir, saved, wanted, digest, len(pairs)) if saved else ""
    if problem and _was_trained(path.parent, saved):
        raise InputError(problem)
    if problem:
        logger.info(f"{workdir} holds a start without any checkpoint: it is replaced")
        saved = {}
    rescored = schema.rescored(saved, wanted) if saved else []
    if rescored:
        logger.warning(
            f"{'; '.join(rescored)}: earlier validation scores were measured otherwise,"
            " and the best checkpoint is chosen among both"
        )
    wanted |= {"data_sha256": digest, "devices": mesh.describe(devices)}
    origin = {"config_file": config_file, "config_argument": config_argument}
    for name, value in origin.items():
        value = saved.get(name) if config_file is None else value
        wanted |= {} if value is None else {name: value}
    mesh.barrier()  # all have read what there was
    if mesh.is_first():
        storage.write(path, storage.to_json(wanted, 2) + "\n")
    return wanted


def _refusal(workdir, saved, wanted, digest, images):
    """Returns why a config may not continue a run; "" if it may."""
    if saved.get("data_sha256") != digest:
        return (
            f"{workdir} holds a run on other training images: their names or sizes"
            f" have changed (now there are {images}). Take another --workdir"
        )
    made = max(checkpoint.steps_in(checkpoint.folder_of(workdir)), default=0)
    found = schema.contradictions(saved, wanted, made)
    if found:
        return (
            f"{workdir} holds a run of another config: {'; '.join(found)}."
            f" {_advice(saved, wanted, workdir, made)}"
        )
    steps = wanted["train"]["steps"]
    if steps < made:
        return (
            f"config.train.steps is {steps}, but {workdir} holds a run of {made} steps"
            f" already: at least {made}, or another --workdir"
        )
    return ""


def _was_trained(folder, saved):
    """Returns True for a directory that holds, or has held, a checkpoint.

    So it is for one that is no run's, such as an exported model.
    """
    damaged = folder / checkpoint.DAMAGED
    return (
        "data_sha256" not in saved
        or bool(checkpoint.steps_in(checkpoint.folder_of(folder)))
        or (damaged.is_dir() and any(damaged.iterdir()))
        or any(path.suffix == ".csv" for path in folder.iterdir())
    )


def _advice(saved, wanted, workdir, made):
    """Returns what to do about a config that contradicts the run: where nothing but
    the length differs, how the run is made longer."""
    names = [name.removeprefix("train.") for name in schedules.LENGTHS]
    length = {name: wanted["train"][name] for name in names}
    longer = saved | {"train": saved["train"] | length}
    if schema.contradictions(longer, wanted):
        return "Take another --workdir, or the config of that run"
    return f"To go on: {announce.go_on(saved, workdir, made, length['steps'])}"


def _read(path):
    try:
        return storage.from_json(path.read_text())
    except ValueError:
        raise InputError(f"{path} is damaged: not a config") from None
