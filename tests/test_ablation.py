"""Claims of configs/ablation.py: each row is the experiment that its name says."""

import re

import pytest

from btsrn_jax import config as schema
from btsrn_jax import main
from btsrn_jax.errors import InputError
from btsrn_jax.evaluation import Row
from btsrn_jax.network import btsrn as network
from btsrn_jax.network import cost
from btsrn_jax.report import experiments
from btsrn_jax.report.tables import ReportedModel

ROOT = main.pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "configs/ablation.py").read_text()
ROWS = [
    *(f"table1-high{n}" for n in (3, 4, 5)),
    *(f"table2-low{n}" for n in (5, 6, 7, 8, 9)),
    *(f"figure3-{n}+{10 - n}" for n in range(1, 10)),
    *(f"figure4-{block}" for block in ("pixelcnn", "gated", "gated_pp", "pconv")),
    *(f"norm-{norm}" for norm in ("none", "batch", "weight")),
    *(f"vdsr-x{scale}" for scale in (2, 3, 4)),
]


def parse(arg, monkeypatch):
    monkeypatch.chdir(ROOT)
    return main.parse(["main", "--config", f"configs/ablation.py:{arg}"])


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_the_papers_setting_but_for_what_it_studies(row, monkeypatch):
    config = parse(row, monkeypatch).config
    defaults, flat = schema.flatten(schema.defaults()), schema.flatten(config)
    differing = {name for name in flat if flat[name] != defaults[name]}
    allowed = {
        "table1": {"model.high_blocks"},
        "table2": {"model.low_blocks"},
        "figure3": {"model.low_blocks", "model.high_blocks"},
        "figure4": {"model.block", "model.bottleneck"},
        "norm": {"model.norm"},
        "vdsr": {
            "model.name",
            "model.features",
            "train.clip_norm",
        },
    }[row.split("-")[0]]
    assert differing - {"scale"} <= allowed
    small = parse(f"{row},small", monkeypatch)
    schema.validate(small.config, 8)
    assert small.workdir.name == f"ablation-{row},small"
    assert cost.parameter_count(
        network.build(small.config.model, small.config.scale)
    ) < 0.11 * cost.parameter_count(network.build(config.model, config.scale))


@pytest.mark.parametrize("variant", ["", ",small"])
def test_the_report_puts_each_row_into_the_table_it_is_named_after(
    variant, monkeypatch
):
    runs = []
    for row in ROWS:
        config = parse(row + variant, monkeypatch).config.to_dict()
        config["train"]["steps"] = config["train"]["steps"] or 290_000
        mean = Row("Set5", "mean", 2, row, 0, config["eval"]["protocol"], 30.0, 0.9)
        runs.append(ReportedModel(None, row, config, [], [mean], []))
    found = {study.name: study for study in experiments.find(runs)}
    labels = {}
    for name, study in found.items():
        (table,) = study.tables
        labels[name] = [line[0] for line in table.lines]
        assert ("reduced" in table.title) == bool(variant)
        expected = {
            row for row in ROWS if row.startswith(name.removesuffix("alisation"))
        }
        assert expected <= {run.name for run in study.runs}
    assert labels == {
        "table1": ["6 + 3", "6 + 4", "6 + 5"],
        "table2": ["5 + 4", "6 + 4", "7 + 4", "8 + 4", "9 + 4"],
        "figure3": [f"{n} + {10 - n}" for n in range(1, 10)],
        "figure4": ["gated_pp", "gated", "pconv", "pixelcnn"],
        "normalisation": ["none", "batch", "weight"],
    }
    # The network of 6 + 4 serves Table 1, Table 2, Figure 3 and the norms; a run of
    # Figure 4 is half as wide inside and serves no other.
    assert "table2-low6" in {run.name for run in found["table1"].runs}
    assert {run.name for run in found["figure4"].runs} == {
        row for row in ROWS if row.startswith("figure4")
    }


@pytest.mark.parametrize(
    ("row", "parameters"),
    [
        ("table1-high4", 887_683),
        # A block 128 -> 32 -> 128: 4,096 + 36,864 weights, 160 biases.
        ("figure4-pconv", 512 + 10 * 41_120 + 65_664 + 387),
        # 1x1 and 3x3 to twice the width: 4,096 + 73,728 weights, 288 biases.
        ("figure4-gated", 512 + 10 * 78_112 + 65_664 + 387),
        ("figure4-gated_pp", 512 + 10 * 78_112 + 65_664 + 387),
        # 128 -> 32 -> 32 -> 128: 4,096 + 9,216 + 4,096 weights, 192 biases.
        ("figure4-pixelcnn", 512 + 10 * 17_600 + 65_664 + 387),
        ("vdsr-x4", 665_921),
    ],
)
def test_rows_have_the_parameters_of_the_papers_networks(row, parameters, monkeypatch):
    config = parse(row, monkeypatch).config
    built = network.build(config.model, config.scale)
    assert cost.parameter_count(built) == parameters


@pytest.mark.parametrize("arg", ["", "table1-high6", "table1-high4,tiny", "small"])
def test_an_unknown_row_lists_all_rows_in_one_line(arg, monkeypatch):
    with pytest.raises(InputError) as error:
        parse(arg, monkeypatch)
    text = str(error.value)
    assert "\n" not in text
    assert all(row in text for row in ROWS)
    assert ",small" in text


def test_the_docstring_has_the_papers_figures():
    said = dict(re.findall(r"^(table\S+) .* (34\.\d{5})$", TEXT, re.MULTILINE))
    table1, table2 = (kind.paper for kind in experiments.KINDS[:2])
    expected = {f"table1-high{k[-1]}": f"{v:.5f}" for k, v in table1.items()}
    expected |= {f"table2-low{k[0]}": f"{v:.5f}" for k, v in table2.items()}
    assert said == expected
