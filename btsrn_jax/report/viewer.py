"""Figure 5: crops of pictures by several networks, to be compared under a slider."""

import base64
import html
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from btsrn_jax import evaluation, images
from btsrn_jax.data import Pair
from btsrn_jax.report.html_page import Part

SIDE = 200  # of a crop, in HR pixels
CROPS = 3  # of a picture
NOTE = (
    "The busiest parts of each picture, 200 x 200 pixels. PSNR is that of the whole"
    " picture, under ntire; the maps are |difference from HR| summed over RGB, 255 and"
    " more being white."
)
HINT = "Choose what stands left and right, and move the line between them."
ZOOMS = {"1": "fit", "2": "2 x", "4": "4 x"}


class Picture(NamedTuple):
    """One picture at one scale.

    Attributes:
      name: of the picture, with the scale.
      models: what stands in the crops but for the last: bicubic, and the networks.
      labels: of the same, with their PSNR; the last one is HR's.
      crops: for each part of the picture (n, n, 3) uint8 for each label.
    """

    name: str
    models: list[str]
    labels: list[str]
    crops: list[list[np.ndarray]]


def take(pair: Pair, upscalers: Sequence[evaluation.Upscaler]) -> Picture:
    """Returns the busiest parts of one image by bicubic, by one or several networks of
    a scale, and of the original."""
    scale = upscalers[0].scale
    shown = [evaluation.bicubic_upscaler(scale), *upscalers]
    found = evaluation.upscale_pair(pair, shown)
    hr = found[-1][1]
    side = min(SIDE, *hr.shape[:2])
    crops = [
        [images.as_rgb(image[y : y + side, x : x + side]) for _, image in found]
        for y, x in images.busiest_squares(hr, side, CROPS)
    ]
    models = [upscaler.name for upscaler in shown]
    return Picture(f"{pair.name}, x{scale}", models, [x for x, _ in found], crops)


def figure5(picture: Picture) -> list[tuple[str, np.ndarray]]:
    """Returns the busiest part as the paper's Figure 5 shows it: (label, crop) of
    bicubic, its error, each network, its error, HR."""
    *crops, original = picture.crops[0]
    row = []
    for name, label, crop in zip(picture.models, picture.labels, crops, strict=False):
        row += [(label, crop), (f"|{name} - HR|", difference(crop, original))]
    return [*row, (picture.labels[-1], original)]


def difference(crop: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Returns the map of differences of two (n, n, 3) uint8: the same, grey."""
    total = np.abs(crop.astype(int) - original).sum(axis=2)
    return images.as_rgb(np.minimum(total, 255).astype(np.uint8))


def part(picture: Picture, number: int) -> Part:
    """Returns a picture with its choices, and as a file of its own."""
    sheet = io.BytesIO()
    row = images.side_by_side([figure5(picture)], 2)
    Image.fromarray(row).save(sheet, "PNG")
    file = f"figure5-{number}.png"
    markdown = [f"### {picture.name}", f"![{picture.name}]({file})"]
    return Part(_viewer(picture, number), markdown, {file: sheet.getvalue()})


def _viewer(picture, number):
    name = html.escape(picture.name)
    labels = [html.escape(x.replace(" (ntire)", "")) for x in picture.labels]
    crops = "".join(
        f'<div class="crop"{" hidden" if i else ""}>{_images(crop, labels)}</div>'
        for i, crop in enumerate(picture.crops)
    )
    parts = "".join(
        f'<label><input type="radio" name="crop{number}" value="{i}"'
        f'{"" if i else " checked"} aria-label="part {i + 1}"><canvas></canvas></label>'
        for i in range(len(picture.crops))
    )
    hidden = " hidden" if len(picture.crops) == 1 else ""
    zooms = "".join(f"<option value={z}>{text}</option>" for z, text in ZOOMS.items())
    return (
        f'<figure class="picture"><figcaption>{name}</figcaption>'
        f'<div class="stage" tabindex="0" role="group" aria-label="{name}">'
        f'<div class="layers">{crops}<i></i></div></div>'
        '<input type="range" min="0" max="100" value="50" step="any"'
        f' aria-label="{name}: how much of the left picture is shown, in per cent">'
        f'<div class="choices">{_select("left", labels, 0)}'
        f"{_select('right', labels, 1)}"
        f'<label>zoom <select name="zoom">{zooms}</select></label>'
        '<label><input type="checkbox" name="map"> differences from HR</label>'
        f'<div class="parts" role="radiogroup" aria-label="part"{hidden}>'
        f"<span>part</span>{parts}</div>"
        "</div></figure>"
    )


def _images(crop, labels):
    """Without a script the first two stand beside each other all the same."""
    sides = {0: ' class="left"', 1: ' class="right"'}
    return "".join(
        f'<img{sides.get(i, "")} alt="{label}" src="{_uri(image)}">'
        for i, (image, label) in enumerate(zip(crop, labels, strict=True))
    )


def _select(name, labels, chosen):
    options = "".join(
        f"<option value={i}{' selected' if i == chosen else ''}>{label}</option>"
        for i, label in enumerate(labels)
    )
    return f'<label>{name} <select name="{name}">{options}</select></label>'


def _uri(image):
    """Returns an address that holds the picture itself, to the last bit."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", lossless=True)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
