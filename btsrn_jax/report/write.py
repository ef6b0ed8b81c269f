"""`btsrn report`: tables in the paper's layout, curves, crops and one HTML page."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Callable, Sequence

from btsrn_jax import (
    evaluation,
    images,
    inference,
    lock,
    network,
    storage,
    training,
)
from btsrn_jax.data import (
    check_set,
    evaluation_set,
    file_pair,
    origin,
    sample_pairs,
    set_names,
)
from btsrn_jax.errors import InputError
from btsrn_jax.metrics import PROTOCOLS, most_ignored
from btsrn_jax.progress import logger
from btsrn_jax.report import (
    experiments,
    html_page,
    photographs,
    plots,
    published,
    tables,
)
from btsrn_jax.report.tables import ReportedModel
from btsrn_jax.report.time_table import time_table

METRICS = "metrics.jsonl"  # `training.METRICS`, of a module that loads JAX
SHOWN = 3  # pictures of Figure 5 where none are chosen
TITLE = "BTSRN-JAX: the paper's experiments"


def write_report(
    sources: Sequence[str],
    out: pathlib.Path,
    sets: Sequence[str] = (),
    chosen: Sequence[str] = (),
    ensemble: bool = True,
    data_dir: str = "data",
    before: Callable[[], None] = lambda: None,
) -> None:
    """Writes index.html, report.md, and every table, plot and row of crops as a file.

    Figure 5 shows all models of a scale beside each other. Curves need matplotlib;
    without it the report has none, and one line says so.

    Args:
      sources: run directories, exported directories, released names.
      out: the folder to write; it is made where it is missing.
      sets: the sets that every model is evaluated on first, under all protocols.
        Without any, the figures are those that the runs hold (CSV files as
        `btsrn evaluate --csv` writes them).
      chosen: the images of Figure 5: files, or names in the first set (in the sample
        photographs where there is no set); by default the first three.
      ensemble: True to use the self-ensemble, in evaluation and in Figure 5.
      data_dir: the folder where DIV2K was prepared.
      before: called once sources, sets and images are known to be there, before JAX is
        loaded.

    Raises:
      InputError: for a source that is neither a run nor a model, and for an unknown set
        or image, before anything is written.
    """
    out = storage.local(out)
    storage.check_writable_folder(out)
    scales = sorted({_read_scale(source) for source in sources})
    found = {s: _find_sets(sets, s, data_dir) for s in scales}
    shown = {scale: _choose(sets, chosen, scale) for scale, sets in found.items()}
    before()
    for scale, given in found.items() if sets else ():
        for name, pairs in given.items():
            logger.info(f"{name} x{scale}: {len(pairs)} images, {origin(pairs)}")
    entries = _named_apart([load(source) for source in dict.fromkeys(sources)])
    with lock.hold(out, "report"):
        _write_all(entries, found, shown, out, sets, ensemble)


def _write_all(entries, found, shown, out, sets, ensemble):
    upscalers, baseline = {}, {}
    for i, entry in enumerate(entries):
        scale = entry.config["scale"]
        if entry.source is None or not (sets or shown[scale]):
            continue
        model = inference.open_model(entry.source, None, ensemble)
        logger.info(model.about)
        upscaler = evaluation.Upscaler(entry.name, scale, ensemble, model.upscale)
        if sets:
            if scale not in baseline:
                bicubic = evaluation.bicubic_upscaler(scale)
                baseline[scale] = _measure(bicubic, found[scale])
            rows = _measure(upscaler, found[scale])
            for line in evaluation.name_without_error(rows):
                logger.info(line)
            entries[i] = dataclasses.replace(
                entry,
                rows=evaluation.latest(entry.rows + rows),
                baseline=evaluation.latest(entry.baseline + baseline[scale]),
            )
        upscalers.setdefault(scale, []).append((entry, upscaler))
    crops = []
    for scale, models in upscalers.items():
        of_scale, shown_by = zip(*models, strict=True)
        for pair in shown[scale]:
            made = html_page.figure5(pair, shown_by)
            crops.append(made._replace(name=made.name + tables.reduction(of_scale)))
    out.mkdir(parents=True, exist_ok=True)
    _write_files(out, _sections(entries), crops, TITLE + tables.reduction(entries))


def _read_scale(source):
    """Returns the scale of a run, finished or not, or of a model."""
    if inference.in_hub(source):
        return inference.read_scale(source)
    path = storage.local(source)
    if not storage.is_there(path / METRICS):
        return inference.read_scale(source)
    return _read_run(path, lambda config: config["scale"])


def _read_run(path, use):
    """Returns what `use` makes of a run's config; InputError where it cannot."""
    try:
        return use(storage.from_json((path / inference.CONFIG).read_text()))
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read the config of {path}: {error}") from None


def _named_apart(entries):
    """Returns the models, those of equal names under the paths that they came from."""
    names = [entry.name for entry in entries]
    return [
        dataclasses.replace(entry, name=entry.source)
        if entry.source and names.count(entry.name) > 1
        else entry
        for entry in entries
    ]


def load(source: str) -> ReportedModel:
    """Returns a run, finished or not, or a model, with the figures of its CSV files."""
    # What is in the hub has no path here, and is no run.
    path = folder = None if inference.in_hub(source) else storage.local(source)
    metrics = training.read_metrics(path / training.METRICS) if path else []
    if metrics:
        config = _read_run(path, lambda c: c)
        _read_run(path, lambda c: network.build(c["model"], c["scale"]))
        from btsrn_jax import checkpoint  # loads JAX

        has_weights = bool(checkpoint.steps_in(path / checkpoint.FOLDER))
    else:
        loaded = inference.load_weights(source)
        config, folder, has_weights = loaded.config, loaded.folder, True
    config["model"].setdefault("name", "btsrn")
    rows = evaluation.latest(evaluation.read_figures(folder, config))
    name = path.absolute().name if path and path.exists() else source
    return ReportedModel(
        source if has_weights else None,
        name,
        config,
        metrics,
        [row for row in rows if row.model != inference.BICUBIC],
        [row for row in rows if row.model == inference.BICUBIC],
    )


def _find_sets(names, scale, data_dir):
    """Returns the pairs of each set by name, all of which can be read and fit; of
    DIV2K's sets, those of this scale. Without names, the sample photographs."""
    found = {} if names else {"samples": sample_pairs()}
    for name, given in zip(set_names(names, data_dir), names, strict=True):
        if not name.startswith("div2k/") or name.endswith(f"_x{scale}"):
            found[name] = evaluation_set(given, scale, data_dir)
    for pairs in found.values():
        check_set(pairs, scale, most_ignored(PROTOCOLS, scale))
    return found


def _choose(by_name, chosen, scale):
    """Returns the pairs that Figure 5 shows."""
    pairs = next(iter(by_name.values()), [])
    if not chosen:
        return pairs[:SHOWN]
    known, files = {pair.name: pair for pair in pairs}, []
    for name in chosen:
        path = storage.local(name)
        if name not in known and path.is_file():
            known[name] = file_pair(path)
            files.append(known[name])
        if name not in known:
            raise InputError(f"no image {name!r}: a file, or one of {', '.join(known)}")
    check_set(files, scale, most_ignored(PROTOCOLS, scale))
    return [known[name] for name in chosen]


def _measure(upscaler, by_name):
    return [
        row
        for name, pairs in by_name.items()
        for row in evaluation.evaluate_set(name, pairs, upscaler, PROTOCOLS)
    ]


def _sections(entries):
    """Returns all studies: of the paper's experiments, of tables over all models, and
    the curves of the runs that belong to no experiment."""
    runs = [entry for entry in entries if "train" in entry.config]
    sections = experiments.find(runs)
    shown = [run for study in sections for run in study.runs]
    found = (
        photographs.degraded_table(entries),
        tables.table3(entries),
        tables.table4(entries),
        time_table(entries),
    )
    found = [*published.released_tables(entries), *filter(None, found)]
    sections += map(experiments.Study, found)
    differences = tables.compared(entries)
    if differences:
        sections.insert(0, experiments.Study(differences))
    rest = [entry for entry in entries if entry not in shown]
    lines = [(entry.name, entry.metrics) for entry in rest]
    heading = "Training" + tables.reduction(rest)
    if runs and not plots.can_plot():
        logger.info(plots.HINT)
    return [
        *sections,
        experiments.Study(tables.overview(entries), rest, lines, heading),
    ]


def _write_files(out, sections, crops, title):
    """Writes the tables, curves and crops, and the two documents that show them all."""
    markdown, fragments = [f"# {title}"], []
    for table, _, lines, heading in sections:
        lines_of_csv = io.StringIO()
        csv.writer(lines_of_csv).writerows([table.header, *table.lines])
        storage.write(out / f"{table.name}.csv", lines_of_csv.getvalue())
        text = evaluation.markdown(table.header, table.lines)
        markdown += [f"## {table.title}", text, *table.notes]
        if table.commands:
            markdown.append("\n".join(["```sh", *table.commands, "```"]))
        parts = [html_page.table(table)]
        curves = plots.curves(lines, heading)
        if curves:
            storage.write(out / f"{table.name}.svg", curves)
            markdown.append(f"![{html_page.CURVES}]({table.name}.svg)")
            parts.append(html_page.curves(curves))
        fragments.append((table.title, parts))
    if crops:
        heading, note = "Figure 5: crops", html_page.CROPS_NOTE
        markdown += [f"## {heading}", note]
        rows = [html_page.crops(row) for row in crops]
        fragments.append((heading, [f"<p>{note}</p>", *rows]))
    for i, row in enumerate(crops, 1):
        images.write_image(out / f"figure5-{i}.png", images.side_by_side([row.row], 2))
        markdown += [f"### {row.name}", f"![{row.name}](figure5-{i}.png)"]
    storage.write(out / "report.md", "\n\n".join(markdown) + "\n")
    storage.write(out / "index.html", html_page.render(title, fragments))
