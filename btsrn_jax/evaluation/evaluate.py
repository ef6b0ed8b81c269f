"""Sets x protocols -> figures, tables, CSV, images."""

import functools
import logging
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from btsrn_jax import images, inference, metrics, storage
from btsrn_jax.data import Pair, check_pair
from btsrn_jax.errors import InputError
from btsrn_jax.evaluation.figures import Row, mean_row, per_image_table, write_csv
from btsrn_jax.progress import progress_bar
from btsrn_jax.resize import imresize


class Upscaler(NamedTuple):
    """What is evaluated: enlarge(lr, progress=None) -> sr, both (h, w, 3) uint8, and
    its labels; progress(done, total) is called with LR pixels."""

    name: str
    scale: int
    ensemble: bool
    enlarge: Callable


def evaluate_set(
    set_name: str,
    pairs: list[Pair],
    subject: Upscaler,
    protocols: Iterable[str],
    save_images: pathlib.Path | None = None,
    progress: bool = True,
) -> list[Row]:
    """Evaluates every image of a set under every protocol.

    LR that is not given is made from HR by `imresize`: once for equal sizes, so that
    protocols that crop alike share one enlargement.

    Returns:
      A row per image and protocol, then the mean of each protocol.
    """
    rules = {name: metrics.get_protocol(name) for name in protocols}
    rows = []
    bar = progress_bar(
        desc=set_name,
        total=len(pairs),
        bar_format="{l_bar}{bar}| {n:.2f}/{total} images, {remaining} left",
        delay=2,
        disable=not progress,
        leave=False,
    )
    for number, pair in enumerate(pairs):
        found, sr = _evaluate_pair(set_name, pair, subject, rules, bar)
        rows += found
        if save_images:
            images.write_image(save_images / f"{pair.name}.png", sr)
        bar.update(number + 1 - bar.n)
    bar.close()
    return rows + [mean_row(rows, protocol) for protocol in rules]


def _evaluate_pair(set_name, pair, subject, rules, bar):
    """The rows of one image, and its enlargement, of HR's size if LR was made."""
    lr_given, hr_full = pair.load()
    inputs = {
        name: _inputs(lr_given, hr_full, subject.scale, rule.mod_crop, pair.name)
        for name, rule in rules.items()
    }
    sizes = {hr.shape[:2] for _, hr in inputs.values()}
    enlarged, rows = {}, []  # by HR size
    for protocol, (lr, hr) in inputs.items():
        size = hr.shape[:2]
        if size not in enlarged:
            if lr is None:
                lr = imresize(hr, 1 / subject.scale)
            start = bar.n

            def advance(done, total, start=start):
                bar.update(start + done / total / len(sizes) - bar.n)

            enlarged[size] = subject.enlarge(images.as_rgb(lr), advance)
        sr = enlarged[size]
        try:
            values = [
                measure(sr, hr, protocol, subject.scale)
                for measure in (metrics.psnr, metrics.ssim)
            ]
        except InputError as error:
            raise InputError(f"{set_name}/{pair.name}: {error}") from None
        rows.append(Row(set_name, pair.name, *_labels(subject), protocol, *values))
    first = next(iter(enlarged.values()))
    return rows, first[: hr_full.shape[0], : hr_full.shape[1]]


def _labels(subject):
    return subject.scale, subject.name, int(subject.ensemble)


def _inputs(lr, hr, scale, mod_crop, name):
    if lr is None:
        return None, metrics.mod_crop(hr, scale) if mod_crop else hr
    return lr, _fit(lr, hr, scale, name)


def _fit(lr, hr, scale, name):
    try:
        return check_pair(lr, hr, scale)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def network_upscaler(
    name: str, config: Mapping, variables: Mapping, devices, ensemble: bool
) -> Upscaler:
    """A trained network, for evaluation on a mesh."""
    enlarge = inference.tiled_upscaler(config, devices, ensemble)
    function = functools.partial(enlarge, variables)
    return Upscaler(name, config["scale"], ensemble, function)


def bicubic_upscaler(scale: int) -> Upscaler:
    """What every table starts with."""
    return Upscaler("bicubic", scale, False, inference.make_bicubic(scale))


def compare(
    subject: Upscaler,
    sets: Mapping[str, list[Pair]],
    protocols: list[str],
    workdir: pathlib.Path,
    name: str,
) -> None:
    """A network against bicubic on whole sets: a table, logged, NAME.csv, and crops of
    the first images as NAME.png, both in `workdir`."""
    peer = bicubic_upscaler(subject.scale)
    rows, baseline = [], []
    for set_name, pairs in sets.items():
        rows += evaluate_set(set_name, pairs, subject, protocols)
        baseline += evaluate_set(set_name, pairs, peer, protocols)
    write_csv(workdir / f"{name}.csv", baseline + rows)
    log = logging.getLogger("btsrn").info
    log(per_image_table(rows, baseline))
    crops = [crop_row(pair, [peer, subject]) for pair in next(iter(sets.values()))[:3]]
    with tempfile.TemporaryDirectory() as folder:
        made = pathlib.Path(folder) / "crops.png"
        images.write_image(made, images.side_by_side(crops))
        storage.write(workdir / f"{name}.png", made.read_bytes())
    log(f"figures: {workdir / name}.csv  crops side by side: {workdir / name}.png")


def crop_row(pair: Pair, subjects: list[Upscaler], side: int = 96) -> list:
    """[(label with PSNR, crop)] of one image for `pictures.side_by_side`: its busiest
    square as each subject gives it, then HR."""
    scale = subjects[0].scale
    lr, hr = pair.load()
    hr = metrics.mod_crop(hr, scale) if lr is None else _fit(lr, hr, scale, pair.name)
    lr = imresize(hr, 1 / scale) if lr is None else lr
    side = min(side, *hr.shape[:2])
    top, left = images.busiest_square(hr, side)
    square = np.s_[top : top + side, left : left + side]
    row = []
    for subject in subjects:
        sr = subject.enlarge(images.as_rgb(lr))
        psnr = metrics.psnr(sr, hr, "ntire", scale)
        row.append((f"{subject.name} {psnr:.2f} dB (ntire)", sr[square]))
    return [*row, (f"original: {pair.name}", hr[square])]
