"""What an exported model says of itself: the facts of a run, and the model card."""

import csv
import hashlib
import json
import pathlib
import shlex
import time
from collections.abc import Callable, Mapping

from btsrn_jax import checkpoint, datasets, evaluate, journal
from btsrn_jax import config as schema
from btsrn_jax import model as network

LICENCES = {
    "div2k": "DIV2K is offered for academic research only; the rights in its images"
    " remain with their owners.",
    "samples": "CC0 or public domain.",
    "folder": "Not stated by whoever exported this model; ask them before you pass the"
    " weights on.",
}
# Fields that change nothing in the weights.
NOT_TRAINING = ("eval.", "train.log_every", "train.time_limit", "data.cache")


def facts_of_run(run: pathlib.Path, step: int, config: Mapping, log: Callable) -> dict:
    """What a run directory knows of the model at one of its steps: track, weights,
    training (data, licence, command), validation and evaluation figures, date."""
    data, train = config["data"], config["train"]
    by_imresize = data["source"] != "div2k" and not data["lr_dir"]
    track = data["track"] if data["source"] == "div2k" else "own LR images"
    lines = [
        line for line in journal.read(run / journal.METRICS) if line["step"] == step
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
        "validation": validation,
        "figures": figures(run, step, log),
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
        names = ", ".join(datasets.SAMPLES_TRAIN)
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


def figures(run: pathlib.Path, step: int, log: Callable) -> list[dict]:
    """The means in the evaluation files of a run, of its own model and of bicubic.

    Files that are older than the checkpoint were measured on another one: they are
    left out, and named.
    """
    made = run / checkpoint.FOLDER / str(step) / "about" / "metadata"
    labels = ("btsrn", "vdsr", "bicubic", run.resolve().name)
    found = {}
    for path in sorted(run.glob("*.csv")):
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != evaluate.Row._fields:
                continue
            rows = [row for row in reader if row["model"] in labels]
        if made.exists() and path.stat().st_mtime < made.stat().st_mtime:
            log(f"{path.name} is older than step {step}: not in the model card")
            continue
        for row in rows:
            if row["image"] == "mean":
                figure = _figure(row, rows)
                key = tuple(figure[k] for k in ("set", "scale", "protocol"))
                found[*key, figure["ensemble"], figure["model"] == "bicubic"] = figure
    return list(found.values())


def _figure(row, rows):
    keys = ("set", "scale", "model", "ensemble", "protocol")
    images = sum(all(other[key] == row[key] for key in keys) for other in rows) - 1
    numbers = {"psnr": float(row["psnr"]), "ssim": float(row["ssim"])}
    whole = {"scale": int(row["scale"]), "ensemble": int(row["ensemble"])}
    return {key: row[key] for key in keys} | whole | numbers | {"images": images}


def summary(about: Mapping) -> str:
    """How good a model is, in a line: "30.12 dB on Kodak24 (modern; bicubic 28.44)"."""
    parts = []
    for line in _compared(about.get("figures", [])):
        if not line["ensemble"] or len(about["figures"]) == 1:
            bicubic = f"; bicubic {line['bicubic']:.2f}" if line["bicubic"] else ""
            parts.append(
                f"{line['psnr']:.2f} dB on {line['set']} ({line['protocol']}{bicubic})"
            )
    return ", ".join(parts) or "no figures"


def _compared(figures):
    """The model's figures, each with bicubic's of the same set and protocol."""
    key = ("set", "scale", "protocol")
    bicubic = {
        tuple(f[k] for k in key): f["psnr"] for f in figures if f["model"] == "bicubic"
    }
    return [
        f | {"bicubic": bicubic.get(tuple(f[k] for k in key))}
        for f in figures
        if f["model"] != "bicubic"
    ]


def render(about: Mapping, config: str) -> str:
    """README.md of an exported directory, from its config.json and nothing else.

    Args:
      about: what config.json holds.
      config: its text.
    """
    model = network.build(about["model"], about["scale"])
    parts = [
        f"# {about['name']}",
        f"{_kind(about)}, x{about['scale']}, {network.parameter_count(model):,}"
        " parameters: *Balanced Two-Stage Residual Networks for Image"
        " Super-Resolution* (Fan et al., CVPR Workshops 2017), by BTSRN-JAX"
        f" {about['version']}.",
        "## Training",
        _training(about),
        "## Figures",
        _figures(about),
        "## Files",
        _files(about, config),
        "## Use",
        _use(about, network.halo(model)),
        "## OpenModelDB",
        "```json\n" + json.dumps(openmodeldb(about), indent=2) + "\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _kind(about):
    return "VDSR" if about["model"].get("name") == "vdsr" else "BTSRN"


def _training(about):
    validation = ", ".join(
        f"{psnr:.3f} dB ({protocol})" for protocol, psnr in about["validation"].items()
    )
    lines = [
        f"* training images: {about['data']}",
        f"* their terms: {about['data_licence']}",
        f"* LR images: {about['track']}",
        f"* step {'unknown' if about['step'] is None else about['step']}"
        f"{', averaged weights' if about['averaged'] else ''};"
        f" validation at that step: {validation or 'none'}",
    ]
    if about["batch_size"]:
        side = about["patch"]
        patches = f"{about['batch_size']} patches of {side} x {side} HR pixels"
        lines.append(f"* batch of {patches}")
    commands = [about["training_command"], about["export_command"]]
    return "\n".join(lines) + "\n\n```sh\n" + "\n".join(commands) + "\n```"


def _figures(about):
    lines = _compared(about["figures"])
    if not lines:
        return "None: the run holds no evaluation file of this step."
    header = ["set", "images", "protocol", "bicubic PSNR", "PSNR", "SSIM", "ensemble"]
    cells = [
        [
            line["set"],
            str(line["images"]),
            line["protocol"],
            f"{line['bicubic']:.2f}" if line["bicubic"] else "",
            f"{line['psnr']:.2f}",
            f"{line['ssim']:.4f}",
            "of 8" if line["ensemble"] else "no",
        ]
        for line in lines
    ]
    return "PSNR in dB, as the run's evaluation files have it.\n\n" + evaluate.markdown(
        header, cells
    )


def _files(about, config):
    """Sizes, SHA-256, and the largest differences from the JAX network."""
    digest = hashlib.sha256(config.encode()).hexdigest()
    lines = [["config.json", f"{len(config.encode()):,}", f"`{digest}`"]]
    lines += [
        [name, f"{size:,}", f"`{about['sha256'][name]}`"]
        for name, size in about["bytes"].items()
    ]
    text = evaluate.markdown(["file", "bytes", "SHA-256"], lines)
    lines = [
        [name, entry["by"], size, f"{difference:.1e}"]
        for name, entry in about["parity"].items()
        for size, difference in entry["largest_difference"].items()
    ]
    header = ["file", "run by", "LR size", "largest difference"]
    return (
        f"{text}\n\nEach was run after it was written, against the JAX network (values"
        f" in [0, 1], borders included):\n\n{evaluate.markdown(header, lines)}"
    )


def _use(about, halo):
    s = about["scale"]
    lines = [
        "All formats hold to one contract: RGB in [0, 1], float32, any batch, height"
        f" and width from 1 x 1; the output is {s} times as high and wide, clipped to"
        " [0, 1]. Padding (the edge mirrored) and bicubic skip are inside. An output"
        f" pixel depends on {halo} LR pixels a side: tiles that overlap by {halo} have"
        " no seams.",
        f"* BTSRN-JAX: `btsrn upscale IN OUT --model {about['name']}`, or"
        f' `btsrn_jax.load_model("{about["name"]}")` with the path of this folder',
    ]
    uses = {
        "model.safetensors": "`model.safetensors`: arrays by the network's names,"
        " kernels (height, width, in, out)",
        "model.stablehlo": "`model.stablehlo` (CPU, CUDA, TPU; NHWC): `jax.export."
        'deserialize(open("model.stablehlo", "rb").read()).call(lr)`',
        "model.onnx": "`model.onnx` (NCHW, operator set 17): input `lr`, output `sr`",
        "orbax": "`orbax`: the arrays for JAX users,"
        ' `orbax.checkpoint.PyTreeCheckpointer().restore("/PATH/orbax")`',
    }
    lines += [f"* {text}" for name, text in uses.items() if name in about["parity"]]
    return lines[0] + "\n\n" + "\n".join(lines[1:])


def openmodeldb(about: Mapping) -> dict:
    """The fields that OpenModelDB asks for. `license` and `author` are left to whoever
    publishes the model."""
    model = about["model"]
    types = {"model.safetensors": "safetensors", "model.onnx": "onnx"}
    blocks = sum(model[f"{stage}_blocks"] for stage in ("low", "mid", "high"))
    fields = {
        "name": about["name"],
        "author": "",
        "license": "",
        "tags": ["general-upscaler", "photo"],
        "description": f"{_kind(about)} x{about['scale']}, trained on {about['data']}.",
        "date": about.get("date"),
        "architecture": _kind(about).lower(),
        "size": [f"{model['features']}nf", f"{blocks}nb"],
        "scale": about["scale"],
        "inputChannels": 3,
        "outputChannels": 3,
        "resources": [
            {
                "platform": "onnx" if kind == "onnx" else "jax",
                "type": kind,
                "size": about["bytes"][name],
                "sha256": about["sha256"][name],
                "urls": [],
            }
            for name, kind in types.items()
            if name in about["bytes"]
        ],
        "trainingIterations": about["step"],
        "trainingBatchSize": about["batch_size"],
        "trainingHRSize": about["patch"],
        "dataset": about["data"],
        "images": [],
    }
    return {key: value for key, value in fields.items() if value is not None}
