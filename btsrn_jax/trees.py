"""Pytrees as flat dicts of arrays by path, and back."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np


def flatten(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a pytree by path: {"params/low0/conv/kernel": array}."""
    import jax  # here, since much of inference/weights.py does without it

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in leaves
    }


def fill(template: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Returns a pytree like `template` with the arrays of these paths as its leaves.

    Raises:
      ValueError: a path is missing, left over or of another shape; it is named.
    """
    import jax

    expected = flatten(template)
    for name in expected.keys() | arrays.keys():
        if name not in arrays or name not in expected:
            where = "checkpoint" if name not in arrays else "model"
            raise ValueError(f"{name} is not in the {where}")
        if expected[name].shape != arrays[name].shape:
            raise ValueError(
                f"{name} is {arrays[name].shape}, {expected[name].shape} was expected"
            )
    leaves = [arrays[name] for name in expected]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def nest(arrays: Mapping[str, Any]) -> dict:
    """Returns {"params": {"in": {"kernel": array}}} of {"params/in/kernel": array}.

    Raises:
      ValueError: a path is an array and a folder; it is named.
    """
    tree = {}
    for path, array in sorted(arrays.items()):  # a folder's name before what is in it
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
            if not isinstance(node, dict):
                raise ValueError(f"{path} lies in {folder}, which is an array")
        node[name] = array
    return tree


def digests(arrays: Mapping[str, Any]) -> dict[str, str]:
    """Returns the SHA-256 of each array: of its dtype, shape and bytes."""
    found = {}
    for name, array in arrays.items():
        array = np.asarray(array)
        data = f"{array.dtype} {array.shape}".encode() + array.tobytes()
        found[name] = hashlib.sha256(data).hexdigest()
    return found
