"""Tables over any models: the paper's Tables 3 and 4, and all figures."""

import dataclasses
from collections.abc import Mapping, Sequence

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
    on less: " (reduced: features 32, 600 steps)", or "" where none is."""
    texts = [", ".join(differences(entry.config)[0]) for entry in entries]
    named = "; ".join(dict.fromkeys(text for text in texts if text))
    some = "" if all(texts) else "some "
    return f" ({some}reduced: {named})" if named else ""


def table3(entries: Sequence[ReportedModel]) -> Table | None:
    """Returns Table 3: PSNR under `ntire` with the ensemble, beside the challenge's.

    None where no BTSRN among `entries` has such a figure.
    """
    lines, used = [], []
    for entry in entries:
        if entry.config["model"]["name"] != "btsrn":
            continue
        for row in entry.rows:
            ntire = row.image == "mean" and row.ensemble and row.protocol == "ntire"
            if ntire and row.psnr is not None and not row.degradation:
                paper, paper_bicubic = evaluation.TABLE_3[row.scale]
                line = [f"x{row.scale}", entry.name, set_label(row), f"{row.psnr:.2f}"]
                line += [f"{paper:.2f}", f"{row.psnr - paper:+.2f}"]
                base = find_baseline(entry, row)
                known = entry.rows + entry.baseline
                won = base and evaluation.gain(row, base, known)
                gain = evaluation.as_text(won, "+.2f")
                lines.append([*line, gain, f"{paper - paper_bicubic:+.2f}"])
                used.append(entry)
    if not lines:
        return None
    header = ["scale", "model", "set", "PSNR, ntire, ensemble", "paper", "difference"]
    return Table(
        "table3",
        "Table 3: the challenge" + reduction(used),
        [*header, "over bicubic", "paper's over bicubic"],
        sorted(lines),
        [
            "The paper's figures are of the challenge's test images, whose HR was never"
            " published, after training on 900 images. On another set only what is won"
            " over bicubic compares."
        ],
    )


def find_baseline(entry: ReportedModel, row: evaluation.Row) -> evaluation.Row | None:
    """Returns bicubic's figure beside a row, or None."""
    keys = ("set", "image", "scale", "protocol")

    def measured(row):
        return *(getattr(row, key) for key in keys), evaluation.input_label(row)

    same = (b for b in entry.baseline if measured(b) == measured(row))
    return next(same, None)


def set_label(row: evaluation.Row) -> str:
    """Returns a set's name, and what its LR images are if not those of imresize."""
    return row.set + evaluation.input_label(row)


def table4(entries: Sequence[ReportedModel]) -> Table | None:
    """Returns Table 4: PSNR under `benchmark` on the paper's four sets.

    Each system (BTSRN, VDSR, bicubic) has three columns for each of its models, with
    the ensemble where one was measured. Models of different scales share their columns.
    None where no model has a figure.
    """
    cells, models, used = {}, {}, {}
    for entry in entries:
        system = entry.config["model"]["name"]
        for row in sorted(entry.rows, key=lambda row: -row.ensemble):
            known = row.psnr is not None and evaluation.paper_psnr(row) is not None
            if row.image != "mean" or not known:
                continue
            names = models.setdefault((system, row.scale), [])
            if entry.name not in names:
                names.append(entry.name)
                how = ", ensemble" if row.ensemble else ""
                lr = evaluation.lr_label(row)
                how += f", LR of {lr}" if lr else ""
                used[f"{system} x{row.scale}: {entry.name}{how}"] = entry
            place = names.index(entry.name)
            line = evaluation.paper_set(row.set), row.scale
            cells.setdefault((system, place, *line), row)
            base = find_baseline(entry, row)
            if base and base.psnr is not None:
                cells.setdefault(("bicubic", 0, *line), base)
    columns = [
        (system, place, heading)
        for system in evaluation.TABLE_4_MODELS
        for place, heading in enumerate(_headings(system, models))
    ]
    lines = []
    for set_name, scale in [(s, n) for s in evaluation.TABLE_4 for n in (2, 3, 4)]:
        line = [set_name, f"x{scale}"]
        of_set = zip(
            evaluation.TABLE_4_MODELS, evaluation.TABLE_4[set_name], strict=True
        )
        published = {system: psnr[scale - 2] for system, psnr in of_set}
        for system, place, _ in columns:
            paper, row = published[system], cells.get((system, place, set_name, scale))
            line += [f"{row.psnr:.2f}" if row else "", f"{paper:.2f}"]
            line.append(f"{row.psnr - paper:+.2f}" if row else "")
        if any(line[2::3]):
            lines.append(line)
    if not lines:
        return None
    header = ["set", "scale"]
    for _, _, heading in columns:
        header += [heading, "paper", "difference"]
    title = "Table 4: PSNR of the benchmark protocol" + reduction([*used.values()])
    return Table("table4", title, header, lines, [f"{'; '.join(used)}."])


def _headings(system, models):
    """Returns the heading of each of a system's columns of figures: its own name, or,
    of several, the model's name."""
    word = system if system == "bicubic" else system.upper()
    found = [names for (kind, _), names in models.items() if kind == system]
    count = max(map(len, found), default=1)
    if count == 1:
        return [word]
    headings = []
    for place in range(count):
        names = {names[place] for names in found if len(names) > place}
        headings.append(f"{word} {names.pop() if len(names) == 1 else place + 1}")
    return headings


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


def overview(entries: Sequence[ReportedModel]) -> Table:
    """Returns every mean of every model; of a model without figures, its size alone."""
    lines = []
    for entry in entries:
        model = entry.config["model"]
        built = network.build(model, entry.config["scale"])
        size = f"{network.parameter_count(built):,}"
        means = [row for row in entry.rows if row.image == "mean"]
        for row in means:
            base = find_baseline(entry, row)
            line = [entry.name, f"x{row.scale}", size, set_label(row), row.protocol]
            line += ["yes" if row.ensemble else "no"]
            figures = (base and base.psnr, ".2f"), (row.psnr, ".2f"), (row.ssim, ".4f")
            lines.append(line + [evaluation.as_text(*figure) for figure in figures])
        if not means:
            scale = f"x{entry.config['scale']}"
            lines.append([entry.name, scale, size, "none yet", *[""] * 5])
    header = ["model", "scale", "parameters", "set", "protocol", "ensemble"]
    header += ["bicubic PSNR", "PSNR", "SSIM"]
    return Table("models", "All figures" + reduction(entries), header, lines)
