"""What the commands of `btsrn` take: their options, and what `--help` says of them."""

import argparse
import re
from collections.abc import Callable, Iterable

from btsrn_jax import __version__, arguments, storage
from btsrn_jax.errors import InputError

MODEL = (
    "A released name, the folder of an exported model or of a run, the"
    " model.safetensors of an export, or hf://OWNER/NAME[@REVISION]"
)
ENSEMBLE = "Average over eight flips and rotations."
PATH = {"type": arguments.path_argument}
FILE = {**PATH, "metavar": "FILE"}
FOLDER = {**PATH, "metavar": "DIR"}
SWITCH = {"action": "store_true"}
SWITCHES = {"action": argparse.BooleanOptionalAction}
AVERAGED = {**SWITCHES, "default": True, "help": f"{ENSEMBLE} Default: on."}
DATA_DIR = {
    "default": "data",
    "metavar": "DIR",
    "help": "The folder of prepared data (default: data).",
}
MEMORY = {
    "type": float,
    "default": 0.0,
    "metavar": "GB",
    "help": "Memory for activations on each device (default: half of what is free).",
}
RUNTIME = {
    "metavar": "auto|jax|onnxruntime|openvino",
    "help": "What computes. auto: JAX on an accelerator; else OpenVINO, onnxruntime or"
    " JAX, whichever of them is installed first (default: %(default)s).",
}


def make_parser(
    functions: Iterable[Callable[[argparse.Namespace], int]],
) -> argparse.ArgumentParser:
    """Returns the parser of all commands and their options.

    Args:
      functions: of the commands, in the order of the list of them. Each is named
        run_COMMAND, its docstring describes the command, and the parser gives it as
        `function` of what it parsed.
    """
    parser = arguments.Parser(
        prog="btsrn",
        description="Super-resolution by balanced two-stage residual networks, in JAX."
        " In every path, ~ is the home directory.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # For the list of commands alone: `main` hands `btsrn train` on as it is.
    text = "Train a config, as python -m btsrn_jax.main does."
    commands.add_parser("train", help=text, description=text)
    for function in functions:
        name, text = function.__name__.removeprefix("run_"), function.__doc__ or ""
        sub = commands.add_parser(name, help=text.partition("\n")[0], description=text)
        sub.set_defaults(function=function)
        if name in _OPTIONS:
            _OPTIONS[name](sub.add_argument)
    return parser


def _add_prepare(add):
    add("dataset", help="What to prepare: div2k/CONFIG, such as div2k/bicubic_x4.")
    add("--data-dir", **DATA_DIR)
    add(
        "--zips",
        **FOLDER,
        help="A folder of DIV2K's zip files that were downloaded before.",
    )


def _add_upscale(add):
    what = "Pictures, or folders of them; - for standard input."
    add("inputs", **PATH, nargs="+", metavar="IN", help=what)
    what = "A file for one picture, else a folder; - for standard output."
    add("output", **PATH, metavar="OUT", help=what)
    what = ", bicubic, or auto: the released one, for JPEGs the photo model where it"
    what += " suits their quality (default: the released one)."
    add("--model", help=MODEL + what)
    add("--scale", type=int, help="2, 3 or 4 (default: the model's, or 2).")
    more = " A little better, eight times slower. Default: off."
    add("--ensemble", **SWITCHES, default=False, help=ENSEMBLE + more)
    what = "Enlarge by any number above 1, up to 4: by the next scale, then shrink."
    add("--factor", type=float, metavar="X", help=what)
    for side, letter in (("width", "W"), ("height", "H")):
        what = f"Enlarge to a {side} of {letter} pixels, in the same way."
        add(f"--{side}", type=int, metavar=letter, help=what)
    what = "Write png, jpg, webp, tif or bmp (default: that of each input, or of OUT)."
    add("--format", metavar="F", help=what)
    what = "Quality of JPEG and WebP, 1 to 100 (default: JPEG 95, WebP without loss)."
    add("--quality", type=int, metavar="Q", help=what)
    add("--memory-gb", **MEMORY)
    add("--runtime", default="auto", **RUNTIME)
    add("--force", **SWITCH, help="Replace outputs that exist.")
    add("--resume", **SWITCH, help="Skip outputs that exist.")


def _add_evaluate(add):
    more = ", bicubic, or btsrn for the released ones of the scales."
    add("--model", required=True, metavar="MODEL[,MODEL]", help=MODEL + more)
    what = (
        "Folders of HR images (LR folders in them are used), div2k/CONFIG, or samples."
    )
    add("--sets", required=True, metavar="SET[,SET]", help=what)
    add("--scale", default="", metavar="S[,S]", help="2, 3 or 4; or those of MODEL.")
    what = "How to measure: ntire, benchmark, modern, rgb, or several (default: all)."
    add("--protocol", default="all", metavar="NAME[,NAME]", help=what)
    add("--ensemble", **AVERAGED)
    add("--data-dir", **DATA_DIR)
    what = "The LR images of the one set: a folder of them, or one that has X2, X3, X4."
    add("--lr", **FOLDER, help=f"{what} Default: those that lie beside HR, or made.")
    what = (
        "Degrade LR with blur:WIDTH, noise:SIGMA, jpeg:QUALITY, or several in order, as"
        " in blur:0.6+jpeg:75; clean is LR as it is. Each set is measured with each."
    )
    many = {"nargs": "+", "action": "extend", "default": []}
    add("--degrade", **many, metavar="HOW[,HOW]", help=what)
    add("--csv", **FILE, help="Write every figure to this CSV file.")
    add("--save-images", **FOLDER, help="Write the upscaled images to this folder.")
    add("--memory-gb", **MEMORY)
    add("--runtime", default="jax", **RUNTIME)


def _add_export(add):
    what = f"{MODEL}; for the format web one of each scale."
    add("models", nargs="+", metavar="MODEL", help=what)
    what = "The folder to write, or one file: .onnx, .safetensors or .stablehlo."
    add("output", **PATH, metavar="OUT", help=what)
    what = "Some of safetensors, stablehlo, onnx, torch, ncnn, orbax (default: all that"
    what += " can), or web: a page that enlarges pictures in the browser."
    add("--formats", metavar="FORMAT[,FORMAT]", help=what)
    _add_runtime_files(add)
    add("--force", **SWITCH, help="Replace an exported model in OUT, or the file.")
    what = "Store the weights of the ONNX and NCNN files as float16: half the size."
    add("--half", **SWITCH, help=what)
    add("--data", metavar="TEXT", help="The training images, for the model card.")
    add("--data-licence", metavar="TEXT", help="The terms of the training images.")


def _add_runtime_files(add):
    what = "The folder dist of npm's onnxruntime-web, to be put beside the web page"
    what += " (default: the page loads it from a CDN)."
    add("--runtime-files", **FOLDER, help=what)


def _add_demo(add):
    what = f"{MODEL}, one of each scale (default: all released ones)."
    add("models", nargs="*", metavar="MODEL", help=what)
    _add_runtime_files(add)
    what = "The port on 127.0.0.1 (default: one that is free)."
    add("--port", type=int, default=0, metavar="P", help=what)


def _add_report(add):
    add("runs", nargs="+", metavar="RUN", help=f"{MODEL}.")
    add("--out", **FOLDER, required=True, help="The folder to write.")
    what = "Measure every model on these sets first, as btsrn evaluate does."
    add("--sets", default="", metavar="SET[,SET]", help=what)
    what = (
        "Pictures to show crops of, by all models: files, or names"
        " of images in the first set, or of the sample photographs (default: three)."
    )
    add("--images", default="", metavar="NAME[,NAME]", help=what)
    add("--ensemble", **AVERAGED)
    add("--data-dir", **DATA_DIR)


def _add_bench(add):
    add("mode", choices=("train", "infer"), help="What to measure.")
    add("--scale", type=int, choices=(2, 3, 4), help="One scale (default: all three).")
    what = (
        "Measure the same in other programs, in turns: torch (extra peer); with infer"
        " also onnxruntime and openvino, on the whole image and as our runtimes."
    )
    add("--peer", default="", metavar="NAME[,NAME]", help=what)
    add("--json", **FILE, help="Write every figure to this file.")
    for name, default, what in (
        ("--batch", "32", "Patches in a training step"),
        ("--side", "512", "The HR side of the image to upscale to"),
    ):
        what += f" (default: {default})."
        add(name, default=default, metavar="N[,N]", help=what)
    add("--patch", type=int, default=108, help="HR pixels a side (default: 108).")
    add(
        "--repeats",
        type=int,
        default=10,
        help="The most repetitions of a measurement (default: 10).",
    )
    what = "The type of the convolutions (default: what training and inference take)."
    add("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help=what)
    add("--loop", **SWITCH, help="With train: also time the whole loop of a run.")


def _add_info(add):
    add("--config", required=True, metavar="FILE[:ARG]", help="The config file.")
    add("--compile", **SWITCH, help="Compile it for the devices of this machine.")
    what = "Compile it for TPUs such as v5e:2x4, which need not be here."
    add("--topology", metavar="KIND:AxB", help=what)
    add("--largest", **SWITCH, help="Find the largest batch that fits.")
    what = "Fields to change, after a lone --, as in -- --config.train.batch_size=8."
    add("overrides", nargs="*", metavar="FIELD", help=what)


_OPTIONS = {
    "prepare": _add_prepare,
    "upscale": _add_upscale,
    "evaluate": _add_evaluate,
    "export": _add_export,
    "demo": _add_demo,
    "report": _add_report,
    "bench": _add_bench,
    "info": _add_info,
}


def numbers(name: str, text: str) -> list[int]:
    """Returns the whole numbers, above 0, that the option --NAME lists.

    Raises:
      InputError: it lists something else, or nothing.
    """
    found = storage.split_names(text)
    if not found or not all(re.fullmatch(r"[1-9][0-9]*", part) for part in found):
        raise InputError(f"--{name} {text!r}: a whole number, or several with commas")
    return [int(number) for number in found]


def scale(text: str) -> int:
    """Returns a scale that --scale lists; raises InputError where there is none."""
    if text not in ("2", "3", "4"):
        raise InputError(f"--scale {text!r}: 2, 3 or 4, or several with commas")
    return int(text)
