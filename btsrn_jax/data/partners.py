"""Partners: which LR file belongs to which HR file, by their names."""

import collections
import pathlib

from btsrn_jax import images
from btsrn_jax.data import layouts
from btsrn_jax.errors import InputError

# Of names without LR: NAME, NAME_HR, NAME/HR.
_HR_ENDS = ("", *(a + b for b in ("hr", "gt", "hq") for a in "_-/"))
Named = dict[str, pathlib.Path]  # by the path in a folder, without the suffix


def by_name(folder: pathlib.Path, problems: list[str]) -> dict[str, pathlib.Path]:
    """Returns the images of a folder by name: the path in it without its suffix.

    `problems` takes a message for each name that occurs twice, and for each folder that
    may not be read.
    """
    files, unreadable = {}, []
    paths = images.find_images(folder, unreadable)
    problems += [str(error) for error in unreadable]
    for path in paths:
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in files:
            problems.append(f"{path}: the same name as {files[name]}")
        files[name] = path
    return files


def match(
    hr_files: Named, lr_files: Named, scale: int, lr_dir: pathlib.Path, said: list[str]
) -> Named:
    """Returns the LR file of each HR file that has one.

    The LR file of `a/0001` at x4 is `a/0001` or `a/0001x4` in `lr_dir`, or the only
    file there that has one of these names in whatever subfolder, or the only one whose
    name is the same but for what says HR, LR or scale. `said` takes a message for each
    HR file without one.
    """
    by_base, by_stem = {}, {}
    for name, path in lr_files.items():
        base = name.rpartition("/")[2]
        by_base.setdefault(base, []).append(path)
        ending = layouts.lr_end(base)
        if ending is None or ending[1] in (None, scale):
            by_stem.setdefault(layouts.stem(base), []).append(path)
    stems = collections.Counter(layouts.stem(n.rpartition("/")[2]) for n in hr_files)
    found = {}
    for name, hr in hr_files.items():
        base = name.rpartition("/")[2]
        known = (name, f"{name}x{scale}")
        paths = [lr_files[n] for n in known if n in lr_files][:1]
        paths = paths or by_base.get(base, []) + by_base.get(f"{base}x{scale}", [])
        if not paths and stems[layouts.stem(base)] == 1:
            paths = by_stem.get(layouts.stem(base), [])
        if len(paths) == 1:
            found[name] = paths[0]
        else:
            like = " and ".join(str(p.relative_to(lr_dir)) for p in paths[:2])
            like = f", but several like it: {like}" if like else ""
            said.append(f"{hr}: no LR image {name} or {name}x{scale} in {lr_dir}{like}")
    return found


def pairs_in(
    folder: pathlib.Path, scale: int, said: list[str]
) -> tuple[Named, Named | None]:
    """Returns HR and LR, by name, of a folder in which files of both may lie side by
    side: NAME_HR and NAME_LR, NAME and NAMEx2.

    LR is None where no name says LR of this scale. In image_SRF_2/ files that are
    neither are results, and do not count; elsewhere they lack their LR image, of which
    `said` takes a message.
    """
    files = by_name(folder, said)
    hr, partners = _split(folder, files)
    hr = _of_scale(folder, hr, scale)
    if not partners and not (_is_srf(folder) and any(map(layouts.lr_end, files))):
        return hr, None
    lr = {}
    for name, path in hr.items():
        found = partners.get(name, {})
        partner = found.get(scale, found.get(None))
        if partner:
            lr[name] = files[partner]
        elif not found:
            base = name.removesuffix("_HR")
            said.append(f"{path}: no LR image {base}_LR beside it")
    if not lr and partners:  # of other scales alone
        return hr, None
    names = {n: n.removesuffix("_HR").removesuffix(f"_SRF_{scale}") for n in lr}
    return (
        {names[name]: hr[name] for name in lr},
        {names[name]: path for name, path in lr.items()},
    )


def hr_in(folder: pathlib.Path, said: list[str]) -> Named:
    """Returns the HR images of a folder, by name, as `pairs_in` tells them."""
    return _split(folder, by_name(folder, said))[0]


def _split(folder, files):
    """Returns the HR files by name, and for each that has LR beside it {scale: name of
    LR}; the scale is None where the name says none."""
    partners, hr_names = {}, {name.lower(): name for name in files}
    for name in files:
        ending = layouts.lr_end(name)
        for end in _HR_ENDS if ending else ():
            if ending[0] + end in hr_names:
                hr_name = hr_names[ending[0] + end]
                partners.setdefault(hr_name, {})[ending[1]] = name
                break
    taken = {name for found in partners.values() for name in found.values()}
    hr = {name: path for name, path in files.items() if name not in taken}
    if _is_srf(folder):
        hr = {name: path for name, path in hr.items() if name.lower().endswith("_hr")}
    return hr, partners


def _of_scale(folder, hr, scale):
    """Returns the HR files without those of other scales, where their names say several
    scales: a_SRF_2_HR and a_SRF_4_HR are one image."""
    said = {name: layouts.srf_scale(name) for name in hr}
    scales = {of for of in said.values() if of}
    if len(scales) < 2:
        return hr
    if scale not in scales:
        have = " and ".join(f"SRF_{s}" for s in sorted(scales))
        raise InputError(f"there is no x{scale} in {folder}: HR images of {have}")
    return {name: path for name, path in hr.items() if said[name] in (None, scale)}


def _is_srf(folder):
    return folder.name.lower().startswith(layouts.SRF.format(s=""))
