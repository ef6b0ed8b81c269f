"""Claims of the report: what its tables say of given figures, its curves, its page."""

import csv
import dataclasses
import html.parser
import importlib.util
import json
import re
import shutil
import xml.etree.ElementTree as ET

import jax
import numpy as np
import pytest
from helpers import tiny
from PIL import Image

from btsrn_jax import cli, lock
from btsrn_jax import config as schema
from btsrn_jax.errors import InputError
from btsrn_jax.evaluation import figures
from btsrn_jax.evaluation.figures import Row
from btsrn_jax.inference import weights
from btsrn_jax.network import btsrn as network
from btsrn_jax.report import (
    experiments,
    html_page,
    paper_tables,
    plots,
    sections,
    tables,
    time_table,
    viewer,
)
from btsrn_jax.report import write as report

SET = "div2k/bicubic_x2"
needs_matplotlib = pytest.mark.skipif(
    not importlib.util.find_spec("matplotlib"),
    reason="matplotlib is not installed (the extra report)",
)


def write_run(folder, psnr, name=SET, metrics=(), rows=(), **fields):
    """A run directory without checkpoints: the paper's x2 setting but for `fields`."""
    config = schema.defaults()
    config.scale = 2
    config.train.steps, config.train.decay_steps = 290_000, 18_125
    config.update_from_flattened_dict(
        {key.replace("__", "."): value for key, value in fields.items()}
    )
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    lines = [{"step": 100, "time": 5.0, "loss": 0.01}, *metrics]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(x)}\n" for x in lines))
    values = (("bicubic", 31.0), ("btsrn", psnr))
    rows = [Row(name, "mean", 2, m, 0, "ntire", p, 0.9) for m, p in values] + list(rows)
    figures.write_csv(folder / "validation.csv", rows)
    return str(folder)


def studied(*sources):
    return {
        table.name: table
        for study in experiments.find([report.load(source) for source in sources])
        for table in study.tables
    }


# --- tables


def test_where_the_time_of_runs_went_is_a_table_of_their_sessions(tmp_path):
    shares = {"share_steps": 0.5, "share_compile": 0.5, "patches_per_second": 10.0}
    first = {"step": 200, "session_seconds": 60, "utilisation": 0.5} | shares
    second = {"step": 300, "session_seconds": 120} | shares
    second |= {"share_steps": 0.75, "share_compile": 0.25}
    told = write_run(tmp_path / "told", 34.0, metrics=[first, second])
    untold = write_run(tmp_path / "untold", 34.0)
    entries = [report.load(source) for source in (told, untold)]
    table = time_table.time_table(entries)
    (line,) = (dict(zip(table.header, line, strict=True)) for line in table.lines)
    assert line["run"] == "told"
    assert (line["sessions"], line["minutes"]) == ("2", "3.0")
    assert (line["patches/s"], line["utilisation"]) == ("10", "50 %")
    assert line["steps"] == "66.7 %"  # 30 and 90 s
    assert "66.7&nbsp;%" in html_page.table_html(table)
    (section,) = [s for s in sections.arrange(entries, []) if s.name == "time"]
    assert section.title != table.title  # which stand below each other
    assert time_table.time_table(entries[1:]) is None


def test_table_1_sets_measured_beside_paper(tmp_path):
    sources = [
        write_run(tmp_path / f"high{n}", psnr, model__high_blocks=n)
        for n, psnr in ((3, 34.1), (4, 34.15), (6, 34.25))
    ]
    table = studied(*sources)["table1"]
    assert "reduced" not in table.title
    assert SET in table.title
    assert table.header[:6] == [
        "blocks, low + high",
        "PSNR, ntire",
        "against 6 + 4",
        "paper",
        "difference",
        "paper's against 6 + 4",
    ]
    assert [line[:6] for line in table.lines] == [
        ["6 + 3", "34.100", "-0.050", "34.14024", "-0.040", "-0.022"],
        ["6 + 4", "34.150", "", "34.16181", "-0.012", ""],
        ["6 + 6", "34.250", "+0.100", "", "", ""],
    ]
    assert table.lines[1][6:8] == ["887,683", "467,424"]
    assert table.lines[1][8].endswith(" MB")


def test_seeds_are_a_mean_and_a_deviation(tmp_path):
    sources = [
        write_run(tmp_path / f"seed{n}", psnr, train__seed=n)
        for n, psnr in enumerate((34.0, 34.2, 34.1))
    ]
    table = studied(*sources)["table1"]
    (line,) = table.lines  # measured on the paper's set, in its setting
    assert line[:4] == ["6 + 4", "34.100 ± 0.100 (3 seeds)", "34.16181", "-0.062"]


def test_a_reduced_setting_is_named_and_not_subtracted_from_the_papers(tmp_path):
    fields = {"model__features": 32, "model__bottleneck": 16, "train__steps": 600}
    a = write_run(tmp_path / "a", 31.1, "Kodak24", **fields)
    b = write_run(tmp_path / "b", 31.2, "Kodak24", model__high_blocks=3, **fields)
    table = studied(a, b)["table1"]
    assert table.title.endswith(", on Kodak24 (reduced)")
    said = "Smaller than the paper's setting. a, b: features 32, 600 steps."
    assert said in table.notes
    assert table.header[3:5] == ["paper", "paper's against 6 + 4"]  # no difference
    assert [line[:5] for line in table.lines] == [
        ["6 + 3", "31.200", "+0.100", "34.14024", "-0.022"],
        ["6 + 4", "31.100", "", "34.16181", ""],
    ]
    assert any("only the differences between rows" in note for note in table.notes)


def test_a_reduced_setting_is_named_below_and_titles_stay_short(tmp_path):
    mine = [
        Row(name, "mean", 2, "mine", 1, protocol, 37.0, 0.9)
        for name, protocol in (("Set5", "benchmark"), (SET, "ntire"))
    ]
    fields = {"train__steps": 1600, "data__source": "samples"}
    small = write_run(tmp_path / "small", 34, rows=mine, model__features=32, **fields)
    whole = write_run(tmp_path / "whole", 34, rows=mine)
    vdsr = {"model__name": "vdsr", "model__features": 64}  # as its paper has it
    vdsr = write_run(tmp_path / "vdsr", 34, rows=mine, **vdsr, **fields)
    entries = {name: report.load(name) for name in (small, whole, vdsr)}

    def made(*names):
        chosen = [entries[name] for name in names]
        found = (paper_tables.table3(chosen), paper_tables.table4(chosen))
        return [table for table in found if table]

    for table in made(small):
        assert table.title.endswith(" (reduced)")
        words = "small: sample photographs, features 32, 1,600 steps."
        assert table.notes[-1].endswith(words)
    assert not any("reduced" in table.title for table in made(whole))
    (table4,) = made(vdsr)
    assert table4.notes[-1].endswith("vdsr: sample photographs, 1,600 steps.")
    table3, table4 = made(whole, vdsr, small)
    assert table3.title.endswith(" (some reduced)")
    assert table4.title.endswith(" (some reduced)")
    assert table4.notes[-1].count("1,600 steps") == 2
    assert "whole" not in table4.notes[-1].partition("setting.")[2]
    # An exported model knows its steps.
    released = {"scale": 2, "model": schema.defaults().model.to_dict(), "step": 300}
    (said,) = tables.reduction_notes(
        [dataclasses.replace(entries[whole], config=released)]
    )
    assert said.endswith("whole: 300 steps.")


def test_runs_of_unlike_settings_are_not_mixed(tmp_path):
    sources = [
        write_run(tmp_path / "mse", 34.1),
        write_run(tmp_path / "l1", 34.2, train__loss="l1"),
        write_run(
            tmp_path / "elsewhere", 34.3, data__root="other", model__low_blocks=5
        ),
    ]
    # As new runs have it: where a config came from is no setting.
    config = tmp_path / "elsewhere" / "config.json"
    about = json.loads(config.read_text()) | {"config_file": "configs/x2.py"}
    config.write_text(json.dumps(about | {"config_argument": ""}))
    found = studied(*sources)
    # A path is no setting. That row of Table 1 stands in a fuller Table 2, and of the
    # other setting there is a single row.
    assert found.keys() == {"table2"}
    assert [line[1] for line in found["table2"].lines] == ["34.300", "34.100"]
    other = write_run(tmp_path / "l1-5", 34.4, train__loss="l1", model__low_blocks=5)
    found = studied(*sources, other)
    assert [line[1] for line in found["table2-2"].lines] == ["34.400", "34.200"]
    assert "Not the paper's setting: loss l1." in found["table2-2"].notes
    # Measured on the paper's set, a row stands alone beside its figures.
    assert {"table1", "table2"} <= studied(sources[0]).keys()


def test_figure_4_and_the_normalisation_study_have_their_own_tables(tmp_path):
    sources = [
        write_run(tmp_path / block, psnr, model__block=block, model__bottleneck=32)
        for block, psnr in (("gated_pp", 34.3), ("pconv", 34.1))
    ]
    sources += [
        write_run(tmp_path / norm, psnr, model__norm=norm)
        for norm, psnr in (("none", 34.2), ("batch", 33.7))
    ]
    found = studied(*sources)
    assert [line[:3] for line in found["figure4"].lines] == [
        ["gated_pp", "34.300", "+0.200"],
        ["pconv", "34.100", ""],
    ]
    assert [line[:3] for line in found["normalisation"].lines] == [
        ["none", "34.200", ""],
        ["batch", "33.700", "-0.500"],
    ]
    assert "figure3" not in found  # one row is no comparison


def test_a_study_needs_two_rows_that_were_measured_on_a_set(tmp_path):
    reduced = {"train__steps": 600}
    one = write_run(tmp_path / "one", 31.1, "Kodak24", **reduced)
    assert studied(one) == {}
    two = write_run(
        tmp_path / "two", 31.2, "elsewhere", model__high_blocks=3, **reduced
    )
    assert studied(one, two) == {}  # no set that both were measured on
    (study,) = experiments.find([report.load(one), report.load(two)])
    assert [label for label, _ in study.curves] == ["6 + 4", "6 + 3"]
    three = write_run(
        tmp_path / "three", 31.3, "Kodak24", model__high_blocks=5, **reduced
    )
    (table,) = studied(one, two, three).values()
    assert [line[0] for line in table.lines] == ["6 + 4", "6 + 5"]


@pytest.mark.parametrize(
    ("protocol", "images", "fits"),
    [("ntire", 0, True), ("ntire", 100, True), ("ntire", 10, False), ("rgb", 0, False)],
)
def test_only_the_papers_set_and_protocol_are_subtracted(
    protocol, images, fits, tmp_path
):
    rows = [Row(SET, "mean", 2, "x", 0, protocol, 34.0, 0.9)]
    rows += [rows[0]._replace(image=str(i)) for i in range(images)]
    run = write_run(tmp_path / "run", 34, rows=rows, eval__protocol=protocol)
    assert bool(studied(run)) == fits


def test_table_3_compares_what_is_won_on_divk2s_validation_images(tmp_path):
    rows = [
        Row(SET, "0801", 2, "x2", 1, "ntire", 40.0, 0.9),
        Row(SET, "mean", 2, "x2", 1, "ntire", 34.5, 0.9),
        Row(SET, "mean", 2, "bicubic", 0, "ntire", 31.0, 0.9),
    ]
    entry = report.load(write_run(tmp_path / "x2", 34.1, rows=rows))
    table = paper_tables.table3([entry])
    assert table.lines == [["x2", "x2", "34.50", "+3.50", "34.19", "+3.18"]]
    # The difference of figures of two sets stands nowhere.
    assert "+0.31" not in str(table)
    for name in ("Set5", "div2k/unknown_x2", "DIV2K"):
        other = [row._replace(set=name) for row in rows]
        entry = report.load(write_run(tmp_path / name, 34.1, rows=other))
        assert paper_tables.table3([entry]) is None


def test_table_4_has_three_systems_beside_the_papers_figures(tmp_path):
    def rows(name, psnr):
        return [
            Row("Set5", "mean", 2, "bicubic", 0, "benchmark", 33.638, 0.9),
            Row("Set5", "mean", 2, name, 0, "benchmark", psnr - 0.1, 0.9),
            Row("Set5", "mean", 2, name, 1, "benchmark", psnr, 0.9),
            Row("Set5", "mean", 2, name, 1, "modern", 99.0, 0.9),
            Row("mine", "mean", 2, name, 1, "benchmark", 99.0, 0.9),
        ]

    vdsr = {"model__name": "vdsr", "model__features": 64}
    entries = [
        report.load(write_run(tmp_path / "ours", 34, rows=rows("ours", 37.8))),
        report.load(write_run(tmp_path / "peer", 34, rows=rows("peer", 37.5), **vdsr)),
    ]
    table = paper_tables.table4(entries)
    (line,) = table.lines
    assert line[:2] == ["Set5", "x2"]
    assert line[2:5] == ["37.80", "37.75", "+0.05"]
    assert line[5:8] == ["37.50", "37.53", "-0.03"]
    assert line[8:] == ["33.64", "33.64", "+0.00"]
    assert "btsrn x2: ours, ensemble" in table.notes[0]
    assert "vdsr x2: peer, ensemble" in table.notes[0]
    assert paper_tables.table4([dataclasses.replace(entries[0], rows=[])]) is None


def measured(psnr, scale=2, name="Set5"):
    return [Row(name, "mean", scale, "btsrn", 0, "benchmark", psnr, 0.9)]


def test_table_4_has_columns_for_every_model_and_scales_share_them(tmp_path):
    entries = [
        report.load(write_run(tmp_path / name, 34, rows=measured(*figure), **fields))
        for name, figure, fields in (
            ("A", (37.0,), {}),
            ("B", (37.5,), {"train__loss": "l1"}),
            ("C", (34.0, 3), {"scale": 3}),
            ("D", (31.8, 2, "BSD100"), {}),
        )
    ]
    table = paper_tables.table4(entries)
    assert table.header[2::3] == ["BTSRN 1", "BTSRN B", "BTSRN D"]
    assert set(table.header[3::3]) == {"paper"}
    lines = {(line[0], line[1]): line[2::3] for line in table.lines}
    assert lines == {
        ("Set5", "x2"): ["37.00", "37.50", ""],
        ("Set5", "x3"): ["34.00", "", ""],
        ("B100", "x2"): ["", "", "31.80"],  # the same images by another name
    }
    assert table.lines[0][2:8] == ["37.00", "37.75", "-0.75", "37.50", "37.75", "-0.25"]
    assert all(f": {name}" in table.notes[0] for name in "ABCD")


def test_what_differs_between_models_is_named(tmp_path):
    runs = [
        write_run(tmp_path / "mse", 34.1, eval__protocol="rgb", data__root="a"),
        write_run(tmp_path / "l1", 34.2, train__loss="l1", train__log_every=7),
        write_run(tmp_path / "seed", 34.3, train__seed=1, data__hr_dir="photos"),
    ]
    old = json.loads((tmp_path / "seed" / "config.json").read_text())
    del old["train"]["candidates"]  # a field that is younger than the run
    (tmp_path / "seed" / "config.json").write_text(json.dumps(old))
    mse, l1, _ = entries = [report.load(run) for run in runs]
    table = tables.compared(entries)
    assert table.header == ["model", "train.seed", "train.loss", "data.hr_dir"]
    assert table.lines == [
        ["mse", "0", "mse", ""],
        ["l1", "0", "l1", ""],
        ["seed", "1", "mse", "photos"],
    ]
    table = tables.compared([mse, dataclasses.replace(mse, name="twin")])
    assert (table.header, table.lines) == (["model"], [["mse"], ["twin"]])
    assert table.notes == ["No setting differs."]
    assert tables.compared([mse]) is None
    # What an exported model knows, it knows under other names.
    known = {"scale": 2, "model": mse.config["model"], "batch_size": 4, "step": 9000}
    exported = dataclasses.replace(l1, name="x", config=known | {"data": "photographs"})
    table = tables.compared([mse, l1, exported])
    assert table.header == ["model", "train.batch_size", "train.steps", "train.loss"]
    assert table.lines[1:] == [
        ["l1", "32", "290000", "l1"],
        ["x", "4", "9000", "unknown"],
    ]


def test_the_overview_has_bicubic_beside_each_figure(tmp_path):
    done = report.load(write_run(tmp_path / "done", 34.1))
    table = tables.overview([done, dataclasses.replace(done, name="begun", rows=[])])
    assert table.lines == [
        ["done", "x2", "887,683", SET, "ntire", "no", "31.00", "34.10", "0.9000"],
        ["begun", "x2", "887,683", "none yet", "", "", "", "", ""],
    ]


# --- curves


def test_training_time_leaves_out_validation_and_pauses():
    metrics = [
        # At first no rate is known: it is that of the next steps.
        {"step": 30, "time": 900.0, "loss": 0.2},
        {"step": 120, "time": 1000.0, "loss": 0.1, "steps_per_second": 2.0},
        {"step": 120, "time": 1500.0, "psnr_ntire": 30.0},
        # Continued a day later, twice as fast.
        {"step": 360, "time": 90000.0, "loss": 0.05, "steps_per_second": 4.0},
        {"step": 360, "time": 90500.0, "psnr_ntire": float("nan")},
        {"step": 480, "time": 91000.0, "loss": 0.04, "steps_per_second": 1.0},
        {"step": 480, "time": 92000.0, "psnr_ntire": 31.0},
    ]
    points = plots.curve_points(metrics, "psnr_")
    assert points == {"psnr_ntire": [(120, 1.0, 30.0), (480, 4.0, 31.0)]}  # no nan
    assert plots.curve_points(metrics, "loss")["loss"][0] == (30, 0.25, 0.2)
    zero = [{"step": 9, "time": 1.0, "loss": 0.0}]
    assert plots.curve_points(zero, "loss") == {}  # of a logarithmic axis


def logged(*losses, psnr=()):
    """Lines of metrics at steps 60, 120, ...: one step a second."""
    steps = [60 * (i + 1) for i in range(len(losses))]
    lines = [
        {"step": step, "time": 0.0, "loss": loss, "steps_per_second": 1.0}
        for step, loss in zip(steps, losses, strict=True)
    ]
    return lines + [{"step": steps[-1], "time": 0.0, "psnr_ntire": x} for x in psnr]


@needs_matplotlib
def test_lines_are_drawn_where_the_values_are():
    runs = [("a", logged(1.0, 10.0, 100.0)), ("b", logged(2.0, psnr=[30.0]))]
    figures = plots.draw([*runs, ("c", [])])
    assert list(figures) == [
        f"{quantity}-{axis}"
        for axis in ("steps", "time")
        for quantity in ("loss", "psnr", "rate")
    ]
    loss, by_time, psnr = (
        figures[name].axes[0] for name in ("loss-steps", "loss-time", "psnr-steps")
    )
    a, b = loss.lines
    assert (list(a.get_xdata()), list(a.get_ydata())) == ([60, 120, 180], [1, 10, 100])
    assert list(by_time.lines[0].get_xdata()) == [1, 2, 3]
    assert (loss.get_xlabel(), by_time.get_xlabel()) == ("steps", "minutes of training")
    assert (loss.get_yscale(), psnr.get_yscale()) == ("log", "linear")
    # A single point is a marker; a run has one colour, and its own.
    assert (a.get_marker(), b.get_marker()) == ("None", "o")
    assert psnr.lines[0].get_color() == b.get_color() != a.get_color()
    (legend,) = figures["loss-steps"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]


@needs_matplotlib
def test_several_validation_figures_of_a_run_are_lines_of_their_own():
    metrics = [
        {"step": step, "time": 0.0, "psnr_rgb": 30.0, "psnr_rgb_Set5": 20.0}
        for step in (1, 2)
    ]
    one, two = plots.draw([("a", metrics)])["psnr-steps"].axes[0].lines
    assert (one.get_label(), two.get_label()) == ("a, psnr_rgb", "a, psnr_rgb_Set5")
    assert (list(one.get_ydata()), list(two.get_ydata())) == ([30, 30], [20, 20])
    assert one.get_color() == two.get_color()
    assert one.get_linestyle() != two.get_linestyle()


@needs_matplotlib
def test_equal_runs_give_an_equal_picture_that_needs_no_fonts():
    runs = [("run <1>", logged(1.0, 0.5, psnr=[30.0]))]
    found = plots.curves(runs, "a & b")
    assert found == plots.curves(runs, "a & b")
    svg = found["loss-steps"]
    assert ET.fromstring(svg).tag.endswith("svg")
    assert "<text" not in svg
    assert "<title>a &amp; b: loss-steps</title>" in svg
    assert "<dc:date>" not in svg


def test_without_matplotlib_a_report_has_no_curves_and_says_so(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(plots, "can_plot", lambda: False)
    caplog.set_level("INFO", "btsrn")
    run = write_run(tmp_path / "run", 34.1)
    # The sample photographs are not needed without a model to show.
    report.write_report([run], tmp_path / "out")
    said = [r.message for r in caplog.records if "matplotlib" in r.message]
    assert said == [plots.HINT]
    assert "btsrn-jax[report]" in plots.HINT
    assert (tmp_path / "out" / "index.html").is_file()
    assert not list((tmp_path / "out").glob("*.svg"))


def test_nothing_logged_is_no_plot():
    runs = [("a", []), ("b", [{"step": 1, "time": 0.0}])]
    assert plots.curves(runs, "title") == {}


# --- Figure 5 and the page


class Links(html.parser.HTMLParser):
    """What a page refers to, and the attributes of its inputs."""

    def __init__(self, text):
        super().__init__()
        self.links, self.inputs, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.links += [value for key, value in attrs if key in ("src", "href")]
        if tag == "input":
            self.inputs.append(dict(attrs))

    def handle_data(self, data):
        self.text.append(data)


def test_error_maps_sum_over_rgb_and_stop_at_white():
    hr = np.full((1, 3, 3), 100, np.uint8)
    sr = np.array([[[100, 100, 100], [90, 105, 101], [255, 0, 250]]], np.uint8)
    found = viewer.difference(sr, hr)
    assert found[0].tolist() == [[0] * 3, [16] * 3, [255] * 3]


def test_a_page_is_whole_in_itself_and_escapes_names():
    crop = np.zeros((4, 4, 3), np.uint8)
    labels = ["bicubic", "<ours>", "HR"]
    picture = viewer.Picture("<i>photo", ["bicubic", "ours"], labels, [[crop] * 3])
    table = tables.Table("t", "<t>", ["<h>"], [["a&b"], ["{{body}}"]], ["<n>"])
    parts = [html_page.table_part(table), viewer.part(picture, 1)]
    sections_ = [html_page.Section("one", "<b>heading", parts)]
    text = html_page.render('a "title" & more', "<about>", sections_)
    found = Links(text)
    assert found.links[0] == "#one"
    assert len(found.links) == 4
    assert all(x.startswith("data:image/webp;base64,") for x in found.links[1:])
    assert not re.search(r"https?://", text)
    assert "<i>photo" in next(
        i["aria-label"] for i in found.inputs if i["type"] == "range"
    )
    shown = {"<b>heading", "<t>", "<h>", "a&b", "{{body}}", "<n>", "<ours>", "<about>"}
    assert shown <= set(found.text)


# --- from end to end


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A tiny network of zeros, that is bicubic, as an exported directory."""
    folder = tmp_path_factory.mktemp("exported") / "tiny-x2"
    config = tiny.config()
    built = network.build(config.model, 2)
    shapes = jax.eval_shape(lambda: network.init(built, jax.random.key(0)))
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    folder.mkdir()
    (folder / weights.WEIGHTS).write_bytes(weights.weights_to_bytes(variables))
    about = {"scale": 2, "model": config.model.to_dict()}
    (folder / "config.json").write_text(json.dumps(about))
    return folder


def test_runs_and_models_become_one_report(tmp_path, exported):
    photos = tiny.write_photos(tmp_path / "Set5", ((210, 220), (60, 60)))
    run = write_run(tmp_path / "run", 34.1)
    out = tmp_path / "report"
    elsewhere = tiny.write_photos(tmp_path / "mine", ((220, 200),), seed=2)
    args = [run, str(exported), "--out", str(out), "--sets", str(photos)]
    args += ["--images", f"photo1,{elsewhere / 'photo0.png'}"]
    args = cli.build_parser().parse_args(["report", *args, "--no-ensemble"])
    assert args.function(args) == 0
    text = (out / "report.md").read_text()
    headings = re.findall(r"^## (.+)", text, re.MULTILINE)
    assert headings == [
        "Comparison",
        "Pictures",
        *["Training curves"] * plots.can_plot(),
        "Beside the paper's tables",
        "All figures",
    ]
    assert "### Table 1: blocks of the high stage, on div2k/bicubic_x2" in text
    assert all((out / name).exists() for name in re.findall(r"\]\(([^)]+)\)", text))
    # A folder of this name with other images is not the paper's set.
    assert "## Table 4" not in text
    with (out / "comparison-x2-benchmark.csv").open(newline="") as file:
        header, line, bicubic = csv.reader(file)
    assert header == ["model", "Set5 PSNR", "Set5 SSIM", "parameters"]
    # The network is bicubic but for rounding: once instead of twice.
    assert float(line[1]) == pytest.approx(float(bicubic[1]), abs=0.02)
    crops = np.asarray(Image.open(out / "figure5-2.png"))
    assert crops.shape[1] > 5 * 400
    found = Links((out / "index.html").read_text())
    assert [i["type"] for i in found.inputs].count("range") == 2
    plots_shown = [x for x in found.links if x.startswith("data:image/svg+xml;base64,")]
    assert len(plots_shown) == len(list(out.glob("*.svg"))) == 2 * plots.can_plot()
    assert [x for x in found.links if x.startswith("#")] == [
        f"#{name}"
        for name in ("comparison", "pictures", "curves", "paper", "figures")
        if name != "curves" or plots.can_plot()
    ]


def test_crops_and_tables_show_all_models_of_a_scale(tmp_path, exported):
    """Also two that are in folders of one name."""
    photos = tiny.write_photos(tmp_path / "Set5", ((210, 220), (60, 60)))
    twin = tmp_path / "elsewhere" / exported.name
    shutil.copytree(exported, twin)
    third = tmp_path / "third-x2"
    shutil.copytree(exported, third)
    sources, out = [str(exported), str(twin), str(third)], tmp_path / "report"
    report.write_report(sources, out, sets=[str(photos)], ensemble=False)
    with (out / "comparison-x2-ntire.csv").open(newline="") as file:
        _, *lines = csv.reader(file)
    names = [*sources[:2], "third-x2"]
    assert [line[0] for line in lines] == [*names, "bicubic"]
    assert len({line[1] for line in lines[:3]}) == 1
    text = (out / "report.md").read_text()
    assert "### What differs between the models" in text
    assert "No setting differs." in text
    assert "### photo0, x2" in text
    page = (out / "index.html").read_text()
    for name in names:  # on the left and on the right of each picture
        assert page.count(f">{name} ") == 2 * 2
    # Bicubic, three networks, their four errors, and HR.
    alone = tmp_path / "alone"
    report.write_report(sources[:1], alone, sets=[str(photos)], ensemble=False)
    wide, usual = (
        np.asarray(Image.open(folder / "figure5-1.png")).shape[1]
        for folder in (out, alone)
    )
    assert wide > 1.7 * usual
    assert "differs" not in (alone / "report.md").read_text()


def test_mistakes_are_named_before_anything_is_written(tmp_path, exported):
    out = tmp_path / "report"
    broken = tmp_path / "set" / "broken.png"
    broken.parent.mkdir()
    broken.write_text("no picture")
    for sources, options, message in (
        (["nowhere"], {}, "no model 'nowhere'"),
        ([str(exported)], {"sets": ["nowhere"]}, "no such file or folder: nowhere"),
        (
            [str(exported)],
            {"chosen": ["baboon"]},
            "no image 'baboon': a file, or one of chelsea",
        ),
        ([str(exported)], {"chosen": [str(broken)]}, r"broken\.png: none of PNG"),
        ([str(exported)], {"sets": [str(broken.parent)]}, r"broken\.png: "),
    ):
        with pytest.raises(InputError, match=message) as error:
            report.write_report(sources, out, **options)
        assert "\n" not in str(error.value)
    run = tmp_path / "run"
    write_run(run, 34.1)
    (run / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot read the config"):
        report.write_report([str(run)], out)
    assert not out.exists()
    with lock.hold(out, "report"), pytest.raises(InputError, match="another report"):
        report.write_report([str(exported)], out)
    assert not out.exists()
