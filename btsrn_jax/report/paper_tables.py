"""The paper's Tables 3 and 4 over any models."""

from collections.abc import Sequence

from btsrn_jax import evaluation
from btsrn_jax.report.tables import (
    ReportedModel,
    Table,
    find_baseline,
    reduction,
    reduction_notes,
)


def table3(entries: Sequence[ReportedModel]) -> Table | None:
    """Returns Table 3: what is won over bicubic on DIV2K's validation images, under
    `ntire` with the ensemble, beside what the challenge's entry won on its own.

    The challenge's test images were never published, so nobody can measure on the very
    set, and no figure is subtracted from the paper's. None where no BTSRN among
    `entries` was measured so, beside bicubic.
    """
    lines, used = [], []
    for entry in entries:
        if entry.config["model"]["name"] != "btsrn":
            continue
        for row in entry.rows:
            base = find_baseline(entry, row)
            ntire = row.image == "mean" and row.ensemble and row.protocol == "ntire"
            of_challenge = row.set == f"div2k/bicubic_x{row.scale}"
            if not (ntire and of_challenge and base and not row.degradation):
                continue
            known = entry.rows + entry.baseline
            won = evaluation.gain(row, base, known)
            if won is None:
                continue
            paper, paper_bicubic = evaluation.TABLE_3[row.scale]
            line = [f"x{row.scale}", entry.name, f"{row.psnr:.2f}", f"{won:+z.2f}"]
            line += [f"{paper:.2f}", f"{paper - paper_bicubic:+z.2f}"]
            lines.append(line)
            used.append(entry)
    if not lines:
        return None
    header = ["scale", "model", "PSNR on DIV2K's validation images", "over bicubic"]
    header += ["the paper's PSNR on the challenge's test images", "over bicubic there"]
    return Table(
        "table3",
        "Table 3: the challenge" + reduction(used),
        header,
        sorted(lines),
        [
            "Protocol ntire, with the ensemble. The paper trained on 900 images; its"
            " figures are of the challenge's test images, whose HR was never published:"
            " only what is won over bicubic compares.",
            *reduction_notes(used),
        ],
    )


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
            known = entry.rows + entry.baseline
            paper = evaluation.paper_psnr(row, rows=known)
            if row.image != "mean" or row.psnr is None or paper is None:
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
        if any(key[:2] == (system, place) for key in cells)
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
            line.append(f"{row.psnr - paper:+z.2f}" if row else "")
        if any(line[2::3]):
            lines.append(line)
    if not lines:
        return None
    header = ["set", "scale"]
    for _, _, heading in columns:
        header += [heading, "paper", "difference"]
    of = [*{id(entry): entry for entry in used.values()}.values()]
    title = "Table 4: PSNR of the benchmark protocol" + reduction(of)
    notes = [f"{'; '.join(used)}.", *reduction_notes(of)]
    return Table("table4", title, header, lines, notes)


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
