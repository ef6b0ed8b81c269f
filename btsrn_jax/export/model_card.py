"""The model card of an exported model, and the fields that OpenModelDB asks for."""

import hashlib
from collections.abc import Mapping

from btsrn_jax import evaluation, inference, network, storage
from btsrn_jax.export import hub_metadata, provenance
from btsrn_jax.export.plan import FILES

OPENMODELDB_NOTE = (
    "For whoever publishes the model: fill in author, license, and the addresses of the"
    " files; the architecture has to be added to theirs."
)
# The exported files that OpenModelDB knows: its `platform` and `type`. By safetensors
# it means PyTorch's, so not model.safetensors.
PLATFORMS = {
    FILES["torch"]: ("pytorch", "safetensors"),
    "model.onnx": ("onnx", "onnx"),
}


def render(about: Mapping, config: str) -> str:
    """Returns README.md of an exported directory, from its config.json alone.

    Args:
      about: what config.json holds.
      config: the text of config.json, for its size and hash.
    """
    model = network.build(about["model"], about["scale"])
    parts = [
        hub_metadata.front_matter(about) + f"\n# {about['name']}",
        f"{provenance.kind(about)}, x{about['scale']},"
        f" {network.parameter_count(model):,} parameters:"
        " *Balanced Two-Stage Residual Networks for Image Super-Resolution*"
        f" (Fan et al., CVPR Workshops 2017), by BTSRN-JAX {about['version']}.",
        *_purpose(about),
        "## Training",
        _training(about),
        "## Figures",
        _figures(about),
        "## Files",
        _files(about, config),
        "## Use",
        _use(about, model.halo),
        "## OpenModelDB",
        OPENMODELDB_NOTE,
        "```json\n" + storage.to_json(openmodeldb(about), 2) + "\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _purpose(about):
    """Returns a paragraph for a model that is not for all pictures."""
    name = about["name"]
    if not inference.is_photo_model(name):
        return []
    return [
        f"This model is {provenance.purpose(name)}. On clean pictures it is below"
        f" `{inference.FAMILY}-x{about['scale']}`."
    ]


def _training(about):
    lines = [
        f"* training images: {about['data']}",
        f"* their terms: {about['data_licence']}",
        f"* LR images: {about['track']}",
        f"* {provenance.describe_step(about)}",
    ]
    if about["batch_size"]:
        side = about["patch"]
        patches = f"{about['batch_size']} patches of {side} x {side} HR pixels"
        lines.append(f"* batch of {patches}, on {about['hardware']}")
    commands = [about["training_command"], about["export_command"]]
    return "\n".join(lines) + "\n\n```sh\n" + "\n".join(commands) + "\n```"


def _figures(about):
    lines = provenance.compared(about)
    if not lines:
        return "None: the run holds no evaluation file of this step."
    header = ["set", "images", "protocol", "bicubic PSNR", "PSNR", "SSIM", "ensemble"]
    header += ["paper's PSNR"]
    cells = [
        [
            provenance.measured_on(line),
            str(line["images"]),
            line["protocol"],
            evaluation.as_text(line["bicubic"]),
            evaluation.as_text(line["psnr"]),
            evaluation.as_text(line["ssim"], ".4f"),
            "of 8" if line["ensemble"] else "no",
            evaluation.as_text(line["paper"]),
        ]
        for line in lines
    ]
    return (
        "PSNR in dB, as the run's evaluation files have it.\n\n"
        + evaluation.markdown(header, cells)
    )


def _files(about, config):
    """Returns the files with sizes and SHA-256, and their largest differences from the
    JAX network."""
    digest = hashlib.sha256(config.encode()).hexdigest()
    lines = [["config.json", f"{len(config.encode()):,}", f"`{digest}`"]]
    lines += [
        [name, f"{size:,}", f"`{about['sha256'][name]}`"]
        for name, size in about["bytes"].items()
    ]
    text = evaluation.markdown(["file", "bytes", "SHA-256"], lines)
    lines = [
        [name, entry["by"], size, f"{difference:.1e}"]
        for name, entry in about["parity"].items()
        for size, difference in entry["largest_difference"].items()
    ]
    lines += [
        [name, entry["by"], "", ""]
        for name, entry in about["parity"].items()
        if not entry["largest_difference"]
    ]
    header = ["file", "run by", "LR size", "largest difference"]
    return (
        f"{text}\n\nEach was run after it was written, against the JAX network (values"
        f" in [0, 1], borders included):\n\n{evaluation.markdown(header, lines)}"
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
        "model.stablehlo": "`model.stablehlo` (CPU, CUDA, TPU; NHWC; needs JAX and"
        " flatbuffers): `jax.export."
        'deserialize(open("model.stablehlo", "rb").read()).call(lr)`',
        "model.onnx": "`model.onnx` (NCHW, operator set 13): input `lr`, output `sr`",
        "model-tile.onnx": "`model-tile.onnx`: the same without the padding, for"
        f" programs that cut tiles: {halo} LR pixels more on each side go in than are"
        " enlarged",
        FILES["torch"]: f"`{FILES['torch']}` (PyTorch; NCHW), with the network beside"
        ' it: `btsrn_torch.BTSRN.from_file("model.pth.safetensors")(lr)`;'
        " `btsrn_torch.register()` makes spandrel take it, and with it ComfyUI",
        FILES["ncnn"]: f"`{FILES['ncnn']}` (NCNN: input `data`, output `output`, one"
        " picture): choose this folder in Upscayl's settings as the one of custom"
        " models, or hand it to `realesrgan-ncnn-vulkan -m`",
        "orbax": "`orbax`: the arrays for JAX users,"
        ' `orbax.checkpoint.PyTreeCheckpointer().restore("/PATH/orbax")`',
    }
    for name, text in uses.items():
        if name in about["parity"]:
            half = about["parity"][name].get("weights") == "float16"
            lines.append(f"* {text}" + ", weights stored as float16" * half)
    return lines[0] + "\n\n" + "\n".join(lines[1:])


def openmodeldb(about: Mapping) -> dict:
    """Returns the fields that OpenModelDB asks for, as its validator takes them.

    Of the exported files it knows PyTorch's and ONNX. `author`, `license` and `urls`
    are left to whoever publishes the model.
    """
    model, photo = about["model"], inference.is_photo_model(about["name"])
    kind, size = provenance.kind(about), [f"{model['features']}nf"]
    if kind == "BTSRN":
        blocks = sum(model[f"{stage}_blocks"] for stage in ("low", "mid", "high"))
        size.append(f"{blocks}nb")
    fields = {
        "name": about["name"],
        "author": "",
        "license": "",
        "tags": ["general-upscaler", "photo", "research"] + ["jpeg", "denoise"] * photo,
        "description": f"{kind} x{about['scale']}"
        + f" {provenance.purpose(about['name'])}" * photo
        + f", trained on {about['data']}.",
        "date": about.get("date"),
        "architecture": kind.lower(),
        "size": size,
        "scale": about["scale"],
        "inputChannels": 3,
        "outputChannels": 3,
        "resources": [
            {
                "platform": platform,
                "type": kind_of_file,
                "size": about["bytes"][file],
                "sha256": about["sha256"][file],
                "urls": [],
            }
            for file, (platform, kind_of_file) in PLATFORMS.items()
            if file in about["bytes"]
        ],
        "trainingIterations": about["step"],
        "trainingBatchSize": about["batch_size"],
        "trainingHRSize": about["patch"],
        "trainingOTF": photo,  # degraded on the fly
        "dataset": about["data"],
        "images": [],
    }
    return {key: value for key, value in fields.items() if value is not None}
