"""Training curves by matplotlib, as SVG text."""

import importlib.util
import io
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
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
QUANTITIES = {"loss": "training loss", "psnr_": "validation PSNR, dB"}  # by prefix


def can_plot() -> bool:
    """Returns True if matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def curves(runs: Sequence[tuple[str, Sequence[Mapping]]], title: str) -> str | None:
    """Returns the training loss and validation PSNR of runs as one SVG document.

    Each is drawn against the steps and against the time of training.

    Args:
      runs: (label, lines of metrics.jsonl) of each run.
      title: the heading of the picture.

    Returns:
      Text without dates and random ids, so that equal runs give equal bytes; None where
      nothing was logged, or matplotlib is not installed.
    """
    figure = draw(runs, title) if can_plot() else None
    if figure is None:
        return None
    import matplotlib

    text = io.StringIO()
    about = dict.fromkeys(("Date", "Creator", "Format", "Type")) | {"Title": title}
    with matplotlib.rc_context(STYLE):
        figure.savefig(text, format="svg", metadata=about)
    return text.getvalue()


def draw(
    runs: Sequence[tuple[str, Sequence[Mapping]]], title: str
) -> "matplotlib.figure.Figure | None":
    """Returns the matplotlib Figure that `curves` writes; None where nothing was
    logged."""
    # It warns of a machine without a home directory, which is no fault of a report.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib
    from matplotlib.figure import Figure

    points = {
        prefix: [(label, list(curve_points(lines, prefix))) for label, lines in runs]
        for prefix in QUANTITIES
    }
    drawn = [prefix for prefix in points if any(p for _, p in points[prefix])]
    if not drawn:
        return None
    labels = list(dict.fromkeys(label for label, _ in runs))
    with matplotlib.rc_context(STYLE):
        columns = min(4, len(labels))
        legend = 0.2 * math.ceil(len(labels) / columns)
        size = (9.4, 0.4 + 3 * len(drawn) + legend)
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(title, wrap=True)
        rows = figure.subplots(len(drawn), 2, squeeze=False)
        handles = {}
        for prefix, pair in zip(drawn, rows, strict=True):
            for axis, (column, x_label) in enumerate(
                (("steps", "steps"), ("time", "minutes of training"))
            ):
                handles |= _panel(pair[axis], axis, labels, points[prefix])
                name = QUANTITIES[prefix].partition(",")[0]
                pair[axis].set_title(f"{name} against {column}", fontweight="bold")
                pair[axis].set(xlabel=x_label, ylabel=QUANTITIES[prefix])
                if prefix == "loss":
                    pair[axis].set_yscale("log")
        shown = [label for label in labels if label in handles]
        figure.legend(
            [handles[label] for label in shown],
            shown,
            loc="outside lower center",
            ncols=columns,
            frameon=False,
        )
    return figure


def _panel(axes, axis, labels, lines):
    """Draws the lines of one quantity against steps (axis 0) or minutes (axis 1);
    returns what the legend shows, by label."""
    axes.grid(color="#dddddd")
    axes.set_axisbelow(True)
    drawn = {}
    for label, points in lines:
        if points:
            i = labels.index(label)
            (drawn[label],) = axes.plot(
                [point[axis] for point in points],
                [point[2] for point in points],
                color=COLORS[i % len(COLORS)],
                linestyle=DASHES[i // len(COLORS) % len(DASHES)],
                # A single point would be an invisible line.
                marker="o" if len(points) == 1 else None,
                linewidth=1.4,
            )
    return drawn


def curve_points(
    metrics: Sequence[Mapping], prefix: str
) -> Iterator[tuple[int, float, float]]:
    """Yields (step, minutes of training, value) of each line that has a quantity.

    Minutes are those of the steps alone: neither validation nor the time between a stop
    and its continuation counts. Values that cannot be drawn are left out: nan,
    infinities, and a loss of 0, which a logarithmic axis does not have.

    Args:
      metrics: the lines of metrics.jsonl, by step.
      prefix: the first letters of the quantity's name: a key of QUANTITIES.
    """
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
                yield line["step"], minutes, value
