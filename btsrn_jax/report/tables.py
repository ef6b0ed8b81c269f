"""Tables of text, and those over any models: what differs, and all figures."""

import dataclasses
import functools
import json
from collections.abc import Collection, Mapping, Sequence

from btsrn_jax import config as schema
from btsrn_jax import evaluation, network
from btsrn_jax.fields import FIELDS

# What runs of one comparison may differ in.
VARIED = tuple(name.removeprefix("model.") for name in schema.STUDIED)
NOT_SETTINGS = (*schema.NOT_SETTINGS, "config_file", "config_argument")
IMAGES = {"folder": "images of a folder", "samples": "sample photographs"}
PAPER_STEPS = 250_000  # at least: its sixteen passes over DIV2K are 290,000


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text, as Markdown, HTML and CSV show it."""

    name: str
    """The name of its CSV file, without the ending."""
    title: str
    """The heading above it."""
    header: list[str]
    """The names of its columns."""
    lines: list[list[str]]
    """Its rows: a text for each column."""
    notes: Sequence[str] = ()
    """Sentences below it."""
    commands: Sequence[str] = ()
    """Shell commands below it, one a line."""
    best: Collection[tuple[int, int]] = ()
    """Which cells are bold: (row, column)."""
    references: Collection[int] = ()
    """Which rows are no models of the report, but figures to compare them with."""


@dataclasses.dataclass(frozen=True)
class ReportedModel:
    """A run or an exported model, as a report shows it."""

    source: str | None
    """What `inference.load_weights` takes; None where there are no weights yet."""
    name: str
    """Its name in tables."""
    config: dict
    """The config of a run, or the config.json of an exported model."""
    metrics: list[dict]
    """The lines of a run's metrics.jsonl; empty for an exported model."""
    rows: list[evaluation.Row]
    """Its own figures."""
    baseline: list[evaluation.Row]
    """Bicubic's figures, on the same sets."""


def differences(config: Mapping) -> tuple[list[str], list[str]]:
    """Returns where a setting differs from the paper's, in words.

    What the paper's own experiments vary is left out. Of an exported model, little more
    than its size and its step is known.

    Args:
      config: of a run or an exported model.

    Returns:
      What makes the network or its training smaller ("features 32"), and the rest.
    """
    defaults = schema.flatten(schema.defaults())
    if config["model"]["name"] == "vdsr":
        defaults["model.features"] = network.VDSR_FEATURES
    skipped = (*NOT_SETTINGS, "scale", "model.name", "model.bottleneck", "train.steps")
    size, rest = [], []
    for name, value in schema.flatten(config).items():
        section, _, leaf = name.partition(".")
        varied = section == "model" and leaf in VARIED
        if section == "eval" or varied or name in skipped or name not in defaults:
            continue
        if value != defaults[name]:
            reduced = name in ("model.features", "data.source")
            text = IMAGES.get(value, f"{leaf} {value}")
            (size if reduced else rest).append(text)
    steps = config["train"]["steps"] if "train" in config else config.get("step")
    if steps and steps < PAPER_STEPS:
        size.append(f"{steps:,} steps")
    return size, rest


def reduction(entries: Sequence[ReportedModel]) -> str:
    """Returns what a title says of models that are smaller than the paper's, or trained
    on less: " (reduced)", " (some reduced)", or "" where none is."""
    reduced = [bool(differences(entry.config)[0]) for entry in entries]
    return (" (reduced)" if all(reduced) else " (some reduced)") if any(reduced) else ""


def reduction_notes(entries: Sequence[ReportedModel]) -> list[str]:
    """Returns a sentence that says in what models are smaller than the paper's, or
    trained on less: models that are so alike are named together. None without any."""
    names = {}
    for entry in entries:
        text = ", ".join(differences(entry.config)[0])
        if text:
            names.setdefault(text, []).append(entry.name)
    named = "; ".join(f"{', '.join(of)}: {text}" for text, of in names.items())
    return [f"Smaller than the paper's setting. {named}."] if named else []


def without_empty(table: Table) -> Table:
    """Returns a table without the columns that are empty in every row."""
    full = [i for i, _ in enumerate(table.header) if any(x[i] for x in table.lines)]
    lines = [[line[i] for i in full] for line in table.lines]
    header = [table.header[i] for i in full]
    return dataclasses.replace(table, header=header, lines=lines)


def find_baseline(entry: ReportedModel, row: evaluation.Row) -> evaluation.Row | None:
    """Returns bicubic's figure beside one of a model's rows; None without any."""
    keys = ("set", "image", "scale", "protocol")

    def measured(row):
        return *(getattr(row, key) for key in keys), evaluation.input_label(row)

    same = (b for b in entry.baseline if measured(b) == measured(row))
    return next(same, None)


def set_label(row: evaluation.Row) -> str:
    """Returns a set's name, and what its LR images are if not those of imresize."""
    return row.set + evaluation.input_label(row)


def compared(entries: Sequence[ReportedModel]) -> Table | None:
    """Returns the settings in which models differ, a column each; None where there are
    no two models.

    Where data lies, and what leaves no trace in the weights, does not count.
    """
    if len(entries) < 2:
        return None
    settings = [_settings(entry.config) for entry in entries]
    differing = [
        name
        for name in dict.fromkeys(name for known in settings for name in known)
        if len({known[name] for known in settings if name in known}) > 1
    ]
    lines = [
        [entry.name, *(known.get(name, "unknown") for name in differing)]
        for entry, known in zip(entries, settings, strict=True)
    ]
    note = "All other settings are equal, as far as an exported model knows its own."
    if not differing:
        note = "No setting differs."
    return Table(
        "differences",
        "What differs between the models",
        ["model", *differing],
        lines,
        [note],
    )


def _settings(config):
    """Returns the settings of a model as text, by their names in the config."""
    known = schema.flatten(config)
    if "train" in config:  # a field that is younger than the run had its default then
        known = schema.flatten(schema.defaults()) | known
    else:
        names = {"batch_size": "batch_size", "patch": "patch", "steps": "step"}
        known |= {f"train.{name}": config.get(key) for name, key in names.items()}
    names = [name for name in FIELDS if name not in schema.FREE_ON_RESUME]
    # The last one is an exported model's: its data in words.
    names += ["data.hr_dir", "data.lr_dir", "data"]
    return {
        name: f"{known[name]:g}" if type(known[name]) is float else str(known[name])
        for name in names
        if known.get(name) is not None
    }


def size(entry: ReportedModel) -> str:
    """Returns the number of a model's parameters, as text."""
    return _size(json.dumps(entry.config["model"]), entry.config["scale"])


@functools.cache  # counting takes a while, and a model has many rows
def _size(model, scale):
    built = network.build(json.loads(model), scale)
    return f"{network.parameter_count(built):,}"


def overview(entries: Sequence[ReportedModel]) -> Table:
    """Returns every mean of every model; of a model without figures, its size alone."""
    lines = []
    for entry in entries:
        means = [row for row in entry.rows if row.image == "mean"]
        for row in means:
            base = find_baseline(entry, row)
            line = [entry.name, f"x{row.scale}", size(entry), set_label(row)]
            line += [row.protocol, "yes" if row.ensemble else "no"]
            figures = (base and base.psnr, ".2f"), (row.psnr, ".2f"), (row.ssim, ".4f")
            lines.append(line + [evaluation.as_text(*figure) for figure in figures])
        if not means:
            scale = f"x{entry.config['scale']}"
            lines.append([entry.name, scale, size(entry), "none yet", *[""] * 5])
    header = ["model", "scale", "parameters", "set", "protocol", "ensemble"]
    header += ["bicubic PSNR", "PSNR", "SSIM"]
    return Table("models", "Every set, scale and protocol", header, lines)
