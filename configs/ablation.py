"""The paper's own comparisons, row by row: Tables 1 and 2, Figures 3 and 4, and its
study of normalisation (Sec. 3.4), all at x2; and VDSR, the peer of its Table 4.

    python -m btsrn_jax.main --config configs/ablation.py:table1-high3
    btsrn report runs/ablation-* --out report

ROW                   blocks, block, width           paper, dB (DIV2K validation, ntire)
table1-high3          6 + 3, pconv, 128/64           34.14024
table1-high4          6 + 4                          34.16181
table1-high5          6 + 5                          34.12123
table2-low5           5 + 4, pconv, 128/64           34.15799
table2-low6           6 + 4                          34.16181
table2-low7           7 + 4                          34.15126
table2-low8           8 + 4                          34.16568
table2-low9           9 + 4                          34.18892
figure3-1+9 .. 9+1    1 + 9 to 9 + 1, pconv, 128/64  a plot; 7 + 3 is best
figure4-pixelcnn      6 + 4, pixelcnn, 128/32        a plot; gated_pp > pconv > pixelcnn
figure4-gated         6 + 4, gated, 128/32
figure4-gated_pp      6 + 4, gated_pp, 128/32
figure4-pconv         6 + 4, pconv, 128/32
norm-none             6 + 4, pconv, 128/64           "batch" hurts, "weight" changes
norm-batch            the same, batch normalised     nothing to speak of
norm-weight           the same, weight normalised
vdsr-x2, -x3, -x4     VDSR, 20 layers of 64          Table 4: evaluation/paper.py

Widths are features/bottleneck. The paper does not state scale, bottleneck and ensemble
of Tables 1, 2 and Figure 3: here they are x2, 64, and no ensemble. table1-high4,
table2-low6, figure3-6+4 and norm-none are one network: one run serves all of them.

Data: DIV2K, prepared once by `btsrn prepare div2k/bicubic_x2 --data-dir data`.

Recipe: as in configs/x2.py, 290,000 steps of 32 patches in 16 passes. Several seeds
(--config.train.seed=1 and a --workdir of its own) become a mean and a deviation in the
report.

Expected time: half an hour a row on an accelerator that sustains 50 T multiply-adds a
second. A step of the 6 + 4 network takes 0.32 T, forward and backward, and a row 93 P;
other rows are in proportion to the multiply-adds that `btsrn info` prints. This is
reckoned, not measured.

ROW,small: the same comparison in minutes on a CPU. It is reduced to a quarter of the
width and 600 steps of 16 patches of 64 pixels with a cosine decay, on scikit-image's
photographs unless --config.data.source=folder --config.data.hr_dir=DIR names others.
This is not the paper's experiment, and the order of its rows need not be the paper's:
docs/experiments.md.

The challenge setting trains on 900 images and is evaluated with the self-ensemble:

    python -m btsrn_jax.main --config configs/x2.py \
        --config.data.split=train+validation --workdir runs/challenge-x2
    btsrn evaluate --model runs/challenge-x2 --sets DIR --protocol ntire
"""

from ml_collections import ConfigDict

from btsrn_jax import config as schema
from btsrn_jax.errors import InputError

BLOCKS = ("pixelcnn", "gated", "gated_pp", "pconv")


def _rows():
    """Returns (scale, changed fields of config.model) by the name of the row."""
    rows = {f"table1-high{n}": (2, {"high_blocks": n}) for n in (3, 4, 5)}
    rows |= {f"table2-low{n}": (2, {"low_blocks": n}) for n in (5, 6, 7, 8, 9)}
    rows |= {
        f"figure3-{n}+{10 - n}": (2, {"low_blocks": n, "high_blocks": 10 - n})
        for n in range(1, 10)
    }
    rows |= {
        f"figure4-{block}": (2, {"block": block, "bottleneck": 32}) for block in BLOCKS
    }
    rows |= {
        f"norm-{norm}": (2, {"norm": norm}) for norm in ("none", "batch", "weight")
    }
    return rows | {
        f"vdsr-x{s}": (s, {"name": "vdsr", "features": 64}) for s in schema.SCALES
    }


def get_config(arg: str | None = None) -> ConfigDict:
    """Returns the config of a row, such as "table1-high3" or "vdsr-x2,small"."""
    rows = _rows()
    row, comma, variant = (arg or "").partition(",")
    if row not in rows or (comma and variant != "small"):
        known = ", ".join(rows)
        raise InputError(
            f"configs/ablation.py:{arg or 'ARG'}: the argument is one of {known}; with"
            " ,small after it for the reduced size"
        )
    config = schema.defaults()
    config.scale, fields = rows[row]
    config.model.update(fields)
    if row.startswith("vdsr"):
        config.train.clip_norm = 0.5  # its paper bounds gradients, too
    if variant:
        _reduce(config)
    return config


def _reduce(config):
    """Changes a row's config to its reduced size."""
    config.data.source = "samples"
    config.model.features //= 4
    train = config.train
    train.batch_size = 16
    train.patch = 64
    if config.model.name == "btsrn":
        config.model.bottleneck //= 4
    else:
        train.patch = 96  # VDSR uses up 24 to 28 pixels a side
    train.steps = 600
    train.schedule = "cosine"
    train.warmup_steps = 50
    train.log_every = 20
    train.eval_every = 100
    train.checkpoint_every = 300
    config.eval.max_images = 4
