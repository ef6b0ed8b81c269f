"""Models as files for other programs.

Other rooms use the names in `__all__`; each is loaded when it is first used.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from btsrn_jax.export.demo import run_demo
    from btsrn_jax.export.plan import PAGE_FORMAT, plan_export
    from btsrn_jax.export.provenance import (
        history,
        purpose,
        summary,
        training_command,
    )
    from btsrn_jax.export.torch_file import torch_network
    from btsrn_jax.export.web_page import export_page
    from btsrn_jax.export.web_plan import plan_page
    from btsrn_jax.export.write import export_model

__all__ = [
    "PAGE_FORMAT",
    "export_model",
    "export_page",
    "history",
    "plan_export",
    "plan_page",
    "purpose",
    "run_demo",
    "summary",
    "torch_network",
    "training_command",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "demo": ["run_demo"],
        "plan": ["PAGE_FORMAT", "plan_export"],
        "provenance": ["history", "purpose", "summary", "training_command"],
        "torch_file": ["torch_network"],
        "web_page": ["export_page"],
        "web_plan": ["plan_page"],
        "write": ["export_model"],
    },
)
