"""Local paths, and paths in Cloud Storage buckets, used in the same way.

A path in a bucket is one of `etils.epath`, as Orbax and TFDS take it.
"""

import contextlib
import difflib
import functools
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
# Of local paths that etils takes for buckets: /gs/a is gs://a to it.
ROOTS_OF_STORES = ("gs", "s3", "az", "hf")
_unique = itertools.count()


def path(place: str | os.PathLike) -> Any:
    """Returns a pathlib.Path, or an epath.Path for gs://BUCKET/FOLDER.

    A text is expanded as `expand` says; a path is returned as it is.

    Raises:
      InputError: the bucket does not answer, the address is of another kind, or there
        is no such home directory.
    """
    if isinstance(place, pathlib.PurePath):  # made here before: the bucket has answered
        return place
    text = expand(place)
    if "://" not in text:
        return _unambiguous(text)
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
    """Returns the path of a place on this machine; InputError for one in a bucket.

    A text is expanded as `expand` says; a path is returned as it is.
    """
    if "://" in os.fspath(place):
        raise InputError(
            f"{place}: a local path was expected; copy it (gcloud storage cp -r) or"
            " mount it"
        )
    if isinstance(place, pathlib.PurePath):
        return place
    return _unambiguous(expand(place))


def expand(place: str | os.PathLike) -> str:
    """Returns a place with ~ or ~USER at its beginning replaced by that home directory.

    A file or folder that is called so is reached as ./~. A name such as ~draft.png,
    which is no user's and is there, stays as it is.

    Raises:
      InputError: there is no such home directory.
    """
    text = os.fspath(place)
    found = os.path.expanduser(text)
    own = text == "~" or text.startswith("~/")
    if found.startswith("~") and (own or not os.path.lexists(text)):
        raise InputError(
            f"{text}: no home directory {text.partition('/')[0]} is known here; what"
            f" has that name itself is ./{text}"
        )
    return found


def _unambiguous(text):
    """Returns a path whose own text does not begin with ~, so that it may be expanded
    again: pathlib makes "~" of "./~"."""
    found = pathlib.Path(text)
    return found.absolute() if str(found).startswith("~") else found


def split_names(text: str) -> list[str]:
    """Splits a list of names at its commas. Spaces around a name do not count, and ~ is
    expanded.

    A file or folder whose name holds a comma, such as the run of
    `configs/ablation.py:ROW,small`, or begins or ends with a space, is one name.
    """
    names = []
    for part in text.split(","):
        if names and _there(f"{names[-1]},{part}") and not _there(part.strip()):
            names[-1] = f"{names[-1]},{part}"
        else:
            spaced = _there(part) and not _there(part.strip())
            names.append(part if spaced else part.strip())
    return [expand(name) for name in names if name]


def _there(name):
    return os.path.exists(os.path.expanduser(name))


def missing(place: str | os.PathLike) -> str:
    """Returns the message about a file or folder that is not there. It suggests the
    nearest name of those that are there."""
    path = pathlib.Path(place)
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # in a folder that may not be entered, a circle of links
        return f"cannot find {place}: {error.strerror}"
    if os.path.islink(path):
        return f"{place} is a link to {os.readlink(path)}, which is not there"
    parent = next(p for p in (*path.parents, path) if os.path.isdir(p) or p == path)
    rest = path.relative_to(parent).parts
    try:
        near = difflib.get_close_matches(rest[0], os.listdir(parent), n=1)
    except (OSError, IndexError):
        near = []
    hint = ""
    if near:
        whole = parent.joinpath(near[0], *rest[1:])
        found = whole if os.path.exists(whole) else parent / near[0]
        hint = f"; did you mean {found}?"
    return f"no such file or folder: {place}{hint}"


def in_bucket(path: Any) -> bool:
    """Returns True for a path in a bucket.

    Nothing can be appended there, and no folder renamed in one go, but every object
    appears whole.
    """
    return os.fspath(path).startswith(BUCKET)


def check_array_path(path: Any) -> None:
    """Raises InputError for a folder whose arrays could not be read again: Orbax, TFDS
    or TensorStore take its path for another one.

    Args:
      path: as of `path`; it need not exist.
    """
    text = os.fspath(path) if in_bucket(path) else os.path.realpath(path)
    shown = ascii(os.fspath(path))[1:-1].replace(r"\\", "\\")
    reason = None
    if in_bucket(path):
        taken = next((c for c in "*?[]#\\" if c in text), None)
        reason = taken and f"{taken} is taken for a pattern in a bucket"
    elif "\\" in text:
        reason = "\\ is taken for / where arrays are kept"
    elif any("\ud800" <= c <= "\udfff" for c in text):
        reason = "the path is not text, as arrays need it"
    elif text.split("/")[1] in ROOTS_OF_STORES:
        reason = f"/{text.split('/')[1]}/ is taken for a bucket where arrays are kept"
    if reason:
        raise InputError(f"{shown}: {reason}; another folder was expected")


def literal(path: Any) -> Any:
    """Returns a path in which Orbax and TFDS take no character for a pattern.

    etils, by which they list folders, globs the folder's own name as well: in
    `proj [2026]` it finds nothing, in `a*` the files of `ab`, too.
    """
    return path if in_bucket(path) else _literal_path()(path)


@functools.cache
def _literal_path():
    from etils import epath

    class LiteralPath(type(epath.Path("/"))):
        def glob(self, pattern):
            return map(type(self), pathlib.Path(self).glob(pattern))

    return LiteralPath


def is_there(path: Any) -> bool:
    """Returns True if a file or a folder is there.

    Raises:
      OSError: it may be there, and cannot be asked for: a folder above it may not be
        searched, a disk does not answer. Python's own `exists` can say False then.
    """
    try:
        if in_bucket(path):
            return path.exists()
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        raise
    except Exception as error:  # as in `path`
        raise OSError(f"cannot reach {path}: {first_line(error)}") from None
    return True


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


def check_folder(path: pathlib.Path) -> None:
    """Raises InputError where no folder lies at a path."""
    if not os.path.isdir(path):  # pathlib's is_dir raises without permission
        raise InputError(
            f"{path} is no folder" if os.path.exists(path) else missing(path)
        )


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
    for file in files(source):
        (target / file.relative_to(source)).write_bytes(file.read_bytes())
    source.rmtree()


def files(folder: Any) -> Iterator[Any]:
    """Yields all files in a folder and its subfolders; raises OSError where it cannot
    list them."""
    for path in folder.iterdir():
        yield from files(path) if path.is_dir() else [path]
