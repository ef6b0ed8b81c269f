"""The report's HTML page, one file that loads nothing, and the crops of Figure 5."""

import base64
import html
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from btsrn_jax import evaluation, images
from btsrn_jax.data import Pair
from btsrn_jax.report.tables import Table

SIDE = 200  # of a crop, in HR pixels
CROPS_NOTE = (
    "The busiest 200 x 200 pixels of each picture. PSNR is that of the whole picture;"
    " the maps are |difference from HR| summed over RGB, 255 and more being white."
)
CURVES = "Training curves"
STYLE = """
body { font: 15px/1.5 sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em; }
h2 { margin-top: 2em; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; margin: 1em 0; }
td:first-child { white-space: nowrap; }
th, td { padding: .2em .8em; border-bottom: 1px solid #ddd; text-align: left; }
td { font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
.curves { max-width: 100%; height: auto; }
.crops { display: flex; gap: 8px; overflow-x: auto; }
.crops figure { margin: 0; font-size: 13px; flex: none; width: 200px; }
.compare { margin: 1em 0; width: 600px; max-width: 100%; --at: 50%; }
.compare div { position: relative; }
.compare img { display: block; width: 100%; image-rendering: pixelated; }
.compare .before { position: absolute; inset: 0;
  clip-path: inset(0 calc(100% - var(--at)) 0 0); }
.compare i { position: absolute; top: 0; bottom: 0; left: var(--at); width: 2px;
  margin-left: -1px; background: white; box-shadow: 0 0 2px black; }
.compare input { width: 100%; margin: .4em 0; }
.compare figcaption { display: flex; justify-content: space-between; font-size: 13px; }
"""


class Crops(NamedTuple):
    """A row of Figure 5, with its name: (label, (n, n, 3) uint8) of bicubic, its error,
    each network, its error, HR."""

    name: str
    row: list[tuple[str, np.ndarray]]


def figure5(pair: Pair, upscalers: Sequence[evaluation.Upscaler]) -> Crops:
    """Returns one image as the paper's Figure 5 shows it, by one or several networks of
    a scale; CROPS_NOTE says how."""
    scale, names = upscalers[0].scale, [upscaler.name for upscaler in upscalers]
    shown = [evaluation.bicubic_upscaler(scale), *upscalers]
    *found, original = evaluation.crop_row(pair, shown, SIDE)
    row = []
    for (label, crop), upscaler in zip(found, shown, strict=True):
        name = "network" if [upscaler.name] == names else upscaler.name
        row += [(label, crop), (f"|{name} - HR|", _error(crop, original[1]))]
    return Crops(f"{pair.name}, x{scale}, {', '.join(names)}", [*row, original])


def _error(crop, original):
    """Returns the map of differences: (n, n, 3) uint8, grey."""
    crop, original = images.as_rgb(crop), images.as_rgb(original)
    total = np.abs(crop.astype(int) - original).sum(axis=2)
    return images.as_rgb(np.minimum(total, 255).astype(np.uint8))


def render(title: str, sections: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Returns an HTML document.

    Args:
      title: plain text.
      sections: of each its heading, plain text, and its HTML fragments.
    """
    body = "\n".join(
        "\n".join([f"<h2>{html.escape(heading)}</h2>", *fragments])
        for heading, fragments in sections
    )
    title = html.escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{title}</h1>\n{body}\n</body></html>\n"
    )


def table(table: Table) -> str:
    """Returns a table with its notes and commands as HTML."""

    def row(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells)

    lines = [row(table.header, "th"), *(row(line, "td") for line in table.lines)]
    below = "".join(f"<p>{html.escape(note)}</p>" for note in table.notes)
    if table.commands:
        commands = html.escape("\n".join(table.commands))
        below += f'<pre class="scroll">{commands}</pre>'
    # A narrow window moves through a wide table instead of squeezing it.
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>{below}'


def curves(svg: str) -> str:
    """Returns a plot as HTML. As a picture of its own, its ids meet no others."""
    return f'<img class="curves" src="{_uri(svg.encode(), "svg+xml")}" alt="{CURVES}">'


def crops(crops: Crops) -> str:
    """Returns a row of crops as HTML; below it bicubic and each network under a
    slider."""
    figures = "".join(
        f'<figure><img src="{_png(crop)}" alt="{html.escape(label)}" width="{SIDE}">'
        f"<figcaption>{html.escape(label)}</figcaption></figure>"
        for label, crop in crops.row
    )
    networks = crops.row[2:-1:2]
    sliders = [_slider(crops.name, crops.row[0], network) for network in networks]
    heading = f'<h3>{html.escape(crops.name)}</h3><div class="crops">{figures}</div>'
    return heading + "".join(sliders)


def _slider(name, below, above):
    """Returns two crops under a slider as HTML: (label, crop) of bicubic and of a
    network."""
    (before, bicubic), (after, network) = below, above
    name, before, after = map(html.escape, (name, before, after))
    # The range input is the whole interaction: mouse, touch and arrow keys move it.
    return (
        f'<figure class="compare"><div><img src="{_png(network)}" alt="{after}">'
        f'<img class="before" src="{_png(bicubic)}" alt="{before}"><i></i></div>'
        '<input type="range" min="0" max="100" value="50" step="any"'
        f' aria-label="{name}: how much of bicubic is shown, in per cent"'
        " oninput=\"this.parentNode.style.setProperty('--at', this.value + '%')\">"
        f"<figcaption><span>left: {before}</span><span>right: {after}</span>"
        "</figcaption></figure>"
    )


def _png(image):
    buffer = io.BytesIO()
    Image.fromarray(images.as_rgb(image)).save(buffer, "PNG")
    return _uri(buffer.getvalue(), "png")


def _uri(data, kind):
    """Returns an address that holds the picture itself."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
