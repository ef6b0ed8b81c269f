"""`btsrn`: what one does with pictures and models. A parser and a call per command.

JAX is loaded inside the commands that need it, so that help, `btsrn models` and
whatever is refused answer at once.
"""

import argparse
import dataclasses
import io
import itertools
import os
import pathlib
import re
import signal
import sys

from absl import logging as absl_logging

from btsrn_jax import (
    __version__,
    benchmark,
    data,
    evaluation,
    export,
    inference,
    progress,
    report,
    storage,
)
from btsrn_jax.errors import InputError
from btsrn_jax.progress import logger

MODEL = (
    "A released name, the folder of an exported model or of a run, the"
    " model.safetensors of an export, or hf://OWNER/NAME[@REVISION]"
)
ENSEMBLE = "Average over eight flips and rotations."
PATH = {"type": pathlib.Path}
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


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands and their options."""
    parser = argparse.ArgumentParser(
        prog="btsrn",
        description="Super-resolution by balanced two-stage residual networks, in JAX.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(function):
        """Adds the command that a function runs; returns its `add_argument`."""
        name, text = function.__name__.removeprefix("run_"), function.__doc__ or ""
        sub = commands.add_parser(name, help=text.partition("\n")[0], description=text)
        sub.set_defaults(function=function)
        return sub.add_argument

    # For the list of commands alone: `main` hands `btsrn train` on as it is.
    text = "Train a config, as python -m btsrn_jax.main does."
    commands.add_parser("train", help=text, description=text)
    _add_prepare(command(run_prepare))
    _add_upscale(command(run_upscale))
    _add_evaluate(command(run_evaluate))
    _add_export(command(run_export))
    _add_report(command(run_report))
    _add_bench(command(run_bench))
    _add_info(command(run_info))
    command(run_models)
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
    add("inputs", **PATH, nargs="+", metavar="IN", help="Pictures, or folders of them.")
    add("output", **PATH, metavar="OUT", help="A file for one picture, else a folder.")
    add("--model", help=f"{MODEL}, or bicubic (default: the released one).")
    add("--scale", type=int, help="2, 3 or 4 (default: the model's, or 2).")
    more = " A little better, eight times slower. Default: off."
    add("--ensemble", **SWITCHES, default=False, help=ENSEMBLE + more)
    add("--memory-gb", **MEMORY)
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
    add("--csv", **FILE, help="Write every figure to this CSV file.")
    add("--save-images", **FOLDER, help="Write the upscaled images to this folder.")
    add("--memory-gb", **MEMORY)


def _add_export(add):
    add("model", metavar="MODEL", help=f"{MODEL}.")
    add("output", **PATH, metavar="OUT", help="The folder to write.")
    what = "Some of safetensors, stablehlo, onnx, torch, orbax (default: all that can)."
    add("--formats", metavar="FORMAT[,FORMAT]", help=what)
    add("--force", **SWITCH, help="Replace an exported model in OUT.")
    add("--data", metavar="TEXT", help="The training images, for the model card.")
    add("--data-licence", metavar="TEXT", help="The terms of the training images.")


def _add_report(add):
    add("runs", nargs="+", metavar="RUN", help=f"{MODEL}.")
    add("--out", **FOLDER, required=True, help="The folder to write.")
    what = "Measure every model on these sets first, as btsrn evaluate does."
    add("--sets", default="", metavar="SET[,SET]", help=what)
    what = (
        "Pictures to show crops of, by the first model of each scale: files, or names"
        " of images in the first set, or of the sample photographs (default: three)."
    )
    add("--images", default="", metavar="NAME[,NAME]", help=what)
    add("--ensemble", **AVERAGED)
    add("--data-dir", **DATA_DIR)


def _add_bench(add):
    add("mode", choices=("train", "infer"), help="What to measure.")
    add("--scale", type=int, choices=(2, 3, 4), help="One scale (default: all three).")
    what = "Measure the same in PyTorch, in turns (extra peer)."
    add("--peer", choices=("torch",), help=what)
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
    what = "Fields to change: -- --config.FIELD=VALUE."
    add("overrides", nargs="*", metavar="FIELD", help=what)


def run_info(args: argparse.Namespace) -> int:
    """Say what a config is, and whether it fits a device."""
    if args.topology:  # before JAX is imported: no TPU is here, and none is asked for
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("JAX_PLATFORMS", "cpu")

    from btsrn_jax import main, mesh

    config = main.parse(["info", "--config", args.config, *args.overrides]).config
    print(benchmark.describe_config(config))
    if not (args.compile or args.topology or args.largest):
        return 0
    if args.topology:
        devices = benchmark.topology_mesh(args.topology)
    else:
        mesh.prepare()
        devices = mesh.make_mesh()
    print(benchmark.report_fit(config, devices))
    if args.largest:
        found = benchmark.largest_batch(config, devices, print)
        print(f"largest batch that fits: {found}")
    return 0


def run_prepare(args: argparse.Namespace) -> int:
    """Download and prepare DIV2K, without TensorFlow."""
    name = args.dataset.removeprefix("div2k/")
    if name == args.dataset:
        known = ", ".join(f"div2k/{config}" for config in data.div2k.CONFIGS)
        raise InputError(f"unknown data set {args.dataset!r}: one of {known}")
    data.div2k.prepare(name, storage.local(args.data_dir), args.zips)
    return 0


def run_upscale(args: argparse.Namespace) -> int:
    """Upscale pictures."""
    work = inference.plan_files(
        args.inputs, args.output, force=args.force, resume=args.resume
    )
    inference.find_model(args.model, args.scale)
    _prepare_devices()
    model = inference.open_model(args.model, args.scale, args.ensemble, args.memory_gb)
    figures = f"; {export.summary(model.config)}" if model.figures else ""
    logger.info(model.about + figures)
    return inference.upscale_files(work, model.upscale, model.scale)


def run_evaluate(args: argparse.Namespace) -> int:
    """Measure PSNR and SSIM on sets of images."""
    _prepare_devices()
    scales = [_scale(text) for text in args.scale.split(",") if text]
    evaluation.run_evaluation(
        args.model,
        evaluation.split_names(args.sets),
        scales,
        args.protocol.split(","),
        args.ensemble,
        args.data_dir,
        args.csv,
        args.save_images,
        args.memory_gb,
    )
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Write a model for others to use.

    Takes the parameters of a run that did best in validation (averaged ones, if it
    keeps them) and writes a folder: safetensors, StableHLO, ONNX, PyTorch, an Orbax
    checkpoint, config.json, and a model card. Every file is run and compared with the
    network; where one differs, nothing is written.
    """
    _prepare_devices()
    try:
        export.export_model(
            args.model,
            args.output,
            args.formats.split(",") if args.formats else None,
            force=args.force,
            data=args.data,
            data_licence=args.data_licence,
        )
    except export.ParityError as error:
        return _failed(error)
    print(f"{args.output}: written, see its README.md")
    return 0


def run_models(args: argparse.Namespace) -> int:
    """List the models that come with this package.

    That is what --model takes, how good each model is (beside bicubic and the paper),
    and what it was trained on.
    """
    for name in inference.released_models():
        about = inference.read_config(inference.find_folder(name)[0])
        print(f"{name}  x{about['scale']}  {export.summary(about)}")
        print(f"    {export.history(about)}")
    if not inference.released_models():
        print("this package comes without trained models")
    return 0


def run_bench(args: argparse.Namespace) -> int:
    """Measure speed and memory, beside PyTorch if asked for."""
    scales = [args.scale] if args.scale else [2, 3, 4]
    name = "batch" if args.mode == "train" else "side"
    specs = []
    for scale, size in itertools.product(scales, _numbers(name, getattr(args, name))):
        size = size // scale if name == "side" else size
        patch = args.patch // scale * scale
        spec = benchmark.Spec(args.mode, scale, patch=patch, dtype=args.dtype)
        specs.append(dataclasses.replace(spec, loop=args.loop, **{name: size}))
    benchmark.run_benchmark(specs, args.peer, args.repeats, args.json)
    return 0


def run_report(args: argparse.Namespace) -> int:
    """Write tables, curves and crops of runs, and one HTML page."""
    _prepare_devices()
    sets, chosen = (
        [name for name in evaluation.split_names(text) if name]
        for text in (args.sets, args.images)
    )
    report.write_report(args.runs, args.out, sets, chosen, args.ensemble, args.data_dir)
    print(args.out / "index.html")
    return 0


def _prepare_devices():
    from btsrn_jax import mesh  # loads JAX

    mesh.prepare()


def _numbers(name, text):
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise InputError(f"--{name} {text!r}: a whole number, or several with commas")
    return [int(number) for number in text.split(",")]


def _scale(text):
    if text not in ("2", "3", "4"):
        raise InputError(f"--scale {text!r}: 2, 3 or 4, or several with commas")
    return int(text)


def _failed(what, code=1):
    logger.error(f"error: {what}")
    return code


def main(argv: list[str] | None = None) -> None:
    """Runs the process: ends it with the exit code of the command, and says in one line
    what a user did wrong."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["train"]:
        from btsrn_jax import main as training

        training.main(["btsrn train", *argv[1:]])
    args = build_parser().parse_args(argv)
    progress.log_to_stderr()
    absl_logging.set_verbosity(absl_logging.ERROR)  # Orbax tells of every file it reads
    for stream in (sys.stdout, sys.stderr):  # names of files need not be text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # As Ctrl-C: what was half written is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = args.function(args)
    except InputError as error:
        code = _failed(error, 2)
    except OSError as error:  # a full disk, a folder that is gone
        code = _failed(error)
    except MemoryError as error:
        code = _failed(f"out of memory: {error}")
    except KeyboardInterrupt:
        logger.error("interrupted")
        code = 1
    sys.exit(code)


if __name__ == "__main__":
    main()
