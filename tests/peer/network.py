"""The same network in PyTorch, written for comparison alone: (B, c, h, w), VALID.

Nothing here is shared with the package but the paper. tests/benchmark/test_peer.py
compares the outputs and gradients of the two.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """A projected convolution: crop1(x) + conv3x3(relu(conv1x1(relu(x))))."""

    def __init__(self, features, bottleneck):
        super().__init__()
        self.down = nn.Conv2d(features, bottleneck, 1)
        self.conv = nn.Conv2d(bottleneck, features, 3)

    def forward(self, x):
        return x[:, :, 1:-1, 1:-1] + self.conv(F.relu(self.down(F.relu(x))))


class Up(nn.Module):
    """nearest(x) + deconv(relu(x)), kernel = stride."""

    def __init__(self, features, scale):
        super().__init__()
        self.scale = scale
        self.deconv = nn.ConvTranspose2d(features, features, scale, scale)

    def forward(self, x):
        return F.interpolate(x, scale_factor=self.scale) + self.deconv(F.relu(x))


class BTSRN(nn.Module):
    """LR (B, 3, h, w) in [0, 1] -> the residual over the bicubic skip."""

    def __init__(self, scale, features=128, bottleneck=64, low_blocks=6, high_blocks=4):
        super().__init__()
        steps = (2, 2) if scale == 4 else (scale,)

        def blocks(count):
            return nn.Sequential(*[Block(features, bottleneck) for _ in range(count)])

        self.scale = scale
        self.first = nn.Conv2d(3, features, 1)
        self.low = blocks(low_blocks)
        self.up = nn.Sequential(*[Up(features, step) for step in steps])
        self.high = blocks(high_blocks)
        self.last = nn.Conv2d(features, 3, 1)
        self.register_buffer("cubic", cubic_kernels(scale), persistent=False)

    def forward(self, lr):
        x = self.up(self.low(self.first(lr - 0.5)))
        return self.last(F.relu(self.high(x)))

    def super_resolve(self, lr):
        """Returns residual plus skip, where the network determines it, in float32."""
        residual = self(lr).float()
        b, _, h, w = lr.shape
        # Each phase of bicubic enlargement is a 5 x 5 kernel on the LR pixels.
        skip = F.conv2d(lr.reshape(3 * b, 1, h, w).float(), self.cubic)
        skip = F.pixel_shuffle(skip, self.scale)
        skip = skip.reshape(b, 3, *skip.shape[2:])
        border = (skip.shape[2] - residual.shape[2]) // 2
        return skip[:, :, border : -border or None, border : -border or None] + residual


def cubic_kernels(scale):
    """(scale * scale, 1, 5, 5): Keys' cubic, a = -0.5, at the phases of a pixel."""
    offset = (torch.arange(scale, dtype=torch.float64) + 0.5) / scale - 0.5
    x = (offset[:, None] - torch.arange(-2, 3)).abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    taps = torch.where(x <= 1, near, torch.where(x <= 2, far, torch.zeros_like(x)))
    kernels = taps[:, None, :, None] * taps[None, :, None, :]
    return kernels.reshape(scale * scale, 1, 5, 5).float()


def names(net: BTSRN) -> dict[str, nn.Module]:
    """Returns the layers by the package's names, such as low0/conv."""
    layers = {"in": net.first, "out": net.last}
    for stage in ("low", "high"):
        for i, block in enumerate(getattr(net, stage)):
            layers |= {f"{stage}{i}/down": block.down, f"{stage}{i}/conv": block.conv}
    return layers | {f"up{i}": up.deconv for i, up in enumerate(net.up)}


def from_kernel(layer: nn.Module, kernel: np.ndarray) -> np.ndarray:
    """Returns the package's kernel (kh, kw, i, o) in the order of PyTorch's layer."""
    deconv = isinstance(layer, nn.ConvTranspose2d)
    return kernel.transpose((2, 3, 0, 1) if deconv else (3, 2, 0, 1))


def load(net: BTSRN, params: Mapping) -> None:
    """Sets all parameters from {"low0/conv/kernel": array, ...}."""
    layers = names(net)
    assert {f"{n}/{kind}" for n in layers for kind in ("kernel", "bias")} == set(params)
    with torch.no_grad():
        for name, layer in layers.items():
            kernel = from_kernel(layer, np.asarray(params[f"{name}/kernel"]))
            layer.weight.copy_(torch.from_numpy(kernel.copy()))
            layer.bias.copy_(torch.from_numpy(np.array(params[f"{name}/bias"])))
