"""What `btsrn bench --peer` measures beside us, each in a process of its own.

Loads neither JAX nor the peers.
"""

import importlib.util

from btsrn_jax import inference
from btsrn_jax.errors import InputError

TORCH, ONNXRUNTIME, OPENVINO = "torch", "onnxruntime", "openvino"
NAMES = (TORCH, ONNXRUNTIME, OPENVINO)


def find_peers(names: list[str], mode: str) -> dict[str, list[str]]:
    """Returns the commands of the peers' workers by their labels.

    onnxruntime and OpenVINO are measured twice, both times in float32: on the whole
    image, and as our runtimes, "NAME tiles".

    Raises:
      InputError: a name is unknown, its package is missing, or it cannot train.
    """
    commands = {}
    for name in dict.fromkeys(names):
        if name not in NAMES:
            raise InputError(f"--peer {name!r}: one or several of {', '.join(NAMES)}")
        if name == TORCH:
            if importlib.util.find_spec("torch") is None:
                raise InputError(
                    f"--peer {name}: PyTorch is not installed:"
                    " pip install 'btsrn-jax[peer]'"
                )
            commands[name] = ["-m", "btsrn_jax.benchmark.torch_peer"]
            continue
        if mode == "train":
            raise InputError(f"--peer {name}: it does not train; btsrn bench infer")
        inference.choose_runtime(name)
        for way in ("whole", "tiles"):
            label = name if way == "whole" else f"{name} {way}"
            commands[label] = ["-m", "btsrn_jax.benchmark.graph_peer", name, way]
    return commands
