"""Models by name, tiles, the self-ensemble, and photographs.

Other rooms use the names in `__all__`; each is loaded when it is first used.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from btsrn_jax.inference.jobs import STREAM, Output, plan_files, standard_streams
    from btsrn_jax.inference.models import (
        BICUBIC,
        FAMILY,
        Model,
        bicubic_model,
        find_model,
        load_model,
        open_model,
        open_weights,
    )
    from btsrn_jax.inference.tiling import TiledUpscaler, tiled_upscaler
    from btsrn_jax.inference.upscale import upscale_files
    from btsrn_jax.inference.weights import (
        CHECKPOINTS,
        CONFIG,
        WEIGHTS,
        find_folder,
        load_weights,
        read_arrays,
        read_config,
        read_scale,
        released_models,
        weights_to_bytes,
    )

__all__ = [
    "BICUBIC",
    "CHECKPOINTS",
    "CONFIG",
    "FAMILY",
    "STREAM",
    "WEIGHTS",
    "Model",
    "Output",
    "TiledUpscaler",
    "bicubic_model",
    "find_folder",
    "find_model",
    "load_model",
    "load_weights",
    "open_model",
    "open_weights",
    "plan_files",
    "read_arrays",
    "read_config",
    "read_scale",
    "released_models",
    "standard_streams",
    "tiled_upscaler",
    "upscale_files",
    "weights_to_bytes",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "jobs": ["STREAM", "Output", "plan_files", "standard_streams"],
        "models": [
            "BICUBIC",
            "FAMILY",
            "Model",
            "bicubic_model",
            "find_model",
            "load_model",
            "open_model",
            "open_weights",
        ],
        "tiling": ["TiledUpscaler", "tiled_upscaler"],
        "upscale": ["upscale_files"],
        "weights": [
            "CHECKPOINTS",
            "CONFIG",
            "find_folder",
            "WEIGHTS",
            "load_weights",
            "read_arrays",
            "read_config",
            "read_scale",
            "released_models",
            "weights_to_bytes",
        ],
    },
)
