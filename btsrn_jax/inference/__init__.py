"""Models by name, tiles, the self-ensemble, and photographs.

Other rooms use the names in `__all__`; each is loaded when it is first used.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from btsrn_jax.inference.hub import in_hub
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
        photo_model,
    )
    from btsrn_jax.inference.runtimes import (
        GraphUpscaler,
        Runtime,
        choose_runtime,
        open_runtime,
    )
    from btsrn_jax.inference.tensor_file import to_safetensors
    from btsrn_jax.inference.tiling import TiledUpscaler, tiled_upscaler
    from btsrn_jax.inference.upscale import upscale_files
    from btsrn_jax.inference.weights import (
        AUTO,
        CHECKPOINTS,
        CONFIG,
        WEIGHTS,
        find_folder,
        is_photo_model,
        load_weights,
        read_arrays,
        read_config,
        read_scale,
        released_models,
        weights_to_bytes,
    )

__all__ = [
    "AUTO",
    "BICUBIC",
    "CHECKPOINTS",
    "CONFIG",
    "FAMILY",
    "STREAM",
    "WEIGHTS",
    "GraphUpscaler",
    "Model",
    "Output",
    "Runtime",
    "TiledUpscaler",
    "bicubic_model",
    "choose_runtime",
    "find_folder",
    "find_model",
    "in_hub",
    "is_photo_model",
    "load_model",
    "load_weights",
    "open_model",
    "open_runtime",
    "open_weights",
    "photo_model",
    "plan_files",
    "read_arrays",
    "read_config",
    "read_scale",
    "released_models",
    "standard_streams",
    "tiled_upscaler",
    "to_safetensors",
    "upscale_files",
    "weights_to_bytes",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "hub": ["in_hub"],
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
            "photo_model",
        ],
        "runtimes": [
            "GraphUpscaler",
            "Runtime",
            "choose_runtime",
            "open_runtime",
        ],
        "tensor_file": ["to_safetensors"],
        "tiling": ["TiledUpscaler", "tiled_upscaler"],
        "upscale": ["upscale_files"],
        "weights": [
            "AUTO",
            "CHECKPOINTS",
            "CONFIG",
            "find_folder",
            "WEIGHTS",
            "is_photo_model",
            "load_weights",
            "read_arrays",
            "read_config",
            "read_scale",
            "released_models",
            "weights_to_bytes",
        ],
    },
)
