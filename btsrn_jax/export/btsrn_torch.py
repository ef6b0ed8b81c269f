"""BTSRN in PyTorch: one file that needs torch and safetensors alone.

The network of *Balanced Two-Stage Residual Networks for Image Super-Resolution* (Fan et
al., CVPR Workshops 2017), for the weights that BTSRN-JAX exports as PyTorch's:

    model = BTSRN.from_file("model.pth.safetensors")
    sr = model(lr)  # (B, 3, h, w) -> (B, 3, s h, s w), RGB in [0, 1]

Sizes, blocks and scale are read off the names and shapes of the weights. `register()`
makes spandrel take such files, and with it ComfyUI. No output pixel depends on LR
pixels farther away than `model.halo`: whoever cuts tiles leaves as much around each.

Licence: Apache-2.0.
"""

import math
import re

import torch
from torch import nn
from torch.nn import functional as F


class Activation(nn.Module):
    """ReLU, or leaky ReLU of a slope; after batch normalisation, if any."""

    def __init__(self, features, batch_norm, slope):
        super().__init__()
        self.norm = nn.BatchNorm2d(features) if batch_norm else nn.Identity()
        self.slope = slope

    def forward(self, x):
        x = self.norm(x)
        return F.leaky_relu(x, self.slope) if self.slope else F.relu(x)


class Block(nn.Module):
    """A residual block of the paper's Figure 2: crop1(x) + branch(x)."""

    def __init__(self, features, bottleneck, kind, *activation):
        super().__init__()
        self.kind = kind
        self.pre_down = Activation(features, *activation)
        self.down = nn.Conv2d(features, bottleneck, 1)
        self.pre_conv = Activation(bottleneck, *activation)
        if kind == "pixelcnn":
            self.conv = nn.Conv2d(bottleneck, bottleneck, 3)
            self.pre_up = Activation(bottleneck, *activation)
            self.up = nn.Conv2d(bottleneck, features, 1)
        else:  # the layer's name tells kinds of equal shapes apart
            gated = kind in ("gated", "gated_pp")
            conv = nn.Conv2d(bottleneck, (1 + gated) * features, 3)
            self.add_module(kind if gated else "conv", conv)

    def forward(self, x):
        y = self.pre_conv(self.down(self.pre_down(x)))
        if self.kind == "pixelcnn":
            y = self.up(self.pre_up(self.conv(y)))
        elif self.kind == "pconv":
            y = self.conv(y)
        else:
            a, b = getattr(self, self.kind)(y).chunk(2, dim=1)
            y = (a.tanh() if self.kind == "gated" else a) * b.sigmoid()
        return crop(x, 1) + y


class BTSRN(nn.Module):
    """The network: (B, 3, h, w) RGB in [0, 1] -> (B, 3, s h, s w), any h and w.

    Args:
      scale: 2, 3 or 4.
      features, bottleneck: channels.
      low_blocks, mid_blocks, high_blocks: residual blocks before, between (x4 alone)
        and after the upsamplings.
      block: "pconv", "pixelcnn", "gated" or "gated_pp".
      batch_norm: True for batch normalisation before each activation.
      slope: of a leaky ReLU; 0 for ReLU.
    """

    def __init__(
        self,
        scale,
        features=128,
        bottleneck=64,
        low_blocks=6,
        mid_blocks=0,
        high_blocks=4,
        block="pconv",
        batch_norm=False,
        slope=0.0,
    ):
        super().__init__()
        steps = (2, 2) if scale == 4 else (scale,)
        mid_blocks = mid_blocks if scale == 4 else 0

        def blocks(count):
            each = (features, bottleneck, block, batch_norm, slope)
            return nn.Sequential(*[Block(*each) for _ in range(count)])

        def activation():
            return Activation(features, batch_norm, slope)

        self.scale, self.features = scale, features
        low, high = low_blocks * scale, 2 * mid_blocks + high_blocks  # in HR pixels
        self.border = low + high  # that the convolutions take off each side
        self.halo = max(2, low_blocks + math.ceil(high / scale))  # in LR pixels
        self.first = nn.Conv2d(3, features, 1)
        self.low, self.mid = blocks(low_blocks), blocks(mid_blocks)
        self.pre_up = nn.ModuleList([activation() for _ in steps])
        deconv = [nn.ConvTranspose2d(features, features, n, n) for n in steps]
        self.up = nn.ModuleList(deconv)
        self.high, self.pre_last = blocks(high_blocks), activation()
        self.last = nn.Conv2d(features, 3, 1)
        if slope:
            self.register_buffer("slope", torch.tensor(float(slope)))
        self.register_buffer("cubic", cubic_kernels(scale), persistent=False)

    @classmethod
    def from_file(cls, path):
        """Returns the network of a model.pth.safetensors, ready for use."""
        from safetensors.torch import load_file

        return cls.from_state(load_file(path))

    @classmethod
    def from_state(cls, state):
        """Returns the network of a state dict, ready for use."""

        def kernels(stage, layer):
            pattern = rf"{stage}\.\d+{layer}\.weight"
            return [x for name, x in state.items() if re.fullmatch(pattern, name)]

        layers = {name.split(".")[-2] for name in state if "." in name}
        kinds = {"up": "pixelcnn", "gated": "gated", "gated_pp": "gated_pp"}
        down = [kernels(stage, r"\.down") for stage in ("low", "mid", "high")]
        model = cls(
            math.prod(kernel.shape[-1] for kernel in kernels("up", "")),
            len(state["first.weight"]),
            len(sum(down, [[0]])[-1]),  # of any block
            *map(len, down),
            block=next((kinds[name] for name in kinds if name in layers), "pconv"),
            batch_norm="norm" in layers,
            slope=float(state.get("slope", 0)),
        )
        model.load_state_dict(state)
        return model.eval()

    def forward(self, lr):
        sr = self.super_resolve(mirror(mirror(lr, self.halo, 2), self.halo, 3))
        border = self.scale * self.halo - max(self.border, 2 * self.scale)
        return crop(sr, border).clamp(0, 1)

    def super_resolve(self, lr):
        """Returns the part of the enlarged image that depends on pixels of `lr` alone,
        not clipped: without max(border, 2 s) pixels on each side."""
        x = self.low(self.first(lr - 0.5))
        for i, up in enumerate(self.up):
            x = self.mid(x) if i else x
            enlarged = F.interpolate(x, scale_factor=up.stride[0])  # nearest
            x = enlarged + up(self.pre_up[i](x))
        residual = self.last(self.pre_last(self.high(x)))
        b, c, h, w = lr.shape  # bicubic: each phase is a 5 x 5 kernel on LR pixels
        skip = F.conv2d(lr.reshape(b * c, 1, h, w), self.cubic)
        skip = F.pixel_shuffle(skip, self.scale)
        skip = skip.reshape(b, c, *skip.shape[2:])
        border = self.border - 2 * self.scale
        return crop(skip, max(border, 0)) + crop(residual, max(-border, 0))


def crop(x, border):
    return x[:, :, border : x.shape[2] - border, border : x.shape[3] - border]


def mirror(x, border, axis):
    """Pads by mirror images that repeat the edge; the border may exceed the image."""
    n = x.shape[axis]
    index = torch.arange(-border, n + border, device=x.device) % (2 * n)
    return x.index_select(axis, torch.minimum(index, 2 * n - 1 - index))


def cubic_kernels(scale):
    """Keys' cubic, a = -0.5, at the phases of an LR pixel: (scale * scale, 1, 5, 5)."""
    offset = (torch.arange(scale, dtype=torch.float64) + 0.5) / scale - 0.5
    x = (offset[:, None] - torch.arange(-2, 3)).abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    taps = torch.where(x <= 1, near, torch.where(x <= 2, far, torch.zeros_like(x)))
    kernels = taps[:, None, :, None] * taps[None, :, None, :]
    return kernels.reshape(scale * scale, 1, 5, 5).float()


def register():
    """Makes spandrel recognise and load such files. Doing it twice is fine."""
    from spandrel import MAIN_REGISTRY, Architecture, ArchSupport, ImageModelDescriptor

    class BTSRNArch(Architecture):
        def __init__(self):
            super().__init__(id="BTSRN", detect=self.recognises)

        @staticmethod
        def recognises(state):
            if not {"first.weight", "up.0.weight", "last.weight"} <= state.keys():
                return False
            return state["first.weight"].shape[1:] == (3, 1, 1)

        def load(self, state_dict):
            model = BTSRN.from_state(state_dict)
            return ImageModelDescriptor(
                model,
                state_dict,
                architecture=self,
                purpose="SR",
                tags=[f"{model.features}nf"],
                supports_half=True,
                supports_bfloat16=True,
                scale=model.scale,
                input_channels=3,
                output_channels=3,
            )

    MAIN_REGISTRY.add(
        ArchSupport.from_architecture(BTSRNArch()), ignore_duplicates=True
    )
