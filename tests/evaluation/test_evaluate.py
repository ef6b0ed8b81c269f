"""Claims of evaluate.py: figures as published, and a CSV that says what they are."""

import csv
import json

import jax
import numpy as np
import pytest

from btsrn_jax import config, data, mesh, metrics
from btsrn_jax.data import datasets
from btsrn_jax.errors import InputError
from btsrn_jax.evaluation import evaluate, figure_tables, figures
from btsrn_jax.export import provenance
from btsrn_jax.network import btsrn as network
from btsrn_jax.resize import imresize

# Table 4 of the paper, bicubic, `benchmark`; and what most papers print, `modern`.
BICUBIC = {
    ("Set5", "benchmark"): (33.64, 30.38, 28.42),
    ("Set14", "benchmark"): (30.22, 27.51, 25.95),
    ("Set5", "modern"): (33.66, 30.39, 28.42),
    ("Set14", "modern"): (30.24, 27.55, 26.00),
}
TOLERANCE = {"benchmark": 0.011, "modern": 0.015}


# B100's cells are held in test_metrics.py; here, that whole sets come out the same.
CELLS = [(name, scale) for name in ("Set5", "Set14") for scale in (2, 3, 4)]


@pytest.mark.parametrize(("name", "scale"), CELLS)
def test_bicubic_gives_the_papers_figures(shared_data, name, scale):
    pairs = datasets.evaluation_set(str(shared_data / "bench" / name), scale)
    bicubic = evaluate.bicubic_upscaler(scale)
    rows = evaluate.evaluate_set(name, pairs, bicubic, TOLERANCE, progress=False)
    for row in rows[-2:]:
        assert (row.image, row.scale, row.model, row.ensemble) == (
            "mean",
            scale,
            "bicubic",
            0,
        )
        expected = BICUBIC[name, row.protocol][scale - 2]
        assert row.psnr == pytest.approx(expected, abs=TOLERANCE[row.protocol])


def pair(hr, lr=None, name="one"):
    return data.Pair(name, lambda: (lr, hr))


def noise(h, w, channels=3, seed=0):
    shape = (h, w, channels) if channels else (h, w)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def measure(pairs, scale=2, protocols=("ntire",), **kwargs):
    bicubic = evaluate.bicubic_upscaler(scale)
    return evaluate.evaluate_set(
        "set", pairs, bicubic, protocols, progress=False, **kwargs
    )


def test_means_are_of_decibels_not_of_errors():
    pairs = [
        pair(noise(40, 44), name="noise"),
        pair(noise(40, 40) // 16, name="dark"),
    ]
    first, second, mean = measure(pairs)
    assert [first.image, second.image, mean.image] == ["noise", "dark", "mean"]
    assert mean.psnr == pytest.approx((first.psnr + second.psnr) / 2)
    assert mean.ssim == pytest.approx((first.ssim + second.ssim) / 2)
    assert second.psnr > first.psnr + 20


def test_an_image_smaller_than_ssims_window_has_an_empty_cell_everywhere(tmp_path):
    """And does not count in the mean; a set of such images has none. Warnings, such as
    numpy's of an empty mean, would fail the test."""
    small = pair(noise(18, 18), name="small")  # 10 x 10 are left by modern's border
    large = pair(noise(40, 40), name="large")
    rows = measure([small, large], 4, ["modern"])
    assert [row.ssim is None for row in rows] == [True, False, False]
    assert rows[2].ssim == rows[1].ssim
    alone = measure([small], 4, ["modern"])
    for name, some in (("some", rows), ("none", alone)):
        figures.write_csv(tmp_path / name / "f.csv", some)
        text = (tmp_path / name / "f.csv").read_text()
        assert "nan" not in text + figure_tables.table(some)
        assert "nan" not in figure_tables.per_image_table(some, some)
        read = figures.read_csv(tmp_path / name / "f.csv")
        assert [r.ssim is None for r in read] == [r.ssim is None for r in some]
        held = json.dumps(provenance.figures(some), allow_nan=False)
        (back,) = figures.read_figures(tmp_path, {"figures": json.loads(held)})
        assert figures.as_text(back.ssim) == figures.as_text(some[-1].ssim)


def test_lr_given_serves_every_protocol_and_hr_is_cut_to_it():
    hr, lr = noise(41, 45), noise(20, 22, seed=1)
    rows = measure([pair(hr, lr)], 2, tuple(metrics.PROTOCOLS))
    sr = imresize(lr, 2)
    for row in rows[:3]:
        assert row.psnr == metrics.psnr(sr, hr[:40, :44], row.protocol, 2)


def test_lr_that_does_not_fit_names_the_image():
    with pytest.raises(InputError, match="one: LR of 22x20 and HR of 48x41"):
        measure([pair(noise(41, 48), noise(20, 22))])


def test_a_grey_image_is_measured_as_its_luminance():
    hr = noise(40, 40, 0)
    (row, _) = measure([pair(hr)], 2, ("modern",))
    sr = imresize(imresize(hr, 1 / 2), 2)
    error = (sr.astype(float) - hr)[2:-2, 2:-2]
    assert row.psnr == pytest.approx(10 * np.log10(255**2 / np.mean(error**2)))


def test_progress_of_one_image_reaches_one(capsys):
    seen = []

    def upscale(lr, progress):
        for done in (lr.size // 2, lr.size):
            progress(done, lr.size)
        seen.append(lr.shape)
        return imresize(lr, 2)

    upscaler = evaluate.Upscaler("x", 2, False, upscale)
    protocols = ("benchmark", "modern")  # HR of 41 rows is cut by the second alone
    rows = evaluate.evaluate_set("set", [pair(noise(41, 40))], upscaler, protocols)
    assert seen == [(21, 20, 3), (20, 20, 3)]
    assert len(rows) == 4


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_an_untrained_network_is_bicubic_to_one_grey_level(scale):
    """And to 0.01 dB under every protocol: the float skip against imresize, which
    rounds twice. Where imresize also clips in between, near black and white edges, two
    levels may be between them."""
    settings = config.defaults()
    settings.scale = scale
    settings.eval.tile = 32
    settings.model.update(features=8, bottleneck=4, low_blocks=1, high_blocks=1)
    model = network.build(settings.model, scale)
    init = jax.jit(lambda: network.init(model, jax.random.key(0))).lower()
    # Not optimised, it compiles in a fifth of the time.
    variables = init.compile({"xla_backend_optimization_level": 0})()
    devices = mesh.make_mesh(jax.devices()[:1])
    untrained = evaluate.network_upscaler(
        "untrained", settings.to_dict(), variables, devices, ensemble=True
    )
    hr = datasets.evaluation_set("samples", scale)[0].load()[1][40:160, 60:200]
    lr = 64 + imresize(hr, 1 / scale) // 2  # no clipping
    bicubic = evaluate.bicubic_upscaler(scale)
    sr, expected = untrained.upscale(lr), bicubic.upscale(lr)
    assert np.abs(sr.astype(int) - expected).max() <= 1
    for ours, theirs in zip(
        *(
            evaluate.evaluate_set("set", [pair(hr)], s, metrics.PROTOCOLS)
            for s in (untrained, bicubic)
        ),
        strict=True,
    ):
        assert ours.psnr == pytest.approx(theirs.psnr, abs=0.01)
        assert (ours.ensemble, theirs.ensemble) == (1, 0)


def test_the_csv_has_a_row_for_each_image_and_protocol_and_their_means(tmp_path):
    rows = measure(
        [pair(noise(40, 40), name="a/b"), pair(noise(44, 40, seed=1), name="c, d")],
        2,
        ("ntire", "modern"),
    )
    path = tmp_path / "new" / "figures.csv"
    figures.write_csv(path, rows)
    with path.open(newline="") as file:
        lines = list(csv.reader(file))
    header = "set,image,scale,model,ensemble,protocol,psnr,ssim,lr,degradation"
    assert lines[0] == header.split(",")
    assert [line[1] for line in lines[1:]] == (
        ["a/b", "a/b", "c, d", "c, d", "mean", "mean"]
    )
    assert lines[1][:6] == ["set", "a/b", "2", "bicubic", "0", "ntire"]
    assert float(lines[1][6]) == pytest.approx(rows[0].psnr, abs=1e-6)
    assert float(lines[1][7]) == pytest.approx(rows[0].ssim, abs=1e-6)
    assert [path.name for path in path.parent.iterdir()] == ["figures.csv"]
    figures.write_csv(path, measure([pair(noise(40, 40), name="caf\udce9")]))
    assert r"set,caf\udce9,2" in path.read_text(encoding="utf-8")  # no text, but shown


def test_figures_come_back_from_csv_files_as_they_were_written(tmp_path):
    rows = [figures.Row("a,b", "x", 3, "m", 1, "modern", 30.25, 0.5)]
    figures.write_csv(tmp_path / "a.csv", rows)
    assert figures.read_csv(tmp_path / "a.csv") == rows
    (tmp_path / "other.csv").write_text("name,price\nx,1\n")
    assert figures.read_csv(tmp_path / "other.csv") == []
    text = (tmp_path / "a.csv").read_text().replace("30.25", "3O.25")
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=r"a\.csv: line 2 is damaged"):
        figures.read_csv(tmp_path / "a.csv")


def test_the_figures_of_a_folder_are_its_csv_files_or_those_of_its_config(tmp_path):
    rows = [row(set=name, psnr=30.25, ssim=0.5) for name in ("a", "b")]
    figure = row(psnr=31.0)._asdict() | {"images": 5}
    del figure["image"]
    config = {"figures": [figure]}
    assert figures.read_figures(tmp_path, config) == [row(psnr=31.0)]
    assert figures.read_figures(tmp_path, {}) == []
    figures.write_csv(tmp_path / "2.csv", rows[1:])
    figures.write_csv(tmp_path / "1.csv", rows[:1])
    assert figures.read_figures(tmp_path, config) == rows


def test_a_csv_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        figures.write_csv(tmp_path / "file" / "figures.csv", [])


def row(**fields):
    base = figures.Row("Set5", "mean", 2, "bicubic", 0, "benchmark", 33.6402, 0.9292)
    return base._replace(**fields)


def test_the_table_has_a_protocol_with_every_figure_and_the_papers_beside_it():
    text = figure_tables.table(
        [
            row(protocol="ntire", psnr=31.79),
            row(),
            row(model="runs/x2", ensemble=1, psnr=37.701),
            row(set="BSD100", scale=4, model="vdsr-x4", psnr=27.2),
            *(row(image=f"{i}", psnr=1.0) for i in range(5)),
        ]
    )
    header, _, *lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
    ]
    assert header == (
        ["set", "scale", "protocol", "model", "PSNR", "SSIM", "paper's PSNR"]
    )
    assert lines == [
        ["Set5", "x2", "ntire", "bicubic", "31.79", "0.9292", ""],
        ["Set5", "x2", "benchmark", "bicubic", "33.64", "0.9292", "33.64"],
        ["Set5", "x2", "benchmark", "runs/x2 + ensemble", "37.70", "0.9292", "37.75"],
        ["BSD100", "x4", "benchmark", "vdsr-x4", "27.20", "0.9292", "27.29"],
    ]


def test_crops_show_each_upscaler_and_the_original(tmp_path):
    hr = noise(64, 60)
    hr[:30] = 0  # nothing to see there
    found = evaluate.crop_row(pair(hr), [evaluate.bicubic_upscaler(2)], side=24)
    (label, crop), (_, original) = found
    assert "bicubic" in label
    assert "dB (ntire)" in label
    assert crop.shape == original.shape == (24, 24, 3)
    assert original.std() > 60


BLACK = np.zeros((40, 40, 3), np.uint8)


def test_an_image_without_error_counts_100_in_its_row_and_nothing_in_the_mean():
    """Black, and grey of one value, are what bicubic restores as they were."""
    pairs = [pair(BLACK, name="black"), pair(noise(40, 44), name="noise")]
    rows = measure([*pairs, pair(BLACK + 9, name="grey")])
    black, other, grey, mean = rows
    assert (black.psnr, grey.psnr) == (100.0, 100.0)
    assert mean.psnr == other.psnr
    (line,) = figure_tables.name_without_error(rows)
    assert line == (
        "set x2, ntire, bicubic: no error in black, grey; counted as 100 dB, and left"
        " out of the mean"
    )
    assert figure_tables.name_without_error([other, mean]) == []


def test_a_set_of_such_images_has_no_mean_and_every_table_of_it_is_finite(tmp_path):
    rows = measure([pair(BLACK, name="black")])
    assert rows[-1].psnr is None
    figures.write_csv(tmp_path / "a.csv", rows)
    assert ",mean,2,bicubic,0,ntire,,1.000000,imresize" in (
        (tmp_path / "a.csv").read_text()
    )
    assert figures.read_csv(tmp_path / "a.csv") == rows
    text = figure_tables.table(rows) + figure_tables.per_image_table(rows, rows)
    assert "nan" not in text
    assert "inf" not in text
    assert "+0.00" in text  # of the image
    text = evaluate.crop_row(pair(BLACK), [evaluate.bicubic_upscaler(2)])[0][0]
    assert text == "bicubic 100.00 dB (ntire)"


def test_means_over_different_images_have_no_gain():
    """Of two models one restores `a`, and the other `b`."""
    rows, base = [
        [
            figures.Row("val", name, 2, model, 0, "ntire", psnr, 0.9)
            for name, psnr in zip(("a", "b", "mean"), values, strict=True)
        ]
        for model, values in (
            ("btsrn", (100.0, 34.0, 34.0)),
            ("bicubic", (31.0, 33.0, 32.0)),
        )
    ]
    assert figures.gain(rows[1], base[1], rows + base) == 1
    assert figures.gain(rows[2], base[2], rows + base) is None
    last = figure_tables.per_image_table(rows, base).splitlines()[-1]
    assert "+2.00" not in last
    assert figures.gain(base[2], rows[2]) == -2  # it is not known


def test_an_image_below_the_window_of_ssim_has_none_and_leaves_the_mean_alone():
    small = measure([pair(noise(26, 30), name="s")])  # 10 x 14 inside the border
    assert [row.ssim for row in small] == [None, None]
    rows = measure([pair(noise(26, 30), name="s"), pair(noise(60, 60), name="n")])
    assert rows[0].ssim is None
    assert rows[2].ssim == rows[1].ssim


def test_figures_of_before_are_read_and_their_infinities_mended(tmp_path):
    """A file of version 0.1.0, of a set with a black image."""
    (tmp_path / "old.csv").write_text(
        "set,image,scale,model,ensemble,protocol,psnr,ssim\n"
        "val,black,2,btsrn,0,ntire,inf,1.000000\n"
        "val,p0,2,btsrn,0,ntire,33.000000,0.900000\n"
        "val,p1,2,btsrn,0,ntire,35.000000,nan\n"
        "val,mean,2,btsrn,0,ntire,inf,0.950000\n"
        "all,mean,2,btsrn,0,ntire,inf,1.000000\n"
    )
    rows = figures.read_csv(tmp_path / "old.csv")
    assert [row.psnr for row in rows] == [100.0, 33.0, 35.0, 34.0, None]
    assert [row.ssim for row in rows] == [1.0, 0.9, None, 0.95, 1.0]
    assert {row.lr for row in rows} == {""}
    (tmp_path / "old.csv").write_text(
        "set,image,scale,model,ensemble,protocol,psnr,ssim\nval,p0,2,btsrn,0,ntire,3\n"
    )
    with pytest.raises(InputError, match="line 2 is damaged: 7 values, not 8"):
        figures.read_csv(tmp_path / "old.csv")


def test_where_lr_came_from_is_said_beside_the_figure(tmp_path):
    given = tmp_path / "Set5/LR_bicubic/X2"
    rows = [row(lr="imresize"), row(lr=str(given)), row(lr="Set5/LQ"), row()]
    assert [figures.lr_label(r) for r in rows] == ["", "LR_bicubic/X2", "LQ", ""]
    header, _, *lines = figure_tables.table(rows).splitlines()
    assert "| LR " in header
    assert "| imresize " in lines[0]
    assert "| LR_bicubic/X2 " in lines[1]
    assert "LR" not in figure_tables.table([row(), row(lr="imresize")])
    # Other LR images are another measurement; who made them unsaid, they are the same.
    assert figures.latest(rows) == [rows[3], rows[1], rows[2]]


@pytest.mark.parametrize(
    ("name", "paper"),
    [("Set5", 33.64), ("Set5/HR", 33.64), ("x/BSD100/GTmod12", 29.55), ("HR", None)],
)
def test_a_set_called_by_its_layout_has_the_papers_figure(name, paper):
    assert figures.paper_psnr(row(set=name), "bicubic") == paper
