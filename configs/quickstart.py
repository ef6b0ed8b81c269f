"""Two minutes of training on scikit-image's photographs: a first look, x2.

    python -m btsrn_jax.main --config configs/quickstart.py

The network of the paper at half its width. Cosine decay, L1 loss and averaged weights
make more of few steps than the paper's schedule would.
"""

from btsrn_jax import config as schema


def get_config(arg=None):
    if arg:
        raise schema.InputError(f"configs/quickstart.py takes no argument, not {arg!r}")
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
