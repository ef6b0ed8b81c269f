"""`btsrn`: what one does with pictures and models. A parser and a call per command.

JAX is loaded inside the commands that need it, so that help, `btsrn models` and
whatever is refused answer at once.
"""

import argparse
import dataclasses
import functools
import itertools
import os
import re
import signal
import sys

from absl import logging as absl_logging

from btsrn_jax import (
    __version__,
    arguments,
    benchmark,
    data,
    evaluation,
    export,
    inference,
    progress,
    report,
    storage,
    streams,
)
from btsrn_jax.errors import InputError, foreseen
from btsrn_jax.progress import logger

MODEL = (
    "A released name, the folder of an exported model or of a run, the"
    " model.safetensors of an export, or hf://OWNER/NAME[@REVISION]"
)
ENSEMBLE = "Average over eight flips and rotations."
# Arguments of the commands whose work is files: these go on when nobody listens.
FILES = ("dataset", "output", "out", "csv", "save_images", "json")
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


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands and their options."""
    parser = arguments.Parser(
        prog="btsrn",
        description="Super-resolution by balanced two-stage residual networks, in JAX."
        " In every path, ~ is the home directory.",
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
    _add_demo(command(run_demo))
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


def run_info(args: argparse.Namespace) -> int:
    """Say what a config is, and whether it fits a device.

    Fields of the config are changed after a lone --, as --config.train.batch_size=64 is
    by btsrn info --config configs/x2.py -- --config.train.batch_size=64.
    """
    if args.topology:  # before JAX is imported: no TPU is here, and none is asked for
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("JAX_PLATFORMS", "cpu")

    from btsrn_jax import main

    config = main.parse(["info", "--config", args.config, *args.overrides]).config
    print(benchmark.describe_config(config))
    if not (args.compile or args.topology or args.largest):
        return 0
    from btsrn_jax import mesh

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
    """Upscale pictures.

    PNG, JPEG, WebP, TIFF and BMP go in and out, with transparency, 16 bits, colour
    profile and EXIF. Outputs have the format of their inputs, or of OUT's suffix. JPEG
    is written at quality 95 (4:4:4), WebP without loss.
    """
    inference.choose_runtime(args.runtime)
    output = inference.Output(
        args.format, args.quality, args.factor, args.width, args.height
    )
    streams = inference.standard_streams(args.inputs, args.output, output)
    with streams as (inputs, out, hidden):

        def log(line):
            if args.output == inference.STREAM:  # not into the picture
                logger.info(line.replace(hidden, ""))
            else:  # at once, or it would come after later ones of standard error
                print(line.replace(hidden, "") if hidden else line, flush=True)

        work = inference.plan_files(
            inputs, out, output, force=args.force, resume=args.resume
        )
        inference.find_model(args.model, args.scale)

        @functools.cache
        def open_model(source, scale):
            model = inference.open_model(
                source,
                scale,
                args.ensemble,
                args.memory_gb,
                args.runtime,
                before=_prepare_devices,
            )
            logger.info(model.about)
            if auto and not inference.photo_model(scale):
                logger.info(f"auto: no photo model of x{scale} comes with this package")
            return model

        auto = args.model == inference.AUTO
        families = None, inference.FAMILY, inference.BICUBIC, inference.AUTO
        named = args.model not in families  # it has one scale, whatever is wanted

        def open_for(scale, quality):
            scale = args.scale if named else scale or 2
            source = inference.find_model(args.model, scale, quality)
            return open_model(source, scale)

        return inference.upscale_files(work, open_for, args.scale, log, auto)


def run_evaluate(args: argparse.Namespace) -> int:
    """Measure PSNR and SSIM on sets of images."""
    scales = [_scale(text) for text in storage.split_names(args.scale)]
    evaluation.run_evaluation(
        args.model,
        storage.split_names(args.sets),
        scales,
        storage.split_names(args.protocol),
        args.ensemble,
        args.data_dir,
        args.csv,
        args.save_images,
        args.memory_gb,
        before=_prepare_devices,
        lr=args.lr,
        runtime=args.runtime,
        degrade=args.degrade,
    )
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Write a model for others to use.

    Takes the parameters of a run that did best in validation (averaged ones, if it
    keeps them) and writes a folder: safetensors, StableHLO, ONNX, PyTorch, NCNN, an
    Orbax checkpoint, config.json, and a model card. Every file is run and compared with
    the network; where one differs, nothing is written. The format web is a page for the
    browser, of one model or of several.
    """
    formats = None if args.formats is None else storage.split_names(args.formats)
    if formats and set(formats) == {export.PAGE_FORMAT}:
        return _export_page(args)
    if len(args.models) > 1:
        named = ", ".join(args.models)
        raise InputError(f"{named}: only --formats web takes several models")
    if args.runtime_files:
        raise InputError("--runtime-files is for --formats web alone")
    what = args.models[0], args.output, formats
    how = {"force": args.force, "half": args.half}
    plan = export.plan_export(*what, **how, log=str)
    _prepare_devices()
    about = {"data": args.data, "data_licence": args.data_licence}
    export.export_model(*what, **how, **about)
    print(f"{plan.out}: written" + ", see its README.md" * (not plan.one_file))
    return 0


def _export_page(args):
    for name in ("half", "data", "data_licence"):
        if getattr(args, name):
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} is for models: --formats web does without")
    what = args.models, args.output, args.runtime_files, args.force
    plan = export.plan_page(*what)
    _prepare_devices()
    export.export_page(*what)
    print(f"{plan.out}: written, for any server of files")
    return 0


def run_demo(args: argparse.Namespace) -> int:
    """Show a page that enlarges pictures in the browser.

    Serves it to this computer alone, and opens it. Nothing of a picture is sent
    anywhere. Ctrl-C ends it.
    """
    released = inference.released_models()
    models = args.models or [m for m in released if not inference.is_photo_model(m)]
    if not models:
        raise InputError("this package comes without trained models: name one")

    def say(line):
        print(line, flush=True)

    export.run_demo(models, args.runtime_files, args.port, _prepare_devices, say)
    return 0


def run_models(args: argparse.Namespace) -> int:
    """List the models that come with this package.

    That is what --model takes, how good each model is (beside bicubic and the paper),
    what it is for, and what it was trained on.
    """
    for name in inference.released_models():
        about = inference.read_config(inference.find_folder(name)[0])
        print(f"{name}  x{about['scale']}  {export.summary(about)}")
        print(f"    {export.purpose(name)}; {export.history(about)}")
    if not inference.released_models():
        print("this package comes without trained models")
    return 0


def run_bench(args: argparse.Namespace) -> int:
    """Measure speed and memory, beside PyTorch and others if asked for."""
    scales = [args.scale] if args.scale else [2, 3, 4]
    name = "batch" if args.mode == "train" else "side"
    specs = []
    for scale, size in itertools.product(scales, _numbers(name, getattr(args, name))):
        size = size // scale if name == "side" else size
        patch = args.patch // scale * scale
        spec = benchmark.Spec(args.mode, scale, patch=patch, dtype=args.dtype)
        specs.append(dataclasses.replace(spec, loop=args.loop, **{name: size}))
    peers = storage.split_names(args.peer)
    benchmark.run_benchmark(specs, peers, args.repeats, args.json)
    return 0


def run_report(args: argparse.Namespace) -> int:
    """Write tables, curves and crops of runs, and one HTML page."""
    sets, chosen = map(storage.split_names, (args.sets, args.images))
    report.write_report(
        args.runs,
        args.out,
        sets,
        chosen,
        args.ensemble,
        args.data_dir,
        before=_prepare_devices,
    )
    print(args.out / "index.html")
    return 0


def _prepare_devices():
    from btsrn_jax import mesh, program_cache  # loads JAX

    mesh.prepare()
    program_cache.keep_compiled()


def _numbers(name, text):
    numbers = storage.split_names(text)
    if not numbers or not all(re.fullmatch(r"[1-9][0-9]*", part) for part in numbers):
        raise InputError(f"--{name} {text!r}: a whole number, or several with commas")
    return [int(number) for number in numbers]


def _scale(text):
    if text not in ("2", "3", "4"):
        raise InputError(f"--scale {text!r}: 2, 3 or 4, or several with commas")
    return int(text)


def _hang_up(number, frame):
    """Ends a command whose terminal was closed, as Ctrl-C does."""
    signal.signal(number, signal.SIG_IGN)  # the kernel tells it, and the shell as well
    raise KeyboardInterrupt


def _failed(what, code=1):
    logger.error(f"error: {what}")
    return code


def main(argv: list[str] | None = None) -> None:
    """Runs the process: ends it with the exit code of the command, and says in one line
    what a user did wrong."""
    streams.secure()
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["train"]:
        from btsrn_jax import main as training

        training.main(["btsrn train", *argv[1:]])
    progress.log_to_stderr()
    absl_logging.set_verbosity(absl_logging.ERROR)  # Orbax tells of every file it reads
    # As Ctrl-C: what was half written is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under `nohup`
        signal.signal(signal.SIGHUP, _hang_up)
    prints = True  # until it is known that files are written
    try:
        args = build_parser().parse_args(argv)
        outputs = [getattr(args, name, None) for name in FILES]
        prints = inference.STREAM in outputs or not any(outputs)
        code = args.function(args)
    except SystemExit as end:  # argparse's
        code = end.code
    except InputError as error:
        code = _failed(error, 2)
    except KeyboardInterrupt as error:
        logger.error(str(error) or "interrupted")
        code = 1
    except Exception as error:
        if (text := foreseen(error)) is None:
            raise
        code = _failed(text)  # a full disk, a folder that is gone
    sys.exit(streams.exit_code(code, prints))


if __name__ == "__main__":
    main()
