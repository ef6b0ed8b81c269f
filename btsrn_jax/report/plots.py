"""Training curves as SVG text: line plots without a plotting library."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

# Okabe and Ito's palette: told apart by colour-blind readers, too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
DASHES = ("", "6 3", "2 3")  # when the colours have run out
WIDTH, HEIGHT = 470, 300  # of a panel, with its labels
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 30, 46  # margins of a panel
RATE = "steps_per_second"  # in metrics.jsonl
LEGEND_COLUMN, LEGEND_LINE, HEADING = 235, 20, 24


class Line(NamedTuple):
    """A labelled curve; x and y of equal length, finite."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


class Panel(NamedTuple):
    """One pair of axes. log_y: a logarithmic y axis; y is then positive."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    log_y: bool = False


def sheet(panels: Sequence[Panel], title: str) -> str:
    """Panels two beside each other below a title, and one legend; lines of equal label
    have equal colours. A whole SVG document."""
    labels = list(dict.fromkeys(line.label for panel in panels for line in panel.lines))
    rows = math.ceil(len(panels) / 2)
    columns = min(2, len(panels))
    width = columns * WIDTH
    per_line = max(1, width // LEGEND_COLUMN)
    legend = HEADING + rows * HEIGHT + 12  # the first line's middle
    height = legend + LEGEND_LINE * math.ceil(len(labels) / per_line)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        f' width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(width / 2, 18, title, 'text-anchor="middle" font-size="14"'),
    ]
    for i, panel in enumerate(panels):
        x, y = i % 2 * WIDTH, HEADING + i // 2 * HEIGHT
        parts.append(f'<g transform="translate({x} {y})">{_panel(panel, labels)}</g>')
    for i, label in enumerate(labels):
        x = 20 + i % per_line * LEGEND_COLUMN
        y = legend + LEGEND_LINE * (i // per_line)
        parts.append(f'<path d="M{x} {y}h24" {_stroke(i)}/>')
        parts.append(f'<text x="{x + 30}" y="{y + 4}">{html.escape(label)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def curves(runs: Sequence[tuple[str, Sequence[Mapping]]], title: str) -> str | None:
    """Training loss and validation PSNR of (label, lines of metrics.jsonl), against
    steps and against training time, as SVG; None where nothing was logged. Time is that
    of the steps alone: neither validation nor what lies between a stop and its
    continuation."""
    panels = []
    for prefix, y_label in (
        ("loss", "training loss"),
        ("psnr_", "validation PSNR, dB"),
    ):
        log_y = prefix == "loss"
        by_step, by_time = [], []
        for label, metrics in runs:
            points = [p for p in _points(metrics, prefix) if p[2] > 0 or not log_y]
            if points:
                steps, minutes, values = zip(*points, strict=True)
                by_step.append(Line(label, steps, values))
                by_time.append(Line(label, minutes, values))
        for x_label, lines in (("steps", by_step), ("minutes of training", by_time)):
            if lines:
                what = f"{y_label.partition(',')[0]} against {x_label.split()[0]}"
                panels.append(Panel(what, x_label, y_label, lines, log_y))
    return sheet(panels, title) if panels else None


def _points(metrics, prefix):
    """(step, minutes, value) of every line that has the quantity."""
    minutes, last = 0.0, 0
    rate = next((x[RATE] for x in metrics if RATE in x), math.inf)  # of the first steps
    for line in metrics:
        rate = line.get(RATE, rate)
        minutes += (line["step"] - last) / rate / 60
        last = line["step"]
        for name, value in line.items():
            if name.startswith(prefix) and math.isfinite(value):
                yield line["step"], minutes, value


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) between."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    return [k * step for k in range(math.ceil(low / step), int(high // step) + 1)]


def _log_ticks(low, high):
    """1, 2 and 5 times the powers of ten between 10^low and 10^high, as logarithms;
    where these are far apart, numbers equally far from each other."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    values = [math.log10(m) + power for power in powers for m in (1, 2, 5)]
    values = [value for value in values if low <= value <= high]
    if len(values) > 2:
        return values
    return [math.log10(value) for value in ticks(10**low, 10**high)]


def _panel(panel, labels):
    lines = panel.lines
    if panel.log_y:
        lines = [line._replace(y=[math.log10(y) for y in line.y]) for line in lines]
    x_low, x_high = _range([x for line in lines for x in line.x])
    y_low, y_high = _range([y for line in lines for y in line.y], 0.05)
    inner_w, inner_h = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x, y):
        right = LEFT + inner_w * (x - x_low) / (x_high - x_low)
        return right, TOP + inner_h * (y_high - y) / (y_high - y_low)

    centre, bottom = LEFT + inner_w / 2, TOP + inner_h
    y_label = _text(0, 0, panel.y_label, 'text-anchor="middle"')
    parts = [
        _text(centre, 18, panel.title, 'text-anchor="middle" font-weight="bold"'),
        _text(centre, HEIGHT - 8, panel.x_label, 'text-anchor="middle"'),
        f'<g transform="translate(14 {TOP + inner_h / 2}) rotate(-90)">{y_label}</g>',
    ]
    for value in ticks(x_low, x_high):
        x, _ = place(value, y_low)
        parts.append(f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="#ddd"/>')
        parts.append(_text(x, bottom + 16, f"{value:g}", 'text-anchor="middle"'))
    y_ticks = (_log_ticks if panel.log_y else ticks)(y_low, y_high)
    for value in y_ticks:
        _, y = place(x_low, value)
        text = f"{10**value:.3g}" if panel.log_y else f"{value:.6g}"
        parts.append(f'<path d="M{LEFT} {y:.1f}h{inner_w}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, y + 4, text, 'text-anchor="end"'))
    for line in lines:
        points = [place(*point) for point in zip(line.x, line.y, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        stroke = _stroke(labels.index(line.label))
        parts.append(f'<polyline points="{path}" {stroke}/>')
        if len(points) == 1:
            (x, y) = points[0]
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" {stroke}/>')
    return "".join(parts)


def _range(values, margin=0.0):
    """(low, high) with room around; something to divide by even for equal values."""
    low, high = min(values), max(values)
    room = (high - low) * margin or (0 if high > low else abs(high) * 0.01 or 1)
    return low - room, high + room


def _text(x, y, text, attributes=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{html.escape(text)}</text>'


def _stroke(i):
    dash = DASHES[i // len(COLORS) % len(DASHES)]
    color = COLORS[i % len(COLORS)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'fill="none" stroke="{color}" stroke-width="1.6"{dashed}'
