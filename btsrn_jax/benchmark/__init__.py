"""Speed and memory, measured; whether a config fits a device.

Other rooms use the names in `__all__`; each is loaded when it is first used.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from btsrn_jax.benchmark.bench import run_benchmark
    from btsrn_jax.benchmark.fit import (
        describe_config,
        largest_batch,
        report_fit,
        topology_mesh,
    )
    from btsrn_jax.benchmark.protocol import Spec

__all__ = [
    "Spec",
    "describe_config",
    "largest_batch",
    "report_fit",
    "run_benchmark",
    "topology_mesh",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "bench": ["run_benchmark"],
        "fit": ["describe_config", "largest_batch", "report_fit", "topology_mesh"],
        "protocol": ["Spec"],
    },
)
