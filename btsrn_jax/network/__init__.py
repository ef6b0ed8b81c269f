"""The networks, what they cost, and the same as ONNX nodes.

The only room that imports Flax. Other rooms use the names in `__all__`; each is loaded
when it is first used.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from btsrn_jax.network.btsrn import (
        BTSRN,
        Compute,
        build,
        folded_kernel,
        init,
        missing_form,
        super_resolve,
    )
    from btsrn_jax.network.choices import ACTIVATIONS, BLOCKS, NAMES, NORMS
    from btsrn_jax.network.cost import (
        forward_flops,
        kept_for_gradient,
        parameter_count,
        train_flops,
    )
    from btsrn_jax.network.geometry import (
        SKIP_MARGIN,
        VDSR_FEATURES,
        geometry_of,
        upsamplings,
    )
    from btsrn_jax.network.onnx_graph import build_onnx, missing_onnx_form
    from btsrn_jax.network.ops import (
        bicubic_skip,
        bicubic_weights,
        crop,
        pad_symmetric,
    )
    from btsrn_jax.network.vdsr import LUMINANCE, VDSR

__all__ = [
    "ACTIVATIONS",
    "BLOCKS",
    "BTSRN",
    "LUMINANCE",
    "NAMES",
    "NORMS",
    "SKIP_MARGIN",
    "VDSR",
    "VDSR_FEATURES",
    "Compute",
    "bicubic_skip",
    "bicubic_weights",
    "build",
    "build_onnx",
    "crop",
    "folded_kernel",
    "forward_flops",
    "geometry_of",
    "init",
    "kept_for_gradient",
    "missing_form",
    "missing_onnx_form",
    "pad_symmetric",
    "parameter_count",
    "super_resolve",
    "train_flops",
    "upsamplings",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "btsrn": [
            "BTSRN",
            "Compute",
            "build",
            "folded_kernel",
            "init",
            "missing_form",
            "super_resolve",
        ],
        "choices": ["ACTIVATIONS", "BLOCKS", "NAMES", "NORMS"],
        "cost": [
            "forward_flops",
            "kept_for_gradient",
            "parameter_count",
            "train_flops",
        ],
        "geometry": ["SKIP_MARGIN", "VDSR_FEATURES", "geometry_of", "upsamplings"],
        "onnx_graph": ["build_onnx", "missing_onnx_form"],
        "ops": ["bicubic_skip", "bicubic_weights", "crop", "pad_symmetric"],
        "vdsr": ["LUMINANCE", "VDSR"],
    },
)
