"""The paper's experiments: which of them a run belongs to, and the resulting tables."""

import dataclasses
import functools
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from btsrn_jax import config as schema
from btsrn_jax import evaluation, network
from btsrn_jax.report import plots
from btsrn_jax.report.tables import (
    NOT_SETTINGS,
    VARIED,
    ReportedModel,
    Table,
    differences,
    reduction,
    reduction_notes,
    set_label,
    without_empty,
)


class Study(NamedTuple):
    """The runs of one comparison of the paper, all of one setting."""

    name: str
    """The beginning of its files' names."""
    title: str
    runs: Sequence[ReportedModel]
    curves: Sequence[tuple[str, Sequence[Mapping]]]
    """What to plot of the runs, as `plots.curves` takes it."""
    tables: Sequence[Table]
    """One for each set that several of its rows were evaluated on."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """One comparison of the paper, at x2."""

    name: str
    """The name of its table's files."""
    title: str
    """The heading of its table."""
    column: str
    """The heading of the first column: what is varied."""
    ratio: int
    """Features divided by bottleneck."""
    belongs: Callable[[Mapping], bool]
    """Returns True for a config's section `model` that is one of its rows."""
    label: Callable[[Mapping], str]
    """Returns the name of the row of a config's section `model`."""
    paper: Mapping[str, float | None]
    """The paper's PSNR by row; None where the paper only has a plot."""
    base: str
    """The row with which the others are compared."""
    remark: str = ""
    """What the paper says in words."""


def _counts(model):
    return f"{model['low_blocks']} + {model['high_blocks']}"


def _plain(model):
    return model["block"] == "pconv" and model["norm"] == "none"


def _six_four(model):
    return _counts(model) == "6 + 4"


DIV2K_VALIDATION = 100  # images
KINDS = (
    Kind(
        name="table1",
        title="Table 1: blocks of the high stage",
        column="blocks, low + high",
        ratio=2,
        belongs=lambda m: _plain(m) and m["low_blocks"] == 6,
        label=_counts,
        paper=evaluation.TABLE_1,
        base="6 + 4",
    ),
    Kind(
        name="table2",
        title="Table 2: blocks of the low stage",
        column="blocks, low + high",
        ratio=2,
        belongs=lambda m: _plain(m) and m["high_blocks"] == 4,
        label=_counts,
        paper=evaluation.TABLE_2,
        base="6 + 4",
    ),
    Kind(
        name="figure3",
        title="Figure 3: ten blocks, shared out",
        column="blocks, low + high",
        ratio=2,
        belongs=lambda m: _plain(m) and m["low_blocks"] + m["high_blocks"] == 10,
        label=_counts,
        paper={f"{n} + {10 - n}": None for n in range(1, 10)},
        base="6 + 4",
        remark="The paper has a plot; 7 + 3 is best in it.",
    ),
    Kind(
        name="figure4",
        title="Figure 4: residual blocks",
        column="block",
        ratio=4,
        belongs=lambda m: m["norm"] == "none" and _six_four(m),
        label=lambda m: m["block"],
        paper=dict.fromkeys(("gated_pp", "gated", "pconv", "pixelcnn")),
        base="pconv",
        remark="The paper has a plot: gated_pp > pconv > pixelcnn, and the gated block"
        " at nearly double time and memory.",
    ),
    Kind(
        name="normalisation",
        title="Section 3.4: normalisation",
        column="normalisation",
        ratio=2,
        belongs=lambda m: m["block"] == "pconv" and _six_four(m),
        label=lambda m: m["norm"],
        paper=dict.fromkeys(network.NORMS),
        base="none",
        remark="The paper: batch normalisation hurts, weight normalisation makes no"
        " noticeable difference.",
    ),
)
MEMORY_NOTE = (
    "Memory: what a step keeps of the forward pass for the gradient, for the whole"
    " batch, in float32. Steps/s are those that these runs logged, each on its own"
    " hardware."
)


def find(runs: Sequence[ReportedModel]) -> list[Study]:
    """Returns the studies that runs belong to: those of which several rows were run.

    There is a study for each group of equal settings, and a table for each set on which
    two of its rows have a figure. A single row makes a table only where it was measured
    on the paper's set in the paper's setting, and has no place in a fuller group. One
    network can be a row of several tables.
    """
    groups = [(kind, by_label) for kind in KINDS for by_label in _group(kind, runs)]
    compared = [run for _, g in groups if len(g) > 1 for m in g.values() for run in m]
    studies = []
    for kind, by_label in groups:
        members = [run for same in by_label.values() for run in same]
        if len(by_label) < 2 and all(run in compared for run in members):
            continue
        sets = {set_label(row): None for run in members for row in final(run)}
        tables = [t for name in sets if (t := _table(kind, by_label, name))]
        if len(by_label) > 1 or tables:
            number = 1 + sum(study.name.startswith(kind.name) for study in studies)
            name = kind.name + (f"-{number}" if number > 1 else "")
            for i, table in enumerate(tables):
                own = f"{name}-set{i + 1}" if i else name
                tables[i] = dataclasses.replace(table, name=own)
            title = kind.title + reduction(members)
            lines = [(_line_label(kind, run), run.metrics) for run in members]
            studies.append(Study(name, title, members, lines, tables))
    return studies


def _group(kind, runs):
    """Returns the runs of a kind by label, a dict for each setting."""
    groups = {}
    for run in runs:
        if _belongs(kind, run.config):
            by_label = groups.setdefault(_setting(run.config), {})
            by_label.setdefault(kind.label(run.config["model"]), []).append(run)
    return groups.values()


def _belongs(kind, config):
    model = config["model"]
    return (
        config["scale"] == 2
        and model["name"] == "btsrn"
        and model["features"] == kind.ratio * model["bottleneck"]
        and kind.belongs(model)
    )


def _setting(config):
    """Returns what comparable runs have in common, as text."""
    flat = schema.flatten(schema.defaults()) | schema.flatten(config)
    for name in [*NOT_SETTINGS, *(f"model.{name}" for name in VARIED)]:
        flat.pop(name, None)
    kept = {n: v for n, v in flat.items() if not n.startswith("eval.")}
    return json.dumps(kept, sort_keys=True)


def final(run: ReportedModel, protocol: str = "") -> list[evaluation.Row]:
    """Returns the means of a run's best checkpoint, one a set: without the ensemble and
    without degradation, under a protocol, by default the one that the run was validated
    with."""
    protocol = protocol or run.config["eval"]["protocol"]
    rows = {
        set_label(r): r
        for r in run.rows
        if r.image == "mean" and not r.ensemble and r.protocol == protocol
        if r.psnr is not None and not r.degradation
    }
    return list(rows.values())


def _table(kind, by_label, set_name):
    """Returns the table of the rows that have a figure on a set, under the protocol of
    the first one; None where they are too few."""
    every = [run for members in by_label.values() for run in members]
    config = every[0].config
    protocol = config["eval"]["protocol"]
    found = {}
    for label, members in by_label.items():
        rows = [(r, run) for run in members for r in final(run, protocol)]
        of_set = [(r, run) for r, run in rows if set_label(r) == set_name]
        found |= {label: of_set} if of_set else {}
    reduced, unlike = differences(config)
    measured = [pair for of in found.values() for pair in of]
    comparable = not (reduced or unlike) and all(_is_papers_set(*x) for x in measured)
    if len(found) < 2 and not (comparable and any(map(kind.paper.get, found))):
        return None
    labels = [label for label in {**kind.paper, **found} if label in found]
    base = kind.base if kind.base in found else labels[0]
    means = {x: statistics.mean(r.psnr for r, _ in of) for x, of in found.items()}
    lines = []
    for label in labels:
        line = [label, _mean_text([row.psnr for row, _ in found[label]])]
        line.append(_step(means, label, base))
        paper = kind.paper.get(label)
        line.append(f"{paper:.5f}" if paper else "")
        line.append(f"{means[label] - paper:+.3f}" if comparable and paper else "")
        line.append(_step(kind.paper, label, base))
        lines.append(line + _cost(by_label[label]))
    header = [kind.column, f"PSNR, {protocol}", f"against {base}"]
    header += ["paper", "difference", f"paper's against {base}"]
    header += ["parameters", "multiply-adds per HR pixel", "memory", "steps/s"]
    runs = [run for _, run in measured]
    title = f"{kind.title}, on {set_name}{reduction(runs)}"
    notes = [kind.remark] if kind.remark else []
    notes += [MEMORY_NOTE, *reduction_notes(runs)]
    if unlike:
        notes.append(f"Not the paper's setting: {', '.join(unlike)}.")
    if any(kind.paper.values()) and not comparable:
        notes.append(
            "The paper's figures are of DIV2K's validation images and its own setting:"
            " only the differences between rows can be compared."
        )
    return without_empty(Table(kind.name, title, header, lines, notes))


def _is_papers_set(row, run):
    """Returns True for DIV2K's validation images, all of them, under the protocol of
    the paper's Tables 1 and 2."""
    images = len(evaluation.image_rows(row, run.rows))
    same = (row.set, row.protocol) == ("div2k/bicubic_x2", "ntire")
    return same and images in (0, DIV2K_VALIDATION)


def _mean_text(values):
    """Returns "34.162", or with several seeds "34.162 ± 0.010 (3 seeds)"."""
    text = f"{statistics.mean(values):.3f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.3f} ({len(values)} seeds)"
    return text


def _step(values, label, base):
    """Returns how far a row lies above the base row, as text."""
    if label == base or values.get(label) is None or values.get(base) is None:
        return ""
    return f"{values[label] - values[base]:+.3f}"


def _cost(runs):
    """Returns four cells: parameters, multiply-adds per HR pixel, what a step keeps for
    the gradient in float32, and the steps a second that the runs logged."""
    config = runs[0].config
    model = network.build(config["model"], config["scale"])
    rates = [m[plots.RATE] for r in runs for m in r.metrics if plots.RATE in m]
    rate = f"{statistics.median(rates):.3g}" if rates else ""
    side = config["train"]["patch"] // config["scale"]
    return [*_size(model, config["train"]["batch_size"], side), rate]


@functools.cache  # one network is in several tables, and takes a second to trace
def _size(model, batch, side):
    kept = network.kept_for_gradient(model, batch, side)
    adds = f"{model.multiply_adds:,.0f}"
    return f"{network.parameter_count(model):,}", adds, f"{kept / 1e6:,.0f} MB"


def _line_label(kind, run):
    seed = run.config["train"]["seed"]
    label = kind.label(run.config["model"])
    return f"{label}, seed {seed}" if seed else label
