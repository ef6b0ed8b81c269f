"""Finds out which HR file belongs to which LR file, in folders as people have them."""

import os
import pathlib
from typing import NamedTuple

from btsrn_jax import images
from btsrn_jax.errors import InputError

# Layouts of benchmark sets; the first folders that exist are taken. GTmod12 is HR cut
# to multiples of 12: LR was made from it, but without LR the original is better.
HR_WITH_LR = ("HR", "GTmod12", "DIV2K_valid_HR", "original", "GT")
HR_ALONE = ("HR", "original", "DIV2K_valid_HR", "GTmod12", "GT")
LR = (
    "LR_bicubic/X{s}",  # EDSR's benchmark.tar
    "LRbicx{s}",  # BasicSR, SwinIR
    "X{s}",
    "LR/X{s}",
    "DIV2K_valid_LR_bicubic/X{s}",
)
SRF = "image_SRF_{s}"  # SelfExSR: NAME_SRF_2_HR.png, NAME_SRF_2_LR.png, and results


class Files(NamedTuple):
    """The files of one image."""

    name: str
    """Unique in its set."""

    hr: pathlib.Path
    """The HR file."""

    lr: pathlib.Path | None
    """The LR file; None where LR is to be made from HR."""


def find_set(
    folder: pathlib.Path, scale: int, problems: list[str] | None = None
) -> list[Files]:
    """Returns the files of a benchmark set, in whichever of three ways it is laid out.

    It may be a folder of HR images, nested ones included; HR and LR folders side by
    side, such as HR/ and LR_bicubic/X2/; or image_SRF_2/ with *_HR.png and *_LR.png.

    Args:
      folder: of the set.
      scale: of its LR images.
      problems: if given, takes a message for each image that lacks its partner, is
        there twice, or may not be read, and the rest is returned.

    Raises:
      InputError: there is no set of this scale; or there would be a problem, and
        `problems` is None.
    """
    folder = pathlib.Path(folder)
    srf = folder / SRF.format(s=scale)
    if os.path.isdir(srf):
        return _find_srf(srf, scale, problems)
    if any(os.path.isdir(folder / SRF.format(s=s)) for s in (2, 3, 4)):
        raise InputError(f"no folder {srf}: there is no x{scale} in {folder}")
    lr_dir = _first(folder, [name.format(s=scale) for name in LR])
    hr_dir = _first(folder, HR_WITH_LR if lr_dir else HR_ALONE)
    if lr_dir and hr_dir is None:  # or LR would be taken for HR
        raise InputError(
            f"{folder} has {lr_dir.relative_to(folder)} for LR, but none of"
            f" {', '.join(HR_WITH_LR)} for HR"
        )
    return find_pairs(hr_dir or folder, lr_dir, scale, problems)


def _first(folder, names):
    # os.path here and above, since pathlib raises where permission is missing.
    return next((folder / name for name in names if os.path.isdir(folder / name)), None)


def _find_srf(folder, scale, told):
    files, problems = by_name(folder)
    end = f"_SRF_{scale}"
    hr = {n.removesuffix("_HR"): p for n, p in files.items() if n.endswith("_HR")}
    if not hr:
        raise InputError(f"no images *_HR.* in {folder}")
    found = []
    for name, path in hr.items():
        if f"{name}_LR" in files:
            found.append(Files(name.removesuffix(end), path, files[f"{name}_LR"]))
        else:
            problems.append(f"{path}: no LR image {name}_LR beside it")
    _tell(problems, told)
    return found


def find_pairs(
    hr_dir: pathlib.Path,
    lr_dir: pathlib.Path | None,
    scale: int,
    problems: list[str] | None = None,
) -> list[Files]:
    """Returns HR files and, with `lr_dir`, the LR files of the same names.

    A name is the path in the folder without its suffix. The LR file of `a/0001` at x4
    is `a/0001` or `a/0001x4` in `lr_dir`, or the only file there that has one of these
    names in whatever subfolder.

    Args:
      hr_dir: folder of HR images.
      lr_dir: folder of LR images; None if LR is to be made from HR.
      scale: of the LR images.
      problems: as of `find_set`.

    Raises:
      InputError: a folder holds no images; or there would be a problem, and `problems`
        is None. All images at fault are named.
    """
    hr_files, said = by_name(hr_dir)
    found = dict.fromkeys(hr_files)
    if lr_dir is not None:
        lr_files, more = by_name(lr_dir)
        said += more
        found, missing = _partners(hr_files, lr_files, scale)
        said += [
            f"{hr_files[name]}: no LR image {name} or {name}x{scale} in {lr_dir}"
            for name in missing
        ]
    _tell(said, problems)
    return [Files(name, hr_files[name], lr) for name, lr in found.items()]


def by_name(folder: pathlib.Path) -> tuple[dict[str, pathlib.Path], list[str]]:
    """Returns the images of a folder by name, and one message for each duplicate name
    or unreadable folder."""
    files, unreadable = {}, []
    paths = images.find_images(folder, unreadable)
    problems = [str(error) for error in unreadable]
    for path in paths:
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            problems.append(f"{path}: the same name as {files[name]}")
        files[name] = path
    return files, problems


def _partners(hr_files, lr_files, scale):
    by_base = {}
    for name, path in lr_files.items():
        by_base.setdefault(name.rpartition("/")[2], []).append(path)
    found, missing = {}, []
    for name in hr_files:
        base = name.rpartition("/")[2]
        for candidate in (name, f"{name}x{scale}"):
            if candidate in lr_files:
                found[name] = lr_files[candidate]
                break
        else:
            paths = by_base.get(base, []) + by_base.get(f"{base}x{scale}", [])
            if len(paths) == 1:
                found[name] = paths[0]
            else:
                missing.append(name)
    return found, missing


def _tell(said, problems):
    if problems is None:
        raise_together(said)
    else:
        problems += said


def raise_together(problems: list[str]) -> None:
    """Raises one InputError of all problems, a line each, if there are any."""
    if not problems:
        return
    shown = problems[:20]
    if len(problems) > 20:
        shown.append(f"... and {len(problems) - 20} more")
    raise InputError("\n".join(shown))
