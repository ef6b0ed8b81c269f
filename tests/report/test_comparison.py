"""Claims of comparison.py: what stands beside what, and what may not."""

import pytest
from helpers import tiny

from btsrn_jax import metrics
from btsrn_jax.evaluation.figures import Row
from btsrn_jax.report import comparison, sections
from btsrn_jax.report.tables import ReportedModel

BICUBIC = {"Set5": 33.64, "Set14": 30.22, "mine": 31.0}


def model(name, figures, bicubic=BICUBIC, images=0, lr="", **fields):
    """An exported model with {(set, protocol): PSNR}; `images` rows of each set."""
    rows, baseline = [], []
    for (set_name, protocol), psnr in figures.items():
        row = Row(set_name, "mean", 2, name, 0, protocol, psnr, 0.9, lr)
        rows += [row, *(row._replace(image=str(i), **fields) for i in range(images))]
        if set_name in bicubic:
            value = bicubic[set_name]
            baseline.append(row._replace(model="bicubic", psnr=value, ssim=0.8))
    config = {"scale": 2, "model": dict(tiny.config().model)}
    return ReportedModel(name, name, config, [], rows, baseline)


def lines(*entries):
    """{protocol: {row's name: its cells}} of the comparison."""
    return {
        each.protocol: {line[0]: line[1:-1] for line in each.table.lines}
        for each in comparison.compare(entries)
    }


def test_every_protocol_is_explained():
    assert comparison.ABOUT.keys() == metrics.PROTOCOLS.keys()


def test_models_stand_side_by_side_and_the_best_of_them_is_bold():
    one = model("one", {("Set5", "modern"): 37.0, ("mine", "modern"): 30.0})
    two = model("two", {("Set5", "modern"): 36.0, ("mine", "rgb"): 29.0})
    modern, rgb = comparison.compare([one, two])
    assert (modern.protocol, rgb.protocol) == ("modern", "rgb")  # most figures first
    table = modern.table
    assert table.header[:5] == [
        "model",
        "Set5 PSNR",
        "Set5 SSIM",
        "mine PSNR",
        "mine SSIM",
    ]
    assert [line[:5] for line in table.lines[:3]] == [
        ["one", "37.00", "0.9000", "30.00", "0.9000"],
        ["two", "36.00", "0.9000", "", ""],
        ["bicubic", "33.64", "0.8000", "31.00", "0.8000"],
    ]
    # Nothing is the best of one; bicubic, which is above a model here, is none of them.
    assert set(table.best) == {(0, 1), (0, 2), (1, 2)}
    assert list(table.references) == list(range(2, len(table.lines)))


def test_published_figures_stand_under_their_protocol_only():
    found = lines(model("x", {("Set5", p): 36.0 for p in metrics.PROTOCOLS}))
    named = {protocol: [x for x in of if x != "x"] for protocol, of in found.items()}
    assert named["benchmark"] == [
        "bicubic",
        "BTSRN, in the paper",
        "VDSR, in the paper",
    ]
    assert found["benchmark"]["BTSRN, in the paper"] == ["37.75", ""]
    assert [x.partition(" ")[0] for x in named["modern"]] == [
        "bicubic",
        "CARN",
        "EDSR-baseline",
        "NinaSR-B1",
    ]
    assert named["ntire"] == named["rgb"] == ["bicubic"]


@pytest.mark.parametrize(
    ("about", "counts"),
    [
        ({}, True),
        ({"images": 5}, True),
        ({"images": 4}, False),  # not the images of Set5
        ({"bicubic": {"Set5": 33.70}}, True),
        ({"bicubic": {"Set5": 32.9}}, False),  # nor here
        ({"bicubic": {}}, True),  # nothing speaks against it
        ({"bicubic": {}, "lr": "elsewhere/X2"}, False),
        ({"lr": "Set5/LR_bicubic/X2"}, True),  # bicubic's figure says what LR it is
    ],
)
@pytest.mark.parametrize("protocol", ["benchmark", "modern"])
def test_published_figures_stand_beside_the_very_set_only(protocol, about, counts):
    found = lines(model("x", {("Set5", protocol): 36.0}, **about))[protocol]
    assert any("paper" in x or "published" in x for x in found) == counts


def test_sets_of_one_name_with_other_images_are_other_columns():
    one = model("one", {("mine", "rgb"): 30.0})
    two = model("two", {("mine", "rgb"): 29.0}, bicubic={"mine": 25.0})
    three = model("three", {("mine", "rgb"): 28.0}, bicubic={})
    (found,) = comparison.compare([one, two, three])
    assert found.table.header[1::2] == ["mine PSNR", "mine (2) PSNR", "parameters"]
    assert [line[1::2][:2] for line in found.table.lines] == [
        ["30.00", ""],
        ["", "29.00"],
        ["28.00", ""],
        ["31.00", "25.00"],
    ]
    assert found.table.notes == [comparison.NUMBERED]


def test_means_that_leave_out_different_images_have_no_best():
    one = model("one", {("mine", "rgb"): 30.0}, images=2)
    two = model("two", {("mine", "rgb"): 29.0}, images=2, psnr=metrics.WITHOUT_ERROR)
    (found,) = comparison.compare([one, two])
    assert list(found.table.best) == []


def test_only_what_there_is_has_a_section():
    def names(*entries):
        return [section.name for section in sections.arrange(entries, [])]

    bare = model("bare", {})
    assert names(bare) == ["comparison", "figures"]
    (said, *_), _ = (section.parts for section in sections.arrange([bare], []))
    assert sections.NOTHING in said.markdown
    assert names(model("x", {("mine", "benchmark"): 36.0})) == ["comparison", "figures"]
    benchmark = model("x", {("Set5", "benchmark"): 36.0})
    assert names(benchmark) == ["comparison", "paper", "figures"]
    _, paper, _ = sections.arrange([benchmark], [])
    (part,) = paper.parts
    assert "Table 4" in part.markdown[0]
