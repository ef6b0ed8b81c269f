"""`btsrn`: what one does with images and models; thin, no logic.

JAX is imported inside the commands, so that `btsrn --help` answers at once.
"""

import argparse
import io
import itertools
import os
import pathlib
import re
import signal
import sys

from absl import logging

from btsrn_jax import (
    __version__,
    benchmark,
    data,
    evaluation,
    export,
    inference,
    report,
    storage,
)
from btsrn_jax.errors import InputError

MODEL = "a released name, an exported directory, a run directory, or bicubic"


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="btsrn",
        description="Super-resolution by balanced two-stage residual networks, in JAX.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, help, function, description=None):
        sub = commands.add_parser(name, help=help, description=description or help)
        sub.set_defaults(function=function)
        return sub

    commands.add_parser("train", help="train a config: see btsrn train --help")
    for add in (
        _add_prepare,
        _add_upscale,
        _add_evaluate,
        _add_export,
        _add_report,
        _add_bench,
        _add_info,
    ):
        add(command)
    command(
        "models",
        "the models in this package, with their figures and training data",
        run_models,
        "Lists the models that come with this package: what --model takes, how good"
        " they are (beside bicubic and the paper), and what they were trained on.",
    )
    return parser


def _add_prepare(command):
    sub = command(
        "prepare", "download and prepare DIV2K (needs no TensorFlow)", run_prepare
    )
    sub.add_argument("dataset", help="div2k/CONFIG, such as div2k/bicubic_x4")
    sub.add_argument(
        "--data-dir",
        default="data",
        metavar="DIR",
        help="where prepared data goes (default: data)",
    )
    sub.add_argument(
        "--zips",
        type=pathlib.Path,
        metavar="DIR",
        help="a folder with DIV2K's zip files; only missing ones are downloaded",
    )


def _add_upscale(command):
    sub = command("upscale", "enlarge pictures", run_upscale)
    sub.add_argument(
        "inputs",
        nargs="+",
        type=pathlib.Path,
        metavar="IN",
        help="a picture or a folder of pictures",
    )
    sub.add_argument(
        "output",
        type=pathlib.Path,
        metavar="OUT",
        help="a file for one picture, else a folder",
    )
    sub.add_argument("--model", help=MODEL + " (default: the released one)")
    sub.add_argument("--scale", type=int, help="2, 3 or 4 (default: the model's, or 2)")
    sub.add_argument(
        "--ensemble",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="average over eight flips and rotations: a little better,"
        " eight times slower (default: off)",
    )
    _add_memory(sub)
    group = sub.add_mutually_exclusive_group()
    group.add_argument(
        "--force", action="store_true", help="overwrite existing outputs"
    )
    group.add_argument("--resume", action="store_true", help="skip existing outputs")


def _add_evaluate(command):
    sub = command("evaluate", "PSNR and SSIM on sets of images", run_evaluate)
    sub.add_argument(
        "--model",
        required=True,
        metavar="MODEL[,MODEL]",
        help=MODEL + "; btsrn for the released ones of the scales",
    )
    sub.add_argument(
        "--sets",
        required=True,
        metavar="SET[,SET]",
        help="folders of HR images (with LR folders, if any), div2k/CONFIG, or samples",
    )
    sub.add_argument(
        "--scale", default="", metavar="S[,S]", help="2, 3 or 4 (default: the model's)"
    )
    sub.add_argument(
        "--protocol",
        default="ntire,benchmark,modern",
        help="one or several of ntire, benchmark, modern (default: all)",
    )
    _add_ensemble(sub)
    _add_data_dir(sub)
    sub.add_argument(
        "--csv",
        type=pathlib.Path,
        metavar="FILE",
        help="write every figure to a CSV file",
    )
    sub.add_argument(
        "--save-images",
        type=pathlib.Path,
        metavar="DIR",
        help="write the enlarged images",
    )
    _add_memory(sub)


def _add_export(command):
    sub = command(
        "export",
        "write a model for others to use",
        run_export,
        "Writes the parameters of a run that did best in validation (averaged ones, if"
        " it keeps them) as a directory: safetensors, StableHLO, ONNX, an Orbax"
        " checkpoint, config.json, and a model card. Every file is run and compared"
        " with the network; where one differs, nothing is written.",
    )
    sub.add_argument("model", metavar="MODEL", help=MODEL.removesuffix(", or bicubic"))
    sub.add_argument(
        "output", type=pathlib.Path, metavar="OUT", help="the directory to write"
    )
    sub.add_argument(
        "--formats",
        metavar="FORMAT[,FORMAT]",
        help="some of safetensors, stablehlo, onnx, orbax (default: all; onnx where"
        " the package onnx is installed)",
    )
    sub.add_argument(
        "--force", action="store_true", help="replace an exported model in OUT"
    )
    sub.add_argument(
        "--data", metavar="TEXT", help="the training images, for the model card"
    )
    sub.add_argument("--data-licence", metavar="TEXT", help="their terms, likewise")


def _add_report(command):
    sub = command(
        "report", "tables, curves and crops of runs, and one HTML page", run_report
    )
    sub.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="a run directory, an exported directory, or a released name",
    )
    sub.add_argument(
        "--out", type=pathlib.Path, required=True, metavar="DIR", help="where to write"
    )
    sub.add_argument(
        "--sets",
        default="",
        metavar="SET[,SET]",
        help="evaluate every model on these first (as btsrn evaluate does)",
    )
    sub.add_argument(
        "--images",
        default="",
        metavar="NAME[,NAME]",
        help="what to show crops of, by the first model of each scale: files, or names"
        " of images in the first set, or of the sample photographs (default: three)",
    )
    _add_ensemble(sub)
    _add_data_dir(sub)


def _add_bench(command):
    sub = command("bench", "speed and memory, beside PyTorch if asked for", run_bench)
    sub.add_argument("mode", choices=("train", "infer"), help="what to measure")
    sub.add_argument("--scale", type=int, choices=(2, 3, 4), help="default: all three")
    sub.add_argument(
        "--peer",
        choices=("torch",),
        help="measure the same in PyTorch, in turns (in a checkout of the source)",
    )
    sub.add_argument(
        "--json", type=pathlib.Path, metavar="FILE", help="write every figure"
    )
    for name, default, what in (
        ("batch", "32", "patches of a training step"),
        ("side", "512", "HR side of the image to enlarge to"),
    ):
        sub.add_argument(
            f"--{name}",
            default=default,
            metavar="N[,N]",
            help=f"{what} (default: {default})",
        )
    sub.add_argument(
        "--patch", type=int, default=108, help="HR pixels a side (default: 108)"
    )
    sub.add_argument(
        "--repeats", type=int, default=10, help="at most so many (default: 10)"
    )
    sub.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="of the convolutions (default: what training and inference take)",
    )
    sub.add_argument(
        "--loop", action="store_true", help="train: time a run's whole loop as well"
    )


def _add_info(command):
    sub = command("info", "what a config is, and whether it fits a device", run_info)
    sub.add_argument("--config", required=True, metavar="FILE[:ARG]")
    sub.add_argument(
        "--compile",
        action="store_true",
        help="compile it for the devices that are here",
    )
    sub.add_argument(
        "--topology",
        metavar="KIND:AxB",
        help="compile it for a slice of TPUs, such as v5e:2x4; none need be here",
    )
    sub.add_argument(
        "--largest", action="store_true", help="find the largest batch that fits"
    )
    sub.add_argument(
        "overrides",
        nargs="*",
        metavar="-- --config.FIELD=VALUE",
        help="fields to change",
    )


def _add_ensemble(sub):
    sub.add_argument(
        "--ensemble",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="average over eight flips and rotations (default: on)",
    )


def _add_data_dir(sub):
    sub.add_argument(
        "--data-dir",
        default="data",
        metavar="DIR",
        help="where DIV2K was prepared (default: data)",
    )


def _add_memory(sub):
    sub.add_argument(
        "--memory-gb",
        type=float,
        default=0.0,
        metavar="GB",
        help="for the activations on each device (default: half of what is free)",
    )


def run_info(args) -> int:
    """btsrn info"""
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


def run_prepare(args) -> int:
    """btsrn prepare"""

    name = args.dataset.removeprefix("div2k/")
    if name == args.dataset:
        known = ", ".join(f"div2k/{config}" for config in data.div2k.CONFIGS)
        raise InputError(f"unknown data set {args.dataset!r}: one of {known}")
    data.div2k.prepare(name, storage.local(args.data_dir), args.zips)
    return 0


def run_upscale(args) -> int:
    """btsrn upscale"""
    from btsrn_jax import mesh

    mesh.prepare()
    model = inference.open_model(args.model, args.scale, args.ensemble, args.memory_gb)
    figures = f"; {export.summary(model.config)}" if model.config.get("figures") else ""
    print(model.about + figures, file=sys.stderr)
    return inference.upscale_files(
        args.inputs,
        args.output,
        model.enlarge,
        model.scale,
        force=args.force,
        resume=args.resume,
    )


def run_evaluate(args) -> int:
    """btsrn evaluate"""
    from btsrn_jax import mesh

    mesh.prepare()
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


def run_export(args) -> int:
    """btsrn export"""
    from btsrn_jax import mesh

    mesh.prepare()
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
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{args.output}: written, see its README.md")
    return 0


def run_models(args) -> int:
    """btsrn models"""

    for name in inference.released_models():
        about = inference.read_config(inference.RELEASED / name)
        print(f"{name}  x{about['scale']}  {export.summary(about)}")
        print(f"    {export.history(about)}")
    if not inference.released_models():
        print("this package comes without trained models")
    return 0


def run_bench(args) -> int:
    """btsrn bench"""

    scales = [args.scale] if args.scale else [2, 3, 4]
    name = "batch" if args.mode == "train" else "side"
    specs = []
    for scale, size in itertools.product(scales, _numbers(name, getattr(args, name))):
        size = size // scale if name == "side" else size
        patch = args.patch // scale * scale
        spec = benchmark.Spec(args.mode, scale, patch=patch, dtype=args.dtype)
        specs.append(spec._replace(loop=args.loop, **{name: size}))

    def say(line):
        print(line, file=sys.stderr, flush=True)

    benchmark.run_benchmark(specs, args.peer, args.repeats, args.json, say)
    return 0


def run_report(args) -> int:
    """btsrn report"""
    from btsrn_jax import mesh

    mesh.prepare()
    sets, chosen = (
        [name for name in evaluation.split_names(text) if name]
        for text in (args.sets, args.images)
    )
    report.write_report(args.runs, args.out, sets, chosen, args.ensemble, args.data_dir)
    print(args.out / "index.html")
    return 0


def _numbers(name, text):
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise InputError(f"--{name} {text!r}: a whole number, or several with commas")
    return [int(number) for number in text.split(",")]


def _scale(text):
    if text not in ("2", "3", "4"):
        raise InputError(f"--scale {text!r}: 2, 3 or 4, or several with commas")
    return int(text)


def main(argv: list[str] | None = None) -> None:
    """The process: exit codes, and one line for what a user did wrong."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["train"]:
        from btsrn_jax import main as training

        training.main(["btsrn train", *argv[1:]])
    args = build_parser().parse_args(argv)
    logging.set_verbosity(logging.ERROR)  # Orbax tells of every file it reads
    for stream in (sys.stdout, sys.stderr):  # names of files need not be text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # As Ctrl-C: what was half written is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(args.function(args))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that is gone
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except MemoryError as error:
        print(f"error: out of memory: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
