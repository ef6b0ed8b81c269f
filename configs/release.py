"""The released weights: the paper's network (Sec. 3), by a recipe of this project.

    python -m btsrn_jax.main --config configs/release.py:x2 --config.data.hr_dir=DIR
    python -m btsrn_jax.main --config configs/release.py:x2,fast \
        --config.data.hr_dir=DIR

The arguments x2, x3 and x4 ask for 200,000 steps of 32 patches, on an accelerator. With
`,fast` after them it is 9,000 steps of 4 smaller patches, on a CPU.

Expected time: x2,fast takes about 40 minutes on two CPU cores of 150 GFLOP/s, where a
step is 0.25 s. On one H100 x2 makes 191 steps of 32 patches a second: 18 minutes.

Expected PSNR: `btsrn models` lists the released weights with their figures.

The recipe differs from the paper's (configs/x2.py) in what costs nothing at test time:
L1 loss; Muon instead of Adam; four places drawn for each patch, of which the one with
most detail is taken; a cosine decay; averaged weights; x3 and x4 started from the
layers of x2 (--config.train.init_from=runs/release-x2).

What each brought, on 24 crops of DIV2K's validation images at x2 (protocol modern;
bicubic 32.26), after 500 steps of 4 patches of 36 LR pixels, one run each:

    Adam, rate 1e-3                                                 34.48 dB
    the same with 4 candidates for a patch                          34.64
    the same with Muon, updates as large as Adam's                  34.62
    the same with Muon, three times as large                        34.71
    2 patches of 50 LR pixels instead, which cost as much           34.30
    250 steps of 16 patches against 1,000 of 4 (Adam)               34.37, 34.69

    Muon, 4 candidates, warm-up of 100 steps, bound 0.5             34.77
    the same with squared errors as loss                            34.65
    the same without the averages                                   34.79
    the same without a bound on the gradient's norm                 34.79
    the same without warm-up                                        34.77
    the same with convolutions in float32 instead of bfloat16       34.76

    the recipe that was left of it, after 250 and 500 steps         34.62, 34.78
    the same without the averages                                   34.49, 34.78
    the same with the paper's exponential decay instead of cosine   34.61 (500)
    the recipe after 900 steps, two seeds                           34.90, 34.93
    the same with wsd instead of cosine (decay_share 0.2)           34.83, 34.82

    x3 (bicubic 29.29) after 400 steps, from scratch                30.92
    from the layers of btsrn-x2, itself of 28,500 steps             31.18

    long runs on a GPU, on 482 images of 104 megapixels; also Kodak's 24 photographs:
    x2, 74,520 steps of 32                                    35.40, Kodak 33.47
    x4 from its layers, 25,781 steps of 16                    29.20, Kodak 28.38
    the same, 7,948 of 13,000 steps, without candidates and
    with smaller copies of the images (0.75, 0.55) beside them 29.40, Kodak 28.64

The longer run at x4 seems to have learned its images by heart: 0.8 dB more on CID22's
than the weights before it, and less on others. Which of the two changes mends that,
or whether it is the fewer steps, was not measured. Whoever trains for more than some
thousand steps on few images should make both:

    --config.train.candidates=1 --config.data.smaller_copies="(0.75, 0.55)"

Both together, from released weights, on one CPU core, with wsd and a rate of 3e-4:

    x2, 12,500 steps of 4 patches (decay_share 0.3)         35.40 became 35.46
    the same, 1,000 steps at 1e-4 (decay_share 1)           35.43
    x3, 4,800 steps of 4 (decay_share 0.4)                  31.35 became 31.40
    the first of x2, 1,000 steps more, HR of the ensemble   35.48

The last of these is what pays: the network learns from its own ensemble
(docs/training.md; docs/results.md has all that was tried). Also on one CPU core:

    x2, 5,400 steps from 35.40, at 4e-4, a cosine           35.50, Kodak 33.61
    x3, 2,200 steps from 31.40, at 4e-4, a cosine           31.45, Kodak 30.20

The bound and the warm-up brought nothing and are left out. The averages bring nothing
after a decay to 0 (x4, 3,000 steps: 29.22 with and without), but 0.13 dB halfway: they
are kept so that a run may be stopped early.
"""

from ml_collections import ConfigDict

from btsrn_jax import config as schema
from btsrn_jax.errors import InputError

SCALES = {"x2": 2, "x3": 3, "x4": 4}


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config of "x2", "x3" or "x4", or of one of them with ",fast"."""
    name, comma, variant = (arg or "").partition(",")
    if name not in SCALES or (comma and variant != "fast"):
        raise InputError(
            f"configs/release.py:{arg or 'ARG'}: one of {', '.join(SCALES)}; with ,fast"
            " after it for a CPU"
        )
    config = schema.defaults()
    config.scale = SCALES[name]
    config.data.source = "folder"

    train = config.train
    train.batch_size = 32
    train.patch = 54 * config.scale
    train.steps = 200_000
    train.learning_rate = 1e-3
    train.candidates = 4
    train.optimizer = "muon"
    train.schedule = "cosine"
    train.loss = "l1"
    train.ema = 0.999
    if variant:
        train.batch_size = 4
        train.patch = 36 * config.scale
        train.steps = 9000
        train.eval_every = train.checkpoint_every = 1000

    config.eval.protocol = "modern"
    config.eval.max_images = 24
    return config
