"""How many pixels a network takes and gives; nothing here needs JAX or Flax.

Every convolution is VALID, so sizes follow from the counts of blocks alone. The config
is checked with these formulas before JAX is loaded; the networks inherit them.
"""

import dataclasses
import math
from collections.abc import Mapping

SKIP_MARGIN = 2  # LR pixels beyond each side that the bicubic skip reads
VDSR_LAYERS, VDSR_FEATURES = 20, 64  # of its paper


def upsamplings(scale: int) -> tuple[int, ...]:
    """Returns the factor of each upsampling layer: x4 is two x2 in a row."""
    return (2, 2) if scale == 4 else (scale,)


class Geometry:
    """What a network says of its sizes; `scale` and the counts of blocks decide.

    One block takes one pixel off each side, at the resolution that it works at.
    """

    scale: int
    low_blocks: int
    mid_blocks: int
    high_blocks: int

    @property
    def halo(self) -> int:
        """LR pixels on each side that an HR pixel can depend on; at least the skip's
        two."""
        if self.scale == 4:
            beyond = math.ceil((2 * self.mid_blocks + self.high_blocks) / 4)
        else:
            beyond = math.ceil(self.high_blocks / self.scale)
        return max(self.low_blocks + beyond, SKIP_MARGIN)

    @property
    def valid_border(self) -> int:
        """HR pixels that the VALID convolutions take off each side of the enlarged
        input."""
        mid = 2 * self.mid_blocks if self.scale == 4 else 0
        return self.scale * self.low_blocks + mid + self.high_blocks

    def output_size(self, side: int) -> int:
        """Returns the HR side of what `super_resolve` makes of an LR side; 0 or less
        means that the input is too small."""
        border = max(self.valid_border, SKIP_MARGIN * self.scale)
        return self.scale * side - 2 * border


@dataclasses.dataclass(frozen=True)
class Sizes(Geometry):
    """The geometry of a config's network, for a check without JAX."""

    scale: int
    low_blocks: int
    mid_blocks: int
    high_blocks: int


def geometry_of(model: Mapping, scale: int) -> Sizes:
    """Returns the geometry of a config's `model` section at one scale."""
    if model["name"] == "vdsr":
        return Sizes(scale, SKIP_MARGIN, 0, VDSR_LAYERS)
    return Sizes(scale, *(model[f"{stage}_blocks"] for stage in ("low", "mid", "high")))
