"""The step, and the run around it.

Other rooms use the names in `__all__`; each is loaded when it is first used.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from btsrn_jax.training import cluster, distributed
    from btsrn_jax.training.announce import next_steps
    from btsrn_jax.training.goodput import PARTS, Session, read_sessions, together
    from btsrn_jax.training.loop import run
    from btsrn_jax.training.metrics_log import METRICS, Diverged, read_metrics
    from btsrn_jax.training.peak import matmul_rate, timed
    from btsrn_jax.training.preemption import STOPPED, Preemption
    from btsrn_jax.training.step import compile_step, create_state, make_recipe
    from btsrn_jax.training.trackers import check_tracker
    from btsrn_jax.training.validation import prepare_validation

__all__ = [
    "METRICS",
    "PARTS",
    "STOPPED",
    "Diverged",
    "Preemption",
    "Session",
    "check_tracker",
    "cluster",
    "compile_step",
    "create_state",
    "distributed",
    "make_recipe",
    "matmul_rate",
    "next_steps",
    "prepare_validation",
    "read_metrics",
    "read_sessions",
    "run",
    "timed",
    "together",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submodules=["cluster", "distributed"],
    submod_attrs={
        "announce": ["next_steps"],
        "goodput": ["PARTS", "Session", "read_sessions", "together"],
        "loop": ["run"],
        "metrics_log": ["METRICS", "Diverged", "read_metrics"],
        "peak": ["matmul_rate", "timed"],
        "preemption": ["STOPPED", "Preemption"],
        "step": ["compile_step", "create_state", "make_recipe"],
        "trackers": ["check_tracker"],
        "validation": ["prepare_validation"],
    },
)
