"""What evaluation sets are called: one name for each, and no name for two."""

import os
import pathlib
from collections.abc import Sequence

from btsrn_jax import storage
from btsrn_jax.data import div2k
from btsrn_jax.errors import InputError

DIV2K = "div2k/"  # before a config of it, as a name in `eval.sets`
SAMPLES = "samples"  # the held-out photographs, as a name in `eval.sets`


def set_names(sets: Sequence[str], root: str = "data") -> list[str]:
    """Returns the names of sets in tables, in their order.

    A folder is called by its own name, a link by the link's. Where several have one
    name, as Set5/HR and Set14/HR, as many last parts of their paths are taken as tell
    them apart.

    Args:
      sets: as `evaluation_set` takes them.
      root: where DIV2K is prepared.

    Raises:
      InputError: a name is empty, a set is given twice, or a name may mean two things.
    """
    if not all(sets):
        raise InputError("a set has an empty name: a folder, div2k/CONFIG, or samples")
    parts = []
    for name in sets:
        reserved = is_reserved(name, root)
        path = pathlib.PurePath(os.path.abspath(storage.local(name)))
        parts.append((name,) if reserved else path.parts[1:] or path.parts)
    names = []
    for i, mine in enumerate(parts):
        others = parts[:i] + parts[i + 1 :]
        if mine in others:
            raise InputError(
                f"two sets are called {mine[-1]}: {sets[i]} is given twice, and figures"
                " would be mixed up"
            )
        for count in range(1, len(mine) + 1):
            name = "/".join(mine[-count:])
            if all(name != "/".join(other[-count:]) for other in others):
                break
        names.append(name)
    return names


def is_reserved(name: str, root: str) -> bool:
    """Returns True for `samples` and div2k/CONFIG, False for a folder.

    Raises InputError where a folder of that name lies here, too; DIV2K as prepared here
    is no such folder.
    """
    config = name.removeprefix(DIV2K)
    known = name == SAMPLES or (config != name and config in div2k.CONFIGS)
    if not os.path.isdir(name):
        return known or name.startswith(DIV2K)
    if not known:
        return False
    prepared = os.path.join(root, name)
    if os.path.isdir(prepared) and os.path.samefile(prepared, name):
        return True
    raise InputError(
        f"{name} is a folder here, and also the name of a set that this program knows:"
        f" write ./{name} for the folder, or work elsewhere for the other"
    )
