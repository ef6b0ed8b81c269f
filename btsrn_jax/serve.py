"""Models put to use by name: `load_model`, `btsrn upscale`, `btsrn evaluate`."""

import functools
import pathlib
import sys
from collections.abc import Callable
from typing import NamedTuple

from btsrn_jax import datasets, evaluate, inference, mesh, weights
from btsrn_jax.config import SCALES
from btsrn_jax.errors import InputError
from btsrn_jax.metrics import get_protocol

BICUBIC = "bicubic"


class Model(NamedTuple):
    """enlarge(lr, progress=None): (h, w, 3) uint8 or uint16 -> (s h, s w, 3), the same
    dtype. about: a line on weights and device."""

    scale: int
    enlarge: Callable
    about: str


def open_model(source: str | None, scale: int | None, ensemble: bool) -> Model:
    """A model by name, directory or run; by default the released one of that scale.

    Raises InputError where there is none, or it has another scale.
    """
    if scale is not None and scale not in SCALES:
        raise InputError(f"scale {scale}: one of 2, 3, 4")
    if source == BICUBIC:
        scale = scale or 2
        return Model(scale, inference.make_bicubic(scale), f"bicubic x{scale}")
    loaded = weights.load(source or f"btsrn-x{scale or 2}")
    if scale is not None and loaded.config["scale"] != scale:
        raise InputError(
            f"{loaded.name} enlarges by {loaded.config['scale']}, not by {scale}"
        )
    scale = loaded.config["scale"]
    devices = mesh.make_mesh()
    enlarge = inference.enlarge_for(loaded.config, devices, ensemble)
    about = (
        f"{loaded.name} x{scale}, {loaded.step or '?'} steps,"
        f" {'ensemble of 8, ' if ensemble else ''}on {mesh.describe(devices)}"
    )
    return Model(scale, functools.partial(enlarge, loaded.variables), about)


def run_evaluation(
    source: str,
    sets: list[str],
    scales: list[int],
    protocols: list[str],
    ensemble: bool = True,
    data_dir: str = "data",
    csv: pathlib.Path | None = None,
    save_images: pathlib.Path | None = None,
) -> list[evaluate.Row]:
    """`btsrn evaluate`: tables to standard output, figures to CSV, images to a folder.

    Every input is found and named before anything is computed.
    """
    for protocol in protocols:
        get_protocol(protocol)
    if source == BICUBIC:
        ensemble = False
        scales = scales or [2]
    elif not scales:
        scales = [weights.load(source).config["scale"]]
    names = [datasets.set_name(name) for name in sets]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two sets are called {name}: figures would be mixed up")
    found = {
        (scale, datasets.set_name(name)): datasets.evaluation_set(name, scale, data_dir)
        for scale in scales
        for name in sets
    }
    rows = []
    for scale in scales:
        model = open_model(source, scale, ensemble)
        print(model.about, file=sys.stderr)
        subject = evaluate.Subject(_label(source), scale, ensemble, model.enlarge)
        for (of_scale, name), pairs in found.items():
            if of_scale != scale:
                continue
            folder = save_images and save_images / name / f"x{scale}"
            rows += evaluate.evaluate_set(name, pairs, subject, protocols, folder)
            if csv:
                evaluate.write_csv(csv, rows)
    print(evaluate.table(rows))
    return rows


def _label(source):
    path = pathlib.Path(source)
    return path.resolve().name if path.exists() else source


def load_model(source: str, *, ensemble: bool = False) -> Callable:
    """A model as a function of NumPy images.

    Args:
      source: a released name ("btsrn-x4"), an exported directory, a run, or "bicubic".
      ensemble: average over eight flips and rotations.

    Returns:
      model(lr): (h, w, 3) uint8 -> (s h, s w, 3) uint8. `model.scale` is s.
    """
    model = open_model(source, None, ensemble)

    def enlarge(lr):
        return model.enlarge(lr)

    enlarge.scale = model.scale
    return enlarge
