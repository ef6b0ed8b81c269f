"""Models by name, tiles, the self-ensemble, and photographs.

Other rooms use the names in `__all__`; each is loaded when it is first used.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from btsrn_jax.inference.models import (
        BICUBIC,
        FAMILY,
        bicubic_model,
        load_model,
        open_model,
        open_weights,
    )
    from btsrn_jax.inference.tiling import TiledUpscaler, make_bicubic, tiled_upscaler
    from btsrn_jax.inference.upscale import upscale_files
    from btsrn_jax.inference.weights import (
        CONFIG,
        RELEASED,
        WEIGHTS,
        load_weights,
        read_arrays,
        read_config,
        released_models,
        weights_to_bytes,
    )

__all__ = [
    "BICUBIC",
    "CONFIG",
    "FAMILY",
    "RELEASED",
    "WEIGHTS",
    "TiledUpscaler",
    "bicubic_model",
    "load_model",
    "load_weights",
    "make_bicubic",
    "open_model",
    "open_weights",
    "read_arrays",
    "read_config",
    "released_models",
    "tiled_upscaler",
    "upscale_files",
    "weights_to_bytes",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "models": [
            "BICUBIC",
            "FAMILY",
            "bicubic_model",
            "load_model",
            "open_model",
            "open_weights",
        ],
        "tiling": ["TiledUpscaler", "make_bicubic", "tiled_upscaler"],
        "upscale": ["upscale_files"],
        "weights": [
            "CONFIG",
            "RELEASED",
            "WEIGHTS",
            "load_weights",
            "read_arrays",
            "read_config",
            "released_models",
            "weights_to_bytes",
        ],
    },
)
