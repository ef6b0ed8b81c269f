"""A first look: BTSRN x2 at half its width, trained on scikit-image's photographs.

    python -m btsrn_jax.main --config configs/quickstart.py

Recipe: 400 steps of 16 patches. L1 loss, a cosine decay and averaged weights make more
of so few steps than the paper's schedule would.

Expected time: about two minutes on two CPU cores.
"""

from ml_collections import ConfigDict

from btsrn_jax import config as schema
from btsrn_jax.errors import InputError


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config; there are no variants."""
    if arg:
        raise InputError(f"configs/quickstart.py takes no argument, not {arg!r}")
    config = schema.defaults()
    config.scale = 2
    config.data.source = "samples"

    config.model.features = 64
    config.model.bottleneck = 32

    train = config.train
    train.batch_size = 16
    train.patch = 72
    train.steps = 400
    train.learning_rate = 1.5e-3
    train.schedule = "cosine"
    train.warmup_steps = 50
    train.loss = "l1"
    train.ema = 0.99
    train.clip_norm = 0.5
    train.log_every = 20
    train.eval_every = 100
    train.checkpoint_every = 100
    return config
