"""The eight flips and rotations of an image."""


def turn(x, k: int):
    """View k of 0..7 of (..., h, w, c): k // 4 flips left-right, then k % 4 turns by 90
    degrees. NumPy and JAX arrays alike. View 0 is the image itself."""
    if k & 4:
        x = x[..., ::-1, :]
    if k & 1:
        x = x.swapaxes(-3, -2)[..., ::-1, :, :]
    if k & 2:
        x = x[..., ::-1, ::-1, :]
    return x


def turn_back(x, k: int):
    """The inverse of `turn(x, k)`."""
    if k & 2:
        x = x[..., ::-1, ::-1, :]
    if k & 1:
        x = x[..., ::-1, :, :].swapaxes(-3, -2)
    if k & 4:
        x = x[..., ::-1, :]
    return x
