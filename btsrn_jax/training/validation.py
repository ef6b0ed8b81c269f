"""Validation: how good the network is, by all images and protocols in one pass.

The device is stopped for the forward passes alone: images are read ahead, and figures
are taken on the host, in threads, while training goes on.
"""

import collections
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from btsrn_jax import evaluation, inference, machine, mesh, metrics
from btsrn_jax.data import Pair, evaluation_sets, origin
from btsrn_jax.errors import InputError
from btsrn_jax.progress import logger
from btsrn_jax.training import snapshots

PROTOCOLS = tuple(metrics.PROTOCOLS)
AHEAD = 4  # images read before their turn
WAITING = 16  # upscaled images whose figures are still to be taken
KEPT_BYTES = 2**29  # of images that later validations need not read again


class Item(NamedTuple):
    """An image that is validated on, under one degradation of its LR."""

    set: str
    """The name of its set."""

    pair: Pair
    """What it is read from."""

    degradation: evaluation.Degradation
    """() for none."""

    @property
    def group(self) -> str:
        """Returns what its figures are a mean of: SET, or SET+jpeg:75."""
        degraded = evaluation.degradation_name(self.degradation)
        return "+".join(filter(None, [self.set, degraded]))

    @property
    def name(self) -> str:
        """Returns GROUP/IMAGE."""
        return f"{self.group}/{self.pair.name}"


@dataclasses.dataclass(frozen=True)
class Figures:
    """What one validation has measured, of the images of all sets."""

    items: list[Item]
    """The images."""

    values: np.ndarray
    """(items, protocols, 2): PSNR as of `metrics.counted` and SSIM, by PROTOCOLS; nan
    where an image has none."""

    snapshots: dict[str, np.ndarray]
    """By the item's name, (h, w, 3) uint8; see `snapshots.draw`."""

    def psnr(self, protocol: str, of_set: str = "") -> dict[str, float]:
        """Returns PSNR under a protocol by the item's name, of one set or of all."""
        found = self.values[:, PROTOCOLS.index(protocol), 0]
        return {
            item.name: float(value)
            for item, value in zip(self.items, found, strict=True)
            if of_set in ("", item.set) and not np.isnan(value)
        }

    @property
    def groups(self) -> list[str]:
        """Returns what means are taken of: each set under each degradation."""
        return list(dict.fromkeys(item.group for item in self.items))

    def means(self) -> dict[str, float]:
        """Returns the mean of each group under each protocol: psnr_PROTOCOL/GROUP and
        ssim_PROTOCOL/GROUP. Without the images that count in no mean; nothing where
        these are all."""
        means = {}
        for group in self.groups:
            mine = [i for i, item in enumerate(self.items) if item.group == group]
            for j, protocol in enumerate(PROTOCOLS):
                psnr, ssim = self.values[mine, j].T
                mean = metrics.mean_psnr(psnr[~np.isnan(psnr)])
                means |= {} if mean is None else {f"psnr_{protocol}/{group}": mean}
                ssim = ssim[~np.isnan(ssim)]
                if ssim.size:
                    means[f"ssim_{protocol}/{group}"] = float(ssim.mean())
        return means


@dataclasses.dataclass(frozen=True)
class Measuring:
    """A validation whose forward passes are done, and figures are being taken."""

    futures: list[Future]
    finish: Callable[[], Figures]

    def done(self) -> bool:
        """Returns True if this process has taken the figures of its images."""
        return all(future.done() for future in self.futures)

    def figures(self) -> Figures:
        """Returns the figures, once all are taken. Collective."""
        for future in self.futures:
            future.result()
        return self.finish()


@dataclasses.dataclass(frozen=True)
class Validation:
    """The images by which a network is judged, and the compiled upscaler for them."""

    sets: Mapping[str, list[Pair]]
    """The pairs of each set, by its name; they were checked."""

    upscale: inference.TiledUpscaler
    """Called with variables and an image."""

    ensemble: bool
    """True where `upscale` averages the eight flips and rotations."""

    config: ConfigDict
    """Of the run."""

    degradations: Sequence[evaluation.Degradation] = ((),)
    """Each image is judged under each of them."""

    kept: dict[int, list[evaluation.Input]] = dataclasses.field(default_factory=dict)
    """Images that were read, by their number."""

    def upscaler(self, variables: Mapping) -> evaluation.Upscaler:
        """Returns these weights as `evaluation` takes them; compiles nothing anew."""
        function = functools.partial(self.upscale, variables)
        name, scale = self.config.model.name, self.config.scale
        return evaluation.Upscaler(name, scale, self.ensemble, function)

    @property
    def items(self) -> list[Item]:
        """The images that training validates on. Of each set the first
        `eval.max_images` count: the same at every step, or scores would not compare."""
        most = self.config.eval.max_images
        return [
            Item(name, pair, degradation)
            for name, pairs in self.sets.items()
            for degradation in self.degradations
            for pair in pairs[:most]
        ]

    def __call__(self, variables: Mapping[str, Any]) -> Measuring:
        """Upscales all images, and returns while figures are taken in threads.

        Collective: every process takes its share of the images, on its own devices.
        """
        if mesh.process_count() > 1:
            variables = jax.tree.map(np.asarray, variables)
        items = self.items
        shown = snapshots.choose([item.group for item in items])
        values = np.full((len(items), len(PROTOCOLS), 2), np.nan)
        sheets = np.zeros((len(shown), *snapshots.SHAPE), np.uint8)
        share = range(jax.process_index(), len(items), mesh.process_count())
        room = threading.Semaphore(WAITING)

        def measure(number, inputs, answers):
            try:
                for image, sr in zip(inputs, answers, strict=True):
                    self._measure(values[number], image, sr)
                if number in shown:
                    sheet = snapshots.draw(inputs[0], answers[0], self.config.scale)
                    sheets[shown.index(number)] = sheet
            finally:
                room.release()

        measurers, futures = ThreadPoolExecutor(machine.cores()), []
        for number, inputs in _ahead(self._read, share):
            answers = [self.upscale(variables, image.lr) for image in inputs]
            room.acquire()
            futures.append(measurers.submit(measure, number, inputs, answers))
        measurers.shutdown(wait=False)

        def finish():
            owner = np.arange(len(items)) % mesh.process_count()
            every = mesh.gather(values)[owner, np.arange(len(items))]
            drawn = mesh.gather(sheets).max(axis=0) if shown else []
            titles = [items[number].name for number in shown]
            return Figures(items, every, dict(zip(titles, drawn, strict=True)))

        return Measuring(futures, finish)

    def _read(self, number):
        """Returns (number, what is upscaled of that image), the deciding protocol's
        first."""
        if number not in self.kept:
            item = self.items[number]
            protocols = dict.fromkeys((self.config.eval.protocol, *PROTOCOLS))
            try:
                found = evaluation.read_inputs(
                    item.pair, self.config.scale, protocols, item.degradation
                )
            except InputError as error:
                raise InputError(f"{item.set}/{error}") from None
            held = [image for inputs in list(self.kept.values()) for image in inputs]
            if sum(x.lr.nbytes + x.hr.nbytes for x in held + found) > KEPT_BYTES:
                return number, found
            self.kept[number] = found
        return number, self.kept[number]

    def _measure(self, values, image, sr):
        for protocol in image.protocols:
            try:
                figures = image.measure(sr, protocol, self.config.scale)
            except InputError:  # all border, which `prepare_validation` lets pass
                if protocol == self.config.eval.protocol:
                    raise
                continue
            values[PROTOCOLS.index(protocol)] = [
                np.nan if figure is None else figure for figure in figures
            ]


def _ahead(function: Callable, items: Iterable) -> Iterator[Any]:
    """Yields what a function returns for each item, in their order; AHEAD of them are
    worked at in threads meanwhile."""
    waiting = collections.deque()
    with ThreadPoolExecutor(min(AHEAD, machine.cores())) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def prepare_validation(
    config: ConfigDict, devices: Mesh, ensemble: bool = False
) -> Validation | None:
    """Lists and checks the evaluation sets of a config; None where it has none.

    Raises:
      InputError: names every image that cannot be used.
    """
    sets = evaluation_sets(config)
    if not sets:
        return None
    for name, pairs in sets.items():
        logger.info(f"{name}: {origin(pairs)}")
    on = devices if mesh.process_count() == 1 else mesh.local()
    upscale = inference.tiled_upscaler(config, on, ensemble)
    return Validation(
        sets, upscale, ensemble, config, evaluation.degradations_of(config)
    )
