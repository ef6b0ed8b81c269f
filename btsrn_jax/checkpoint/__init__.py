"""Checkpoints: Orbax behind checksums. Save, verify, restore anywhere.

Other rooms use the names in `__all__`; each is loaded when it is first used.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from btsrn_jax.checkpoint.reading import (
        COMMITTED,
        DAMAGED,
        FOLDER,
        Damaged,
        ReadFailed,
        best_first,
        folder_of,
        load_parameters,
        newest_whole,
        read_step,
        restore_latest,
        score_of,
        steps_in,
    )
    from btsrn_jax.checkpoint.saving import (
        Checkpoints,
        SaveFailed,
    )

__all__ = [
    "COMMITTED",
    "DAMAGED",
    "FOLDER",
    "Checkpoints",
    "Damaged",
    "ReadFailed",
    "SaveFailed",
    "best_first",
    "folder_of",
    "load_parameters",
    "newest_whole",
    "read_step",
    "restore_latest",
    "score_of",
    "steps_in",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "reading": [
            "COMMITTED",
            "DAMAGED",
            "FOLDER",
            "Damaged",
            "ReadFailed",
            "best_first",
            "folder_of",
            "load_parameters",
            "newest_whole",
            "read_step",
            "restore_latest",
            "score_of",
            "steps_in",
        ],
        "saving": ["Checkpoints", "SaveFailed"],
    },
)
