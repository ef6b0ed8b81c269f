"""Pairs of LR and HR images, stores of them, and the patches of a batch.

Other rooms use the names in `__all__`; each is loaded when it is first used.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from btsrn_jax.data import div2k, host_store, sampler
    from btsrn_jax.data.datasets import (
        SAMPLES,
        SAMPLES_TRAIN,
        Pair,
        check_pair,
        check_set,
        evaluation_set,
        evaluation_sets,
        file_pair,
        origin,
        set_name,
        training_pairs,
    )
    from btsrn_jax.data.feeder import Batches, open_batches
    from btsrn_jax.data.folders import raise_together
    from btsrn_jax.data.host_store import load_store

__all__ = [
    "SAMPLES",
    "SAMPLES_TRAIN",
    "Batches",
    "Pair",
    "check_pair",
    "check_set",
    "div2k",
    "evaluation_set",
    "evaluation_sets",
    "file_pair",
    "host_store",
    "load_store",
    "open_batches",
    "origin",
    "raise_together",
    "sampler",
    "set_name",
    "training_pairs",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submodules=["div2k", "host_store", "sampler"],
    submod_attrs={
        "datasets": [
            "SAMPLES",
            "SAMPLES_TRAIN",
            "Pair",
            "check_pair",
            "check_set",
            "evaluation_set",
            "evaluation_sets",
            "file_pair",
            "origin",
            "set_name",
            "training_pairs",
        ],
        "feeder": ["Batches", "open_batches"],
        "folders": ["raise_together"],
        "host_store": ["load_store"],
    },
)
