"""Local paths, and paths in Cloud Storage buckets, with the same manners.

A path in a bucket is one of `etils.epath`, as Orbax and TFDS take it.
"""

import importlib.util
import logging
import os
import pathlib
from typing import Any

from btsrn_jax.errors import InputError, first_line

BUCKET = "gs://"


def path(place: str | os.PathLike) -> Any:
    """A pathlib.Path, or for gs://BUCKET/FOLDER an epath.Path; InputError where the
    bucket does not answer, and for other kinds of address."""
    if isinstance(place, pathlib.PurePath):  # opened before: a bucket was asked then
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
    except Exception as error:  # of gcsfs, aiohttp and google.auth: many types
        raise InputError(f"cannot reach {text}: {first_line(error)}") from None
    return found


def local(place: str | os.PathLike) -> pathlib.Path:
    """The path of what has to lie on this machine; InputError for one in a bucket."""
    if "://" in os.fspath(place):
        raise InputError(
            f"{place}: a local path was expected; copy it (gcloud storage cp -r) or"
            " mount it"
        )
    return pathlib.Path(place)


def in_bucket(path: Any) -> bool:
    """Whether a path is one in a bucket, where nothing can be appended or renamed in
    one go, but every object appears whole."""
    return os.fspath(path).startswith(BUCKET)


def write(path: Any, data: bytes | str) -> None:
    """Writes a file whole or not at all; its folder is made. OSError names it."""
    data = data.encode() if isinstance(data, str) else data
    if in_bucket(path):
        try:
            path.write_bytes(data)
        except Exception as error:
            raise OSError(f"cannot write {path}: {first_line(error)}") from None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(data)
    temporary.replace(path)


def check_writable_folder(path: pathlib.Path) -> None:
    """Raises InputError where a folder cannot be written to, or cannot be made.

    Args:
      path: the folder; where it is missing, its nearest existing parent is asked.
    """
    existing = path  # as it was given: parents above the working folder may be closed
    while not os.path.exists(existing):
        existing = existing.parent
    if not os.path.isdir(existing) or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {path}: {existing} is no folder to write in")


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
