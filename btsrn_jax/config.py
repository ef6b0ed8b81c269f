"""The configuration: one schema, and every rule between its fields.

A config file is Python with `get_config(arg=None)`; it takes `defaults()` and changes a
few fields. `validate` is a run's first act, before anything is read or compiled.
"""

import difflib
from collections.abc import Mapping

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from btsrn_jax.errors import InputError
from btsrn_jax.metrics import PROTOCOLS
from btsrn_jax.network import ACTIVATIONS, BLOCKS, NAMES, NORMS, geometry_of

SCALES = (2, 3, 4)
CHOICES = {
    "scale": SCALES,
    "model.name": NAMES,
    "model.block": BLOCKS,
    "model.norm": NORMS,
    "model.activation": ACTIVATIONS,
    "model.dtype": ("auto", "float32", "bfloat16"),
    "data.source": ("div2k", "folder", "samples"),
    "data.track": ("bicubic", "unknown"),
    "data.split": ("train", "validation", "train+validation"),
    "data.cache": ("auto", "device", "host"),
    "train.schedule": ("exponential", "cosine"),
    "train.optimizer": ("adam", "muon"),
    "train.loss": ("mse", "l1", "charbonnier"),
    "eval.protocol": tuple(PROTOCOLS),
    "eval.dtype": ("float32", "bfloat16"),
}
# (lowest, highest) of every number; the bounds themselves are allowed.
RANGES = {
    "model.features": (1, 4096),
    "model.bottleneck": (1, 4096),
    "model.low_blocks": (0, 1000),
    "model.mid_blocks": (0, 1000),
    "model.high_blocks": (0, 1000),
    "train.seed": (0, 2**32 - 1),
    "train.batch_size": (1, 2**20),
    "train.candidates": (1, 64),
    "train.patch": (1, 4096),
    "train.steps": (1, 2**31 - 1),
    "train.decay_steps": (1, 2**31 - 1),
    "train.warmup_steps": (0, 2**31 - 1),
    "train.decay_rate": (1e-12, 1.0),
    "train.learning_rate": (1e-12, 1.0),
    "train.ema": (0.0, 0.999999),
    "train.clip_norm": (0.0, 1e12),
    "train.log_every": (1, 2**31 - 1),
    "train.eval_every": (1, 2**31 - 1),
    "train.checkpoint_every": (1, 2**31 - 1),
    "train.time_limit": (0.0, 1e9),
    "eval.tile": (1, 8192),
    "eval.memory_gb": (0.0, 1e6),
    "eval.max_images": (1, 2**31 - 1),
}


def defaults() -> ConfigDict:
    """The schema; its values are the paper's settings at x4."""
    return ConfigDict(
        {
            "scale": 4,  # enlargement: 2, 3 or 4
            "model": {
                "name": "btsrn",  # btsrn, or vdsr: the peer of Table 4, which takes
                # features and dtype alone
                "features": 128,  # width of the identity path (vdsr: 64)
                "bottleneck": 64,  # projected width inside a block
                "low_blocks": 6,  # residual blocks at LR size
                "mid_blocks": 0,  # x4 only: between the two x2; 1 in released code
                "high_blocks": 4,  # residual blocks at HR size
                "block": "pconv",  # pconv, pixelcnn, gated, gated_pp (Figure 2)
                "norm": "none",  # none, batch, weight (Sec. 3.4)
                "activation": "relu",  # relu (Figure 2), leaky_relu (released code)
                "dtype": "auto",  # of convolutions in training; auto: float32 on CPU,
                # bfloat16 on accelerators; bfloat16 also pays on a CPU with AMX
            },
            "data": {
                "source": "div2k",  # div2k, folder, samples (scikit-image's photos)
                "track": "bicubic",  # div2k: bicubic or unknown degradation
                "split": "train",  # div2k: train (800), validation (100), or both:
                # train+validation (the challenge's 900)
                "root": "data",  # div2k: where `btsrn prepare` put it
                "hr_dir": "",  # folder: HR images, nested folders included
                "lr_dir": "",  # folder: their LR images; empty: made by imresize
                "cache": "auto",  # decoded images: on the device, on the host, auto
            },
            "train": {
                "seed": 0,  # of initialisation and batches
                "batch_size": 32,  # patches a step, over all devices and hosts
                "candidates": 1,  # drawn for a patch; the most detailed is taken
                "patch": 108,  # side in HR pixels; a multiple of the scale
                "steps": placeholder(int),  # empty: 16 passes (from data)
                "decay_steps": placeholder(int),  # empty: one pass (from data)
                "decay_rate": 0.6,  # exponential: factor per decay_steps
                "optimizer": "adam",  # adam (Sec. 4), muon
                "learning_rate": 1e-3,  # at its highest
                "schedule": "exponential",  # exponential (staircase) or cosine (to 0)
                "warmup_steps": 0,  # cosine: linear rise from 0
                "loss": "mse",  # mse, l1, charbonnier; on RGB residuals in [0, 1]
                "ema": 0.0,  # decay of averaged weights, such as 0.999; 0: none
                "clip_norm": 0.0,  # bound of the gradient's global norm; 0: none
                "init_from": "",  # a run or exported model whose fitting layers start
                "log_every": 100,  # steps between lines of metrics
                "eval_every": 5000,  # steps between validations
                "checkpoint_every": 5000,  # steps between checkpoints
                "time_limit": 0.0,  # minutes, then save and exit with 75; 0: none
            },
            "eval": {
                "sets": (),  # folders or div2k/CONFIG; empty: div2k's validation
                "protocol": "ntire",  # ntire, benchmark or modern
                "ensemble": True,  # eight flips and rotations, in --mode=eval
                "tile": 128,  # LR pixels a side of one tile, halo not counted
                "memory_gb": 0.0,  # for a batch of tiles; 0: from the device
                "dtype": "float32",  # float32 (exact) or bfloat16 (fast)
                "max_images": 10,  # of each set, validated during training
            },
        }
    )


def flatten(config: Mapping, prefix: str = "") -> dict:
    """{"train.steps": 1000, ...}: every leaf by its dotted name, in schema order."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, (Mapping, ConfigDict)):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def validate(config: ConfigDict, devices: int = 1) -> None:
    """Checks everything that can be known without data; raises InputError.

    Args:
      config: a whole configuration.
      devices: how many the batch is to divide over.
    """
    config = ConfigDict(config, convert_dict=True)
    _check_structure(config)
    flat = flatten(config)
    for name, values in CHOICES.items():
        if flat[name] not in values:
            known = ", ".join(str(value) for value in values)
            raise InputError(f"config.{name} is {flat[name]!r}: one of {known}")
    for name, (low, high) in RANGES.items():
        value = flat[name]
        if value is not None and not low <= value <= high:  # nan fails, too
            raise InputError(f"config.{name} is {value}: from {low:g} to {high:g}")
    for i, name in enumerate(flat["eval.sets"]):
        if not isinstance(name, str) or not name:
            raise InputError(
                f"config.eval.sets[{i}] is {name!r}: a folder or div2k/CONFIG, quoted"
            )
    _check_model(config)
    _check_data(config)
    _check_training(config, devices)


def _check_structure(config):
    """The fields and types of the schema: neither more nor fewer."""
    schema = flatten(defaults())
    flat = flatten(config)
    for name in flat:
        if name not in schema:
            raise InputError(unknown_field(name))
    for name, default in schema.items():
        if name not in flat:
            raise InputError(
                f"config.{name} is missing: a section given as a whole replaces all of"
                f" its fields; set single ones, as in --config.{name}=VALUE"
            )
        value = flat[name]
        expected = int if default is None else type(default)
        if expected is float and type(value) is int:
            continue
        if isinstance(value, list) and expected is tuple:
            continue
        if type(value) is not expected and not (value is None and default is None):
            raise InputError(
                f"config.{name} is {value!r}, of type {type(value).__name__}:"
                f" {expected.__name__} was expected"
            )


def unknown_field(name: str) -> str:
    """What to say of a name that is no field: the nearest one, or those there are."""
    section, _, last = name.rpartition(".")
    siblings = {}
    for field in flatten(defaults()):
        *sections, leaf = field.split(".")
        siblings.setdefault(".".join(sections), []).append(leaf)
    known = siblings.get(section) if section else ["scale", *filter(None, siblings)]
    if known is None:
        known, last, section = [*filter(None, siblings)], section, ""
    near = difflib.get_close_matches(last, known, n=1)
    if near:
        right = ".".join(filter(None, ("config", section, near[0])))
        return f"config.{name} is not a field: did you mean {right}?"
    return f"config.{name} is not a field: there are {', '.join(known)}"


def _check_model(config):
    if config.model.name == "vdsr":
        for name, value in defaults().model.items():
            taken = name in ("name", "features", "dtype")
            if not taken and config.model[name] != value:
                raise InputError(
                    f"config.model.{name} is {config.model[name]!r}: vdsr takes"
                    " config.model.features and dtype alone"
                )
    if config.model.mid_blocks and config.scale != 4:
        raise InputError(
            f"config.model.mid_blocks is {config.model.mid_blocks} at scale"
            f" {config.scale}: blocks between the two upsamplings exist at x4 alone"
        )


def _check_data(config):
    data = config.data
    if data.source == "folder" and not data.hr_dir:
        raise InputError("config.data.hr_dir is empty: the folder of HR images")
    if data.source != "folder" and (data.hr_dir or data.lr_dir):
        raise InputError(
            f"config.data.hr_dir and lr_dir need config.data.source=folder, not"
            f" {data.source}"
        )


def _check_training(config, devices):
    train, scale = config.train, config.scale
    if train.patch % scale:
        below = train.patch // scale * scale
        raise InputError(
            f"config.train.patch {train.patch} is no multiple of scale {scale}:"
            f" {below or scale} or {below + scale}"
        )
    model = geometry_of(config.model, scale)
    if model.output_size(train.patch // scale) < 1:
        side = next(n for n in range(1, 9999) if model.output_size(n) >= 1)
        raise InputError(
            f"config.train.patch {train.patch} is used up by the VALID convolutions:"
            f" at least {side * scale}"
        )
    if train.batch_size % devices:
        below = train.batch_size // devices * devices
        sizes = f"{below} or {below + devices}" if below else f"{devices}"
        raise InputError(
            f"config.train.batch_size {train.batch_size} does not divide over"
            f" {devices} devices: {sizes}"
        )
    if train.warmup_steps and train.schedule != "cosine":
        raise InputError(
            "config.train.warmup_steps needs config.train.schedule=cosine, not"
            f" {train.schedule}"
        )
    if train.steps is not None and train.warmup_steps >= train.steps:
        raise InputError(
            f"config.train.warmup_steps {train.warmup_steps} leaves nothing of"
            f" {train.steps} steps"
        )


def resolve_steps(config: ConfigDict, steps_per_pass: int) -> ConfigDict:
    """A copy with `steps` and `decay_steps` filled in (paper, Sec. 4: x 0.6 after each
    of 16 passes). `steps` given alone sets `decay_steps` to a sixteenth."""
    config = ConfigDict(config, convert_dict=True)
    train = config.train
    if train.decay_steps is None:
        train.decay_steps = (
            steps_per_pass if train.steps is None else max(1, train.steps // 16)
        )
    if train.steps is None:
        train.steps = 16 * train.decay_steps
    return config


# What may change between a run and its continuation; everything else would make it
# another run.
FREE_ON_RESUME = (
    "train.time_limit",
    "train.log_every",
    "train.eval_every",
    "train.checkpoint_every",
    "data.root",
    "data.hr_dir",
    "data.lr_dir",
    "data.cache",
    "devices",  # not a field: what a run was trained on, for its model card
)


def contradictions(saved: Mapping, config: Mapping) -> list[str]:
    """Fields in which a resolved config contradicts the one its run was started with,
    one "config.NAME was X, now Y" each."""
    # A field that is younger than the run had its default then.
    old, new = flatten(defaults()) | flatten(saved), flatten(config)
    same_decay = old.get("train.decay_steps") == new["train.decay_steps"]
    # Under cosine decay the length is part of the schedule.
    may_extend = same_decay and new["train.schedule"] == "exponential"
    found = []
    for name, value in new.items():
        if name in FREE_ON_RESUME or name.startswith("eval."):
            continue
        if name == "train.steps" and may_extend:
            continue
        if old.get(name) != value:
            found.append(f"config.{name} was {old.get(name)!r}, now {value!r}")
    return found
