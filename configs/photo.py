"""Photographs as they are: the released network, trained on further to undo JPEG, and
a little noise and blur, while it enlarges.

    python -m btsrn_jax.main --config configs/photo.py:x2 --config.data.hr_dir=DIR

The arguments are x2, x3 and x4. Training starts from the released weights of the scale;
--config.train.init_from=RUN names others.

Recipe: that of configs/release.py:x2,fast at a third of its learning rate, without
candidates (noise is no detail). LR patches are degraded inside the step:

    blur   1 in 5       Gaussian, 0.2 to 0.8 LR pixels wide, half of them uneven
    noise  3 in 10      up to 6 grey levels, half of it shot noise, half of it grey
    JPEG   7 in 10      quality 30 to 98, the higher of two even draws: four fifths lie
                        above 60; three quarters have 4:2:0

One patch in six stays as it is (0.8 x 0.7 x 0.3).

The schedule is wsd, so that a run may be made longer, or be ended early, for as long as
its rate has not begun to fall: the same command with another --config.train.steps.

Expected time: x2 makes 2.6 steps a second on one CPU core of 75 GFLOP/s, and x4 0.85.

Validation is on the LR images of --config.eval.sets as they are, as JPEGs of two
qualities, and with noise: by clean images alone the first steps seem to be the best.

Expected PSNR: docs/photos.md has the figures of btsrn-x2-photo and btsrn-x4-photo, and
the commands that trained them. Fewer JPEGs are better for clean pictures, and worse for
the others. At x2, against btsrn-x2 on Kodak's photographs (modern), each run from the
one before it:

    JPEG for      steps            clean    quality 75   quality 50
    8 of 10       6,478            -0.65    +0.90        +0.83 dB
    7 of 10       10,000 more      -0.50    +0.86        +0.80
    6 of 10       2,500 more       -0.41    +0.82        +0.75
"""

from ml_collections import ConfigDict

from btsrn_jax import config as schema
from btsrn_jax.errors import InputError

SCALES = {"x2": 2, "x3": 3, "x4": 4}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config of "x2", "x3" or "x4"."""
    if arg not in SCALES:
        raise InputError(f"configs/photo.py:{arg or 'ARG'}: one of {', '.join(SCALES)}")
    config = schema.defaults()
    config.scale = SCALES[arg]
    config.data.source = "folder"

    degradation = config.data.degradation
    degradation.blur = 0.2
    degradation.blur_width = (0.2, 0.8)
    degradation.noise = 0.3
    degradation.noise_level = (0.0, 6.0)
    degradation.jpeg = 0.7
    degradation.jpeg_quality = (30, 98)
    degradation.jpeg_subsampled = 0.75

    train = config.train
    train.init_from = f"btsrn-{arg}"
    train.batch_size = 4
    train.patch = 36 * config.scale
    train.steps = 10_000
    train.learning_rate = 3e-4
    train.optimizer = "muon"
    train.schedule = "wsd"
    train.decay_share = 0.35
    train.loss = "l1"
    train.ema = 0.999
    train.eval_every = train.checkpoint_every = 1000

    config.eval.protocol = "modern"
    config.eval.degrade = "clean,jpeg:90,jpeg:70,noise:5"
    config.eval.max_images = 24
    return config
