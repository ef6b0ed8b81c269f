"""Figures for people: Markdown tables of rows, and what has to be said of them."""

from collections.abc import Iterable, Sequence

from btsrn_jax import metrics
from btsrn_jax.evaluation.degrading import CLEAN
from btsrn_jax.evaluation.figures import Row, as_text, gain, lr_label, paper_psnr
from btsrn_jax.evaluation.paper import TABLE_4_MODELS


def name_without_error(rows: Iterable[Row]) -> list[str]:
    """Returns a line for each set, scale, model and protocol that has images without
    error: their names, and what they count."""
    found = {}
    for row in rows:
        if row.image != "mean" and row.psnr == metrics.WITHOUT_ERROR:
            degraded = f" {row.degradation}" * bool(row.degradation)
            where = f"{row.set}{degraded} x{row.scale}, {row.protocol}, {_label(row)}"
            found.setdefault(where, []).append(row.image)
    return [
        f"{where}: no error in {', '.join(names)}; counted as"
        f" {metrics.WITHOUT_ERROR:.0f} dB, and left out of the mean"
        for where, names in found.items()
    ]


def table(rows: Sequence[Row]) -> str:
    """Returns the means as a Markdown table: a line per scale, set, protocol,
    degradation and model, with the paper's figures beside them if there are any."""
    means = [row for row in rows if row.image == "mean"]
    # Each in the order of its first row; the last one counts most.
    for field in ("degradation", "protocol", "set", "scale"):
        order = list(dict.fromkeys(getattr(row, field) for row in means))
        means.sort(key=lambda row, f=field, o=order: o.index(getattr(row, f)))
    header = ["set", "scale", "protocol", "model", "PSNR", "SSIM"]
    with_paper = any(paper_psnr(row, rows=rows) for row in means)
    with_lr = any(lr_label(row) for row in means)
    degraded = any(row.degradation for row in means)
    header[2:2] = ["LR"] * with_lr + ["degradation"] * degraded
    header += ["paper's PSNR"] if with_paper else []
    lines = []
    for row in means:
        line = [row.set, f"x{row.scale}", row.protocol, _label(row)]
        line += [as_text(row.psnr), as_text(row.ssim, ".4f")]
        line[2:2] = [row.degradation or CLEAN] * degraded
        line[2:2] = [lr_label(row) or "imresize"] * with_lr
        if with_paper:
            named = (name for name in TABLE_4_MODELS if name in row.model.lower())
            value = paper_psnr(row, next(named, "btsrn"), rows)
            line.append("" if value is None else f"{value:.2f}")
        lines.append(line)
    return markdown(header, lines)


def per_image_table(rows: list[Row], baseline: list[Row]) -> str:
    """Returns bicubic and a model beside each other, image by image, as Markdown."""
    lines = []
    for row, base in zip(rows, baseline, strict=True):
        figures = [as_text(base.psnr), as_text(row.psnr)]
        figures += [as_text(gain(row, base, rows + baseline), "+z.2f")]
        figures += [as_text(base.ssim, ".4f"), as_text(row.ssim, ".4f")]
        name = ", ".join(filter(None, [row.set, row.degradation]))
        lines.append([name, row.image, f"x{row.scale}", row.protocol, *figures])
    label = _label(rows[0])
    header = ["set", "image", "scale", "protocol", "bicubic PSNR", f"{label} PSNR"]
    return markdown([*header, "gain", "bicubic SSIM", f"{label} SSIM"], lines)


def _label(row):
    return row.model + (" + ensemble" if row.ensemble else "")


def markdown(header: list[str], lines: list[list[str]]) -> str:
    """Returns a Markdown table, aligned so that it reads well on a console, too."""
    widths = [max(len(row[i]) for row in [header, *lines]) for i in range(len(header))]

    def text(cells):
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([text(header), rule, *map(text, lines)])
