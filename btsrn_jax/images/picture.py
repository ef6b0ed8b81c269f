"""What one image file holds, in memory."""

import dataclasses

import numpy as np

from btsrn_jax.images.parts import Text


@dataclasses.dataclass(frozen=True)
class Picture:
    """What one image file holds."""

    pixels: np.ndarray
    """(h, w, 1 or 3) uint8 or uint16, upright; colours are not premultiplied."""

    alpha: np.ndarray | None = None
    """(h, w) of the same dtype, where 0 is transparent; None if all is opaque."""

    icc: bytes | None = None
    """The ICC profile of `pixels`; None means sRGB."""

    exif: bytes | None = None
    """An EXIF block that begins with b"Exif", its orientation 1; None if empty."""

    xmp: bytes | None = None
    """An XMP packet that says nothing of other parts of the file it came from."""

    iptc: bytes | None = None
    """IPTC records, without Photoshop's wrapping."""

    text: tuple[Text, ...] = ()
    """The texts of a PNG, or the comment of a JPEG."""

    dpi: tuple[float, float] | None = None
    """Dots per inch, across and down."""

    colours: str = ""
    """What else than an ICC profile gives the colours a meaning other than sRGB, such
    as "gAMA and cHRM". `icc` was made from it, or is None if no profile can say it."""

    chunks: tuple[tuple[bytes, bytes], ...] = ()
    """The chunks of a PNG that mean its colours, for another PNG; iCCP unpacked."""

    notes: tuple[str, ...] = ()
    """What was done on reading, one short phrase each."""

    @property
    def colours_name(self) -> str:
        """How messages call what gives the colours their meaning."""
        return f"colours by {self.colours}" if self.colours else "ICC profile"
