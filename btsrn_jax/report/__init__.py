"""Runs as tables, plots, crops and one HTML page.

Other rooms use the names in `__all__`; each is loaded when it is first used.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from btsrn_jax.report.published import released_tables, training_commands
    from btsrn_jax.report.write import write_report

__all__ = ["released_tables", "training_commands", "write_report"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "published": ["released_tables", "training_commands"],
        "write": ["write_report"],
    },
)
