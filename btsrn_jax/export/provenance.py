"""What is known of a model, in words: how it was trained, and how good it is.

Nothing is read here but the configs that come with the package.
"""

import collections
import importlib.util
import pathlib
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

from btsrn_jax import config as schema
from btsrn_jax import evaluation, inference
from btsrn_jax.data import SAMPLES_TRAIN
from btsrn_jax.errors import InputError

LICENCES = {
    "div2k": "DIV2K is offered for academic research only; the rights in its images"
    " remain with their owners.",
    "samples": "CC0 or public domain.",
    "folder": "Not stated by whoever exported this model; ask them before you pass the"
    " weights on.",
}
# A model is summed up by the first of these protocols that it has figures of.
PROTOCOLS = ("benchmark", "modern", "ntire", "rgb")
PAPER_STEPS = 290_000
# Fields that change nothing in the weights.
NOT_TRAINING = schema.NOT_TRAINING


def run_provenance(config: Mapping, step: int, metrics: Sequence[Mapping]) -> dict:
    """Returns what a run knows of the model at one of its steps.

    Args:
      config: of the run, as its checkpoint holds it.
      step: the step whose weights are exported.
      metrics: the lines of metrics.jsonl.

    Returns:
      Fields of an exported model's config.json: the track, the step, the training data
      and their licence, the command, the hardware, the validation and the date.
    """
    data, train = config["data"], config["train"]
    by_imresize = data["source"] != "div2k" and not data["lr_dir"]
    track = data["track"] if data["source"] == "div2k" else "own LR images"
    track = "bicubic" if by_imresize else track
    lines = [line for line in metrics if line["step"] == step]
    validation = {
        name.removeprefix("psnr_"): value
        for line in lines
        for name, value in line.items()
        if name.startswith("psnr_") and "/" not in name  # psnr_PROTOCOL/SET
    }
    if not validation and any("score" in line for line in lines):
        validation = {config["eval"]["protocol"]: None}  # no image had an error
    known = {
        "track": track + describe_degradation(config),
        "step": step,
        "averaged": bool(train["ema"]),
        "data": describe_data(config),
        "data_licence": LICENCES[data["source"]],
        "batch_size": train["batch_size"],
        "patch": train["patch"],
        "training_command": training_command(config),
        "hardware": config.get("devices", "unknown"),
        "validation": validation,
        "validation_lr": config["eval"].get("degrade", ""),  # a run may be older
    }
    if lines:
        known["date"] = time.strftime("%Y-%m-%d", time.gmtime(lines[-1]["time"]))
    return known


def describe_data(config: Mapping) -> str:
    """Returns the training images of a run, in words."""
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
    if data.get("smaller_copies"):  # a run may be older than this field
        shares = " and ".join(f"{share:g}" for share in data["smaller_copies"])
        text += f", and smaller copies of them ({shares} of their sides)"
    done = data.get("degradation", {})  # a run may be older than this section
    degraded = [name for name in ("blur", "noise", "jpeg") if done.get(name)]
    if degraded:
        text += f"; LR images degraded at random by {', '.join(degraded)}"
    if config["train"]["init_from"]:
        text += f"; started from {pathlib.Path(config['train']['init_from']).name}"
    return text


def describe_degradation(config: Mapping) -> str:
    """Returns what a run did to its LR patches, by the fields of `data.degradation`:
    ", then degraded: jpeg 0.8, jpeg_quality [30, 98]"; "" for nothing."""
    fields = schema.flatten(config["data"].get("degradation", {}))
    on = [name for name, value in fields.items() if "_" not in name and value]
    said = [f"{n} {value}" for n, value in fields.items() if n.partition("_")[0] in on]
    return f", then degraded: {', '.join(said)}" if said else ""


def training_command(config: Mapping) -> str:
    """Returns the command that trains such a model.

    It starts from the config file that the run was started with (`config_file`,
    `config_argument`), where that is one of this package's; otherwise from the paper's
    config of that scale. Every field that differs from it follows. Of an absolute path
    the last part is kept.

    Args:
      config: the resolved config of a run.
    """
    name, usual = _starting_point(config)
    words = ["python", "-m", "btsrn_jax.main", "--config", name]
    for field, value in schema.flatten(config).items():
        same = value == usual.get(field, value)
        if not same and not field.startswith(NOT_TRAINING):
            words.append(f"--config.{field}={shown_path(value)}")
    return shlex.join(words)


def _starting_point(config):
    """Returns FILE[:ARGUMENT] of a config in this package, and its fields."""
    recorded = pathlib.Path(config.get("config_file") or "").name
    track = config["data"]["track"] if config["data"]["source"] == "div2k" else ""
    choices = (
        (recorded, config.get("config_argument") or ""),
        (f"x{config['scale']}.py", "unknown" if track == "unknown" else ""),
        (f"x{config['scale']}.py", ""),
    )
    for name, argument in choices:
        try:
            fields = _shipped_config(name, argument)
        except (FileNotFoundError, InputError):
            continue  # the user's own file: nobody else has it
        colon = ":" if argument else ""
        return f"configs/{name}{colon}{argument}", fields
    raise FileNotFoundError(f"configs/{name} is missing: it comes with this package")


def _shipped_config(name, argument):
    """Returns the fields of a config that comes with this package.

    A config file is a program: only the package's own ones are run, wherever the run's
    config says that its file was.
    """
    package = pathlib.Path(schema.__file__).parent
    installed = package / "configs"  # in a checkout they lie beside the package
    folder = installed if installed.is_dir() else package.parent / "configs"
    if name not in [path.name for path in folder.glob("*.py")]:
        raise FileNotFoundError(name)
    spec = importlib.util.spec_from_file_location("_config", folder / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.get_config(argument or None).to_dict()
    return schema.flatten(found)


def shown_path(value: Any) -> str:
    """Returns a value of a command line, of an absolute path the last part only."""
    path = pathlib.Path(str(value))
    return path.name if path.is_absolute() else str(value)


def figures(rows: list[evaluation.Row]) -> list[dict]:
    """Returns the means among rows, and of how many images each is the mean."""
    keys = ("set", "scale", "model", "ensemble", "protocol", "lr", "degradation")
    count = collections.Counter(tuple(getattr(row, k) for k in keys) for row in rows)
    return [
        {k: getattr(row, k) for k in (*keys[:-2], "psnr", "ssim")}
        | {"images": count[tuple(getattr(row, k) for k in keys)] - 1}
        | ({"lr": evaluation.lr_label(row)} if evaluation.lr_label(row) else {})
        | ({"degradation": row.degradation} if row.degradation else {})
        for row in rows
        if row.image == "mean"
    ]


def summary(about: Mapping) -> str:
    """Returns how good a model is, in a line, by the figures of one protocol:
    "30.51 dB on Set5 (benchmark; bicubic 28.41, the paper 31.85)"."""
    lines = compared(about)
    lines = [line for line in lines if line["psnr"] is not None]
    lines = [line for line in lines if not line.get("degradation")] or lines
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
            parts.append(f"{line['psnr']:.2f} dB on {measured_on(line)} ({how})")
    return ", ".join(parts) or "no figures"


def measured_on(figure: Mapping) -> str:
    """Returns the set of a figure, and what its LR images are if not of imresize."""
    return figure["set"] + evaluation.input_label(evaluation.to_row(figure))


def describe_step(about: Mapping) -> str:
    """Returns which of a run's steps a model is, and why that one."""
    if about["step"] is None:
        return "an unknown step"
    degraded = about.get("validation_lr", "")
    on = f", LR {degraded}" * bool(degraded)
    validation = ", ".join(
        (f"{psnr:.3f} dB" if psnr is not None else "no error") + f" ({protocol}{on})"
        for protocol, psnr in about["validation"].items()
    )
    why = f"the best by validation: {validation}" if validation else "never validated"
    averaged = ", averaged weights" if about["averaged"] else ""
    return f"step {about['step']}{averaged}, {why}"


def history(about: Mapping) -> str:
    """Returns what a model was trained on, and for how long."""
    step = about.get("step")
    steps = "unknown" if step is None else f"{step:,}"
    return f"{steps} steps (the paper: {PAPER_STEPS:,}) on {about.get('data')}"


def purpose(name: str) -> str:
    """Returns what a model of that name is for."""
    if inference.is_photo_model(name):
        return "for photographs with JPEG blocks, noise or a little blur"
    return "for clean pictures"


def kind(about: Mapping) -> str:
    """Returns the name of the architecture: BTSRN or VDSR."""
    return "VDSR" if about["model"].get("name") == "vdsr" else "BTSRN"


def compared(about: Mapping) -> list[dict]:
    """Returns the figures of a model, each with bicubic's of the same set and protocol
    and with the paper's (`bicubic`, `paper`; None where there is none)."""
    known = [f for f in about.get("figures", []) if f["scale"] == about["scale"]]
    bicubic = {
        (measured_on(f), f["protocol"]): f["psnr"]
        for f in known
        if f["model"] == "bicubic"
    }
    rows = [evaluation.to_row(figure) for figure in known]
    lines = []
    for figure, row in zip(known, rows, strict=True):
        if figure["model"] != "bicubic":
            lines.append(
                figure
                | {"bicubic": bicubic.get((measured_on(figure), row.protocol))}
                | {"paper": evaluation.paper_psnr(row, kind(about).lower(), rows)}
            )
    return lines
