"""Rows of PSNR and SSIM, the CSV files that hold them, Markdown tables of them."""

import csv
import io
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from btsrn_jax import metrics, storage
from btsrn_jax.data import is_hr_name
from btsrn_jax.errors import InputError
from btsrn_jax.evaluation.degrading import CLEAN
from btsrn_jax.evaluation.paper import SAME_SETS, SET_SIZES, TABLE_4, TABLE_4_MODELS


class Row(NamedTuple):
    """One line of the CSV: an image under a protocol, or, where `image` is "mean", a
    whole set. A tuple, since its fields are the columns of the CSV.

    Attributes:
      ensemble: 0 or 1.
      psnr: In dB. Of an image without error `metrics.WITHOUT_ERROR`; None for the mean
        of a set of such images alone.
      ssim: None for images that are smaller than its window.
      lr: Where the LR images came from: "imresize", a folder, or "div2k/CONFIG"; ""
        where it is not known, as in older files.
      degradation: What was done to the LR images then, such as "jpeg:75"; "" for
        nothing.
    """

    set: str
    image: str
    scale: int
    model: str
    ensemble: int
    protocol: str
    psnr: float | None
    ssim: float | None
    lr: str = ""
    degradation: str = ""


REQUIRED = len(Row._fields) - len(Row._field_defaults)  # columns of any CSV


def mean_row(rows: list[Row], protocol: str) -> Row:
    """Returns the mean over the images of one set: of PSNR by `metrics.mean_psnr`, of
    SSIM over the images that have it."""
    of_protocol = [row for row in rows if row.protocol == protocol]
    ssim = [row.ssim for row in of_protocol if row.ssim is not None]
    return of_protocol[0]._replace(
        image="mean",
        psnr=metrics.mean_psnr(row.psnr for row in of_protocol),
        ssim=math.fsum(ssim) / len(ssim) if ssim else None,
    )


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


def as_text(value: float | None, form: str = ".2f") -> str:
    """Returns a figure as tables show it; "" where there is none."""
    return "" if value is None else format(value, form)


def gain(row: Row, base: Row, measured: Iterable[Row] = ()) -> float | None:
    """Returns by how many dB a row is above another.

    None where one has no PSNR, or where the two are means over different images: what
    only one of them restores without error is left out of its mean alone.

    Args:
      row, base: figures of one image, or means of one set.
      measured: rows of the set's images, of both, as far as they are known.
    """
    if row.psnr is None or base.psnr is None:
        return None
    if row.image == "mean" and _left_out(row, measured) != _left_out(base, measured):
        return None
    return row.psnr - base.psnr


def image_rows(mean: Row, rows: Iterable[Row]) -> list[Row]:
    """Returns the rows of the images that a mean was taken over, as far as known."""
    return [row for row in rows if row.image != "mean" and _is_of(row, mean)]


def _left_out(mean, rows):
    of_set = image_rows(mean, rows)
    return {row.image for row in of_set if row.psnr == metrics.WITHOUT_ERROR}


def _is_of(row, mean):
    keys = ("set", "scale", "model", "ensemble", "protocol", "lr", "degradation")
    return all(getattr(row, key) == getattr(mean, key) for key in keys)


def write_csv(path: pathlib.Path, rows: list[Row]) -> None:
    """Writes a CSV file, whole or not at all; raises InputError where it cannot."""
    path = storage.path(path)
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(Row._fields)
    for row in rows:
        psnr, ssim = as_text(row.psnr, ".6f"), as_text(row.ssim, ".6f")
        writer.writerow(row._replace(psnr=psnr, ssim=ssim))
    try:
        # Names of files need not be text; the CSV is.
        storage.write(path, file.getvalue().encode(errors="backslashreplace"))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def read_csv(path: pathlib.Path) -> list[Row]:
    """Reads a CSV file that `write_csv` wrote, now or before it knew the last columns;
    any other gives no rows.

    Older files have infinities: they become what `counted` and `mean_row` make of them.
    Raises InputError where a line is damaged.
    """
    rows = []
    with path.open(newline="", errors="replace") as file:
        reader = csv.reader(file)
        header = tuple(next(reader, ()))
        if len(header) < REQUIRED or header != Row._fields[: len(header)]:
            return []
        try:
            for line in reader:
                if len(line) != len(header):
                    raise ValueError(f"{len(line)} values, not {len(header)}")
                rows.append(_parse(Row(*line)))
        except ValueError as error:
            where = f"line {reader.line_num}"
            raise InputError(f"{path}: {where} is damaged: {error}") from None
    return [_mended(row, rows) for row in rows]


def _parse(row):
    scale, ensemble = int(row.scale), int(row.ensemble)
    psnr, ssim = (float(text) if text else None for text in (row.psnr, row.ssim))
    psnr, ssim = (None if x is None or math.isnan(x) else x for x in (psnr, ssim))
    psnr = psnr if row.image == "mean" or psnr is None else metrics.counted(psnr)
    return row._replace(scale=scale, ensemble=ensemble, psnr=psnr, ssim=ssim)


def _mended(row, rows):
    """Returns a mean that was written as infinite, by today's rule."""
    if row.psnr != math.inf:
        return row
    of_set = image_rows(row, rows)
    return mean_row(of_set, row.protocol) if of_set else row._replace(psnr=None)


def read_figures(folder: pathlib.Path, config: Mapping) -> list[Row]:
    """Reads the figures that lie with a model: those of all CSV files in its folder,
    or, where there are none, the means that its config.json holds."""
    rows = [row for path in sorted(folder.glob("*.csv")) for row in read_csv(path)]
    return rows or [to_row(figure) for figure in config.get("figures", [])]


def to_row(figure: Mapping) -> Row:
    """Returns the row of a mean that a model's config.json holds."""
    known = {name: figure[name] for name in Row._fields if name in figure}
    return Row(**known | {"image": "mean"})


def latest(rows: Iterable[Row]) -> list[Row]:
    """Returns the last row of each thing that was measured: of the model, under
    whatever name, and of bicubic. With LR images of another origin, or degraded in
    another way, another thing is measured."""
    found = {}
    for row in rows:
        model = "bicubic" if row.model == "bicubic" else ""
        found[row._replace(model=model, psnr=0, ssim=0, lr=lr_label(row))] = row
    return list(found.values())


def lr_label(row: Row) -> str:
    """Returns where a row's LR images came from, in short; "" for imresize."""
    if row.lr in ("", "imresize"):
        return ""
    *parent, last = pathlib.PurePath(row.lr).parts[-2:]
    in_set = parent == [row.set.rpartition("/")[2]]
    return "/".join([last] if in_set else [*parent, last])


def input_label(row: Row) -> str:
    """Returns what a row's LR images are, if not those of imresize, in words that
    follow the set's name: ", LR of LR_bicubic/X2, jpeg:75"."""
    lr, degradation = lr_label(row), row.degradation
    return f", LR of {lr}" * bool(lr) + f", {degradation}" * bool(degradation)


def paper_set(name: str) -> str:
    """Returns the paper's name of a set: "B100" for "BSD100", "Set5" for "Set5/HR"."""
    parent, _, last = name.rpartition("/")
    name = parent.rpartition("/")[2] if parent and is_hr_name(last) else name
    return SAME_SETS.get(name, name)


def published_set(mean: Row, rows: Iterable[Row]) -> str | None:
    """Returns the name in TABLE_4 of the set that a mean is of; None for other sets.

    A set of that name counts as the published one unless what was measured speaks
    against it: another number of images, a bicubic PSNR that is 0.1 dB off, or, where
    bicubic was not measured, LR images that `imresize` did not make.

    Args:
      mean: of a model or of bicubic.
      rows: what else was measured, bicubic and single images among it.
    """
    name, rows = paper_set(mean.set), list(rows)
    if name not in TABLE_4 or mean.degradation:
        return None
    if len(image_rows(mean, rows)) not in (0, SET_SIZES[name]):
        return None
    bicubic = TABLE_4[name][TABLE_4_MODELS.index("bicubic")][mean.scale - 2]
    measured = [row for row in rows if _is_bicubic_of(row, mean)]
    if not measured and lr_label(mean):
        return None
    off = [row.psnr is None or abs(row.psnr - bicubic) > 0.1 for row in measured]
    return None if any(off) else name


def _is_bicubic_of(row, mean):
    """Returns True for bicubic's mean over the same set under a protocol that gives
    Table 4's figure: `modern` differs from it by less than 0.06 dB."""
    same = (row.set, row.image, row.scale) == (mean.set, "mean", mean.scale)
    protocol = row.protocol in ("benchmark", "modern")
    like = input_label(row) == input_label(mean)
    return same and protocol and like and row.model == "bicubic"


def paper_psnr(
    row: Row, model: str = "btsrn", rows: Iterable[Row] = ()
) -> float | None:
    """Returns the figure in Table 4 of the paper for the set, scale and protocol of a
    mean; None where there is none. `model` is one of TABLE_4_MODELS; `rows` are what
    else was measured, as `published_set` takes it."""
    name = published_set(row, rows)
    if row.protocol != "benchmark" or name is None:
        return None
    return TABLE_4[name][TABLE_4_MODELS.index(model)][row.scale - 2]


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
