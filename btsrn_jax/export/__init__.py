"""Models as files for other programs.

Other rooms use the names in `__all__`; each is loaded when it is first used.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from btsrn_jax.export.plan import plan_export
    from btsrn_jax.export.provenance import history, summary, training_command
    from btsrn_jax.export.write import ParityError, export_model

__all__ = [
    "ParityError",
    "export_model",
    "history",
    "plan_export",
    "summary",
    "training_command",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "plan": ["plan_export"],
        "provenance": ["history", "summary", "training_command"],
        "write": ["ParityError", "export_model"],
    },
)
