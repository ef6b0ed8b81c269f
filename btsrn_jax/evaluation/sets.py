"""`btsrn evaluate`: models and sets by name, checked before anything is computed."""

import os
import pathlib
from collections.abc import Callable, Sequence

from btsrn_jax import inference, storage
from btsrn_jax.config import SCALES
from btsrn_jax.data import (
    check_set,
    evaluation_set,
    lr_origin,
    origin,
    raise_together,
    set_names,
)
from btsrn_jax.errors import InputError
from btsrn_jax.evaluation import degrading, evaluate, figure_tables, figures
from btsrn_jax.metrics import PROTOCOLS, get_protocol, most_ignored
from btsrn_jax.progress import logger


def run_evaluation(
    source: str,
    sets: list[str],
    scales: list[int],
    protocols: list[str],
    ensemble: bool = True,
    data_dir: str = "data",
    csv: pathlib.Path | None = None,
    save_images: pathlib.Path | None = None,
    memory_gb: float = 0.0,
    before: Callable[[], None] = lambda: None,
    lr: pathlib.Path | None = None,
    runtime: str = "jax",
    degrade: Sequence[str] = (),
) -> list[figures.Row]:
    """Measures models on sets: `btsrn evaluate`. The table goes to standard output.

    Every input is read, and every fault is named in one InputError, before anything is
    computed.

    Args:
      source: one model or several with commas: names, directories, runs, "bicubic", or
        "btsrn" for the released models of the scales.
      sets: as `data.evaluation_set` takes them.
      scales: of 2, 3, 4; empty for those that the models have.
      protocols: names of `metrics.PROTOCOLS`, or "all".
      ensemble: whether networks average over the eight flips and rotations.
      data_dir: where DIV2K was prepared.
      csv: a file for every figure.
      save_images: a folder for the upscaled images: SET/xSCALE/MODEL/NAME.png, where
        LR was degraded SET/xSCALE/MODEL/jpeg-75/NAME.png.
      memory_gb: as of `inference.open_model`.
      before: called once all is checked, before JAX is loaded.
      lr: the folder of the LR images of the one set that is given.
      runtime: as of `inference.open_model`.
      degrade: what is done to the LR images, as `degrading.parse_degradations` takes
        it: each set is measured with each. Nothing by default.

    Returns:
      The rows of the CSV.
    """
    degradations = degrading.parse_degradations(degrade) or [()]
    inference.choose_runtime(runtime)
    protocols = list(PROTOCOLS) if "all" in protocols else protocols
    _check_names(source, protocols, sets)
    models = _find_models(source, list(dict.fromkeys(scales)))
    names = set_names(sets, data_dir)
    if lr is not None and len(sets) > 1:
        raise InputError(f"--lr {lr}: one set was expected, not {len(sets)}")
    csv, save_images = (p and storage.local(p) for p in (csv, save_images))
    _check_outputs(csv, save_images)
    scales = list(dict.fromkeys(scale for _, scale, _ in models))
    given = dict(zip(names, sets, strict=True))
    found = _find_sets(given, scales, protocols, data_dir, lr)
    before()
    models = [
        (label, scale, part and inference.load_weights(part))
        for label, scale, part in models
    ]
    rows = []
    for label, scale, loaded in models:
        model = (
            inference.open_weights(loaded, ensemble, memory_gb, runtime)
            if loaded
            else inference.bicubic_model(scale)
        )
        logger.info(model.about)
        averaged = ensemble and loaded is not None
        upscaler = evaluate.Upscaler(label, scale, averaged, model.upscale)
        pairs = {name: found[scale, name] for name in names}
        for measured in _measure(upscaler, pairs, protocols, degradations, save_images):
            rows += measured
            if csv:
                figures.write_csv(csv, rows)
    for line in figure_tables.name_without_error(rows):
        logger.info(line)
    print(figure_tables.table(rows))
    return rows


def _check_names(source, protocols, sets):
    if not storage.split_names(source):
        raise InputError("--model: no model is named")
    for name, given in (("--protocol", protocols), ("--sets", sets)):
        if not given or "" in given:
            raise InputError(f"{name}: an empty name")
    for protocol in protocols:
        get_protocol(protocol)


def _check_outputs(csv, save_images):
    if csv is not None:
        if os.path.isdir(csv):
            raise InputError(f"cannot write {csv}: it is a folder, not a file")
        storage.check_writable_folder(csv.parent)
    if save_images is not None:
        storage.check_writable_folder(save_images)


def _measure(upscaler, sets, protocols, degradations, save_images):
    """Yields the rows of each set, {name: pairs}, under each degradation."""
    for name, pairs in sets.items():
        scale, label = f"x{upscaler.scale}", upscaler.name
        folder = save_images and save_images / name / scale / label
        for degradation in degradations:
            way = degrading.degradation_name(degradation).replace(":", "-")
            yield evaluate.evaluate_set(
                name,
                pairs,
                upscaler,
                protocols,
                folder and folder / way,
                degradation=degradation,
            )


def _find_models(source, scales):
    """Returns (label, scale, name or folder) for each model, by scale; bicubic has None
    for the last. Loads JAX only for a run without config.json."""
    found = []
    sources = storage.split_names(source)
    released = inference.released_models()
    for part in sources:
        if part == inference.FAMILY and not pathlib.Path(part).exists():
            wanted = [f"{part}-x{s}" for s in scales or SCALES]
            have = [name for name in wanted if name in released]
            found += have if have and not scales else wanted
        elif part != inference.BICUBIC:
            found.append(part)
    named = [(_label(part, found), inference.read_scale(part), part) for part in found]
    models = list({model[:2]: model for model in named}.values())  # each once
    wanted = scales or list(dict.fromkeys(s for _, s, _ in models)) or [2]
    for scale in wanted:
        if models and scale not in [s for _, s, _ in models]:
            have = ", ".join(f"{label} x{s}" for label, s, _ in models)
            raise InputError(f"no model for x{scale}: there is {have}")
    if inference.BICUBIC in sources:
        models = [(inference.BICUBIC, scale, None) for scale in wanted] + models
    models = [model for model in models if model[1] in wanted]
    return sorted(models, key=lambda model: wanted.index(model[1]))


def _label(source, found):
    """Returns as many of the last parts of a path as tell the models apart: a name in
    tables, and of the folder below --save-images."""
    parts, *others = (_parts(name) for name in (source, *found))
    for count in range(1, len(parts)):
        if all(o == parts or o[-count:] != parts[-count:] for o in others):
            return "/".join(parts[-count:])
    return "/".join(parts)


def _parts(name):
    path = pathlib.Path(name)
    if inference.in_hub(name):
        return tuple(name.split("/")[2:])
    if not path.exists():
        return (name,)
    path = pathlib.Path(os.path.abspath(path))
    if path.is_file():  # a model's weights alone
        path = path.parent if path.name == inference.WEIGHTS else path.with_suffix("")
    return path.parts[1:]


def _find_sets(sets, scales, protocols, data_dir, lr_dir):
    """Returns {(scale, name): pairs} of {name: set}; every file of them can be read and
    fits."""
    found, problems, said = {}, [], []
    for scale in scales:
        ignored = most_ignored(protocols, scale)
        for name, given in sets.items():
            pairs = []
            try:
                pairs = evaluation_set(given, scale, data_dir, problems, lr_dir)
                notes = check_set(pairs, scale, ignored)
            except InputError as error:
                lines = str(error).splitlines()
                if "do not fit" in lines[-1] and lr_dir is None:
                    found_in = lr_origin(pairs)
                    lines[-1] += (
                        f" (LR is of {found_in}; --lr DIR names another folder)"
                    )
                problems += lines
                continue
            if not pairs:  # all of them among the problems
                continue
            found[scale, name] = pairs
            said.append(f"{name} x{scale}: {origin(pairs)}")
            said += [f"{name}: {note}" for note in notes]
    raise_together(problems)
    for line in dict.fromkeys(said):
        logger.info(line)
    return found
