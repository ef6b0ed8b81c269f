"""Sets and protocols to figures; every published number.

Other rooms use the names in `__all__`; each is loaded when it is first used.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from btsrn_jax.evaluation.degrading import (
        CLEAN,
        Degradation,
        degradation_name,
        degradations_of,
    )
    from btsrn_jax.evaluation.evaluate import (
        Input,
        Upscaler,
        bicubic_upscaler,
        compare,
        crop_row,
        evaluate_set,
        network_upscaler,
        read_inputs,
        upscale_pair,
    )
    from btsrn_jax.evaluation.figure_tables import markdown, name_without_error
    from btsrn_jax.evaluation.figures import (
        Row,
        as_text,
        gain,
        image_rows,
        input_label,
        latest,
        lr_label,
        paper_psnr,
        paper_set,
        published_set,
        read_csv,
        read_figures,
        to_row,
        write_csv,
    )
    from btsrn_jax.evaluation.paper import (
        NEIGHBOURS,
        PUBLISHED,
        SAME_SETS,
        TABLE_1,
        TABLE_2,
        TABLE_3,
        TABLE_4,
        TABLE_4_MODELS,
    )
    from btsrn_jax.evaluation.sets import run_evaluation

__all__ = [
    "CLEAN",
    "NEIGHBOURS",
    "PUBLISHED",
    "SAME_SETS",
    "TABLE_1",
    "TABLE_2",
    "TABLE_3",
    "TABLE_4",
    "TABLE_4_MODELS",
    "Degradation",
    "Input",
    "Row",
    "Upscaler",
    "as_text",
    "bicubic_upscaler",
    "compare",
    "crop_row",
    "degradation_name",
    "degradations_of",
    "evaluate_set",
    "gain",
    "image_rows",
    "input_label",
    "latest",
    "lr_label",
    "markdown",
    "name_without_error",
    "network_upscaler",
    "paper_psnr",
    "paper_set",
    "published_set",
    "read_csv",
    "read_figures",
    "read_inputs",
    "run_evaluation",
    "to_row",
    "upscale_pair",
    "write_csv",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "degrading": ["CLEAN", "Degradation", "degradation_name", "degradations_of"],
        "evaluate": [
            "Input",
            "Upscaler",
            "bicubic_upscaler",
            "compare",
            "crop_row",
            "evaluate_set",
            "network_upscaler",
            "read_inputs",
            "upscale_pair",
        ],
        "figure_tables": ["markdown", "name_without_error"],
        "figures": [
            "Row",
            "as_text",
            "gain",
            "image_rows",
            "input_label",
            "latest",
            "lr_label",
            "paper_psnr",
            "paper_set",
            "published_set",
            "read_csv",
            "read_figures",
            "to_row",
            "write_csv",
        ],
        "paper": [
            "NEIGHBOURS",
            "PUBLISHED",
            "SAME_SETS",
            "TABLE_1",
            "TABLE_2",
            "TABLE_3",
            "TABLE_4",
            "TABLE_4_MODELS",
        ],
        "sets": ["run_evaluation"],
    },
)
