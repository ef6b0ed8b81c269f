"""Claims of published.py: the README's tables say what the models' figures say."""

from helpers import tiny

from btsrn_jax.evaluation.figures import Row
from btsrn_jax.report import published
from btsrn_jax.report.tables import ReportedModel


def released(name="btsrn-x3", **figures):
    """An exported model with means on sets: {"Set5_modern_0": 33.1}; bicubic 30."""
    rows, baseline = [], []
    for key, psnr in figures.items():
        set_name, protocol, ensemble = key.split("_")
        row = Row(set_name, "mean", 3, "btsrn", int(ensemble), protocol, psnr, 0.9)
        rows += [row._replace(image="one", psnr=1.0), row]
        baseline.append(row._replace(model="bicubic", ensemble=0, psnr=30.0))
    config = {
        "scale": 3,
        "model": dict(tiny.config().model) | {"features": 128, "bottleneck": 64},
        "step": 1200,
        "batch_size": 4,
        "patch": 108,
        "data": "photographs",
        "hardware": "1 x cpu",
        "training_command": "python -m btsrn_jax.main",
    }
    return ReportedModel(name, name, config, [], rows, baseline)


def test_each_figure_stands_in_its_set_scale_and_protocol():
    entry = released(Set5_benchmark_0=33.004, Set5_benchmark_1=33.1, B100_modern_1=28.5)
    benchmark, modern, _ = published.released_tables([entry])
    assert benchmark.lines == [
        ["Set5", "x3", "30.00", "33.00", "33.10", "34.03", "33.66"]
    ]
    # VDSR, CARN, EDSR-baseline, NinaSR-B1 on B100 at x3, as published.
    assert modern.lines == [
        ["B100", "x3", "30.00", "28.50", "28.82", "29.06", "29.08", "29.13"]
    ]
    assert modern.header[3] == "with ensemble"  # no column for what nobody measured


def test_several_models_of_a_scale_have_a_line_each():
    entries = [released("a", Set5_benchmark_0=33.0), released("b", Set5_benchmark_1=34)]
    benchmark, _ = published.released_tables(entries)
    assert benchmark.header[:6] == [*published.MEASURED]
    assert [line[:6] for line in benchmark.lines] == [
        ["Set5", "x3", "30.00", "33.00", "", "a"],
        ["Set5", "x3", "30.00", "", "34.00", "b"],
    ]


def test_the_same_images_under_another_name_are_found():
    benchmark, *_ = published.released_tables([released(BSD100_benchmark_0=28.0)])
    assert benchmark.lines[0][:4] == ["B100", "x3", "30.00", "28.00"]


def test_training_is_told_beside_the_figures():
    *_, training = published.released_tables([released(Set5_modern_0=33.0)])
    (line,) = training.lines
    assert line[0] == "btsrn-x3"
    assert line[2:] == [
        "photographs",
        "1,200 of 4 x 108 px",
        "1 x cpu",
    ]
    assert training.header[-1] == "on"  # the command stands below
    assert training.commands == ["python -m btsrn_jax.main"]


def test_runs_and_models_without_figures_make_no_tables():
    entry = released(Kodak24_modern_0=30.0)
    assert published.released_tables([entry]) == []
    run = released(Set5_modern_0=33.0)
    del run.config["training_command"]
    assert published.released_tables([run]) == []
