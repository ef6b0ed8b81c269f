"""Pairs of LR and HR images, stores of them, and the patches of a batch.

Other rooms use the names in `__all__`; each is loaded when it is first used.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from btsrn_jax.data import degradation, div2k, host_store, sampler
    from btsrn_jax.data.datasets import (
        SAMPLES_TRAIN,
        check_names,
        check_set,
        evaluation_set,
        evaluation_sets,
        lr_origin,
        name_folders,
        origin,
        sample_pairs,
        training_pairs,
    )
    from btsrn_jax.data.degradation import Degradation
    from btsrn_jax.data.feeder import Batches, open_batches
    from btsrn_jax.data.folders import raise_together
    from btsrn_jax.data.host_store import load_store
    from btsrn_jax.data.layouts import is_hr_name
    from btsrn_jax.data.pairs import Pair, check_pair, file_pair
    from btsrn_jax.data.set_naming import is_reserved, set_names

__all__ = [
    "SAMPLES_TRAIN",
    "Batches",
    "Degradation",
    "Pair",
    "check_names",
    "check_pair",
    "check_set",
    "degradation",
    "div2k",
    "evaluation_set",
    "evaluation_sets",
    "file_pair",
    "host_store",
    "is_hr_name",
    "is_reserved",
    "load_store",
    "lr_origin",
    "name_folders",
    "open_batches",
    "origin",
    "raise_together",
    "sample_pairs",
    "sampler",
    "set_names",
    "training_pairs",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submodules=["degradation", "div2k", "host_store", "sampler"],
    submod_attrs={
        "datasets": [
            "SAMPLES_TRAIN",
            "check_names",
            "check_set",
            "evaluation_set",
            "evaluation_sets",
            "lr_origin",
            "name_folders",
            "origin",
            "sample_pairs",
            "training_pairs",
        ],
        "degradation": ["Degradation"],
        "feeder": ["Batches", "open_batches"],
        "folders": ["raise_together"],
        "host_store": ["load_store"],
        "layouts": ["is_hr_name"],
        "pairs": ["Pair", "check_pair", "file_pair"],
        "set_naming": ["is_reserved", "set_names"],
    },
)
