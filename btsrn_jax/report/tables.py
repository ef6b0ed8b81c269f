"""The paper's Tables 3 and 4, and all figures, over any models; how far a model's
setting is from the paper's."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from btsrn_jax import config as schema
from btsrn_jax import evaluation, network
from btsrn_jax.evaluation import Row
from btsrn_jax.report.html_page import Table

# Challenge test set: BTSRN (900 training images, ensemble) and bicubic.
TABLE_3 = {2: (34.19, 31.01), 3: (30.44, 28.22), 4: (28.49, 26.65)}
# What runs of one comparison may differ in.
VARIED = tuple(name.removeprefix("model.") for name in schema.STUDIED)
NOT_SETTINGS = schema.NOT_SETTINGS
IMAGES = {"folder": "images of a folder", "samples": "sample photographs"}


class ReportedModel(NamedTuple):
    """What is reported on. source: as `weights.load` takes it; None where there are no
    weights (yet). name: for tables. config: of a run, or an exported model's `scale`
    and `model`. metrics: the lines of metrics.jsonl. rows: its figures; baseline:
    bicubic's, on the same sets."""

    source: str | None
    name: str
    config: dict
    metrics: list[dict]
    rows: list[Row]
    baseline: list[Row]


def differences(config: Mapping) -> tuple[list[str], list[str]]:
    """Where a model's setting is not the paper's: what makes it smaller ("features
    32"), and the rest; what the paper itself varies left aside. Of an exported model
    little more than its size and step are known."""
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
    if steps and steps < 250_000:  # sixteen passes over DIV2K are 290,000
        size.append(f"{steps:,} steps")
    return size, rest


def reduction(entries: Sequence[ReportedModel]) -> str:
    """What a title says of models smaller, or trained on less, than the paper's: "" or
    " (reduced: features 32, 600 steps)"."""
    texts = [", ".join(differences(entry.config)[0]) for entry in entries]
    named = "; ".join(dict.fromkeys(text for text in texts if text))
    some = "" if all(texts) else "some "
    return f" ({some}reduced: {named})" if named else ""


def table3(entries: Sequence[ReportedModel]) -> Table | None:
    """Challenge figures: `ntire`, ensemble. None where no model has any."""
    lines, used = [], []
    for entry in entries:
        if entry.config["model"]["name"] != "btsrn":
            continue
        for row in entry.rows:
            if row.image == "mean" and row.ensemble and row.protocol == "ntire":
                paper, paper_bicubic = TABLE_3[row.scale]
                line = [f"x{row.scale}", entry.name, row.set, f"{row.psnr:.2f}"]
                line += [f"{paper:.2f}", f"{row.psnr - paper:+.2f}"]
                base = _baseline(entry, row)
                gain = f"{row.psnr - base.psnr:+.2f}" if base else ""
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
    keys = ("set", "image", "scale", "protocol")
    wanted = [getattr(row, key) for key in keys]
    same = (b for b in entry.baseline if [getattr(b, k) for k in keys] == wanted)
    return next(same, None)


def table4(entries: Sequence[ReportedModel]) -> Table | None:
    """`benchmark` figures on the paper's four sets: of each system the first model that
    has them, with the ensemble where it was used. None where no model has any."""
    cells, used = {}, {}
    for entry in entries:
        system = entry.config["model"]["name"]
        for row in sorted(entry.rows, key=lambda row: -row.ensemble):
            if row.image == "mean" and evaluation.paper_psnr(row) is not None:
                key = (system, row.set, row.scale)
                if key not in cells:
                    ensemble = ", ensemble" if row.ensemble else ""
                    used[f"{system} x{row.scale}: {entry.name}{ensemble}"] = entry
                cells.setdefault(key, row)
                if base := _baseline(entry, row):
                    cells.setdefault(("bicubic", row.set, row.scale), base)
    lines = []
    for set_name, scale in [(s, n) for s in evaluation.TABLE_4 for n in (2, 3, 4)]:
        line = [set_name, f"x{scale}"]
        for system in evaluation.TABLE_4_MODELS:
            paper = evaluation.TABLE_4[set_name][
                evaluation.TABLE_4_MODELS.index(system)
            ]
            paper, row = paper[scale - 2], cells.get((system, set_name, scale))
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
    """Every mean of every model; of models without figures the size alone."""
    lines = []
    for entry in entries:
        model = entry.config["model"]
        built = network.build(model, entry.config["scale"])
        size = f"{network.parameter_count(built):,}"
        means = [row for row in entry.rows if row.image == "mean"]
        for row in means:
            base = _baseline(entry, row)
            line = [entry.name, f"x{row.scale}", size, row.set, row.protocol]
            line += ["yes" if row.ensemble else "no"]
            line += [f"{base.psnr:.2f}" if base else "", f"{row.psnr:.2f}"]
            lines.append([*line, f"{row.ssim:.4f}"])
        if not means:
            scale = f"x{entry.config['scale']}"
            lines.append([entry.name, scale, size, "none yet", *[""] * 5])
    header = ["model", "scale", "parameters", "set", "protocol", "ensemble"]
    header += ["bicubic PSNR", "PSNR", "SSIM"]
    return Table("models", "All figures" + reduction(entries), header, lines)
