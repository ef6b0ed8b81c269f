"""Image files: which of a folder's files they are, and their pixels in 8 bits, the form
in which data and metrics use them.

One walk serves all commands. Left out, and counted in one line: what is hidden, what
file managers and servers put beside pictures, what this program wrote itself, and files
of other kinds.
"""

import collections
import contextlib
import dataclasses
import functools
import os
import pathlib
import re

import numpy as np

from btsrn_jax import storage
from btsrn_jax.errors import InputError
from btsrn_jax.images import heif
from btsrn_jax.images.decode import SUFFIXES, read_picture
from btsrn_jax.images.encode import to_8_bits, write_picture
from btsrn_jax.images.picture import Picture
from btsrn_jax.progress import logger

# Folders of thumbnails, of deleted files and of archives' metadata, that do not begin
# with a dot: of Synology, QNAP, macOS, Windows, Linux and galleries.
_CLUTTER = {
    "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot",
    "@sharebin", "__macosx", "network trash folder", "temporary items", "$recycle.bin",
    "recycler", "system volume information", "lost+found", "__pycache__", "thumbs",
    "thumbnails", "_thumbs", "_thumbnails",
}  # fmt: skip
# What lies in folders that this program writes: a run, an export, a report.
_WRITTEN = (
    {"config.json", "checkpoints"},
    {"config.json", "metrics.jsonl"},
    {"config.json", "model.safetensors"},
    {"index.html", "report.md"},
)
OUTPUTS = ".btsrn-outputs"  # lies in a folder of pictures that this program wrote


@dataclasses.dataclass(frozen=True)
class Walk:
    """What lies in a folder and its subfolders."""

    files: list[pathlib.Path]
    """The images, sorted."""

    others: list[pathlib.Path]
    """The files of other kinds, sorted."""

    empty: list[pathlib.Path]
    """The folders that hold neither files nor folders, sorted."""

    left_out: dict[str, list[str]]
    """The names of hidden files and of folders, by the reason why they do not count."""

    errors: list[OSError]
    """One for each folder that may not be read."""

    def describe(self) -> str:
        """Returns what was left out, and why, in words; "" for nothing."""
        parts = []
        for kind, names in sorted(self.left_out.items()):
            if len(names) > 1:
                kind = re.sub("file|folder", r"\g<0>s", kind, count=1)
            which = "" if "hidden file" in kind else f" ({_some(sorted(names))})"
            parts.append(f"{len(names)} {kind}{which}")
        if self.others:
            kinds = sorted({path.suffix.lower() or path.name for path in self.others})
            number = len(self.others)
            files = f"{number} file{'s' * (number > 1)} of other kinds"
            parts.append(f"{files} ({_some(kinds)})")
        return ", ".join(parts)


def walk_folder(folder: pathlib.Path) -> Walk:
    """Looks through a folder and its subfolders.

    Linked folders are followed. Each folder is visited once, under its own name if it
    lies here; a link that leads back to where the walk came from is left out.
    """
    folder = pathlib.Path(folder)
    home = os.path.realpath(folder)
    found = Walk([], [], [], collections.defaultdict(list), [])
    visited, links = set(), [folder]
    for link in links:  # grows: links wait until all that is no link was visited
        target = os.path.realpath(link)
        leads_back = pathlib.Path(target) in pathlib.Path(home).parents
        if target in visited or leads_back:
            found.left_out["linked folder seen already"].append(link.name)
        else:
            links += sorted(_visit(link, found, visited))
    found.files.sort()
    found.others.sort()
    found.empty.sort()
    return found


def _visit(folder, found, visited):
    """Takes what lies below a folder; yields the links to folders."""
    suffixes = _suffixes()
    for parent, folders, names in os.walk(folder, onerror=found.errors.append):
        visited.add(os.path.realpath(parent))
        kept = []
        for name in sorted(folders):
            path = pathlib.Path(parent, name)
            if kind := _folder_kind(path):
                found.left_out[kind].append(name)
            elif os.path.islink(path):
                yield path
            elif os.path.realpath(path) not in visited:
                kept.append(name)
        if not folders and not names:
            found.empty.append(pathlib.Path(parent))
        folders[:] = kept
        for name in names:
            path = pathlib.Path(parent, name)
            if name.startswith("."):
                if name != OUTPUTS:
                    found.left_out["hidden file"].append(name)
            elif path.suffix.lower() in suffixes:
                found.files.append(path)
            else:
                found.others.append(path)


def _folder_kind(path):
    """Returns why a folder is left out; None if it is not."""
    if path.name.startswith("."):
        return "hidden folder"
    if path.name.lower() in _CLUTTER or path.name.startswith(".Trash"):
        return "folder of thumbnails or deleted files"
    if os.path.lexists(path / OUTPUTS):
        return "folder of upscaled pictures"
    if any(all(os.path.exists(path / name) for name in names) for names in _WRITTEN):
        return "folder with a run, an export or a report"
    return None


def _suffixes():
    return (*SUFFIXES, *heif.readable_suffixes())


def _some(names, most=5):
    names = list(dict.fromkeys(names))
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def find_images(
    folder: pathlib.Path, unreadable: list[InputError] | None = None
) -> list[pathlib.Path]:
    """Returns all image files in a folder and its subfolders, sorted by path.

    Images are told by their suffix. What else lies there is left out, as of
    `walk_folder`, and counted in one line of the log.

    Args:
      folder: where to look.
      unreadable: if given, takes an InputError for each folder that may not be read,
        and the rest is returned.

    Raises:
      InputError: there is no such folder, it holds no images, or part of it may not be
        read and `unreadable` is None.
    """
    folder = pathlib.Path(folder)
    storage.check_folder(folder)
    walk = walk_folder(folder)
    errors = [
        InputError(f"cannot read folder {e.filename}: {e.strerror}")
        for e in walk.errors
    ]
    if unreadable is not None:
        unreadable.extend(errors)
    elif errors:
        raise errors[0]
    left_out = walk.describe()
    if not walk.files and not errors:
        also = f"; left out: {left_out}" if left_out else ""
        looked_for = " ".join(_suffixes())
        raise InputError(f"no images in {folder} (looked for {looked_for}{also})")
    if left_out:
        number = len(walk.files)
        images = f"{number} image{'s' * (number != 1)}"
        _say_once(f"{folder}: {images}; left out: {left_out}")
    return walk.files


@functools.cache
def _say_once(line):
    """Logs a line, unless this command has: several parts of one walk a folder."""
    logger.info(line)


def mark_outputs(folder: pathlib.Path) -> None:
    """Makes a folder for pictures that this program writes, and marks it, so that no
    later command takes them for its input when it walks a folder above. Where that is
    impossible, nothing happens: writing the pictures will tell why.

    A folder that holds something already may hold pictures of the user's: it is left
    as it is, and of the path below it the first folder that is missing is marked.
    """
    missing = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    text = "Written by btsrn: no input, unless this very folder is named.\n"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if missing or not os.listdir(folder):
            storage.write((missing or [folder])[-1] / OUTPUTS, text)


def read_image(path: pathlib.Path, notes: list[str] | None = None) -> np.ndarray:
    """Reads an image file as 8 bits without alpha.

    Args:
      path: of a PNG, JPEG, WebP, TIFF or BMP file.
      notes: if given, takes a phrase for each thing that was done on reading, such as
        "alpha dropped". 16 bits are reduced to 8 by rounding v / 257.

    Returns:
      (h, w, 3) uint8, or (h, w) uint8 for a grey file.

    Raises:
      InputError: the file is missing, truncated, or no image.
    """
    picture = read_picture(path)
    pixels, said = picture.pixels, list(picture.notes)
    if pixels.dtype == np.uint16:
        pixels = to_8_bits(pixels)
        said.append("16-bit reduced to 8-bit")
    if picture.alpha is not None:
        said.append("alpha dropped")
    if notes is not None:
        notes.extend(said)
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Returns (h, w, 3) for (h, w) or (h, w, 3): grey becomes three equal channels."""
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def write_image(path: pathlib.Path, image: np.ndarray) -> None:
    """Writes an image file in the format of its suffix, whole or not at all.

    Args:
      path: the file; its folder is made if it is missing.
      image: (h, w) or (h, w, 3), uint8 or uint16.

    Raises:
      InputError, OSError: as of `write_picture`.
    """
    write_picture(path, Picture(image if image.ndim == 3 else image[..., None]))
