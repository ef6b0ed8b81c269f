"""BTSRN x2 as in the paper (Sec. 3 and 4), on one track of the NTIRE 2017 challenge.

    python -m btsrn_jax.main --config configs/x2.py            # DIV2K, bicubic
    python -m btsrn_jax.main --config configs/x2.py:unknown

Data: DIV2K, prepared once by `btsrn prepare div2k/bicubic_x2 --data-dir data`
(or `div2k/unknown_x2`).

Recipe: the defaults of every field. About 290,000 steps of 32 patches of 108 HR pixels
(54 LR), squared error of RGB residuals, Adam at 0.001, x 0.6 after each of 16 passes.

Expected PSNR: the paper reports 34.19 dB (bicubic 31.01) on the challenge's test
set, after training on 900 images, with the self-ensemble.

Expected time: 30 minutes on an accelerator that sustains 50 T multiply-adds a second;
the whole run takes 91 P, forward and backward. This is reckoned, not measured.
"""

from ml_collections import ConfigDict

from btsrn_jax import config as schema
from btsrn_jax.errors import InputError


def get_config(track: str | None = None) -> ConfigDict:
    """Returns the config of a track: bicubic (the default) or unknown."""
    track = track or "bicubic"
    if track not in ("bicubic", "unknown"):
        raise InputError(f"configs/x2.py:{track}: the argument is bicubic or unknown")
    config = schema.defaults()
    config.scale = 2
    config.data.track = track
    return config
