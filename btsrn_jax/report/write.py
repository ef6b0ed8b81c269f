"""`btsrn report`: comparisons, crops, curves, tables, and one HTML page of them."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

from btsrn_jax import (
    evaluation,
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
from btsrn_jax.report import html_page, plots, sections, viewer
from btsrn_jax.report.tables import ReportedModel

METRICS = "metrics.jsonl"  # `training.METRICS`, of a module that loads JAX
SHOWN = 3  # pictures of Figure 5 where none are chosen
TITLE = "BTSRN-JAX report"


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
            logger.info(f"{name} x{scale}: {origin(pairs)}")
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
        upscalers.setdefault(scale, []).append(upscaler)
    taken = [
        viewer.take(pair, of_scale)
        for scale, of_scale in upscalers.items()
        for pair in shown[scale]
    ]
    if any(entry.metrics for entry in entries) and not plots.can_plot():
        logger.info(plots.HINT)
    out.mkdir(parents=True, exist_ok=True)
    _write_files(out, entries, sections.arrange(entries, taken))


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


def _write_files(out, entries, found):
    """Writes the two documents that show everything, and what they show as files."""
    markdown = [f"# {TITLE}"]
    for section in found:
        markdown.append(f"## {section.title}")
        for part in section.parts:
            markdown += part.markdown
            for name, data in part.files.items():
                storage.write(out / name, data)
    names = ", ".join(entry.name for entry in entries)
    storage.write(out / "report.md", "\n\n".join(markdown) + "\n")
    storage.write(out / "index.html", html_page.render(TITLE, names, found))
