"""Models side by side: a table for each scale and protocol, references below."""

from collections.abc import Sequence
from typing import NamedTuple

from btsrn_jax import evaluation
from btsrn_jax.metrics import PROTOCOLS, WITHOUT_ERROR
from btsrn_jax.report.tables import (
    ReportedModel,
    Table,
    find_baseline,
    set_label,
    size,
)

ABOUT = {
    "ntire": "RGB; 6 + scale pixels at each border are ignored. The challenge, and the"
    " paper's Tables 1 to 3.",
    "benchmark": "Luminance, rounded; 2 pixels at each border are ignored. The paper's"
    " Table 4.",
    "modern": "Luminance; as many pixels at each border are ignored as the scale says."
    " Most papers since 2017.",
    "rgb": "RGB; as many pixels at each border are ignored as the scale says. BasicSR"
    " and traiNNer as they come.",
}
NOTES = (
    "Bold: the best of the models. In italics: bicubic on the same images, and what"
    " others published. PSNR in dB.",
    "Published figures stand only under the protocol and beside the set that they are"
    " of. BTSRN, VDSR: Table 4 of BTSRN's paper (Fan et al. 2017). CARN, EDSR, NinaSR:"
    " as their authors published them. None of them was measured here.",
)
NUMBERED = "Of sets with one name but different images the later ones have a number."


class Comparison(NamedTuple):
    """The models of a scale under a protocol."""

    scale: int
    protocol: str
    table: Table


def compare(entries: Sequence[ReportedModel]) -> list[Comparison]:
    """Returns the comparisons of all means, by scale; within a scale the protocol with
    the most figures comes first. Degraded LR images have a table of their own
    (`photographs`)."""
    found = [
        (entry, row)
        for entry in entries
        for row in sorted(entry.rows, key=lambda row: row.ensemble)
        if row.image == "mean" and not row.degradation
    ]
    measured = [row.protocol for _, row in found]
    order = [name for name in PROTOCOLS if name in measured]
    order.sort(key=measured.count, reverse=True)
    groups = {
        (scale, protocol): []
        for scale in sorted({row.scale for _, row in found})
        for protocol in order
    }
    for entry, row in found:
        if row.protocol in order:
            groups[row.scale, row.protocol].append((entry, row))
    return [Comparison(*key, _table(*key, of)) for key, of in groups.items() if of]


def _table(scale, protocol, found):
    sets = _sets(found)
    columns = list(dict.fromkeys(sets))
    models, bicubic = {}, {}
    published, left_out = ({name: set() for name in columns} for _ in range(2))
    for (entry, row), name in zip(found, sets, strict=True):
        label = entry.name + (" + ensemble" if row.ensemble else "")
        models.setdefault((label, size(entry)), {})[name] = row
        base = find_baseline(entry, row)
        if base:
            bicubic.setdefault(name, base)
        known = entry.rows + entry.baseline
        published[name].add(evaluation.published_set(row, known))
        of_set = evaluation.image_rows(row, entry.rows)
        without_error = (r.image for r in of_set if r.psnr == WITHOUT_ERROR)
        left_out[name].add(frozenset(without_error))
    lines = [[x, *_cells(of, columns), count] for (x, count), of in models.items()]
    rows = [["bicubic", *_cells(bicubic, columns), ""]] if bicubic else []
    names = [of.pop() if len(of) == 1 else None for of in published.values()]
    for label, figures in _references(protocol).items():
        values = [figures[of][scale - 2] if of in figures else None for of in names]
        if any(values):
            cells = [(evaluation.as_text(value), "") for value in values]
            rows.append([label, *sum(cells, ()), ""])
    # Means over different images do not compare.
    alike = [len(left_out[name]) == 1 for name in columns]
    notes = [NUMBERED] if any(name.endswith(" (2)") for name in columns) else []
    measures = [f"{name} {figure}" for name in columns for figure in ("PSNR", "SSIM")]
    return Table(
        f"comparison-x{scale}-{protocol}",
        f"x{scale}, {protocol}",
        ["model", *measures, "parameters"],
        lines + rows,
        notes,
        best=_best(lines, alike),
        references=range(len(lines), len(lines + rows)),
    )


def _sets(found):
    """Returns the column of each row: its set's name. Where bicubic's PSNR differs
    between two rows, the images of their sets do, and the later one has a number."""
    known, names = {}, []
    for entry, row in found:
        label, base = set_label(row), find_baseline(entry, row)
        value = evaluation.as_text(base.psnr) if base else ""
        of_label = known.setdefault(label, [value])
        if value and value not in of_label:
            if "" in of_label:
                of_label[of_label.index("")] = value
            else:
                of_label.append(value)
        place = of_label.index(value) if value else 0
        names.append(f"{label} ({place + 1})" if place else label)
    return names


def _cells(by_set, columns):
    """Returns the PSNR and the SSIM of each set, as text."""
    cells = []
    for row in map(by_set.get, columns):
        ssim = evaluation.as_text(row.ssim, ".4f") if row else ""
        cells += [evaluation.as_text(row.psnr) if row else "", ssim]
    return cells


def _best(lines, alike):
    """Returns the largest cells of each column, where several models have one."""
    best = []
    for column in range(1, len(lines[0]) - 1):
        values = [float(line[column] or "-inf") for line in lines]
        several = sum(value > float("-inf") for value in values) > 1
        if several and alike[(column - 1) // 2]:
            best += [(i, column) for i, x in enumerate(values) if x == max(values)]
    return best


def _references(protocol):
    """Returns PSNR at x2, x3, x4 by set, by name, of what was published under a
    protocol."""
    if protocol == "benchmark":
        paper = evaluation.TABLE_4.items()
        systems = enumerate(evaluation.TABLE_4_MODELS[:2])
        return {
            f"{name.upper()}, in the paper": {of: psnr[i] for of, psnr in paper}
            for i, name in systems
        }
    if protocol == "modern":
        others = evaluation.PUBLISHED.items()
        return {
            f"{name}, published": {of: psnr[i] for of, psnr in others}
            for i, name in enumerate(evaluation.NEIGHBOURS)
        }
    return {}
