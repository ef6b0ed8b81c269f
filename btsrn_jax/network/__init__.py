"""The networks, and the same as ONNX nodes; the only room that imports Flax."""
