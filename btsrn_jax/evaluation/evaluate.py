"""Sets x protocols -> figures, tables, CSV, images."""

import csv
import functools
import io
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from btsrn_jax import metrics
from btsrn_jax import storage as paths
from btsrn_jax.data import datasets
from btsrn_jax.errors import InputError
from btsrn_jax.images import crops as pictures
from btsrn_jax.images import files as images
from btsrn_jax.inference import tiling as inference
from btsrn_jax.progress import progress_bar
from btsrn_jax.resize import imresize

# Table 4 of the paper (protocol `benchmark`): BTSRN, VDSR, bicubic at x2, x3, x4.
PAPER = {
    "Set5": ((37.75, 34.03, 31.85), (37.53, 33.66, 31.35), (33.64, 30.38, 28.42)),
    "Set14": ((33.20, 29.90, 28.20), (33.03, 29.77, 28.01), (30.22, 27.51, 25.95)),
    "B100": ((32.05, 28.97, 27.47), (31.90, 28.82, 27.29), (29.55, 27.20, 25.97)),
    "Urban100": ((31.63, 27.75, 25.74), (30.76, 27.14, 25.18), (26.87, 24.46, 23.14)),
}
PAPER_MODELS = ("btsrn", "vdsr", "bicubic")
PAPER_NAMES = {"BSD100": "B100", "BSDS100": "B100"}  # the same images


class Row(NamedTuple):
    """One line of the CSV: an image under a protocol, or a set's mean (image "mean").
    psnr in dB; ensemble 0 or 1."""

    set: str
    image: str
    scale: int
    model: str
    ensemble: int
    protocol: str
    psnr: float
    ssim: float


class Subject(NamedTuple):
    """What is evaluated: enlarge(lr, progress=None) -> sr, both (h, w, 3) uint8, and
    its labels; progress(done, total) is called with LR pixels."""

    name: str
    scale: int
    ensemble: bool
    enlarge: Callable


def evaluate_set(
    set_name: str,
    pairs: list[datasets.Pair],
    subject: Subject,
    protocols: Iterable[str],
    save_images: pathlib.Path | None = None,
    progress: bool = True,
) -> list[Row]:
    """Evaluates every image of a set under every protocol.

    LR that is not given is made from HR by `imresize`: once for equal sizes, so that
    protocols that crop alike share one enlargement.

    Returns:
      A row per image and protocol, then the mean of each protocol.
    """
    rules = {name: metrics.get_protocol(name) for name in protocols}
    rows = []
    bar = progress_bar(
        desc=set_name,
        total=len(pairs),
        bar_format="{l_bar}{bar}| {n:.2f}/{total} images, {remaining} left",
        delay=2,
        disable=not progress,
        leave=False,
    )
    for number, pair in enumerate(pairs):
        found, sr = _evaluate_pair(set_name, pair, subject, rules, bar)
        rows += found
        if save_images:
            images.write(save_images / f"{pair.name}.png", sr)
        bar.update(number + 1 - bar.n)
    bar.close()
    return rows + [mean_row(rows, protocol) for protocol in rules]


def _evaluate_pair(set_name, pair, subject, rules, bar):
    """The rows of one image, and its enlargement, of HR's size if LR was made."""
    lr_given, hr_full = pair.load()
    inputs = {
        name: _inputs(lr_given, hr_full, subject.scale, rule.mod_crop, pair.name)
        for name, rule in rules.items()
    }
    sizes = {hr.shape[:2] for _, hr in inputs.values()}
    enlarged, rows = {}, []  # by HR size
    for protocol, (lr, hr) in inputs.items():
        size = hr.shape[:2]
        if size not in enlarged:
            if lr is None:
                lr = imresize(hr, 1 / subject.scale)
            start = bar.n

            def advance(done, total, start=start):
                bar.update(start + done / total / len(sizes) - bar.n)

            enlarged[size] = subject.enlarge(images.as_rgb(lr), advance)
        sr = enlarged[size]
        try:
            values = [
                measure(sr, hr, protocol, subject.scale)
                for measure in (metrics.psnr, metrics.ssim)
            ]
        except InputError as error:
            raise InputError(f"{set_name}/{pair.name}: {error}") from None
        rows.append(Row(set_name, pair.name, *_labels(subject), protocol, *values))
    first = next(iter(enlarged.values()))
    return rows, first[: hr_full.shape[0], : hr_full.shape[1]]


def _labels(subject):
    return subject.scale, subject.name, int(subject.ensemble)


def _inputs(lr, hr, scale, mod_crop, name):
    if lr is None:
        return None, metrics.mod_crop(hr, scale) if mod_crop else hr
    return lr, _fit(lr, hr, scale, name)


def _fit(lr, hr, scale, name):
    try:
        return datasets.check_pair(lr, hr, scale)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def mean_row(rows: list[Row], protocol: str) -> Row:
    """The mean over the images of one set, of the PSNRs (not of the errors)."""
    of_protocol = [row for row in rows if row.protocol == protocol]
    return of_protocol[0]._replace(
        image="mean",
        psnr=float(np.mean([row.psnr for row in of_protocol])),
        ssim=float(np.nanmean([row.ssim for row in of_protocol])),
    )


def network_subject(
    name: str, config: Mapping, variables: Mapping, devices, ensemble: bool
) -> Subject:
    """A trained network, for evaluation on a mesh."""
    enlarge = inference.enlarge_for(config, devices, ensemble)
    function = functools.partial(enlarge, variables)
    return Subject(name, config["scale"], ensemble, function)


def bicubic_subject(scale: int) -> Subject:
    """What every table starts with."""
    return Subject("bicubic", scale, False, inference.make_bicubic(scale))


def compare(
    subject: Subject,
    sets: Mapping[str, list[datasets.Pair]],
    protocols: list[str],
    workdir: pathlib.Path,
    name: str,
    log: Callable[[str], None] = print,
) -> None:
    """A network against bicubic on whole sets: a table to `log`, NAME.csv, and crops of
    the first images as NAME.png, both in `workdir`."""
    bicubic = bicubic_subject(subject.scale)
    rows, baseline = [], []
    for set_name, pairs in sets.items():
        rows += evaluate_set(set_name, pairs, subject, protocols)
        baseline += evaluate_set(set_name, pairs, bicubic, protocols)
    write_csv(workdir / f"{name}.csv", baseline + rows)
    log(per_image_table(rows, baseline))
    crops = [
        crop_row(pair, [bicubic, subject]) for pair in next(iter(sets.values()))[:3]
    ]
    with tempfile.TemporaryDirectory() as folder:
        made = pathlib.Path(folder) / "crops.png"
        images.write(made, pictures.side_by_side(crops))
        paths.write(workdir / f"{name}.png", made.read_bytes())
    log(f"figures: {workdir / name}.csv  crops side by side: {workdir / name}.png")


def crop_row(pair: datasets.Pair, subjects: list[Subject], side: int = 96) -> list:
    """[(label with PSNR, crop)] of one image for `pictures.side_by_side`: its busiest
    square as each subject gives it, then HR."""
    scale = subjects[0].scale
    lr, hr = pair.load()
    hr = metrics.mod_crop(hr, scale) if lr is None else _fit(lr, hr, scale, pair.name)
    lr = imresize(hr, 1 / scale) if lr is None else lr
    side = min(side, *hr.shape[:2])
    top, left = pictures.busiest(hr, side)
    square = np.s_[top : top + side, left : left + side]
    row = []
    for subject in subjects:
        sr = subject.enlarge(images.as_rgb(lr))
        psnr = metrics.psnr(sr, hr, "ntire", scale)
        row.append((f"{subject.name} {psnr:.2f} dB (ntire)", sr[square]))
    return [*row, (f"original: {pair.name}", hr[square])]


def write_csv(path: pathlib.Path, rows: list[Row]) -> None:
    """Writes all rows, whole or not at all; InputError where that is not possible."""
    path = paths.path(path)
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(Row._fields)
    for row in rows:
        psnr, ssim = f"{row.psnr:.6f}", f"{row.ssim:.6f}"
        writer.writerow(row._replace(psnr=psnr, ssim=ssim))
    try:
        # Names of files need not be text; the CSV is.
        paths.write(path, file.getvalue().encode(errors="backslashreplace"))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def read_csv(path: pathlib.Path) -> list[Row]:
    """The figures of a CSV file that `write_csv` wrote; of another one, none.

    Raises InputError where a line is damaged.
    """
    with path.open(newline="") as file:
        reader = csv.reader(file)
        if tuple(next(reader, ())) != Row._fields:
            return []
        try:
            return [
                Row(a, b, int(scale), model, int(ensemble), c, float(psnr), float(ssim))
                for a, b, scale, model, ensemble, c, psnr, ssim in reader
            ]
        except ValueError as error:
            where = f"line {reader.line_num}"
            raise InputError(f"{path}: {where} is damaged: {error}") from None


def paper_psnr(row: Row, model: str = "btsrn") -> float | None:
    """The paper's figure beside a mean, where Table 4 has one."""
    name = PAPER_NAMES.get(row.set, row.set)
    if row.protocol != "benchmark" or name not in PAPER:
        return None
    return PAPER[name][PAPER_MODELS.index(model)][row.scale - 2]


def table(rows: list[Row], baseline: list[Row] = ()) -> str:
    """The means as a Markdown table: a line per scale, set, protocol and model; with
    the baseline's figures (bicubic) and the paper's beside them where there are any."""
    known = {(r.set, r.scale, r.protocol): r for r in baseline if r.image == "mean"}
    means = [row for row in rows if row.image == "mean"]
    for field in ("protocol", "set", "scale"):  # each in the order of its first row
        order = list(dict.fromkeys(getattr(row, field) for row in means))
        means.sort(key=lambda row, f=field, o=order: o.index(getattr(row, f)))
    header = ["set", "scale", "protocol"]
    header += ["bicubic PSNR"] if known else []
    header += ["model", "PSNR", "SSIM"]
    with_paper = any(paper_psnr(row) for row in means)
    header += ["paper's PSNR"] if with_paper else []
    lines = []
    for row in means:
        line = [row.set, f"x{row.scale}", row.protocol]
        if known:
            line.append(f"{known[row.set, row.scale, row.protocol].psnr:.2f}")
        name = row.model + (" + ensemble" if row.ensemble else "")
        line += [name, f"{row.psnr:.2f}", f"{row.ssim:.4f}"]
        if with_paper:
            named = (name for name in PAPER_MODELS if name in row.model.lower())
            value = paper_psnr(row, next(named, "btsrn"))
            line.append("" if value is None else f"{value:.2f}")
        lines.append(line)
    return markdown(header, lines)


def per_image_table(rows: list[Row], baseline: list[Row]) -> str:
    """Bicubic and a model beside each other, image by image, as Markdown."""
    lines = []
    for row, base in zip(rows, baseline, strict=True):
        gain = row.psnr - base.psnr
        figures = [f"{base.psnr:.2f}", f"{row.psnr:.2f}", f"{gain:+.2f}"]
        figures += [f"{base.ssim:.4f}", f"{row.ssim:.4f}"]
        lines.append([row.set, row.image, f"x{row.scale}", row.protocol, *figures])
    label = rows[0].model + (" + ensemble" if rows[0].ensemble else "")
    header = ["set", "image", "scale", "protocol", "bicubic PSNR", f"{label} PSNR"]
    return markdown([*header, "gain", "bicubic SSIM", f"{label} SSIM"], lines)


def markdown(header: list[str], lines: list[list[str]]) -> str:
    """A Markdown table, aligned so that it reads well on a console, too."""
    widths = [max(len(row[i]) for row in [header, *lines]) for i in range(len(header))]

    def text(cells):
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([text(header), rule, *map(text, lines)])
