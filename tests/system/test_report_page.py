"""The report's page in a real Chromium: every choice does what it says, by the keyboard
too; nothing is loaded, nothing overflows, and it can be read in the dark."""

import csv

import numpy as np
import pytest
from helpers import browser, runs, tiny

from btsrn_jax.evaluation import figures
from btsrn_jax.report import plots, viewer
from btsrn_jax.report import write as report

pytestmark = browser.needs_chromium
PSNR = {"one": (30.5, 33.25), "two": (9.75, 33.25), "bicubic": (30.0, 32.0)}
MAP = """() => {
  const canvas = document.querySelector(".crop:not([hidden]) canvas.right");
  const { data } = canvas.getContext("2d").getImageData(0, 0, 200, 200);
  return Array.from(data);
}"""
WIDTHS = "[document.documentElement.scrollWidth, innerWidth]"


def measured(model):
    """Means on two sets under two protocols; SSIM of the first set is not known."""
    return [
        figures.Row(name, "mean", 2, model, 0, protocol, psnr + shift, ssim)
        for protocol, shift in (("modern", 0.0), ("rgb", -2.0))
        for name, psnr, ssim in zip(
            ("a-set-of-a-long-name", "other"), PSNR[model], (None, 0.9), strict=True
        )
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report of two runs that shows several parts of one picture."""
    folder = tmp_path_factory.mktemp("report")
    sources = []
    for number, name in enumerate(("one", "two")):
        run = folder / name
        runs.make(run, steps=((10, 30.0), (20, 31.0)), high_blocks=2 + number)
        figures.write_csv(run / "own.csv", measured(name) + measured("bicubic"))
        sources.append(str(run))
    tiny.write_photos(folder / "photos", ((210, 640),))
    chosen = [str(folder / "photos" / "photo0.png")]
    report.write_report(sources, folder / "out", chosen=chosen, ensemble=False)
    return folder / "out"


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as started:
        yield started


@pytest.fixture
def page(chromium, made):
    """The page as a reader opens it: from the disk, without a network."""
    context = chromium.new_context(viewport={"width": 400, "height": 800}, offline=True)
    page = context.new_page()
    page.set_default_timeout(60_000)  # of a busy machine
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text))
    page.goto((made / "index.html").as_uri())
    yield page
    assert errors == []
    assert [x[:60] for x in requests if not x.startswith(("data:", "file:"))] == []
    assert len([x for x in requests if x.startswith("file:")]) == 1
    context.close()


def cells(page, selector):
    """The texts of the rows of the one visible table."""
    return page.eval_on_selector_all(
        f"{selector} tbody tr",
        "rows => rows.filter(row => row.checkVisibility())"
        ".map(row => [...row.cells].map(cell => cell.textContent))",
    )


def test_the_switch_chooses_a_protocol_and_the_best_is_bold(page):
    table = "#comparison [data-protocol]"
    shown = cells(page, table)
    assert [line[1] for line in shown] == ["30.50", "9.75", "30.00"]
    assert [line[0] for line in shown] == ["one", "two", "bicubic"]
    bold = page.locator(f"{table} b").filter(visible=True)
    # The best of the models, and both of equal ones.
    assert bold.all_text_contents()[:3] == ["30.50", "33.25", "0.9000"]
    assert bold.count() == 5
    page.focus("[name=protocol][value=modern]")
    page.keyboard.press("ArrowRight")
    assert page.is_checked("[name=protocol][value=rgb]")
    assert [line[1] for line in cells(page, table)] == ["28.50", "7.75", "28.00"]


def test_a_click_sorts_numbers_by_value(page):
    table = "#figures details:first-of-type"
    assert cells(page, table) == []  # folded away
    page.focus(f"{table} summary")
    page.keyboard.press("Enter")
    head = page.locator(f"{table} th", has_text="PSNR").last
    column = head.evaluate("head => head.cellIndex")
    head.locator("button").focus()
    for key, order in (("Enter", "ascending"), ("Space", "descending")):
        page.keyboard.press(key)
        values = [float(line[column]) for line in cells(page, table)]
        assert values == sorted(values, reverse=order == "descending")
        assert values != sorted(values, key=str, reverse=order == "descending")
        assert head.get_attribute("aria-sort") == order
    page.click(f"{table} th:last-of-type button")
    assert page.locator(f"{table} [aria-sort]").count() == 1
    assert [line[-1] == "" for line in cells(page, table)] == [False] * 4 + [True] * 4


def test_slider_parts_zoom_and_difference_maps(page, made):
    box = page.locator(".picture")
    left = box.locator(".crop:not([hidden]) .left")
    right = box.locator(".crop:not([hidden]) .right")
    assert left.get_attribute("alt").startswith("bicubic ")
    assert right.get_attribute("alt").startswith("one ")

    def clip():
        return left.evaluate("image => getComputedStyle(image).clipPath")

    before = clip()
    box.locator("[type=range]").focus()
    page.keyboard.press("Home")
    assert "100%" in clip() != before
    # Another pair, another part of the picture.
    box.locator("[name=left]").select_option("2")
    box.locator(".parts input").nth(1).check()
    page.wait_for_selector(".crop:nth-of-type(2):not([hidden]) .left", state="attached")
    assert left.get_attribute("alt").startswith("two ")
    wide = box.locator(".layers").evaluate("layers => layers.clientWidth")
    box.locator("[name=zoom]").select_option("4")
    size = "layers => [layers.clientWidth, layers.parentNode.clientWidth]"
    # A scroll bar may take some of the width.
    zoomed, stage = box.locator(".layers").evaluate(size)
    assert zoomed == pytest.approx(4 * stage, abs=4)
    assert zoomed > 3.8 * wide
    assert box.locator(".stage").evaluate("stage => stage.scrollLeft") > 0
    assert page.evaluate(WIDTHS) == [400, 400]
    # The map is |image - HR| summed over RGB, to the last bit.
    box.locator("[name=map]").check()
    page.wait_for_selector(".crop:not([hidden]) canvas.left", state="attached")
    found = np.array(page.evaluate(MAP), np.uint8).reshape(200, 200, 4)[..., :3]
    pixels = """image => {
      const canvas = new OffscreenCanvas(200, 200), context = canvas.getContext("2d");
      context.drawImage(image, 0, 0);
      return Array.from(context.getImageData(0, 0, 200, 200).data);
    }"""
    crops = [
        np.array(image.evaluate(pixels), np.uint8).reshape(200, 200, 4)[..., :3]
        for image in box.locator(".crop:not([hidden]) img").all()
    ]
    np.testing.assert_array_equal(found, viewer.difference(crops[1], crops[-1]))
    assert found.any()
    box.locator("[name=map]").uncheck()
    page.wait_for_selector(".crop canvas", state="detached")


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_in_light_and_dark(page, made, width, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate(WIDTHS) == [width, width]
    tables = page.locator(".scroll")
    sizes = "all => all.map(x => [x.scrollWidth - x.clientWidth, x.offsetWidth])"
    for hidden, wide in tables.evaluate_all(sizes):
        assert wide < width
        assert hidden == 0 or width == 400

    def brightness(selector, value):
        colour = page.locator(selector).first.evaluate(
            f"node => getComputedStyle(node).{value}"
        )
        return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(",")))

    def dark():
        return brightness("section", "backgroundColor") < brightness("h2", "color")

    assert dark() == (scheme == "dark")
    inverted = plots.can_plot() and page.locator(".curves img").first
    for choice in ("light", "dark"):
        page.check(f"#{choice}")
        assert dark() == (choice == "dark")
        if inverted:
            style = inverted.evaluate("image => getComputedStyle(image).filter")
            assert style.startswith(f"invert({0.9 if choice == 'dark' else 0})")


def test_the_contents_lead_to_every_section(page, made):
    links = page.locator("nav a")
    names = page.eval_on_selector_all("section", "all => all.map(x => x.id)")
    assert [a.get_attribute("href") for a in links.all()] == [f"#{x}" for x in names]
    assert names[:2] == ["comparison", "pictures"]
    assert names[-1] == "figures"
    with (made / "models.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 1 + 8
