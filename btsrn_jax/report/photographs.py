"""Models beside each other on LR images as photographs are: blurred, noisy, JPEG."""

from collections.abc import Sequence

from btsrn_jax import evaluation, inference
from btsrn_jax.report.tables import ReportedModel, Table, find_baseline

PROTOCOL = "modern"


def degraded_table(entries: Sequence[ReportedModel]) -> Table | None:
    """Returns PSNR by set, scale and degradation, a column for each family of models:
    that of `btsrn-x2` and `btsrn-x4` is `btsrn`.

    Clean LR images come first, where the same set was measured with these, too. Figures
    are without the ensemble. None where no model was measured on degraded images.
    """
    families = [(_family(entry), entry.config["scale"]) for entry in entries]
    cells, lines = {}, {}
    for entry, family in zip(entries, families, strict=True):
        column = family[0] if families.count(family) == 1 else entry.name
        for row in entry.rows:
            single = row.image == "mean" and not row.ensemble
            if not single or row.protocol != PROTOCOL or row.psnr is None:
                continue
            given = evaluation.input_label(row._replace(degradation=""))
            name = evaluation.paper_set(row.set) + given
            line = (name, row.scale), row.degradation
            lines[line] = None
            cells.setdefault((line, column), evaluation.as_text(row.psnr))
            base = find_baseline(entry, row)
            if base and base.psnr is not None:
                cells[line, inference.BICUBIC] = evaluation.as_text(base.psnr)
    sets = list(dict.fromkeys(line[0] for line in lines if line[1]))
    kept = [line for line in lines if line[0] in sets]
    kept.sort(key=lambda line: (sets.index(line[0]), bool(line[1])))
    if not kept:
        return None
    filled = dict.fromkeys(column for line, column in cells if line in kept)
    columns = [inference.BICUBIC, *(c for c in filled if c != inference.BICUBIC)]
    return Table(
        "degraded",
        f"PSNR of the {PROTOCOL} protocol, from degraded LR images",
        ["set", "scale", "LR", *columns],
        [
            [name, f"x{scale}", degradation or evaluation.CLEAN]
            + [cells.get((((name, scale), degradation), c), "") for c in columns]
            for (name, scale), degradation in kept
        ],
        [
            "Without the ensemble. jpeg: the quality; noise: the standard deviation in"
            " grey levels; blur: that of the kernel in LR pixels."
        ],
    )


def _family(entry):
    return entry.name.replace(f"-x{entry.config['scale']}", "")
