"""What is known of a model: how it was trained, and how good it is."""

import collections
import pathlib
import shlex
import time
from collections.abc import Callable, Mapping

from btsrn_jax import config as schema
from btsrn_jax import evaluation, training
from btsrn_jax.data import SAMPLES_TRAIN

LICENCES = {
    "div2k": "DIV2K is offered for academic research only; the rights in its images"
    " remain with their owners.",
    "samples": "CC0 or public domain.",
    "folder": "Not stated by whoever exported this model; ask them before you pass the"
    " weights on.",
}
# The first of these that a model has figures of is the one to sum it up by.
PROTOCOLS = ("benchmark", "modern", "ntire")
PAPER_STEPS = 290_000
# Fields that change nothing in the weights.
NOT_TRAINING = ("eval.", "train.log_every", "train.time_limit", "data.cache")


def run_provenance(run: pathlib.Path, step: int, config: Mapping) -> dict:
    """What a run directory knows of the model at one of its steps: track, weights,
    training (data, licence, command, hardware), validation, date."""
    data, train = config["data"], config["train"]
    by_imresize = data["source"] != "div2k" and not data["lr_dir"]
    track = data["track"] if data["source"] == "div2k" else "own LR images"
    lines = [
        line
        for line in training.read_metrics(run / training.METRICS)
        if line["step"] == step
    ]
    validation = {
        name.removeprefix("psnr_"): value
        for line in lines
        for name, value in line.items()
        if name.startswith("psnr_")
    }
    facts = {
        "track": "bicubic" if by_imresize else track,
        "step": step,
        "averaged": bool(train["ema"]),
        "data": describe_data(config),
        "data_licence": LICENCES[data["source"]],
        "batch_size": train["batch_size"],
        "patch": train["patch"],
        "training_command": training_command(config),
        "hardware": config.get("devices", "unknown"),
        "validation": validation,
    }
    if lines:
        facts["date"] = time.strftime("%Y-%m-%d", time.gmtime(lines[-1]["time"]))
    return facts


def describe_data(config: Mapping) -> str:
    """The training images, in words."""
    data = config["data"]
    if data["source"] == "div2k":
        split = {"train": "800 training", "validation": "100 validation"}
        images = split.get(data["split"], "900 training and validation")
        track = f"{data['track']}_x{config['scale']}"
        text = f"DIV2K (Agustsson and Timofte 2017), {images} images, {track}"
    elif data["source"] == "samples":
        names = ", ".join(SAMPLES_TRAIN)
        text = f"photographs that come with scikit-image: {names}"
    else:
        text = f"a folder of images, {pathlib.Path(data['hr_dir']).name}"
    if config["train"]["init_from"]:
        text += f"; started from {pathlib.Path(config['train']['init_from']).name}"
    return text


def training_command(config: Mapping) -> str:
    """The command that trains such a model: the paper's config of that scale, and every
    field in which this one differs. Of absolute paths the last part is kept."""
    scale = config["scale"]
    unknown = (
        config["data"]["source"] == "div2k" and config["data"]["track"] != "bicubic"
    )
    name = f"configs/x{scale}.py{':unknown' if unknown else ''}"
    words = ["python", "-m", "btsrn_jax.main", "--config", name]
    usual = schema.flatten(schema.defaults())
    for field, value in schema.flatten(config).items():
        same = field in ("scale", "data.track") or value == usual.get(field, value)
        if not same and not field.startswith(NOT_TRAINING):
            words.append(f"--config.{field}={shown_path(value)}")
    return shlex.join(words)


def shown_path(value) -> str:
    """A value of the command line, without what stands before an absolute path."""
    path = pathlib.Path(str(value))
    return path.name if path.is_absolute() else str(value)


def evaluation_rows(
    folder: pathlib.Path, step: int | None, log: Callable
) -> list[evaluation.Row]:
    """The rows of the evaluation files of a run, image by image and means, of its own
    model and of bicubic; or those that an exported directory keeps.

    Files that are older than the run's checkpoint were measured on another one: they
    are left out, and named.
    """
    from btsrn_jax import checkpoint  # loads JAX

    made = folder / checkpoint.FOLDER / str(step) / "about" / "metadata"
    labels = ("btsrn", "vdsr", "bicubic", folder.resolve().name)
    found = {}
    for path in sorted(folder.glob("*.csv")):
        rows = [row for row in evaluation.read_csv(path) if row.model in labels]
        if not rows:
            continue
        if made.exists() and path.stat().st_mtime < made.stat().st_mtime:
            log(
                f"{path.name} is older than step {step}: not in the model card"
                " (evaluate again; a copy made without times, too, may look older)"
            )
            continue
        for row in rows:
            # The model may have another name by now.
            model = "bicubic" if row.model == "bicubic" else ""
            found[row._replace(model=model, psnr=0, ssim=0)] = row
    return list(found.values())


def figures(rows: list[evaluation.Row]) -> list[dict]:
    """The means among the rows of `evaluation_rows`, and of how many images each is."""
    keys = ("set", "scale", "model", "ensemble", "protocol")
    count = collections.Counter(tuple(getattr(row, k) for k in keys) for row in rows)
    return [
        {k: getattr(row, k) for k in (*keys, "psnr", "ssim")}
        | {"images": count[tuple(getattr(row, k) for k in keys)] - 1}
        for row in rows
        if row.image == "mean"
    ]


def summary(about: Mapping) -> str:
    """How good a model is, in a line, by the figures of one protocol:
    "30.51 dB on Set5 (benchmark; bicubic 28.41, the paper 31.85)"."""
    lines = compared(about)
    lines = [line for line in lines if not line["ensemble"]] or lines
    used = {line["protocol"] for line in lines}
    chosen = next((name for name in PROTOCOLS if name in used), None)
    parts = []
    for line in lines:
        if line["protocol"] == chosen:
            how = chosen + (", ensemble" if line["ensemble"] else "")
            known = {"bicubic": line["bicubic"], "the paper": line["paper"]}
            beside = ", ".join(f"{k} {v:.2f}" for k, v in known.items() if v)
            how += f"; {beside}" if beside else ""
            parts.append(f"{line['psnr']:.2f} dB on {line['set']} ({how})")
    return ", ".join(parts) or "no figures"


def describe_step(about: Mapping) -> str:
    """Which of a run's steps a model is, and why that one."""
    if about["step"] is None:
        return "an unknown step"
    validation = ", ".join(
        f"{psnr:.3f} dB ({protocol})" for protocol, psnr in about["validation"].items()
    )
    why = f"the best by validation: {validation}" if validation else "never validated"
    averaged = ", averaged weights" if about["averaged"] else ""
    return f"step {about['step']}{averaged}, {why}"


def history(about: Mapping) -> str:
    """What a model was trained on, and for how long."""
    step = about.get("step")
    steps = "unknown" if step is None else f"{step:,}"
    return f"{steps} steps (the paper: {PAPER_STEPS:,}) on {about.get('data')}"


def kind(about: Mapping) -> str:
    """The name of the architecture."""
    return "VDSR" if about["model"].get("name") == "vdsr" else "BTSRN"


def compared(about: Mapping) -> list[dict]:
    """The model's figures, each with bicubic's of the same set and protocol, and with
    the paper's (`bicubic`, `paper`; None where there is none)."""
    figures = [f for f in about.get("figures", []) if f["scale"] == about["scale"]]
    bicubic = {
        (f["set"], f["protocol"]): f["psnr"] for f in figures if f["model"] == "bicubic"
    }
    lines = []
    for figure in figures:
        if figure["model"] != "bicubic":
            fields = {k: v for k, v in figure.items() if k in evaluation.Row._fields}
            row = evaluation.Row(image="mean", **fields)
            lines.append(
                figure
                | {"bicubic": bicubic.get((row.set, row.protocol))}
                | {"paper": evaluation.paper_psnr(row, kind(about).lower())}
            )
    return lines
