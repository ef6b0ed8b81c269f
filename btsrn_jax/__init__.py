"""Balanced Two-Stage Residual Networks for image super-resolution, in JAX."""

__version__ = "0.1.0"


def load_model(source: str, *, ensemble: bool = False):
    """A model as a function of NumPy images; see `inference.models.load_model`."""
    from btsrn_jax.inference import models as serve

    return serve.load_model(source, ensemble=ensemble)
