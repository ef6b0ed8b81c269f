"""Balanced Two-Stage Residual Networks for image super-resolution, in JAX."""

__version__ = "0.1.0"
