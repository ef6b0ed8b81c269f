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
)


class Study(NamedTuple):
    """A table; its runs; what to plot below it, as `plots.curves` takes it."""

    table: Table
    runs: Sequence[ReportedModel] = ()
    curves: Sequence[tuple[str, Sequence[Mapping]]] = ()
    heading: str = ""


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
    """Returns the studies that runs belong to.

    There is a table for each group of equal settings and each set that the group was
    evaluated on. One network can be a row of several tables. A table of a single row is
    made only where the paper has a figure for it and no fuller table has that row.
    """
    groups = [(kind, by_label) for kind in KINDS for by_label in _group(kind, runs)]
    compared = [run for _, g in groups if len(g) > 1 for m in g.values() for run in m]
    studies = []
    for kind, by_label in groups:
        members = [run for same in by_label.values() for run in same]
        elsewhere = all(run in compared for run in members)
        if len(by_label) < 2 and (elsewhere or not any(kind.paper.values())):
            continue
        sets = {r.set: None for run in members for r in final(run)} or {"": None}
        lines = [(_line_label(kind, run), run.metrics) for run in members]
        heading = kind.title + reduction(members)
        for set_name in sets:
            number = 1 + sum(s.table.name.startswith(kind.name) for s in studies)
            name = kind.name + (f"-{number}" if number > 1 else "")
            table = _table(kind, name, by_label, set_name)
            studies.append(Study(table, members, lines, heading))
            lines = ()  # the same ones are below the first set's table
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


def final(run: ReportedModel) -> list[evaluation.Row]:
    """Returns the means of a run's best checkpoint, one a set: without the ensemble and
    without degradation, under the protocol that the run was validated with."""
    protocol = run.config["eval"]["protocol"]
    rows = {
        r.set: r
        for r in run.rows
        if r.image == "mean" and not r.ensemble and r.protocol == protocol
        if r.psnr is not None and not r.degradation
    }
    return list(rows.values())


def _psnr(run, set_name):
    return next((row.psnr for row in final(run) if row.set == set_name), None)


def _table(kind, name, by_label, set_name):
    runs = [run for members in by_label.values() for run in members]
    config = runs[0].config
    reduced, unlike = differences(config)
    comparable = not reduced and not unlike and set_name.startswith("div2k/")
    values = {
        label: [v for v in (_psnr(run, set_name) for run in runs) if v is not None]
        for label, runs in by_label.items()
    }
    means = {label: statistics.mean(v) for label, v in values.items() if v}
    has_figures = any(kind.paper.values())
    labels = [x for x in kind.paper if has_figures or x in by_label]
    labels += [label for label in by_label if label not in labels]
    lines = []
    for label in labels:
        line = [label, _mean_text(values.get(label))]
        line.append(_step(means, label, kind.base))
        if has_figures:
            paper = kind.paper.get(label)
            both = comparable and paper and label in means
            line.append(f"{paper:.5f}" if paper else "")
            line.append(f"{means[label] - paper:+.3f}" if both else "")
            line.append(_step(kind.paper, label, kind.base))
        lines.append(line + _cost(by_label.get(label)))
    measured = f"PSNR, {config['eval']['protocol']}"
    header = [kind.column, measured, f"against {kind.base}"]
    if has_figures:
        header += ["paper", "difference", f"paper's against {kind.base}"]
    header += ["parameters", "multiply-adds per HR pixel", "memory", "steps/s"]
    title = kind.title + (f", on {set_name}" if set_name else "")
    title += reduction(runs)
    notes = [kind.remark] if kind.remark else []
    notes.append(MEMORY_NOTE)
    if unlike:
        notes.append(f"Not the paper's setting: {', '.join(unlike)}.")
    if has_figures and not comparable:
        notes.append(
            "The paper's figures are of DIV2K's validation images and its own setting:"
            " only the differences between rows can be compared."
        )
    return Table(name, title, header, lines, notes)


def _mean_text(values):
    """Returns "34.162", or with several seeds "34.162 ± 0.010 (3 seeds)"."""
    if not values:
        return "not run" if values is None else "unfinished"
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
    if not runs:
        return [""] * 4
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
