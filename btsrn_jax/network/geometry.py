"""How many pixels a network takes and gives.

Every convolution is VALID, so sizes follow from the counts of blocks alone. Nothing
here needs JAX or Flax: `config.validate` uses these formulas, and the networks inherit
them.
"""

import dataclasses
import math
from collections.abc import Mapping

from btsrn_jax.errors import InputError

SKIP_MARGIN = 2  # LR pixels that the bicubic skip reads beyond each side
VDSR_LAYERS, VDSR_FEATURES = 20, 64  # of its paper


def upsamplings(scale: int) -> tuple[int, ...]:
    """Returns the factor of each upsampling layer: x4 is two x2 in a row."""
    return (2, 2) if scale == 4 else (scale,)


class Geometry:
    """The sizes of a network, from its scale and its counts of blocks.

    A block takes one pixel off each side of its input, at the size it works at.
    """

    scale: int
    low_blocks: int
    mid_blocks: int  # used at x4 alone
    high_blocks: int

    @property
    def halo(self) -> int:
        """The distance in LR pixels up to which an HR pixel depends on the input.

        It is never less than the two pixels that the bicubic skip reads.
        """
        if self.scale == 4:
            beyond = math.ceil((2 * self.mid_blocks + self.high_blocks) / 4)
        else:
            beyond = math.ceil(self.high_blocks / self.scale)
        return max(self.low_blocks + beyond, SKIP_MARGIN)

    @property
    def valid_border(self) -> int:
        """The number of HR pixels that the VALID convolutions take off each side."""
        mid = 2 * self.mid_blocks if self.scale == 4 else 0
        return self.scale * self.low_blocks + mid + self.high_blocks

    def output_size(self, side: int) -> int:
        """Returns the side in HR pixels of what `super_resolve` makes of an LR side.

        If the result is 0 or less, the input is too small for the network.
        """
        border = max(self.valid_border, SKIP_MARGIN * self.scale)
        return self.scale * side - 2 * border


@dataclasses.dataclass(frozen=True)
class Sizes(Geometry):
    """The geometry of a network that is not built."""

    scale: int
    low_blocks: int
    mid_blocks: int
    high_blocks: int


def geometry_of(model: Mapping, scale: int) -> Sizes:
    """Returns the geometry of the network of a config's `model` section.

    Raises:
      InputError: nothing is known of the sizes of such a network.
    """
    if model["name"] == "vdsr":
        return Sizes(scale, SKIP_MARGIN, 0, VDSR_LAYERS)
    if model["name"] != "btsrn":
        raise InputError(f"no sizes of network {model['name']!r}: network/geometry.py")
    return Sizes(scale, *(model[f"{stage}_blocks"] for stage in ("low", "mid", "high")))
