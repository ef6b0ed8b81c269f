"""Balanced Two-Stage Residual Networks for image super-resolution, in JAX."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from btsrn_jax.errors import InputError
    from btsrn_jax.inference import Model, load_model
    from btsrn_jax.metrics import psnr, ssim
    from btsrn_jax.resize import imresize

__all__ = ["InputError", "Model", "imresize", "load_model", "psnr", "ssim"]
__version__ = "0.1.0"

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "errors": ["InputError"],
        "inference": ["Model", "load_model"],
        "metrics": ["psnr", "ssim"],
        "resize": ["imresize"],
    },
)
