"""Local paths, and paths in Cloud Storage buckets, used in the same way.

A path in a bucket is one of `etils.epath`, as Orbax and TFDS take it.
"""

import contextlib
import importlib.util
import itertools
import json
import logging
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from btsrn_jax.errors import InputError, first_line

BUCKET = "gs://"
_unique = itertools.count()


def path(place: str | os.PathLike) -> Any:
    """Returns a pathlib.Path, or an epath.Path for gs://BUCKET/FOLDER.

    Raises:
      InputError: the bucket does not answer, or the address is of another kind.
    """
    if isinstance(place, pathlib.PurePath):  # made here before: the bucket has answered
        return place
    text = os.fspath(place)
    if "://" not in text:
        return pathlib.Path(text)
    if not text.startswith(BUCKET):
        raise InputError(
            f"{text}: a local path or gs://BUCKET/FOLDER was expected; other stores"
            " have to be mounted"
        )
    if importlib.util.find_spec("gcsfs") is None:
        raise InputError(f"{text}: buckets need pip install 'btsrn-jax[gcs]'")
    from etils import epath

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # tracebacks, and retries
    found = epath.Path(text)
    try:
        found.exists()
    except Exception as error:  # gcsfs, aiohttp and google.auth raise many types
        raise InputError(f"cannot reach {text}: {first_line(error)}") from None
    return found


def local(place: str | os.PathLike) -> pathlib.Path:
    """Returns the path of a place on this machine; InputError for one in a bucket."""
    if "://" in os.fspath(place):
        raise InputError(
            f"{place}: a local path was expected; copy it (gcloud storage cp -r) or"
            " mount it"
        )
    return pathlib.Path(place)


def in_bucket(path: Any) -> bool:
    """Returns True for a path in a bucket.

    Nothing can be appended there, and no folder renamed in one go, but every object
    appears whole.
    """
    return os.fspath(path).startswith(BUCKET)


def write(path: Any, data: bytes | str) -> None:
    """Writes a file whole or not at all; its folder is made if it is missing.

    Raises:
      OSError: it cannot be written.
    """
    data = data.encode() if isinstance(data, str) else data
    if not in_bucket(path):
        with replacing(path) as file:
            file.write(data)
        return
    try:
        path.write_bytes(data)
    except Exception as error:  # as in `path`
        raise OSError(f"cannot write {path}: {first_line(error)}") from None


def to_json(value: Any, indent: int | None = None) -> str:
    """Returns JSON that every program can read: numbers that are not finite, which
    JSON lacks, become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value):
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    return [*map(_finite, value)] if isinstance(value, list | tuple) else value


def from_json(text: str) -> Any:
    """Returns what JSON holds. NaN and Infinity, as older files have them, are None.

    Raises:
      ValueError: it is no JSON.
    """
    return json.loads(text, parse_constant=lambda _: None)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """Yields a new local file that takes the name `path` once it is complete.

    Killed at any moment, this leaves the old file, the new one, or a hidden `.part`
    beside it. Folders are made if they are missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".btsrn-{os.getpid()}-{next(_unique)}.part"
    try:
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the name and no data
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable_folder(path: pathlib.Path) -> None:
    """Raises InputError if a folder cannot be written to, or cannot be made.

    Args:
      path: the folder; if it is missing, its nearest existing parent is asked.
    """
    existing = path  # as it was given: parents above the working folder may be closed
    while not os.path.exists(existing):
        existing = existing.parent
    if not os.path.isdir(existing) or not os.access(existing, os.W_OK | os.X_OK):
        place = existing.absolute()
        raise InputError(f"cannot write {path}: {place} is no folder to write in")


def move(source: Any, target: Any) -> None:
    """Renames a folder; in a bucket its objects are copied, then removed."""
    if not in_bucket(source):
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        return
    for file in _files(source):
        (target / file.relative_to(source)).write_bytes(file.read_bytes())
    source.rmtree()


def _files(folder):
    for path in folder.iterdir():
        yield from _files(path) if path.is_dir() else [path]
