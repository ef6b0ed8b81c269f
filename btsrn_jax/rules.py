"""The rules of the config between several fields; those of one are in the table."""

from ml_collections import ConfigDict

from btsrn_jax import schedules
from btsrn_jax.errors import InputError
from btsrn_jax.fields import FIELDS
from btsrn_jax.network import geometry_of


def check(config: ConfigDict, devices: int) -> None:
    """Raises InputError if fields of a config contradict each other.

    Args:
      config: whole; each of its fields is valid by itself.
      devices: number of devices that the batch has to divide over.
    """
    _check_model(config)
    _check_data(config)
    _check_training(config, devices)


def _check_model(config):
    if config.model.name == "vdsr":
        for name, value in config.model.items():
            taken = name in ("name", "features", "dtype")
            if not taken and value != FIELDS[f"model.{name}"].default:
                raise InputError(
                    f"config.model.{name} is {value!r}: vdsr takes"
                    " config.model.features and dtype alone"
                )
    if config.model.mid_blocks and config.scale != 4:
        raise InputError(
            f"config.model.mid_blocks is {config.model.mid_blocks} at scale"
            f" {config.scale}: blocks between the two upsamplings exist at x4 alone"
        )


def _check_data(config):
    data = config.data
    if data.source != "folder" and (data.hr_dir or data.lr_dir):
        raise InputError(
            f"config.data.hr_dir and lr_dir need config.data.source=folder, not"
            f" {data.source}"
        )
    copies = list(data.smaller_copies)
    shares = [type(share) is float and 0.0 < share < 1.0 for share in copies]
    if not all(shares) or len(set(copies)) < len(copies):
        raise InputError(
            f"config.data.smaller_copies is {data.smaller_copies!r}: different numbers"
            " between 0 and 1, such as (0.75, 0.55); or () for none"
        )
    unknown = data.source == "div2k" and data.track != "bicubic"
    if copies and (unknown or data.lr_dir):
        given = "data.lr_dir" if data.lr_dir else f"data.track={data.track}"
        raise InputError(
            "config.data.smaller_copies needs LR images as imresize makes them, and"
            f" config.{given} gives others"
        )


def _check_training(config, devices):
    train, scale = config.train, config.scale
    if train.patch % scale:
        below = train.patch // scale * scale
        raise InputError(
            f"config.train.patch {train.patch} is no multiple of scale {scale}:"
            f" {below or scale} or {below + scale}"
        )
    _check_profile(train)
    model = geometry_of(config.model, scale)
    if model.output_size(train.patch // scale) < 1:
        side = next(n for n in range(1, 9999) if model.output_size(n) >= 1)
        raise InputError(
            f"config.train.patch {train.patch} is used up by the VALID convolutions:"
            f" at least {side * scale}"
        )
    parts = train.micro_batches
    if parts > 1 and config.model.norm == "batch":
        raise InputError(
            f"config.train.micro_batches is {parts}: 1 was expected with"
            " config.model.norm=batch, whose statistics are those of the whole batch"
        )
    unit = parts * devices
    if train.batch_size % unit:
        below = train.batch_size // unit * unit
        sizes = f"{below} or {below + unit}" if below else f"{unit}"
        into = [f"{parts} config.train.micro_batches"] * (parts > 1)
        over = [f"{devices} devices"] * (devices > 1)
        raise InputError(
            f"config.train.batch_size {train.batch_size} does not divide over"
            f" {' of '.join([*into, *over])}: {sizes}"
        )
    schedules.check(train)


def _check_profile(train):
    profile = list(train.profile)
    if not profile:
        return
    whole = all(type(number) is int and number > 0 for number in profile)
    if len(profile) != 2 or not whole:
        raise InputError(
            f"config.train.profile is {train.profile!r}: (first step, number of steps),"
            " such as (100, 5), both from 1; or () for none"
        )
    last = profile[0] + profile[1] - 1
    if train.steps is not None and last > train.steps:
        raise InputError(
            f"config.train.profile is {train.profile!r}: steps {profile[0]} to {last},"
            f" but the run ends at step {train.steps} (config.train.steps)"
        )
