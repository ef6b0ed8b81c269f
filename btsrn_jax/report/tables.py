"""Tables over any models: the paper's Tables 3 and 4, and all figures."""

import dataclasses
from collections.abc import Mapping, Sequence

from btsrn_jax import config as schema
from btsrn_jax import evaluation, network

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
            if ntire and row.psnr is not None:
                paper, paper_bicubic = evaluation.TABLE_3[row.scale]
                line = [f"x{row.scale}", entry.name, set_label(row), f"{row.psnr:.2f}"]
                line += [f"{paper:.2f}", f"{row.psnr - paper:+.2f}"]
                base = _baseline(entry, row)
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


def _baseline(entry, row):
    """Returns bicubic's figure beside a row, or None."""
    keys = ("set", "image", "scale", "protocol")

    def measured(row):
        return *(getattr(row, key) for key in keys), evaluation.lr_label(row)

    same = (b for b in entry.baseline if measured(b) == measured(row))
    return next(same, None)


def set_label(row: evaluation.Row) -> str:
    """Returns a set's name, and where its LR images came from if not from imresize."""
    lr = evaluation.lr_label(row)
    return f"{row.set}, LR of {lr}" if lr else row.set


def table4(entries: Sequence[ReportedModel]) -> Table | None:
    """Returns Table 4: PSNR under `benchmark` on the paper's four sets.

    Each system (BTSRN, VDSR, bicubic) shows the first model that has a figure, with the
    ensemble where one was measured. None where no model has a figure.
    """
    cells, used = {}, {}
    for entry in entries:
        system = entry.config["model"]["name"]
        for row in sorted(entry.rows, key=lambda row: -row.ensemble):
            known = row.psnr is not None and evaluation.paper_psnr(row) is not None
            if row.image == "mean" and known:
                name = evaluation.paper_set(row.set)
                key = (system, name, row.scale)
                if key not in cells:
                    ensemble = ", ensemble" if row.ensemble else ""
                    lr = evaluation.lr_label(row)
                    ensemble += f", LR of {lr}" if lr else ""
                    used[f"{system} x{row.scale}: {entry.name}{ensemble}"] = entry
                cells.setdefault(key, row)
                base = _baseline(entry, row)
                if base and base.psnr is not None:
                    cells.setdefault(("bicubic", name, row.scale), base)
    lines = []
    for set_name, scale in [(s, n) for s in evaluation.TABLE_4 for n in (2, 3, 4)]:
        line = [set_name, f"x{scale}"]
        systems = zip(
            evaluation.TABLE_4_MODELS, evaluation.TABLE_4[set_name], strict=True
        )
        for system, published in systems:
            paper, row = published[scale - 2], cells.get((system, set_name, scale))
            line += [f"{row.psnr:.2f}" if row else "", f"{paper:.2f}"]
            line.append(f"{row.psnr - paper:+.2f}" if row else "")
        if any(line[2::3]):
            lines.append(line)
    if not lines:
        return None
    header = ["set", "scale"]
    for system in ("BTSRN", "VDSR", "bicubic"):
        header += [system, "paper", "difference"]
    title = "Table 4: PSNR of the benchmark protocol" + reduction([*used.values()])
    return Table("table4", title, header, lines, [f"{'; '.join(used)}."])


def overview(entries: Sequence[ReportedModel]) -> Table:
    """Returns every mean of every model; of a model without figures, its size alone."""
    lines = []
    for entry in entries:
        model = entry.config["model"]
        built = network.build(model, entry.config["scale"])
        size = f"{network.parameter_count(built):,}"
        means = [row for row in entry.rows if row.image == "mean"]
        for row in means:
            base = _baseline(entry, row)
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
