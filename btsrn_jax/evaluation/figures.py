"""Rows of PSNR and SSIM, the CSV files that hold them, Markdown tables of them."""

import csv
import io
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from btsrn_jax import storage
from btsrn_jax.errors import InputError
from btsrn_jax.evaluation.paper import SAME_SETS, TABLE_4, TABLE_4_MODELS


class Row(NamedTuple):
    """One line of the CSV: an image under a protocol, or, where `image` is "mean", a
    whole set. `psnr` is in dB, `ensemble` 0 or 1. `ssim` is nan for an image smaller
    than its window, and empty in files. A tuple, since its fields are the columns of
    the CSV."""

    set: str
    image: str
    scale: int
    model: str
    ensemble: int
    protocol: str
    psnr: float
    ssim: float


def mean_row(rows: list[Row], protocol: str) -> Row:
    """Returns the mean over the images of one set: of their PSNRs, not their errors,
    and of those SSIMs that there are."""
    of_protocol = [row for row in rows if row.protocol == protocol]
    ssims = [row.ssim for row in of_protocol if not math.isnan(row.ssim)]
    return of_protocol[0]._replace(
        image="mean",
        psnr=float(np.mean([row.psnr for row in of_protocol])),
        ssim=float(np.mean(ssims)) if ssims else math.nan,
    )


def write_csv(path: pathlib.Path, rows: list[Row]) -> None:
    """Writes a CSV file, whole or not at all; raises InputError where it cannot."""
    path = storage.path(path)
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(Row._fields)
    for row in rows:
        psnr, ssim = f"{row.psnr:.6f}", shown(row.ssim, 6)
        writer.writerow(row._replace(psnr=psnr, ssim=ssim))
    try:
        # Names of files need not be text; the CSV is.
        storage.write(path, file.getvalue().encode(errors="backslashreplace"))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def read_csv(path: pathlib.Path) -> list[Row]:
    """Reads a CSV file that `write_csv` wrote; any other gives no rows.

    Raises InputError where a line is damaged.
    """
    with path.open(newline="", errors="replace") as file:
        reader = csv.reader(file)
        if tuple(next(reader, ())) != Row._fields:
            return []
        try:
            return [
                Row(a, b, int(s), model, int(e), c, float(psnr), _ssim(ssim))
                for a, b, s, model, e, c, psnr, ssim in reader
            ]
        except ValueError as error:
            where = f"line {reader.line_num}"
            raise InputError(f"{path}: {where} is damaged: {error}") from None


def _ssim(text):
    return float(text) if text else math.nan


def read_figures(folder: pathlib.Path, config: Mapping) -> list[Row]:
    """Reads the figures that lie with a model: those of all CSV files in its folder,
    or, where there are none, the means that its config.json holds."""
    rows = [row for path in sorted(folder.glob("*.csv")) for row in read_csv(path)]
    return rows or [to_row(figure) for figure in config.get("figures", [])]


def to_row(figure: Mapping) -> Row:
    """Returns the row of a mean that a model's config.json holds: there an SSIM that is
    not defined is null."""
    row = Row(**{name: figure.get(name, "mean") for name in Row._fields})
    return row._replace(ssim=math.nan if row.ssim is None else row.ssim)


def shown(value: float, digits: int) -> str:
    """Returns a number as files and tables hold it; "" for nan."""
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def latest(rows: Iterable[Row]) -> list[Row]:
    """Returns the last row of each thing that was measured: of the model, under
    whatever name, and of bicubic."""
    found = {}
    for row in rows:
        model = "bicubic" if row.model == "bicubic" else ""
        found[row._replace(model=model, psnr=0, ssim=0)] = row
    return list(found.values())


def paper_psnr(row: Row, model: str = "btsrn") -> float | None:
    """Returns the figure in Table 4 of the paper for the set, scale and protocol of a
    mean; None where there is none. `model` is one of TABLE_4_MODELS."""
    name = SAME_SETS.get(row.set, row.set)
    if row.protocol != "benchmark" or name not in TABLE_4:
        return None
    return TABLE_4[name][TABLE_4_MODELS.index(model)][row.scale - 2]


def table(rows: Sequence[Row]) -> str:
    """Returns the means as a Markdown table: a line per scale, set, protocol and model,
    with the paper's figures beside them if there are any."""
    means = [row for row in rows if row.image == "mean"]
    for field in ("protocol", "set", "scale"):  # each in the order of its first row
        order = list(dict.fromkeys(getattr(row, field) for row in means))
        means.sort(key=lambda row, f=field, o=order: o.index(getattr(row, f)))
    header = ["set", "scale", "protocol", "model", "PSNR", "SSIM"]
    with_paper = any(paper_psnr(row) for row in means)
    header += ["paper's PSNR"] if with_paper else []
    lines = []
    for row in means:
        line = [row.set, f"x{row.scale}", row.protocol, _label(row)]
        line += [f"{row.psnr:.2f}", shown(row.ssim, 4)]
        if with_paper:
            named = (name for name in TABLE_4_MODELS if name in row.model.lower())
            value = paper_psnr(row, next(named, "btsrn"))
            line.append("" if value is None else f"{value:.2f}")
        lines.append(line)
    return markdown(header, lines)


def per_image_table(rows: list[Row], baseline: list[Row]) -> str:
    """Returns bicubic and a model beside each other, image by image, as Markdown."""
    lines = []
    for row, base in zip(rows, baseline, strict=True):
        gain = row.psnr - base.psnr
        figures = [f"{base.psnr:.2f}", f"{row.psnr:.2f}", f"{gain:+.2f}"]
        figures += [shown(base.ssim, 4), shown(row.ssim, 4)]
        lines.append([row.set, row.image, f"x{row.scale}", row.protocol, *figures])
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
