"""The run directory: whose run it holds, and whether another one may continue it.

config.json      the resolved config; `data_sha256` of the images' names and sizes;
                 `devices` and, where known, `config_file` and `config_argument`,
                 which it was started with
metrics.jsonl    a line a logged step; beside it TensorBoard's events
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

from btsrn_jax import config as schema
from btsrn_jax import mesh, storage
from btsrn_jax.data import Pair
from btsrn_jax.errors import InputError
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

    Collective; the first process writes config.json.

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
        images, or a damaged config.json.
    """
    text = "".join(
        f"{p.name} {h} {w}\n" for p, (h, w) in zip(pairs, sizes, strict=True)
    )
    digest = hashlib.sha256(text.encode()).hexdigest()
    wanted = json.loads(json.dumps(config.to_dict()))  # tuples become lists
    path = storage.path(workdir) / CONFIG
    saved = _read(path) if path.exists() else {}
    if saved and saved.get("data_sha256") != digest:
        raise InputError(
            f"{workdir} holds a run on other training images: their names or sizes"
            f" have changed, now {len(pairs)} images. Take another --workdir"
        )
    found = schema.contradictions(saved, wanted) if saved else []
    if found:
        raise InputError(
            f"{workdir} holds a run of another config: {'; '.join(found)}."
            f" {_advice(saved, wanted, workdir)}"
        )
    wanted |= {"data_sha256": digest, "devices": mesh.describe(devices)}
    origin = {"config_file": config_file, "config_argument": config_argument}
    for name, value in origin.items():
        value = saved.get(name) if config_file is None else value
        wanted |= {} if value is None else {name: value}
    mesh.barrier()  # all have read what there was
    if mesh.is_first():
        storage.write(path, json.dumps(wanted, indent=2) + "\n")
    return wanted


def _advice(saved, wanted, workdir):
    """Returns what to do about a config that contradicts the run: where nothing but
    the length differs, how the run is made longer."""
    length = {name: wanted["train"][name] for name in ("steps", "decay_steps")}
    longer = saved | {"train": saved["train"] | length}
    if schema.contradictions(longer, wanted):
        return "Take another --workdir, or the config of that run"
    return f"To go on: {announce.go_on(saved, workdir, length['steps'])}"


def _read(path):
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise InputError(f"{path} is damaged: not a config") from None
