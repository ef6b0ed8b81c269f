"""Balanced Two-Stage Residual Networks for image super-resolution, in JAX."""

__version__ = "0.1.0"


def load_model(source: str, *, ensemble: bool = False):
    """A model as a function of NumPy images; see `btsrn_jax.serve.load_model`."""
    from btsrn_jax import serve  # JAX is loaded when it is needed, not before

    return serve.load_model(source, ensemble=ensemble)
