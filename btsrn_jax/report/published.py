"""Released models beside the paper and published networks: the README's tables."""

from collections.abc import Sequence

from btsrn_jax import evaluation, export
from btsrn_jax.report.tables import ReportedModel, Table, size, without_empty

MEASURED = ("set", "scale", "bicubic", "shipped", "with ensemble", "model")


def released_tables(entries: Sequence[ReportedModel]) -> list[Table]:
    """Returns what exported models reach on Set5, Set14 and B100, and how they were
    trained; no table where none of them has a figure there."""
    exported = [entry for entry in entries if _is_exported(entry)]
    found = [_benchmark(exported), _modern(exported)]
    if not any(table.lines for table in found):
        return []
    tables = [*map(without_empty, found), _training(exported)]
    return [table for table in tables if table.lines]


def training_commands(entries: Sequence[ReportedModel]) -> list[str]:
    """Returns the command that trains each model, for a block of shell commands.

    The command starts from the config file that the run was really started with, where
    the run recorded it, and names every field that differs.
    """
    return [
        entry.config["training_command"]
        if _is_exported(entry)
        else export.training_command(entry.config)
        for entry in entries
    ]


def _is_exported(entry):
    """An exported model knows its command; a run has a section `train` instead."""
    return "training_command" in entry.config


def _mean(entries, set_name, scale, protocol, ensemble, field="rows"):
    """Returns a mean over a set as text, the first there is; "" without any."""
    for entry in entries:
        for row in getattr(entry, field):
            name = evaluation.paper_set(row.set)
            key = (name, row.image, row.scale, row.protocol, row.ensemble)
            asked = (set_name, "mean", scale, protocol, ensemble)
            if key == asked and not row.degradation:
                return evaluation.as_text(row.psnr)
    return ""


def _cells(entries, protocol):
    """Yields (set, scale, [bicubic, ours, ours with the ensemble, the model's name])
    where one of ours was measured. The name is "" unless a scale has several models."""
    scales = [entry.config["scale"] for entry in entries]
    several = len(set(scales)) < len(scales)
    for set_name in evaluation.PUBLISHED:
        for scale in (2, 3, 4):
            bicubic = _mean(entries, set_name, scale, protocol, 0, "baseline")
            for entry in entries:
                ours = [_mean([entry], set_name, scale, protocol, e) for e in (0, 1)]
                if any(ours):
                    name = entry.name if several else ""
                    yield set_name, scale, [bicubic, *ours, name]


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
        published = (vdsr, *evaluation.PUBLISHED[set_name])
        theirs = [f"{psnr[scale - 2]:.2f}" for psnr in published]
        lines.append([set_name, f"x{scale}", *measured, *theirs])
    return Table(
        "results-modern",
        "Released models, PSNR of the modern protocol, beside published networks",
        [*MEASURED, "VDSR (665 K)", *evaluation.NEIGHBOURS],
        lines,
    )


def _training(entries):
    lines = []
    for entry in entries:
        about = entry.config
        steps = "unknown"
        if about.get("batch_size"):
            patches = f"{about['batch_size']} x {about['patch']} px"
            steps = f"{about['step']:,} of {patches}"
        where = about.get("hardware", "unknown")
        lines.append([entry.name, size(entry), about["data"], steps, where])
    return Table(
        "results-training",
        "Released models, training",
        ["model", "parameters", "training images", "steps", "on"],
        lines,
        commands=training_commands(entries),
    )
