"""Training curves by matplotlib, as SVG text: a small document for each."""

import importlib.util
import io
import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import matplotlib.figure

# Okabe and Ito's palette: colour-blind readers, too, can tell its colours apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
DASHES = ("-", "--", ":")  # each for one round through the colours
RATE = "steps_per_second"  # in metrics.jsonl
HINT = "curves are left out: they need matplotlib: pip install 'btsrn-jax[report]'"
# Text becomes paths: the same picture everywhere, whatever fonts there are. The salt
# makes the ids of equal plots equal.
STYLE = {"svg.fonttype": "path", "svg.hashsalt": "btsrn", "font.size": 9}
QUANTITIES = {  # by the first letters of their names in metrics.jsonl
    "loss": "training loss",
    "psnr_": "validation PSNR, dB",
    RATE: "steps a second",
}
AXES = {"steps": "steps", "time": "minutes of training"}


def can_plot() -> bool:
    """Returns True if matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def curves(runs: Sequence[tuple[str, Sequence[Mapping]]], title: str) -> dict[str, str]:
    """Returns training loss, validation PSNR and rate of runs as SVG documents.

    Each is drawn against the steps and against the time of training.

    Args:
      runs: (label, lines of metrics.jsonl) of each run.
      title: what the documents say that they are of.

    Returns:
      By name, such as "loss-steps", text without dates and random ids: equal runs give
      equal bytes. What was not logged is left out; without matplotlib, everything.
    """
    figures = draw(runs) if can_plot() else {}
    about = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    found = {}
    for name, figure in figures.items():
        import matplotlib

        text = io.StringIO()
        with matplotlib.rc_context(STYLE):
            metadata = about | {"Title": f"{title}: {name}"}
            figure.savefig(text, format="svg", metadata=metadata)
        found[name] = text.getvalue()
    return found


def draw(
    runs: Sequence[tuple[str, Sequence[Mapping]]],
) -> "dict[str, matplotlib.figure.Figure]":
    """Returns the matplotlib Figures that `curves` writes, by name."""
    # It warns of a machine without a home directory, which is no fault of a report.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    labels, figures = list(dict.fromkeys(label for label, _ in runs)), {}
    for axis, x_label in enumerate(AXES.values()):
        for prefix, y_label in QUANTITIES.items():
            lines = [
                (
                    f"{label}, {name}" if len(of_run) > 1 else label,
                    # A run has its colour in all figures.
                    labels.index(label),
                    place,
                    points,
                )
                for label, metrics in runs
                for of_run in [curve_points(metrics, prefix)]
                for place, (name, points) in enumerate(of_run.items())
            ]
            if lines:
                name = "rate" if prefix == RATE else prefix.rstrip("_")
                name += f"-{tuple(AXES)[axis]}"
                figures[name] = _figure(lines, axis, x_label, y_label)
    return figures


def _figure(lines, axis, x_label, y_label):
    """Draws lines against steps (axis 0) or minutes (axis 1): of each the label, the
    place of its colour, its place among the lines of that colour, its points."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        columns = 2 if len(lines) > 2 else 1
        height = 2.8 + 0.17 * math.ceil(len(lines) / columns)
        figure = Figure(figsize=(4.4, height), layout="constrained")
        axes = figure.subplots()
        axes.set_title(y_label.partition(",")[0], fontweight="bold")
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.grid(color="#dddddd")
        axes.set_axisbelow(True)
        if y_label == QUANTITIES["loss"]:
            axes.set_yscale("log")
        for label, i, place, points in lines:
            axes.plot(
                [point[axis] for point in points],
                [point[2] for point in points],
                color=COLORS[i % len(COLORS)],
                linestyle=DASHES[(i // len(COLORS) + place) % len(DASHES)],
                # A single point would be an invisible line.
                marker="o" if len(points) == 1 else None,
                linewidth=1.4,
                label=label,
            )
        handles = {line.get_label(): line for line in axes.lines}
        figure.legend(
            handles=[*handles.values()],
            loc="outside lower center",
            ncols=columns,
            frameon=False,
        )
    return figure


def curve_points(
    metrics: Sequence[Mapping], prefix: str
) -> dict[str, list[tuple[int, float, float]]]:
    """Returns (step, minutes of training, value) of each line that has a quantity, by
    the quantity's whole name.

    Minutes are those of the steps alone: neither validation nor the time between a stop
    and its continuation counts. Values that cannot be drawn are left out: nan,
    infinities, and a loss of 0, which a logarithmic axis does not have.

    Args:
      metrics: the lines of metrics.jsonl, by step.
      prefix: the first letters of the quantity's name: a key of QUANTITIES.
    """
    found = {}
    minutes, last = 0.0, 0
    # The first steps are logged without a rate: theirs is that of the next ones.
    rate = next((line[RATE] for line in metrics if RATE in line), math.inf)
    for line in metrics:
        rate = line.get(RATE, rate)
        minutes += (line["step"] - last) / rate / 60
        last = line["step"]
        for name, value in line.items():
            # Figures of single sets are called psnr_PROTOCOL/SET.
            if not name.startswith(prefix) or "/" in name or not math.isfinite(value):
                continue
            if value > 0 or prefix != "loss":
                found.setdefault(name, []).append((line["step"], minutes, value))
    return found
