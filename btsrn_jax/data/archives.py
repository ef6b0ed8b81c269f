"""Archives of a data set: downloaded, continued where a download broke, and checked."""

import hashlib
import http.client
import shutil
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from btsrn_jax import lock
from btsrn_jax.errors import InputError, first_line
from btsrn_jax.progress import progress_bar


class Archive(NamedTuple):
    """One file to download, and how to know that it is whole.

    `size` is in bytes, `sha256` in hexadecimal digits.
    """

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The file's name, as in the address."""
        return self.url.rpartition("/")[2]


def collect(archives: Sequence[Archive], store: Path, target: Path) -> None:
    """Makes sure that all archives lie in a folder, whole.

    Those that are there already are used in place; the others are downloaded.

    Args:
      archives: what is needed.
      store: the folder of the archives.
      target: the folder that is to hold their data, about as large as they are.

    Raises:
      InputError: an archive is damaged or cannot be had, another process downloads
        into `store`, or the disk has too little room for what is missing in `store` and
        for the data in `target`.
    """
    here = [archive for archive in archives if (store / archive.name).exists()]
    missing = [archive for archive in archives if archive not in here]
    download = sum(archive.size for archive in missing)
    data = sum(archive.size for archive in archives)
    print(
        f"{gigabytes(download)} to download into {store}, "
        f"about {gigabytes(data)} to write into {target}",
        flush=True,
    )
    if store.stat().st_dev == target.stat().st_dev:
        data += download
    for folder, size in ((store, download), (target, data)):
        if (free := shutil.disk_usage(folder).free) < size:
            raise InputError(
                f"{folder} has {gigabytes(free)} free of the {gigabytes(size)} needed"
            )
    for archive in here:  # first, so that damage is told before hours of download
        _check(archive, store / archive.name)
    if missing:
        with lock.hold(store, "download"):
            for archive in missing:
                _download(archive, store / archive.name)
                _check(archive, store / archive.name)


def _check(archive, path):
    """Raises InputError if a file has not the size and the SHA-256 of its archive."""
    digest, size = hashlib.sha256(), path.stat().st_size
    if size == archive.size:
        with path.open("rb") as file, bytes_bar(f"check {path.name}", size) as bar:
            while block := file.read(1 << 20):
                digest.update(block)
                bar.update(len(block))
    if digest.hexdigest() != archive.sha256:
        found = f"SHA-256 {digest.hexdigest()}" if size == archive.size else f"{size:,}"
        raise InputError(
            f"{path} is damaged (remove it to have it downloaded): expected "
            f"{archive.size:,} bytes with SHA-256 {archive.sha256}, found {found}"
        )


def _download(archive, path):
    """Downloads to `path`. A download that broke is continued by the next call."""
    part = path.with_name(f"{path.name}.part")
    part.touch()
    # A whole `.part` was never checked and renamed: start over.
    done = part.stat().st_size % archive.size
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={done}-"})
    reason = "the connection was closed"
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            # A server that knows no ranges sends the file from its start.
            done = done if response.status == 206 else 0
            bar = bytes_bar(f"download {path.name}", archive.size)
            with bar, part.open("ab" if done else "wb") as file:
                bar.update(done)
                while block := response.read(1 << 20):
                    file.write(block)
                    bar.update(len(block))
    except (OSError, http.client.HTTPException) as error:
        reason = first_line(error)
    if (size := part.stat().st_size) != archive.size:
        raise InputError(
            f"no {path.name} in {path.parent}, and its download from {archive.url} "
            f"stopped at {size:,} bytes ({reason}): run again to continue, or put it "
            f"there ({archive.size:,} bytes with SHA-256 {archive.sha256})"
        )
    part.replace(path)


def gigabytes(size: int) -> str:
    """Returns a number of bytes as people read it, such as "4.3 GB"."""
    return f"{size / 1e9:.1f} GB"


def bytes_bar(what: str, size: int) -> tqdm:
    """Returns a progress bar that counts to `size` bytes."""
    return progress_bar(desc=what, total=size, unit="B", unit_scale=True)
