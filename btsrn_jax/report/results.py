"""Released models beside the paper and its neighbours: the tables of the README."""

from collections.abc import Sequence

from btsrn_jax import evaluation, network
from btsrn_jax.report.html_page import Table
from btsrn_jax.report.tables import ReportedModel

MEASURED = ("set", "scale", "bicubic", "shipped", "with ensemble")
# PSNR of luminance as published (docs/PAPER.md, 5), x2, x3, x4; of VDSR it is that of
# evaluate.PAPER.
NEIGHBOURS = ("CARN (1.59 M)", "EDSR-baseline (1.37 M)", "NinaSR-B1 (1.02 M)")
PUBLISHED = {
    "Set5": ((37.76, 34.29, 32.13), (37.99, 34.37, 32.09), (38.14, 34.48, 32.28)),
    "Set14": ((33.52, 30.29, 28.60), (33.57, 30.28, 28.58), (33.71, 30.41, 28.71)),
    "B100": ((32.09, 29.06, 27.58), (32.16, 29.08, 27.56), (32.24, 29.13, 27.62)),
}


def make_tables(entries: Sequence[ReportedModel]) -> list[Table]:
    """What the exported models among `entries` reach, and how they were trained; none
    where none of them has figures on Set5, Set14 or B100."""
    # A run's config has `train`; an exported model's knows its command.
    exported = [e for e in entries if "training_command" in e.config]
    found = [_benchmark(exported), _modern(exported)]
    if not any(table.lines for table in found):
        return []
    tables = [*map(_without_empty, found), _training(exported)]
    return [table for table in tables if table.lines]


def _without_empty(table):
    """A table without the columns in which nothing was measured."""
    full = [i for i, _ in enumerate(table.header) if any(x[i] for x in table.lines)]
    lines = [[line[i] for i in full] for line in table.lines]
    return table._replace(header=[table.header[i] for i in full], lines=lines)


def _mean(entries, set_name, scale, protocol, ensemble, field="rows"):
    """A mean over a set, as text; empty where there is none."""
    for entry in entries:
        for row in getattr(entry, field):
            name = evaluation.SAME_SETS.get(row.set, row.set)
            key = (name, row.image, row.scale, row.protocol, row.ensemble)
            if key == (set_name, "mean", scale, protocol, ensemble):
                return f"{row.psnr:.2f}"
    return ""


def _cells(entries, protocol):
    """(set, scale, [bicubic, ours, ours with the ensemble]) where there is one."""
    for set_name in PUBLISHED:
        for scale in (2, 3, 4):
            bicubic = _mean(entries, set_name, scale, protocol, 0, "baseline")
            ours = [_mean(entries, set_name, scale, protocol, e) for e in (0, 1)]
            if any(ours):
                yield set_name, scale, [bicubic, *ours]


def _benchmark(entries):
    lines = []
    for set_name, scale, measured in _cells(entries, "benchmark"):
        btsrn, vdsr, _ = (column[scale - 2] for column in evaluation.TABLE_4[set_name])
        lines.append([set_name, f"x{scale}", *measured, f"{btsrn:.2f}", f"{vdsr:.2f}"])
    return Table(
        "results-benchmark",
        "Released models, PSNR of the benchmark protocol",
        [*MEASURED, "the paper's BTSRN", "VDSR, in the paper"],
        lines,
    )


def _modern(entries):
    lines = []
    for set_name, scale, measured in _cells(entries, "modern"):
        _, vdsr, _ = evaluation.TABLE_4[set_name]
        theirs = [f"{psnr[scale - 2]:.2f}" for psnr in (vdsr, *PUBLISHED[set_name])]
        lines.append([set_name, f"x{scale}", *measured, *theirs])
    return Table(
        "results-modern",
        "Released models, PSNR of the modern protocol, beside published networks",
        [*MEASURED, "VDSR (665 K)", *NEIGHBOURS],
        lines,
    )


def _training(entries):
    lines = []
    for entry in entries:
        about = entry.config
        model = network.build(about["model"], about["scale"])
        steps = (
            f"{about['step']:,} of {about['batch_size']} x {about['patch']} px"
            if about.get("batch_size")
            else "unknown"
        )
        lines.append(
            [
                entry.name,
                f"{network.parameter_count(model):,}",
                about["data"],
                steps,
                about.get("hardware", "unknown"),
                f"`{about['training_command']}`",
            ]
        )
    header = ["model", "parameters", "training images", "steps", "on", "command"]
    return Table("results-training", "Released models, training", header, lines)
