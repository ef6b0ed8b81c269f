"""The names that a config may give to a network's parts.

Nothing here needs JAX or Flax, so that a config is checked without them. A new name
also needs its form in `btsrn.py`, and in `onnx_graph.py` if it is to be exported.
"""

NAMES = ("btsrn", "vdsr")
BLOCKS = ("pconv", "pixelcnn", "gated", "gated_pp")  # paper, Figure 2
NORMS = ("none", "batch", "weight")  # paper, Sec. 3.4
ACTIVATIONS = ("relu", "leaky_relu")
