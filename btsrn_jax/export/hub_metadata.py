"""The head of a model card, by which the Hugging Face hub lists and finds models."""

import math
from collections.abc import Mapping

from btsrn_jax import inference, storage
from btsrn_jax.export import provenance
from btsrn_jax.export.plan import FILES

TASK = {"type": "image-to-image", "name": "Image super-resolution"}
TAGS = ("super-resolution", "image-upscaling", "jax", "safetensors")
PHOTO_TAGS = ["photo", "jpeg-artifacts", "denoising"]
# By a file's name in the export, the tag of the programs that open it.
TAGS_OF_FILES = {
    FILES["onnx"]: "onnx",
    FILES["torch"]: "pytorch",
    FILES["ncnn"]: "ncnn",
}


def front_matter(about: Mapping) -> str:
    """Returns the YAML between two lines of dashes that a model card begins with.

    The terms of the weights are not known here, so that `license` is "other": whoever
    publishes the model states them. What follows a name is JSON, which is YAML.

    Args:
      about: what config.json holds.
    """
    tags = [provenance.kind(about).lower(), f"x{about['scale']}", *TAGS]
    tags += PHOTO_TAGS * inference.is_photo_model(about["name"])
    written = {name.partition("/")[0] for name in about["bytes"]}  # or their folders
    tags += [tag for file, tag in TAGS_OF_FILES.items() if file in written]
    fields = {
        "license": "other",
        "license_name": "see-the-terms-of-the-training-images",
        "library_name": "btsrn-jax",
        "pipeline_tag": TASK["type"],
        "tags": tags,
        "metrics": ["psnr", "ssim"],
    }
    lines = [f"{name}: {storage.to_json(value)}" for name, value in fields.items()]
    results = _results(about)
    if results:  # the hub refuses an index without them
        name = storage.to_json(about["name"])
        lines += ["model-index:", f"- name: {name}", "  results:"]
        lines += [f"  - {storage.to_json(result)}" for result in results]
    return "\n".join(["---", *lines, "---"]) + "\n"


def _results(about):
    """Returns the model's own figures, one entry for each set and its LR."""
    found = {}
    for figure in about["figures"]:
        if figure["model"] == "bicubic" or figure["scale"] != about["scale"]:
            continue
        how = figure["protocol"] + (", ensemble of 8" if figure["ensemble"] else "")
        for metric, unit in (("psnr", " in dB"), ("ssim", "")):
            value = figure[metric]
            if value is not None and math.isfinite(value):
                name = f"{metric.upper()}{unit} ({how})"
                entry = {"type": metric, "value": value, "name": name}
                key = figure["set"], provenance.measured_on(figure)
                found.setdefault(key, []).append(entry)
    return [
        {
            "task": TASK,
            "dataset": {
                "type": name,
                "name": f"{name} x{about['scale']}{label.removeprefix(name)}",
            },
            "metrics": metrics,
        }
        for (name, label), metrics in found.items()
    ]
