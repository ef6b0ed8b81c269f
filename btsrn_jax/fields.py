"""Every field of the config, in one table.

From `FIELDS` come the defaults, the checks of `config.validate`, what may change on
resume, `python -m btsrn_jax.main --help`, and docs/config.md. A new field is one entry
here, beside the code that uses it: its type is that of its default, and dots in its
name make the sections. `network.build` passes every field of `model` to the network. A
new choice of a network is one word in `network/choices.py`.
"""

from btsrn_jax.field import Field, Range, Role
from btsrn_jax.metrics import PROTOCOLS
from btsrn_jax.network import ACTIVATIONS, BLOCKS, NAMES, NORMS

SCALES = (2, 3, 4)
PROBABILITY = Range(0.0, 1.0)
TITLES = {
    "scale": "Scale",
    "model": "The network (paper, Sec. 3)",
    "data": "Training images",
    "train": "Training (paper, Sec. 4)",
    "eval": "Validation and evaluation",
}
# The largest step: `TrainState.step` is an int32.
_LAST_STEP = 2**31 - 1

FIELDS = {
    "scale": Field(4, SCALES, "Factor by which images are enlarged."),
    "model.name": Field(
        "btsrn",
        NAMES,
        "The network. vdsr is the peer of the paper's Table 4; of this section it takes"
        " features and dtype alone.",
    ),
    "model.features": Field(
        128, Range(1, 4096), "Channels of the identity path. VDSR has 64 in its paper."
    ),
    "model.bottleneck": Field(
        64, Range(1, 4096), "Channels that a residual block projects its input to."
    ),
    "model.low_blocks": Field(
        6, Range(0, 1000), "Residual blocks at LR size.", Role.STUDIED
    ),
    "model.mid_blocks": Field(
        0,
        Range(0, 1000),
        "Residual blocks between the two x2 upsamplings of x4; 1 in the authors' code.",
    ),
    "model.high_blocks": Field(
        4, Range(0, 1000), "Residual blocks at HR size.", Role.STUDIED
    ),
    "model.block": Field(
        "pconv", BLOCKS, "Kind of residual block (Figure 2).", Role.STUDIED
    ),
    "model.norm": Field(
        "none", NORMS, "Normalisation of layers (Sec. 3.4).", Role.STUDIED
    ),
    "model.activation": Field(
        "relu",
        ACTIVATIONS,
        "Activation before each convolution: relu in the paper, leaky_relu (slope 0.2)"
        " in the authors' code.",
    ),
    "model.dtype": Field(
        "auto",
        ("auto", "float32", "bfloat16"),
        "Type of the convolutions in training. auto is float32 on a CPU and bfloat16 on"
        " accelerators; bfloat16 also pays on a CPU with AMX.",
    ),
    "data.source": Field(
        "div2k",
        ("div2k", "folder", "samples"),
        "Where training images come from: DIV2K, a folder, or the photographs that come"
        " with scikit-image.",
    ),
    "data.track": Field(
        "bicubic", ("bicubic", "unknown"), "DIV2K: how its LR images were made."
    ),
    "data.split": Field(
        "train",
        ("train", "validation", "train+validation"),
        "DIV2K: the 800 training images, the 100 validation images, or all 900 as in"
        " the challenge.",
    ),
    "data.root": Field(
        "data",
        None,
        "DIV2K: the folder that btsrn prepare wrote.",
        Role.SOURCE,
        places=True,
    ),
    "data.hr_dir": Field(
        "",
        None,
        "Source folder: the folder of HR images, read with its subfolders. It may also"
        " be a whole set, with LR images beside HR (docs/evaluation.md).",
        Role.SOURCE,
        places=True,
    ),
    "data.lr_dir": Field(
        "",
        None,
        "Source folder: the folder of LR images, flat or with X2, X3, X4. If this is"
        " empty: those beside HR; where there are none, imresize makes them.",
        Role.SOURCE,
        places=True,
    ),
    "data.smaller_copies": Field(
        (),
        None,
        "Also train on smaller copies of each image, made by imresize; these are their"
        " sides, as shares of the image's. A copy is at least as large as a patch. For"
        " long runs on few images; LR has to be imresize's.",
        form="numbers between 0 and 1, such as (0.75, 0.55); or ()",
    ),
    "data.cache": Field(
        "auto",
        ("auto", "device", "host"),
        "Where decoded images are kept. auto is the device if they fit.",
        Role.CONDUCT,
    ),
    "data.degradation.blur": Field(
        0.0,
        PROBABILITY,
        "Probability that an LR patch is blurred. Blur comes first, then noise, then"
        " JPEG (docs/training.md).",
    ),
    "data.degradation.blur_width": Field(
        (0.2, 0.8),
        Range(0.0, 8.0),
        "Standard deviation of the Gaussian blur in LR pixels.",
    ),
    "data.degradation.blur_uneven": Field(
        0.5,
        PROBABILITY,
        "Share of blurs with two widths, along axes that are turned at random.",
    ),
    "data.degradation.noise": Field(
        0.0, PROBABILITY, "Probability that an LR patch gets noise."
    ),
    "data.degradation.noise_level": Field(
        (0.0, 6.0),
        Range(0.0, 128.0),
        "Standard deviation of the noise in grey levels of 255.",
    ),
    "data.degradation.noise_shot": Field(
        0.5,
        PROBABILITY,
        "Share of noise whose variance grows with brightness, as of photons; its level"
        " is that of middle grey. Other noise is the same everywhere.",
    ),
    "data.degradation.noise_grey": Field(
        0.5,
        PROBABILITY,
        "Share of noise that is the same in all channels.",
    ),
    "data.degradation.jpeg": Field(
        0.0, PROBABILITY, "Probability that an LR patch is saved as JPEG."
    ),
    "data.degradation.jpeg_quality": Field(
        (30, 98),
        Range(1, 100),
        "Quality as of libjpeg and Pillow, the higher of two even draws.",
    ),
    "data.degradation.jpeg_subsampled": Field(
        0.75,
        PROBABILITY,
        "Share of JPEG whose colours have half the size (4:2:0); the others keep all"
        " of it (4:4:4).",
    ),
    "train.seed": Field(
        0, Range(0, 2**32 - 1), "Seed of initialisation and batches.", Role.REPEAT
    ),
    "train.batch_size": Field(
        32, Range(1, 2**20), "Patches per step, over all devices and hosts."
    ),
    "train.micro_batches": Field(
        1,
        Range(1, 2**20),
        "Equal parts that a step computes its batch in, one after the other, to need"
        " less memory. The gradient stays the same to rounding. On one CPU device a"
        " step goes patch by patch anyway.",
        Role.REPEAT,
    ),
    "train.candidates": Field(
        1, Range(1, 64), "Places drawn for each patch; the most detailed is taken."
    ),
    "train.patch": Field(
        108, Range(1, 4096), "Side of a patch in HR pixels, a multiple of the scale."
    ),
    "train.steps": Field(
        None,
        Range(1, _LAST_STEP),
        "Steps of the run; by default 16 passes over the data. On resume it may change"
        " where that leaves the rate of the steps made as it was: under exponential if"
        " decay_steps stays, under wsd before the decay.",
    ),
    "train.decay_steps": Field(
        None,
        Range(1, _LAST_STEP),
        "Steps between two decays of the learning rate; by default one pass, or a"
        " sixteenth of the steps if these are given.",
        Role.REPEAT,
    ),
    "train.decay_rate": Field(
        0.6, Range(1e-12, 1.0), "Exponential schedule: factor of each decay."
    ),
    "train.optimizer": Field("adam", ("adam", "muon"), "Optimiser; adam in the paper."),
    "train.learning_rate": Field(1e-3, Range(1e-12, 1.0), "Highest learning rate."),
    "train.schedule": Field(
        "exponential",
        ("exponential", "cosine", "wsd"),
        "Course of the learning rate: a staircase; a cosine that ends at 0; or wsd"
        " (warm-up, stable, decay), which is constant and then falls to 0 as 1 - sqrt"
        " (Hägele et al., 2024).",
    ),
    "train.warmup_steps": Field(
        0,
        Range(0, _LAST_STEP),
        "Schedules cosine and wsd: steps of the linear rise from 0.",
    ),
    "train.decay_share": Field(
        0.2,
        Range(0.0, 1.0),
        "Schedule wsd: share of the steps, the last ones, in which the rate falls; 0:"
        " it never falls. On resume it may change before the decay.",
    ),
    "train.loss": Field(
        "mse",
        ("mse", "l1", "charbonnier"),
        "Loss of the difference SR - HR, in RGB from 0 to 1 (VDSR: in luminance).",
    ),
    "train.ema": Field(
        0.0, Range(0.0, 0.999999), "Decay of averaged weights, such as 0.999; 0: none."
    ),
    "train.clip_norm": Field(
        0.0, Range(0.0, 1e12), "Bound of the gradient's global norm; 0: none."
    ),
    "train.init_from": Field(
        "",
        None,
        "A run or an exported model whose weights training starts from; from another"
        " scale, all layers but the upsampling ones.",
        places=True,
    ),
    "train.log_every": Field(
        100, Range(1, _LAST_STEP), "Steps between two lines of metrics.", Role.CONDUCT
    ),
    "train.eval_every": Field(
        5000, Range(1, _LAST_STEP), "Steps between two validations.", Role.SOURCE
    ),
    "train.checkpoint_every": Field(
        5000, Range(1, _LAST_STEP), "Steps between two checkpoints.", Role.SOURCE
    ),
    "train.time_limit": Field(
        0.0,
        Range(0.0, 1e9),
        "Minutes after which the run saves its state and exits with 75; 0: none.",
        Role.CONDUCT,
    ),
    "train.profile": Field(
        (),
        None,
        "(first step, number of steps): JAX's profiler records these steps, for"
        " TensorBoard and xprof (docs/training.md); (): none.",
        Role.CONDUCT,
        form="two whole numbers, or ()",
    ),
    "train.tracker": Field(
        "tensorboard",
        ("tensorboard", "wandb", "none"),
        "Where metrics and pictures can be watched, beside the files of the run:"
        " TensorBoard, Weights & Biases (docs/training.md), or nowhere.",
        Role.CONDUCT,
    ),
    "eval.sets": Field(
        (),
        None,
        "Evaluation sets: folders, div2k/CONFIG, or samples. If there are none:"
        " the validation images that belong to the training data.",
        Role.CONDUCT,
        places=True,
    ),
    "eval.best_set": Field(
        "",
        None,
        "Training: the evaluation set by whose images the best checkpoint is chosen, as"
        " figures call it. If this is empty: all images of all sets.",
        Role.CONDUCT,
    ),
    "eval.degrade": Field(
        "",
        None,
        "What is done to the LR images of the evaluation sets, as of `btsrn evaluate"
        " --degrade`. Each image counts once for each of them.",
        Role.CONDUCT,
        form="such as clean,jpeg:75,blur:0.6+noise:5; empty for clean alone",
    ),
    "eval.protocol": Field(
        "ntire",
        tuple(PROTOCOLS),
        "How PSNR and SSIM are measured (docs/evaluation.md). Training measures under"
        " all protocols; by this one it chooses the best checkpoint.",
        Role.CONDUCT,
    ),
    "eval.ensemble": Field(
        True,
        None,
        "With --mode=eval: average the results of the eight flips and rotations.",
        Role.CONDUCT,
    ),
    "eval.tile": Field(
        128,
        Range(1, 8192),
        "Side of a tile in LR pixels, without the halo around it.",
        Role.CONDUCT,
    ),
    "eval.memory_gb": Field(
        0.0,
        Range(0.0, 1e6),
        "Memory for a batch of tiles in GB; 0: half of what is free on the device.",
        Role.CONDUCT,
    ),
    "eval.dtype": Field(
        "float32",
        ("float32", "bfloat16"),
        "Type of the convolutions in evaluation: float32 is exact, bfloat16 is fast.",
        Role.CONDUCT,
    ),
    "eval.max_images": Field(
        10,
        Range(1, _LAST_STEP),
        "Images of each set that training validates on.",
        Role.CONDUCT,
    ),
}
