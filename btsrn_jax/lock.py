"""One writer a folder: a lock file says who writes there, and shows that it lives.

The file is made exclusively and whole, as JSON. Its date is the heartbeat. A lock is
abandoned, and is taken over, where (1 to 3: `owner.is_gone`)

  1. its process ran on this machine and is gone: another process with its number has
     another start time;
  2. this machine was started anew since;
  3. Slurm has queued its job again, so that the earlier attempt is over;
  4. for all others, such as a process on another host: it was without a heartbeat for
     `SILENT_SECONDS`.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from btsrn_jax import owner, storage
from btsrn_jax.errors import InputError
from btsrn_jax.progress import logger

HEARTBEAT_SECONDS = 20.0
SILENT_SECONDS = 120.0

_held: list["_Lock"] = []  # by this process


@contextlib.contextmanager
def hold(folder: Any, work: str) -> Iterator[None]:
    """Keeps other processes from the same work in a folder, while the context lasts.

    The folder is made if it is missing, and removed again if it is empty at the end. A
    process that gave no sign of life, so that another one took its lock over, ends
    itself. A bucket has no locks: a warning says that nothing protects it.

    Args:
      folder: a path, here or in a bucket.
      work: one word, such as "run"; the file is called WORK.lock.

    Raises:
      InputError: another process holds the lock, or nothing may be written here.
    """
    if storage.in_bucket(folder):
        logger.warning(
            f"{folder}: nothing keeps a second {work} out of a bucket; start one only"
        )
        yield
        return
    lock = _acquire(folder, work)
    _held.append(lock)
    try:
        yield
    finally:
        lock.release()
        _held.remove(lock)


def check(folder: Any, work: str) -> None:
    """Raises InputError if another process is known to hold the lock of a folder.

    For processes that do not take it themselves. The lock of a process on another host
    is watched for a heartbeat first.
    """
    path = pathlib.Path(folder) / f"{work}.lock"
    found = None if storage.in_bucket(folder) else _read(path)
    if found is None:
        return
    here = owner.describe(path.parent)
    gone = owner.is_gone(found.about, here)
    if gone is False or (gone is None and _beats(found)):
        raise InputError(_refusal(found, here, _clock_of(path.parent), work))


def confirm() -> None:
    """Ends this process if another one has taken over a lock of it.

    To be called before something is written that the other one would lose.
    """
    for lock in _held:
        lock.beat()


def release_all() -> None:
    """Removes all locks of this process: to be called before `os._exit`."""
    for lock in list(_held):
        lock.release()


class _Lock:
    """A lock of this process; a thread touches its file until it is released."""

    def __init__(self, path, data, made):
        self._path, self._data, self._made = path, data, made
        self._mutex, self._released = threading.Lock(), threading.Event()
        threading.Thread(target=self._live, daemon=True).start()

    def _live(self):
        while not self._released.wait(HEARTBEAT_SECONDS):
            self.beat()

    def beat(self):
        with self._mutex:
            if self._released.is_set():
                return
            try:
                if _read(self._path) is None:  # somebody removed it by hand
                    _make(self._path, self._data)
                found = _read(self._path)
                if found is None or found.data == self._data:
                    os.utime(self._path)
                    return
            except OSError:  # the file server is away for a moment, or the folder
                return
        logger.error(
            f"error: {self._path} is now of {found.who()}: this process gave no sign"
            " of life for too long, and ends, so that no two write here"
        )
        release_all()
        os._exit(1)

    def release(self):
        with self._mutex, contextlib.suppress(OSError):
            if self._released.is_set():
                return
            self._released.set()
            found = _read(self._path)
            if found and found.data == self._data:
                self._path.unlink()
            for folder in self._made:
                folder.rmdir()  # raises where something lies in it


@dataclasses.dataclass(frozen=True)
class _Found:
    """A lock file as it was read."""

    path: pathlib.Path
    data: bytes
    beaten: float
    """Its date, by the clock of its file server."""

    @property
    def about(self) -> dict:
        """What it says of its process; {} where it is damaged."""
        with contextlib.suppress(ValueError):
            about = json.loads(self.data)
            return about if isinstance(about, dict) else {}
        return {}

    @property
    def digest(self) -> str:
        """No other lock has it."""
        return hashlib.sha256(self.data).hexdigest()[:16]

    def who(self) -> str:
        process, host, since = (
            self.about.get(name, "?") for name in ("process", "host", "since")
        )
        return f"process {process} on {host}, since {since}"


def _acquire(folder, work, attempts=9):
    """Returns the lock of a folder, once this process has it."""
    folder = pathlib.Path(folder)
    storage.check_writable_folder(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    about = owner.describe(folder)
    data = (json.dumps(about, indent=2) + "\n").encode()
    path = folder / f"{work}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _take(path, data, about, work)
    except FileNotFoundError:  # another process has just removed its empty folder
        if not attempts:
            raise
        return _acquire(folder, work, attempts - 1)
    return _Lock(path, data, made)


def _take(path, data, about, work):
    """Returns when the lock file is of this process; raises InputError where another
    one lives.

    An abandoned lock is replaced by whoever holds a second lock, named after the
    digest of the first. Whoever comes later finds another lock in its place.
    """
    while True:
        with contextlib.suppress(FileExistsError):
            _make(path, data)
            return
        found = _read(path)
        if found is None:
            continue
        if found.data == data:  # NFS has made it, and told so twice
            return
        now = _clock_of(path.parent)
        gone = owner.is_gone(found.about, about)
        if gone is None:
            gone = now - found.beaten >= SILENT_SECONDS and not _beats(found)
        if not gone:
            raise InputError(_refusal(found, about, now, work))
        claim = path.with_name(f"{path.name}.{found.digest}")
        _take(claim, data, about, work)
        still = _read(path)
        if still and still.data == found.data:
            claim.replace(path)
            logger.info(f"{path.parent}: taken over from {found.who()}, which is gone")
            return
        claim.unlink()


def _make(path, data):
    """Makes a lock file; raises FileExistsError where there is one."""
    part = path.with_name(f".btsrn-{uuid.uuid4().hex}.part")
    try:
        part.write_bytes(data)
        try:
            os.link(part, path)  # nobody ever reads half of it
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            with path.open("xb") as file:
                file.write(data)
    finally:
        part.unlink(missing_ok=True)


def _read(path):
    """Returns what is found at a path; None where nothing is."""
    try:
        with path.open("rb") as file:  # not `stat`: NFS would answer from its cache
            return _Found(path, file.read(), os.fstat(file.fileno()).st_mtime)
    except FileNotFoundError:
        return None


def _clock_of(folder):
    """Returns the time by the clock that dates the files of a folder."""
    probe = folder / f".btsrn-{uuid.uuid4().hex}.part"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _beats(found):
    """Returns True if a lock shows life within a little more than one heartbeat.

    On some file systems the clocks that date files are those of the hosts, so that a
    living lock can look old.
    """
    logger.info(f"{found.path}: waiting for a sign of life of {found.who()}")
    end = time.monotonic() + 1.25 * HEARTBEAT_SECONDS
    while time.monotonic() < end:
        time.sleep(HEARTBEAT_SECONDS / 20)
        latest = _read(found.path)
        if latest is None or latest.data != found.data:
            return False  # the caller looks again
        if latest.beaten != found.beaten:
            return True
    return False


def _refusal(found, here, now, work):
    age = max(0, round(now - found.beaten))
    folder = found.path.parent
    text = (
        f"{folder} is in use by another {work}: {found.who()}, alive {age} s ago. Wait"
        " for its end, end it, or take another folder"
    )
    if all(found.about.get(name) == here[name] for name in ("system", "folder")):
        return text
    left = max(1, round(SILENT_SECONDS - age))
    return f"{text}. If it is gone, try again in {left} s, or remove {found.path}"
