"""Picture files in and out; the eight flips and rotations.

Other rooms use the names in `__all__`; each is loaded when it is first used.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from btsrn_jax.images.crops import busiest_square, busiest_squares, side_by_side
    from btsrn_jax.images.decode import (
        SUFFIXES,
        image_size,
        jpeg_quality,
        read_picture,
    )
    from btsrn_jax.images.encode import check_writable, write_picture
    from btsrn_jax.images.files import (
        as_rgb,
        find_images,
        mark_outputs,
        read_image,
        walk_folder,
        write_image,
    )
    from btsrn_jax.images.heif import readable_suffixes
    from btsrn_jax.images.picture import Picture
    from btsrn_jax.images.quantisation import JPEG_TABLES, JpegQuality
    from btsrn_jax.images.views import turn, turn_back

__all__ = [
    "JPEG_TABLES",
    "SUFFIXES",
    "JpegQuality",
    "Picture",
    "as_rgb",
    "busiest_square",
    "busiest_squares",
    "check_writable",
    "find_images",
    "image_size",
    "jpeg_quality",
    "mark_outputs",
    "read_image",
    "read_picture",
    "readable_suffixes",
    "side_by_side",
    "turn",
    "turn_back",
    "walk_folder",
    "write_image",
    "write_picture",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "crops": ["busiest_square", "busiest_squares", "side_by_side"],
        "decode": ["SUFFIXES", "image_size", "jpeg_quality", "read_picture"],
        "encode": ["check_writable", "write_picture"],
        "files": [
            "as_rgb",
            "find_images",
            "mark_outputs",
            "read_image",
            "walk_folder",
            "write_image",
        ],
        "heif": ["readable_suffixes"],
        "picture": ["Picture"],
        "quantisation": ["JPEG_TABLES", "JpegQuality"],
        "views": ["turn", "turn_back"],
    },
)
