"""Compiled programs, kept on disk for later processes: JAX's cache, made safe.

XLA runs a program that was compiled for another processor and only logs an error, so
the folder has a name for each. JAX writes its files in place, and never again: one that
was cut short by `kill -9` would be read in vain for ever. Here it is removed.
"""

import contextlib
import importlib.metadata
import os
import pathlib
import re
import warnings
from collections.abc import Iterator

import jax
import numpy as np

from btsrn_jax import machine, mesh, storage
from btsrn_jax.errors import InputError
from btsrn_jax.progress import logger

LIMIT = 2_000_000_000  # bytes of all folders together
SWITCH = "BTSRN_COMPILATION_CACHE"
# What JAX warns of, and goes on without its cache.
TROUBLE = r"(?s)Error (reading|writing) persistent compilation cache entry for '(.+?)'"


def keep_compiled() -> None:
    """Has JAX keep what it compiles in the cache folder, for later processes.

    Only entry points call this, before anything large is compiled. It is collective
    where a run has several processes: these keep programs only in a folder that all of
    them see, since one that has to compile may wait for the others to do so as well.
    What the user has set for JAX stays, BTSRN_COMPILATION_CACHE=0 turns all of it off,
    and a folder that cannot be written to is passed over with one line.

    Raises:
      InputError: BTSRN_COMPILATION_CACHE or BTSRN_CACHE is not understood.
    """
    folder, first = _find_folder(), True
    if jax.distributed.is_initialized():  # else no device need be awake for the answer
        folder = folder if _all_see(folder) else None
        first = mesh.is_first()
    if folder is None:
        return
    if first:
        trim(folder.parent, LIMIT)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # A tile's program takes less than the second from which JAX keeps them.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    if "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES" not in os.environ:
        # XLA's own caches of GPUs fail where nothing can be written.
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    _attend(folder, first)


def _find_folder() -> pathlib.Path | None:
    """Returns the folder of this user, jaxlib, platform and processor, which is there
    and can be written to; None where nothing is to be kept."""
    switch = os.environ.get(SWITCH, "")
    if switch not in ("", "0", "1"):
        raise InputError(f"{SWITCH} is {switch!r}: 0 or 1 was expected")
    ours = (
        switch != "0"
        and jax.config.jax_compilation_cache_dir is None
        and jax.config.jax_enable_compilation_cache
        and jax.config.jax_compilation_cache_max_size == -1
    )
    cache = machine.cache_dir() if ours else None
    if cache is None:
        return None
    kind = "accelerator" if machine.has_accelerator() else "cpu"
    version = importlib.metadata.version("jaxlib")
    folder = cache / "compiled" / f"{version}-{kind}-{machine.processor_digest()}"
    try:
        storage.check_writable_folder(folder)
        # For this user alone: whoever writes there has the programs of others run.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (InputError, OSError) as error:
        _pass_over(error)
        return None
    return folder


def _pass_over(reason: object) -> None:
    logger.info(f"compiled programs are not kept: {reason} ({SWITCH}=0: do not try)")


def _all_see(folder: pathlib.Path | None) -> bool:
    """Returns True in every process, or False in every process: whether the folders of
    all of them are one and the same. Collective."""
    token = int.from_bytes(os.urandom(4), "little")
    token = int(mesh.gather(np.uint32(token))[0, 0])
    mark = folder and folder / f"seen-{token}"
    if mark and mesh.is_first():
        with contextlib.suppress(OSError):
            mark.touch()
    mesh.barrier()
    seen = mark is not None and mark.exists()
    same = bool(mesh.gather(np.bool_(seen)).all())
    if mark and mesh.is_first():
        with contextlib.suppress(OSError):
            mark.unlink()
        if not same:
            _pass_over(f"{folder} is not the same folder for all processes")
    return same


def trim(folder: pathlib.Path, limit: float) -> None:
    """Removes files of a folder and its subfolders, those first that were not used for
    the longest time, until they have at most `limit` bytes.

    Other processes may work there: one that reads a file which is removed under it
    compiles anew.
    """
    found = sorted(_used(folder))
    excess = sum(size for _, size, _ in found) - limit
    for _, size, path in found:
        if excess <= 0:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
            excess -= size


def _used(folder: pathlib.Path) -> Iterator[tuple[float, int, str]]:
    """Yields (time of last use, bytes, path) of all files."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            with contextlib.suppress(OSError):
                about = os.lstat(path)
                yield max(about.st_atime, about.st_mtime), about.st_size, path


def _attend(folder: pathlib.Path, writes: bool) -> None:
    """Removes what JAX cannot read, so that it is written anew, and says once where it
    cannot write. Without this JAX would warn of both, in lines of its own.

    Args:
      folder: of the programs.
      writes: True in the first process of a run, which alone writes.
    """
    shown, told = warnings.showwarning, False

    def show(message, *about, **more):
        nonlocal told
        trouble = re.match(TROUBLE, str(message))
        if trouble is None:
            shown(message, *about, **more)
            return
        if writes:
            with contextlib.suppress(OSError):
                for path in folder.glob(f"{trouble[2]}-*-cache"):
                    path.unlink(missing_ok=True)
        if trouble[1] == "writing" and not told:
            told = True
            _pass_over(str(message)[trouble.end() :].lstrip(": "))

    warnings.filterwarnings("always", TROUBLE)
    warnings.showwarning = show
