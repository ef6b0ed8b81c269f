"""The configuration: its defaults, its rules, and what it says to people.

A config file is Python with `get_config(arg=None)`; it takes `defaults()` and changes a
few fields. `validate` is a run's first act, before anything is read or compiled; it
loads neither JAX nor Flax.

The fields stand in one table, `fields.FIELDS`. To add a field, add its entry there:
defaults, checks, what may change on resume, `--help` and docs/config.md follow from it.
Only a rule between several fields is written elsewhere, in rules.py.

    python -m btsrn_jax.config > docs/config.md     # after any change of the table
"""

import difflib
import functools
import textwrap
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from btsrn_jax import rules, schedules, storage
from btsrn_jax.errors import InputError
from btsrn_jax.fields import FIELDS, TITLES, Range, Role
from btsrn_jax.fields import SCALES as SCALES  # for those who use the config

# The fields by what they are to a training run (`field.Role`).
FREE_ON_RESUME = tuple(name for name, field in FIELDS.items() if field.free_on_resume)
# In these, runs of one setting may differ. The devices are no field: config.json of a
# run records what it was trained on.
NOT_SETTINGS = ("devices", *(n for n, field in FIELDS.items() if not field.identity))
NOT_TRAINING = tuple(n for n, field in FIELDS.items() if field.role is Role.CONDUCT)
STUDIED = tuple(n for n, field in FIELDS.items() if field.role is Role.STUDIED)
MOVABLE = "data.lr_dir"  # on resume, but not from or to "", or the LR images are others
# What else may change on resume, if the rate of the steps made stays as it was.
SOMETIMES = {
    "train.steps": "exponential: if `decay_steps` stays; wsd: before the decay",
    "train.decay_share": "before the decay",
    MOVABLE: "from one folder to another",
}
# Scores of two validations compare only if these are equal.
SCORING = tuple(
    f"eval.{name}"
    for name in ("sets", "best_set", "degrade", "protocol", "max_images", "dtype")
)


def defaults() -> ConfigDict:
    """Returns a whole config: the paper's settings at x4."""
    config = {}
    for name, field in FIELDS.items():
        *sections, leaf = name.split(".")
        section = config
        for part in sections:
            section = section.setdefault(part, {})
        section[leaf] = placeholder(int) if field.default is None else field.default
    return ConfigDict(config)


def flatten(config: Mapping, prefix: str = "") -> dict[str, Any]:
    """Returns every leaf by its dotted name, such as {"train.steps": 1000}, in the
    order of the config. Lists become tuples: JSON knows only lists."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, (Mapping, ConfigDict)):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = tuple(value) if isinstance(value, list) else value
    return flat


def validate(config: Mapping, devices: int = 1) -> None:
    """Checks everything about a config that can be known without its data.

    Args:
      config: a whole config: all fields of the table, and no others.
      devices: number of devices that the batch has to divide over.

    Raises:
      InputError: one line that names the first wrong field, and what was expected.
    """
    config = ConfigDict(config, convert_dict=True)
    flat = flatten(config)
    for name in flat:
        if name not in FIELDS:
            raise InputError(unknown_field(name))
    for name in FIELDS:
        if name not in flat:
            raise InputError(
                f"config.{name} is missing: a section given as a whole replaces all of"
                f" its fields; set single ones, as in --config.{name}=VALUE"
            )
        _check_type(name, flat[name])
    for name, value in flat.items():
        _check_allowed(name, value)
    for i, name in enumerate(config.eval.sets):
        if not isinstance(name, str) or not name:
            raise InputError(
                f"config.eval.sets[{i}] is {name!r}: a folder or div2k/CONFIG, quoted"
            )
    rules.check(config, devices)


def _check_type(name, value):
    expected = FIELDS[name].type
    if type(value) is expected or (value is None and FIELDS[name].default is None):
        return
    if (type(value), expected) in ((int, float), (list, tuple)):
        return
    raise InputError(
        f"config.{name} is {value!r}, of type {type(value).__name__}:"
        f" {expected.__name__} was expected"
    )


def _check_allowed(name, value):
    field = FIELDS[name]
    if field.allowed is None or value is None:
        return
    if field.type is tuple and isinstance(field.allowed, Range):
        _check_range(name, value)
    elif not isinstance(field.allowed, Range):
        if value not in field.allowed:
            raise InputError(f"config.{name} is {value!r}: {field.describe_allowed()}")
    elif not field.allowed.low <= value <= field.allowed.high:  # nan fails, too
        raise InputError(f"config.{name} is {value}: {field.describe_allowed()}")


def unknown_field(name: str) -> str:
    """Returns the message about a name that is no field: it suggests the nearest field,
    or lists those of the section."""
    near = nearest_fields(name)
    if near:
        named = " or ".join(f"config.{field}" for field in near)
        return f"config.{name} is not a field: did you mean {named}?"
    section = name.rpartition(".")[0]
    known = [f.rpartition(".")[2] for f in FIELDS if f.rpartition(".")[0] == section]
    if not section or not known:
        known = list(dict.fromkeys(field.partition(".")[0] for field in FIELDS))
    return f"config.{name} is not a field: there are {', '.join(known)}"


def nearest_fields(name: str) -> list[str]:
    """Returns the fields that a name may stand for: those of that last part in any
    section, or else the one that is spelled most like it; empty if none is near."""
    section, _, last = name.replace("-", "_").rpartition(".")
    leaves = {}
    for field in FIELDS:
        leaves.setdefault(field.rpartition(".")[2], []).append(field)
    own = [leaf for leaf in leaves if f"{section}.{leaf}" in FIELDS]
    for known in (own, list(leaves)):  # the section that was named comes first
        for leaf in difflib.get_close_matches(last, known, n=1):
            same = [f for f in leaves[leaf] if f == f"{section}.{leaf}"]
            return same or leaves[leaf]
    return []


def _check_range(name, value):
    """Checks a field that is a range itself, (low, high)."""
    field = FIELDS[name]
    kinds = (int, type(field.default[0]))
    fits = len(value) == 2 and all(type(number) in kinds for number in value)
    low, high = field.allowed
    if not fits or not low <= value[0] <= value[1] <= high:  # nan fails, too
        raise InputError(
            f"config.{name} is {value!r}: {field.describe_allowed()}, low at most high"
        )


def resolve_steps(config: ConfigDict, steps_per_pass: int) -> ConfigDict:
    """Returns a copy of the config with `steps` and `decay_steps` filled in.

    The rate decays after each of 16 passes over the data (paper, Sec. 4). If `steps`
    alone is given, `decay_steps` is a sixteenth of it.
    """
    config = ConfigDict(config, convert_dict=True)
    train = config.train
    if train.decay_steps is None:
        train.decay_steps = (
            steps_per_pass if train.steps is None else max(1, train.steps // 16)
        )
    if train.steps is None:
        train.steps = 16 * train.decay_steps
    return config


def resolve_places(config: ConfigDict) -> ConfigDict:
    """Returns a copy of the config whose paths begin with no ~, and whose lists of
    names hold a single name each.

    Raises:
      InputError: a path begins with a home directory that is not known.
    """
    config = ConfigDict(config, convert_dict=True)
    for name, field in FIELDS.items():
        if not field.places:
            continue
        *sections, leaf = name.split(".")
        section = functools.reduce(getattr, sections, config)
        value = section[leaf]
        try:
            if isinstance(value, str):
                section[leaf] = storage.expand(value)
            else:
                section[leaf] = tuple(n for v in value for n in storage.split_names(v))
        except InputError as error:
            raise InputError(f"config.{name}: {error}") from None
    return config


def contradictions(saved: Mapping, config: Mapping, made: int = 0) -> list[str]:
    """Compares the config that a run was started with to the one it is continued with.

    Args:
      saved: the run's own config, resolved; it may be older than some of the fields.
      config: the new config, resolved.
      made: the steps that the run has made.

    Returns:
      One "config.NAME was X, now Y" for each field that may not change on resume.
    """
    # A field that is younger than the run had its default then.
    old, new = flatten(defaults()) | flatten(saved), flatten(config)
    free = {*FREE_ON_RESUME, *schedules.free_lengths(old, new, made)} - {MOVABLE}
    if bool(old[MOVABLE]) == bool(new[MOVABLE]):
        free.add(MOVABLE)
    return [text for name, text in _changes(old, new).items() if name not in free]


def rescored(saved: Mapping, config: Mapping) -> list[str]:
    """Returns one "config.NAME was X, now Y" for each field whose change makes the
    scores of validations differ; arguments as of `contradictions`."""
    changes = _changes(flatten(defaults()) | flatten(saved), flatten(config))
    return [text for name, text in changes.items() if name in SCORING]


def _changes(old, new):
    """Returns {name: "config.NAME was X, now Y"} of the fields that differ."""
    return {
        name: f"config.{name} was {old[name]!r}, now {new[name]!r}"
        for name in FIELDS
        if old[name] != new[name]
    }


def to_help() -> str:
    """Returns the fields as `python -m btsrn_jax.main --help` lists them, each with its
    default, what it does and what it may be, in lines of at most 80 characters."""
    lines = []
    for name, field in FIELDS.items():
        default = "(from data)" if field.default is None else field.default
        allowed = field.describe_allowed()
        text = f"{field.help} {allowed[:1].upper()}{allowed[1:]}{allowed and '.'}"
        lines += [f"  --config.{name}={default}", *textwrap.wrap(text, 74)]
    return "\n".join(
        line if line.startswith("  --") else f"      {line}" for line in lines
    )


def to_markdown() -> str:
    """Returns the page docs/config.md: one table of fields for each section."""
    page = [_PAGE]
    section = None
    for name, field in FIELDS.items():
        if name.partition(".")[0] != section:
            section = name.partition(".")[0]
            page.append(f"\n## {TITLES.get(section, section)}\n\n{_HEADER}")
        default = "from the data" if field.default is None else f"`{field.default!r}`"
        resume = "yes" if field.free_on_resume else "no"
        resume = SOMETIMES.get(name, resume)
        cells = [f"`{name}`", default, field.describe_allowed(), field.help, resume]
        page.append(f"| {' | '.join(cells)} |")
    return "\n".join(page) + "\n"


_PAGE = """# Configuration

<!-- Generated by `python -m btsrn_jax.config > docs/config.md`; do not edit. -->

A config file such as `configs/x4.py` starts from the defaults below, which are the
paper's settings at x4, and changes some of them. The command line changes single
fields: `--config.train.steps=1000`. The same command continues a run that was stopped.
The last column says which fields may then differ; any other difference is refused and
named."""

_HEADER = """| field | default | allowed | meaning | may change on resume |
|---|---|---|---|---|"""


if __name__ == "__main__":
    print(to_markdown(), end="")
