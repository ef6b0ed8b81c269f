"""Measures upscalers on sets of images, under protocols."""

import dataclasses
import functools
import itertools
import math
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from btsrn_jax import images, inference, metrics, storage
from btsrn_jax.data import Pair, check_pair, lr_origin
from btsrn_jax.errors import InputError
from btsrn_jax.evaluation.degrading import Degradation, degradation_name, degrade
from btsrn_jax.evaluation.figure_tables import name_without_error, per_image_table
from btsrn_jax.evaluation.figures import Row, as_text, mean_row, write_csv
from btsrn_jax.progress import logger, progress_bar
from btsrn_jax.resize import imresize


@dataclasses.dataclass(frozen=True)
class Upscaler:
    """What is evaluated: a function, and its labels in tables."""

    name: str
    """As tables and CSV files call it."""

    scale: int
    """2, 3 or 4."""

    ensemble: bool
    """Whether it averages over the eight flips and rotations."""

    upscale: Callable[..., np.ndarray]
    """upscale(lr, progress=None): (h, w, 3) uint8 -> (s h, s w, 3) uint8. It calls
    progress(done, total) with LR pixels."""


def evaluate_set(
    set_name: str,
    pairs: list[Pair],
    upscaler: Upscaler,
    protocols: Iterable[str],
    save_images: pathlib.Path | None = None,
    progress: bool = True,
    degradation: Degradation = (),
) -> list[Row]:
    """Measures every image of a set under every protocol.

    LR that is not given is made from HR by `imresize`, and either is then degraded, if
    that is asked for. Protocols that crop HR alike share one upscaled image.

    Args:
      set_name: for the rows.
      pairs: as of `data.evaluation_set`.
      protocols: names of `metrics.PROTOCOLS`.
      save_images: a folder for the upscaled images, as PNG.
      progress: whether to show a bar.
      degradation: of `parse_degradations`.

    Returns:
      A row per image and protocol, then the mean of each protocol.
    """
    protocols = list(dict.fromkeys(protocols))
    rows, name = [], degradation_name(degradation)
    made = {"lr": lr_origin(pairs), "degradation": name}
    bar = progress_bar(
        desc=f"{set_name} {name}".rstrip(),
        total=len(pairs),
        bar_format="{l_bar}{bar}| {n:.2f}/{total} images, {remaining} left",
        delay=2,
        disable=not progress,
        leave=False,
    )
    for number, pair in enumerate(pairs):
        found, sr = _evaluate_pair(
            set_name, pair, upscaler, protocols, bar, degradation
        )
        rows += [row._replace(**made) for row in found]
        if save_images:
            images.mark_outputs(save_images)
            images.write_image(save_images / f"{pair.name}.png", sr)
        bar.update(number + 1 - bar.n)
    bar.close()
    return rows + [mean_row(rows, protocol) for protocol in protocols]


def _evaluate_pair(set_name, pair, upscaler, protocols, bar, degradation):
    """Returns the rows of one image, and the upscaled image of the first protocol, at
    most of HR's size."""
    inputs = read_inputs(pair, upscaler.scale, protocols, degradation)
    labels = set_name, pair.name, upscaler.scale, upscaler.name, int(upscaler.ensemble)
    rows, first = {}, None
    for number, image in enumerate(inputs):
        start = bar.n

        def advance(done, total, start=start):
            bar.update(start + done / total / len(inputs) - bar.n)

        sr = upscaler.upscale(image.lr, advance)
        first = sr[: image.hr.shape[0], : image.hr.shape[1]] if not number else first
        for protocol in image.protocols:
            try:
                values = image.measure(sr, protocol, upscaler.scale)
            except InputError as error:
                raise InputError(f"{set_name}/{pair.name}: {error}") from None
            rows[protocol] = Row(*labels, protocol, *values)
    return [rows[protocol] for protocol in protocols], first


@dataclasses.dataclass(frozen=True)
class Input:
    """What an upscaler gets of an image, and what its answer is compared with."""

    lr: np.ndarray
    """(h, w, 3) uint8."""

    hr: np.ndarray
    """(H, W, 3) uint8, or (H, W) of a grey image; cut as the protocols have it."""

    protocols: list[str]
    """The protocols that compare with this HR."""

    def measure(
        self, sr: np.ndarray, protocol: str, scale: int
    ) -> tuple[float, float | None]:
        """Returns the PSNR of an answer, as `metrics.counted` has it, and its SSIM,
        None where the image has none.

        Raises:
          InputError: the image is all border under this protocol.
        """
        psnr = metrics.counted(metrics.psnr(sr, self.hr, protocol, scale))
        ssim = metrics.ssim(sr, self.hr, protocol, scale)
        return psnr, None if math.isnan(ssim) else ssim


def read_inputs(
    pair: Pair, scale: int, protocols: Iterable[str], degradation: Degradation = ()
) -> list[Input]:
    """Reads an image of a set. LR that is not given is made from HR by `imresize`.

    Args:
      pair: as of `data.evaluation_set`.
      scale: of the pair.
      protocols: names of `metrics.PROTOCOLS`.
      degradation: of `parse_degradations`, done to LR.

    Returns:
      What has to be upscaled: protocols that crop HR alike share one image.
    """
    lr, full = pair.load()
    found = {}
    for protocol in protocols:
        cut = metrics.get_protocol(protocol).mod_crop
        if lr is not None:
            hr = _fit(lr, full, scale, pair.name)
        else:
            hr = metrics.mod_crop(full, scale) if cut else full
        size = hr.shape[:2]
        if size not in found:
            small = imresize(hr, 1 / scale) if lr is None else lr
            small = degrade(small, degradation, pair.name)
            found[size] = Input(images.as_rgb(small), hr, [])
        found[size].protocols.append(protocol)
    return list(found.values())


def _fit(lr, hr, scale, name):
    try:
        return check_pair(lr, hr, scale)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def network_upscaler(
    name: str, config: Mapping, variables: Mapping, devices: Any, ensemble: bool
) -> Upscaler:
    """Returns a trained network for evaluation on a mesh of devices."""
    tiled = inference.tiled_upscaler(config, devices, ensemble)
    function = functools.partial(tiled, variables)
    return Upscaler(name, config["scale"], ensemble, function)


def bicubic_upscaler(scale: int) -> Upscaler:
    """Returns bicubic interpolation, which every table starts with."""
    model = inference.bicubic_model(scale)
    return Upscaler(model.name, scale, False, model.upscale)


def compare(
    upscaler: Upscaler,
    sets: Mapping[str, list[Pair]],
    protocols: list[str],
    workdir: pathlib.Path,
    name: str,
    degradations: Sequence[Degradation] = ((),),
) -> None:
    """Measures a network and bicubic on whole sets, under each degradation of LR.

    The table goes to the log; the figures go to NAME.csv, and crops of the first images
    to NAME.png, both in `workdir`.
    """
    peer = bicubic_upscaler(upscaler.scale)
    rows, baseline = [], []
    for (set_name, pairs), how in itertools.product(sets.items(), degradations):
        labels = {"protocols": protocols, "degradation": how}
        rows += evaluate_set(set_name, pairs, upscaler, **labels)
        baseline += evaluate_set(set_name, pairs, peer, **labels)
    write_csv(workdir / f"{name}.csv", baseline + rows)
    logger.info(per_image_table(rows, baseline))
    for line in name_without_error(baseline + rows):
        logger.info(line)
    shown = next(iter(sets.values()))[:3]
    crops = [
        crop_row(pair, [peer, upscaler], how)
        for pair, how in itertools.product(shown, degradations)
    ]
    with tempfile.TemporaryDirectory() as folder:
        made = pathlib.Path(folder) / "crops.png"
        images.write_image(made, images.side_by_side(crops))
        storage.write(workdir / f"{name}.png", made.read_bytes())
    logger.info(
        f"figures: {workdir / name}.csv  crops side by side: {workdir / name}.png"
    )


def crop_row(
    pair: Pair,
    upscalers: list[Upscaler],
    degradation: Degradation = (),
    side: int = 96,
) -> list[tuple[str, np.ndarray]]:
    """Returns the busiest square of one image as each upscaler gives it, then of HR:
    (label with PSNR, crop) each, as `images.side_by_side` takes them."""
    found = upscale_pair(pair, upscalers, degradation)
    hr = found[-1][1]
    side = min(side, *hr.shape[:2])
    top, left = images.busiest_square(hr, side)
    square = np.s_[top : top + side, left : left + side]
    return [(label, image[square]) for label, image in found]


def upscale_pair(
    pair: Pair, upscalers: list[Upscaler], degradation: Degradation = ()
) -> list[tuple[str, np.ndarray]]:
    """Returns one image as each upscaler gives it, then HR: (label with PSNR, image)
    each, all of HR's size."""
    scale = upscalers[0].scale
    lr, hr = pair.load()
    hr = metrics.mod_crop(hr, scale) if lr is None else _fit(lr, hr, scale, pair.name)
    lr = imresize(hr, 1 / scale) if lr is None else lr
    lr = degrade(lr, degradation, pair.name)
    protocol = ", ".join(filter(None, ["ntire", degradation_name(degradation)]))
    found = []
    for upscaler in upscalers:
        sr = upscaler.upscale(images.as_rgb(lr))
        psnr = metrics.counted(metrics.psnr(sr, hr, "ntire", scale))
        label = f"{upscaler.name} {as_text(psnr)} dB ({protocol})"
        found.append((label, sr[: hr.shape[0], : hr.shape[1]]))
    return [*found, (f"original: {pair.name}", hr)]
