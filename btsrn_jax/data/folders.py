"""Finds out which HR file belongs to which LR file, in folders as people have them."""

import functools
import itertools
import os
import pathlib
from typing import NamedTuple

from btsrn_jax import images, storage
from btsrn_jax.data import layouts
from btsrn_jax.data.partners import by_name, hr_in, match, pairs_in
from btsrn_jax.errors import InputError

HINT = (
    "name the folder of the LR images (--lr DIR of btsrn evaluate, config.data.lr_dir"
    " in training), or give {hr} itself as the set: LR is then made from it"
)


class Files(NamedTuple):
    """The files of one image."""

    name: str
    """Unique in its set."""

    hr: pathlib.Path
    """The HR file."""

    lr: pathlib.Path | None
    """The LR file; None where LR is to be made from HR."""


def find_set(
    folder: pathlib.Path,
    scale: int,
    problems: list[str] | None = None,
    lr_dir: pathlib.Path | None = None,
    split: str = "val",
) -> list[Files]:
    """Returns the files of a set, in whichever way it is laid out.

    It may be a folder of HR images, nested ones included; HR and LR folders side by
    side, such as HR/ and LR_bicubic/X2/; image_SRF_2/, or any folder in which names end
    in _HR and _LR. `layouts` knows the names. Without LR images, LR is to be made from
    HR.

    Args:
      folder: of the set.
      scale: of its LR images.
      problems: if given, takes a message for each image that lacks its partner, is
        there twice, or may not be read, and the rest is returned.
      lr_dir: the folder of the LR images, flat or with a folder for each scale; None to
        look for it in `folder`.
      split: which set is taken where there are several, as in DIV2K's folder: "train"
        or "val".

    Raises:
      InputError: there is no set of this scale, it is not clear which images are HR or
        LR; or there would be a problem, and `problems` is None. All images at fault are
        named.
    """
    folder = pathlib.Path(folder)
    storage.check_folder(folder)
    if lr_dir is not None and os.path.realpath(lr_dir) == os.path.realpath(folder):
        lr_dir = None  # files of both lie side by side
    if lr_dir is not None:
        lr_dir = _root_of_scale(pathlib.Path(lr_dir), scale)
    said, hr_dir = [], _find_srf(folder, scale)
    if hr_dir is None or _has_sides(hr_dir):
        hr_dir, found = _find_sides(hr_dir or folder, scale, split, lr_dir, said)
        lr_dir = lr_dir or found
    if lr_dir is None:
        hr, lr = pairs_in(hr_dir, scale, said)
    else:
        hr, lr_files = hr_in(hr_dir, said), by_name(lr_dir, said)
        outside = {n: path for n, path in hr.items() if not _is_below(path, lr_dir)}
        hr = outside or hr
        lr = match(hr, lr_files, scale, lr_dir, said)
        hr = {name: path for name, path in hr.items() if name in lr}
    if lr is None:
        _check_no_copies(list(hr.values()))
    if not hr and not said:
        said = [f"no images NAME_HR in {hr_dir}, as in NAME_SRF_{scale}_HR.png"]
    if problems is None:
        raise_together(said)
    else:
        problems += said
    return [Files(name, path, lr and lr[name]) for name, path in hr.items()]


def _find_srf(folder, scale):
    """Returns the folder image_SRF_2 in `folder`; None where there is none like it."""
    names = {name.lower(): name for name in _listed(folder)}
    wanted = layouts.SRF.format(s=scale)
    if wanted in names:
        return folder / names[wanted]
    if any(layouts.SRF.format(s=s) in names for s in (2, 3, 4, 8)):
        raise InputError(
            f"no folder {folder / f'image_SRF_{scale}'}: there is no x{scale} in"
            f" {folder}"
        )
    return None


def _has_sides(folder):
    """Returns True where people have sorted image_SRF_2 into HR/ and LR/."""
    names = [name for name in _listed(folder) if (folder / name).is_dir()]
    return any(found and found.hr for found in layouts.roles(names).values())


def _listed(folder):
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        reason = error.strerror
        raise InputError(f"cannot read folder {folder}: {reason}") from None


def _find_sides(folder, scale, split, lr_dir, said):
    """Returns the folders of HR and, where it is not given and there is one of this
    scale, LR."""
    wants_lr = lr_dir is None
    unreadable = []
    files = images.find_images(folder, unreadable)
    said += [str(error) for error in unreadable]  # LR may lie there
    outside = [f for f in files if wants_lr or not _is_below(f, lr_dir)]
    places = dict.fromkeys(path.relative_to(folder).parts[:-1] for path in outside)
    beside = list(dict.fromkeys(parts[0] for parts in places if parts))
    walk = images.walk_folder(folder)  # a folder for LR may be empty by mistake
    for path in [path.parent for path in walk.others] + walk.empty:
        name = path.relative_to(folder).parts[:1]
        beside += [n for n in name if n not in beside and layouts.role(n)]
    roles = layouts.roles(beside)
    hr = [name for name in beside if roles[name] and roles[name].hr]
    lr = [name for name in beside if roles[name] and not roles[name].hr]
    if not hr:
        if lr and wants_lr:  # or LR would be taken for HR
            root = next(iter(_roots(folder / lr[0]))).relative_to(folder).as_posix()
            raise InputError(
                f"{folder} has {root} for LR, but none of HR, GT, original and the like"
                " for HR"
            )
        _check_plain(folder, places)
        return folder, None
    hr = _of_one_set(folder, hr, roles, scale, split)
    if not wants_lr:
        return _choose_hr(folder, hr, roles, scale, with_lr=True), None
    unknown = [f"{name}/" for name in beside if roles[name] is None]
    unknown += ["images without a folder"] * (() in places)
    if unknown:
        raise InputError(
            f"{folder} has {', '.join(unknown)} beside {hr[0]}/, and it is not known"
            f" what that is: {HINT.format(hr=folder / hr[0])}"
        )
    found = _choose_lr(folder, hr[0], lr, roles, scale)
    return _choose_hr(folder, hr, roles, scale, found is not None), found


def _is_below(path, folder):
    return (
        pathlib.Path(os.path.realpath(folder))
        in pathlib.Path(os.path.realpath(path)).parents
    )


def _of_one_set(folder, names, roles, scale, split):
    """Returns those HR folders that belong to one set: of several, to that of the
    split."""
    names = [n for n in names if layouts.scale_of(n) in (None, scale)] or names
    sets = list(dict.fromkeys(roles[name].set for name in names))
    if len(sets) > 1:
        other = "train" if split == "val" else "val"
        sets = [s for s in sets if split in s] or [s for s in sets if other not in s]
    if len(sets) != 1:
        raise InputError(
            f"{folder} has several folders of HR images, {', '.join(names)}: give one"
            " of them itself as the set"
        )
    return [name for name in names if roles[name].set == sets[0]]


def _choose_hr(folder, names, roles, scale, with_lr):
    order = layouts.HR_WITH_LR if with_lr else layouts.HR_ALONE

    def rank(name):
        word = roles[name].word.rstrip("0123456789s")
        return (order.index(word) if word in order else len(order), name)

    return _root_of_scale(folder / min(names, key=rank), scale, numbers=False)


def _choose_lr(folder, hr, names, roles, scale):
    """Returns the one folder of LR images of this scale; None where there is none."""
    same = [name for name in names if roles[name].set == roles[hr].set]
    others = {r.set for name, r in roles.items() if r and r.hr} - {roles[hr].set}
    names = same or [name for name in names if roles[name].set not in others]
    candidates = []
    for name in names:
        found = _roots(folder / name)
        exact = [root for root, s in found.items() if s == scale]
        candidates += exact or [root for root, s in found.items() if s is None]
    candidates.sort()
    shown = [root.relative_to(folder).as_posix() for root in candidates]
    if len(shown) > 1 and not all(map(layouts.is_bicubic, shown)):
        raise InputError(
            f"{folder} has several folders of LR images at x{scale},"
            f" {' and '.join(shown)}: {HINT.format(hr=folder / hr)}"
        )
    return candidates[0] if candidates else None


def _roots(folder, numbers=True):
    """Returns the folders of images in a folder of LR images, each with its scale; None
    where their names say none. With `numbers`, 2/ means x2. A folder without images is
    one of them, too: nobody should take it for missing."""
    found, walk = {}, images.walk_folder(folder)
    files = walk.files or walk.others
    for path in files + [path / "missing" for path in walk.empty]:
        root, of = folder, layouts.scale_of(folder.name)
        for parent in [*path.relative_to(folder).parents][-2::-1]:
            inside = layouts.scale_of(parent.name, numbers)
            if inside is not None:
                root, of = folder / parent, inside
        found[root] = of
    return found


def _root_of_scale(folder, scale, numbers=True):
    """Returns the folder of this scale in a folder, or the folder itself where no
    scales are told apart there."""
    storage.check_folder(folder)
    found = _roots(folder, numbers)
    inside = {root: s for root, s in found.items() if root != folder}
    if not inside or folder in found:
        return folder
    roots = sorted(root for root, s in inside.items() if s == scale)
    if len(roots) == 1:
        return roots[0]
    have = ", ".join(sorted(str(root.relative_to(folder)) for root in inside))
    raise InputError(
        f"{folder} has {have}: "
        + ("several" if roots else "none")
        + f" of x{scale}; name one folder of images"
    )


def _check_plain(folder, places):
    """Raises InputError where a folder without HR and LR of its own holds whole sets,
    or results beside its images: not every image in it is HR."""
    for parts in places:
        for i, name in enumerate(parts):
            found = layouts.role(name)
            srf = name.lower().startswith(layouts.SRF.format(s=""))
            if srf or (found and not found.hr):
                inner = folder.joinpath(*parts[:i])
                raise InputError(
                    f"{folder} is not one set: there is {name}/ in {inner}. Give that"
                    " folder, or the folder of the HR images in it"
                )
    results = [p[0] for p in places if p and layouts.RESULTS.fullmatch(p[0].lower())]
    if results and () in places:
        raise InputError(
            f"{folder} has {results[0]}/ beside its images, and it is not known what"
            " that is: move one of them to a folder of its own"
        )


def _check_no_copies(paths):
    """Raises InputError where all images of one folder lie, some whole number of times
    larger, under the same names in another one: they are LR, whatever they are called.

    Only the headers of images are read, and only where the names of two folders agree.
    """
    places, size = {}, functools.cache(_size)
    for path in paths:
        places.setdefault(path.parent, {})[layouts.stem(path.stem)] = path
    for small, large in itertools.permutations(places, 2):
        if not places[small].keys() <= places[large].keys():
            continue
        partners = ((path, places[large][n]) for n, path in places[small].items())
        pairs = (map(size, both) for both in partners)
        first = _times(*next(pairs))
        if first and all(_times(*pair) == first for pair in pairs):
            raise InputError(
                f"the images of {small} are those of {large}, {first} times smaller:"
                f" {HINT.format(hr=large)}"
            )


def _size(path):
    try:
        return images.image_size(path)
    except InputError:  # told where its pixels are read
        return 0, 0


def _times(small, large):
    """Returns how many times larger the second (height, width) is; None if it is not a
    whole number from 2 on."""
    if not all(small):
        return None
    factors = {b // a for a, b in zip(small, large, strict=True)}
    (factor,) = factors if len(factors) == 1 else (1,)
    return factor if factor > 1 else None


def raise_together(problems: list[str]) -> None:
    """Raises one InputError of all problems, a line each, each once; none: nothing."""
    problems = list(dict.fromkeys(problems))
    if not problems:
        return
    shown = problems[:20]
    if len(problems) > 20:
        shown.append(f"... and {len(problems) - 20} more")
    raise InputError("\n".join(shown))
