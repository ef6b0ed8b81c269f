"""The released weights: the paper's network, trained as well as the data allows.

    python -m btsrn_jax.main --config configs/release.py:x2 --config.data.hr_dir=DIR

What differs from the paper's recipe (configs/x2.py), none of it costs anything at test
time: L1 loss, cosine decay with warm-up, averaged weights, a bound on the gradient's
norm, and x3 and x4 started from x2's layers (--config.train.init_from=runs/release-x2).
Patches of 36 LR pixels, 16 a step, suit a CPU's caches.
"""

from btsrn_jax import config as schema
from btsrn_jax.errors import InputError

SCALES = {"x2": 2, "x3": 3, "x4": 4}


def get_config(arg=None):
    if arg not in SCALES:
        raise InputError(f"configs/release.py:{arg or ''}: one of {', '.join(SCALES)}")
    config = schema.defaults()
    config.scale = SCALES[arg]
    config.data.source = "folder"

    train = config.train
    train.batch_size = 16
    train.patch = 36 * config.scale
    train.steps = 6000
    train.learning_rate = 1e-3
    train.schedule = "cosine"
    train.warmup_steps = 100
    train.loss = "l1"
    train.ema = 0.999
    train.clip_norm = 0.5
    train.eval_every = 500
    train.checkpoint_every = 500

    config.eval.protocol = "modern"
    config.eval.max_images = 24
    return config
