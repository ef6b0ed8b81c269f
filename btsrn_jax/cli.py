"""`btsrn`: what one does with pictures and models. A call per command.

JAX is loaded inside the commands that need it, so that help, `btsrn models` and
whatever is refused answer at once.
"""

import argparse
import dataclasses
import functools
import itertools
import os
import signal
import sys

from absl import logging as absl_logging

from btsrn_jax import (
    benchmark,
    data,
    evaluation,
    export,
    inference,
    options,
    progress,
    report,
    storage,
    streams,
)
from btsrn_jax.errors import InputError, foreseen
from btsrn_jax.progress import logger

# Arguments of the commands whose work is files: these go on when nobody listens.
FILES = ("dataset", "output", "out", "csv", "save_images", "json")


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands and their options."""
    first = [run_prepare, run_upscale, run_evaluate, run_export, run_demo]
    return options.make_parser([*first, run_report, run_bench, run_info, run_models])


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
    scales = [options.scale(text) for text in storage.split_names(args.scale)]
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
    sizes = options.numbers(name, getattr(args, name))
    specs = []
    for scale, size in itertools.product(scales, sizes):
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
