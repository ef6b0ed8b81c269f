"""Released models beside the paper and its neighbours: the tables of the README."""

from collections.abc import Sequence

from btsrn_jax import evaluate
from btsrn_jax import model as network
from btsrn_jax.page import Table
from btsrn_jax.tables import Entry

SETS = ("Set5", "Set14", "B100")
MEASURED = ("set", "scale", "bicubic", "shipped", "with ensemble")
# PSNR of luminance as published (docs/PAPER.md, 5): parameters, then by scale on SETS.
PUBLISHED = {
    "VDSR": (
        "665 K",
        {
            2: (37.53, 33.03, 31.90),
            3: (33.66, 29.77, 28.82),
            4: (31.35, 28.01, 27.29),
        },
    ),
    "CARN": (
        "1.59 M",
        {
            2: (37.76, 33.52, 32.09),
            3: (34.29, 30.29, 29.06),
            4: (32.13, 28.60, 27.58),
        },
    ),
    "EDSR-baseline": (
        "1.37 M",
        {
            2: (37.99, 33.57, 32.16),
            3: (34.37, 30.28, 29.08),
            4: (32.09, 28.58, 27.56),
        },
    ),
    "NinaSR-B1": (
        "1.02 M",
        {
            2: (38.14, 33.71, 32.24),
            3: (34.48, 30.41, 29.13),
            4: (32.28, 28.71, 27.62),
        },
    ),
}


def make_tables(entries: Sequence[Entry]) -> list[Table]:
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
            name = evaluate.PAPER_NAMES.get(row.set, row.set)
            key = (name, row.image, row.scale, row.protocol, row.ensemble)
            if key == (set_name, "mean", scale, protocol, ensemble):
                return f"{row.psnr:.2f}"
    return ""


def _cells(entries, protocol):
    """(set, scale, [bicubic, ours, ours with the ensemble]) where there is one."""
    for set_name in SETS:
        for scale in (2, 3, 4):
            bicubic = _mean(entries, set_name, scale, protocol, 0, "baseline")
            ours = [_mean(entries, set_name, scale, protocol, e) for e in (0, 1)]
            if any(ours):
                yield set_name, scale, [bicubic, *ours]


def _benchmark(entries):
    lines = []
    for set_name, scale, measured in _cells(entries, "benchmark"):
        btsrn, vdsr, _ = (column[scale - 2] for column in evaluate.PAPER[set_name])
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
        theirs = [
            f"{figures[scale][SETS.index(set_name)]:.2f}"
            for _, figures in PUBLISHED.values()
        ]
        lines.append([set_name, f"x{scale}", *measured, *theirs])
    return Table(
        "results-modern",
        "Released models, PSNR of the modern protocol, beside published networks",
        [*MEASURED, *(f"{name} ({size})" for name, (size, _) in PUBLISHED.items())],
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
