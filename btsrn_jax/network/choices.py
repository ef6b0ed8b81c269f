"""The names that a config may give, and nothing that needs JAX or Flax."""

NAMES = ("btsrn", "vdsr")
BLOCKS = ("pconv", "pixelcnn", "gated", "gated_pp")
NORMS = ("none", "batch", "weight")
ACTIVATIONS = ("relu", "leaky_relu")
