"""`btsrn report`: runs -> tables in the paper's layout, curves, crops, an HTML page."""

import csv
import json
import pathlib
import sys
from collections.abc import Sequence

from btsrn_jax import (
    checkpoint,
    evaluation,
    images,
    inference,
    network,
    storage,
    training,
)
from btsrn_jax.data import SAMPLES, check_set, evaluation_set, file_pair, set_name
from btsrn_jax.errors import InputError
from btsrn_jax.evaluation import Row
from btsrn_jax.metrics import PROTOCOLS, most_ignored
from btsrn_jax.report import experiments, html_page, plots, results, tables
from btsrn_jax.report.tables import ReportedModel

SHOWN = 3  # pictures of Figure 5 where none are chosen
TITLE = "BTSRN-JAX: the paper's experiments"


def write_report(
    sources: Sequence[str],
    out: pathlib.Path,
    sets: Sequence[str] = (),
    chosen: Sequence[str] = (),
    ensemble: bool = True,
    data_dir: str = "data",
) -> None:
    """Writes index.html, report.md, and every table, plot and row of crops as a file.

    Args:
      sources: run directories, exported directories, released names.
      sets: what every model is evaluated on, under all protocols; without it figures
        are those that the runs hold (CSV files as of `btsrn evaluate --csv`).
      chosen: Figure 5's images: files, or names in the first set (the sample
        photographs where there is none); by default its first three.
      ensemble: whether the self-ensemble is used, in evaluation and in Figure 5.

    Figure 5 shows the first model of each scale. Raises InputError for what is neither
    a run nor a model, and for unknown sets and images, before anything is made.
    """
    entries = [load(source) for source in dict.fromkeys(sources)]
    found = {
        scale: _find_sets(sets or [SAMPLES], scale, data_dir)
        for scale in sorted({entry.config["scale"] for entry in entries})
    }
    shown = {scale: _choose(sets, chosen, scale) for scale, sets in found.items()}
    out.mkdir(parents=True, exist_ok=True)
    crops, baseline = [], {}
    for i, entry in enumerate(entries):
        scale = entry.config["scale"]
        if entry.source is None or not (sets or scale in shown):
            continue
        model = inference.open_model(entry.source, None, ensemble)
        print(model.about, file=sys.stderr)
        subject = evaluation.Upscaler(entry.name, scale, ensemble, model.upscale)
        if sets:
            if scale not in baseline:
                bicubic = evaluation.bicubic_upscaler(scale)
                baseline[scale] = _measure(bicubic, found[scale])
            rows = _measure(subject, found[scale])
            entries[i] = entry._replace(
                rows=_latest(entry.rows + rows),
                baseline=_latest(entry.baseline + baseline[scale]),
            )
        for pair in shown.pop(scale, ()):
            made = html_page.figure5(pair, subject)
            crops.append(made._replace(name=made.name + tables.reduction([entry])))
    _write_files(out, _sections(entries), crops, TITLE + tables.reduction(entries))


def load(source: str) -> ReportedModel:
    """A run, finished or not, or a model; with the figures of its CSV files."""
    path = folder = storage.local(source)
    metrics = training.read_metrics(path / training.METRICS)
    if metrics:
        try:
            config = json.loads((path / "config.json").read_text())
            network.build(config["model"], config["scale"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"cannot read the config of {path}: {error}") from None
        has_weights = any((path / checkpoint.FOLDER).glob("[0-9]*"))
    else:
        loaded = inference.load_weights(source)
        config, folder, has_weights = loaded.config, loaded.folder, True
    config["model"].setdefault("name", "btsrn")
    files = sorted(folder.glob("*.csv"))
    rows = [row for file in files for row in evaluation.read_csv(file)]
    if not rows:  # an exported model's config has the means at least
        figures = config.get("figures", [])
        rows = [Row(**{k: f.get(k, "mean") for k in Row._fields}) for f in figures]
    name = path.resolve().name if path.exists() else source
    return ReportedModel(
        source if has_weights else None,
        name,
        config,
        metrics,
        _latest([row for row in rows if row.model != inference.BICUBIC]),
        _latest([row for row in rows if row.model == inference.BICUBIC]),
    )


def _latest(rows):
    """One row for each thing measured: the last."""
    return list({row._replace(model="", psnr=0, ssim=0): row for row in rows}.values())


def _find_sets(names, scale, data_dir):
    """{name: pairs}, of DIV2K those of this scale; every file can be read and fits."""
    found = {
        set_name(name): evaluation_set(name, scale, data_dir)
        for name in names
        if not name.startswith("div2k/") or name.endswith(f"_x{scale}")
    }
    for pairs in found.values():
        check_set(pairs, scale, most_ignored(PROTOCOLS, scale))
    return found


def _choose(by_name, chosen, scale):
    """The pairs that Figure 5 shows."""
    pairs = next(iter(by_name.values()), [])
    if not chosen:
        return pairs[:SHOWN]
    known, files = {pair.name: pair for pair in pairs}, []
    for name in chosen:
        path = pathlib.Path(name)
        if name not in known and path.is_file():
            known[name] = file_pair(path)
            files.append(known[name])
        if name not in known:
            raise InputError(f"no image {name!r}: a file, or one of {', '.join(known)}")
    check_set(files, scale, most_ignored(PROTOCOLS, scale))
    return [known[name] for name in chosen]


def _measure(subject, by_name):
    return [
        row
        for name, pairs in by_name.items()
        for row in evaluation.evaluate_set(name, pairs, subject, PROTOCOLS)
    ]


def _sections(entries):
    """Studies, tables over all models, and what they leave: curves of other runs."""
    sections = experiments.find([entry for entry in entries if "train" in entry.config])
    found = (tables.table3(entries), tables.table4(entries))
    shown = [run for study in sections for run in study.runs]
    found = [*results.make_tables(entries), *filter(None, found)]
    sections += map(experiments.Study, found)
    rest = [entry for entry in entries if entry not in shown]
    title = "Training" + tables.reduction(rest)
    curves = plots.curves([(entry.name, entry.metrics) for entry in rest], title)
    return [*sections, experiments.Study(tables.overview(entries), curves)]


def _write_files(out, sections, crops, title):
    markdown, fragments = [f"# {title}"], []
    for table, curves, _ in sections:
        with (out / f"{table.name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([table.header, *table.lines])
        text = evaluation.markdown(table.header, table.lines)
        markdown += [f"## {table.title}", text, *table.notes]
        parts = [html_page.table(table)]
        if curves:
            (out / f"{table.name}.svg").write_text(curves)
            markdown.append(f"![Training curves]({table.name}.svg)")
            parts.append(html_page.scroll(curves))
        fragments.append((table.title, parts))
    if crops:
        markdown += ["## Figure 5: crops", html_page.CROPS_NOTE]
        note = f"<p>{html_page.CROPS_NOTE}</p>"
        fragments.append(
            ("Figure 5: crops", [note, *(html_page.crops(row) for row in crops)])
        )
    for i, row in enumerate(crops, 1):
        images.write_image(out / f"figure5-{i}.png", images.side_by_side([row.row], 2))
        markdown += [f"### {row.name}", f"![{row.name}](figure5-{i}.png)"]
    (out / "report.md").write_text("\n\n".join(markdown) + "\n")
    (out / "index.html").write_text(html_page.render(title, fragments))
