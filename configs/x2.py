"""BTSRN x2 as in the paper: Sec. 3 and 4, challenge track `bicubic` or `unknown`.

    python -m btsrn_jax.main --config configs/x2.py            # DIV2K, bicubic
    python -m btsrn_jax.main --config configs/x2.py:unknown

Needs `btsrn prepare div2k/bicubic_x2 --data-dir data` once. About 290,000 steps of 32
patches. The paper reports 34.19 dB on the challenge's test set (900 training images,
ensemble; bicubic 31.01). Patches of 108 HR pixels (54 LR), MSE on RGB residuals, Adam
at 0.001, x 0.6 after each of 16 passes: all of it the schema's defaults.

Expected time: 91 P multiply-adds in all, forward and backward; 30 minutes on an
accelerator that sustains 50 T a second (reckoned, not measured).
"""

from btsrn_jax import config as schema
from btsrn_jax.errors import InputError


def get_config(track=None):
    track = track or "bicubic"
    if track not in ("bicubic", "unknown"):
        raise InputError(f"configs/x2.py:{track}: the argument is bicubic or unknown")
    config = schema.defaults()
    config.scale = 2
    config.data.track = track
    return config
