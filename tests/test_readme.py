"""What the README says is so: one screen, results, commands one and two, rooms."""

import pathlib
import re

import jax
from PIL import Image

from btsrn_jax.inference import is_photo_model, released_models
from btsrn_jax.report import photographs, released_tables
from btsrn_jax.report import write as report

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "btsrn_jax"
README = (ROOT / "README.md").read_text()
RESULTS = (ROOT / "docs" / "results.md").read_text()
PHOTOS = (ROOT / "docs" / "photos.md").read_text()
SHELL = "".join(re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL))
COMMAND_ONE = next(line for line in SHELL.splitlines() if "btsrn_jax.main" in line)


def rows(text):
    """The cells of every Markdown table line, without the spaces around them."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def test_the_readme_is_one_sheet_of_short_lines():
    lines = README.splitlines()
    assert len(lines) <= 180
    exempt = [line for line in lines if line.startswith("|") or line == COMMAND_ONE]
    assert [x for x in lines if len(x) > 120 and x not in exempt] == []


def test_the_first_screen_shows_a_small_picture_and_its_use():
    first = README.splitlines()[:20]
    (picture,) = re.findall(r"!\[.+\]\((.+)\)", "\n".join(first))
    with Image.open(ROOT / picture) as image:
        assert image.width <= 800
    assert (ROOT / picture).stat().st_size <= 300_000
    assert any(line.startswith("btsrn upscale") for line in first)


def test_the_sections_stand_in_the_order_that_a_reader_needs():
    assert re.findall(r"^## (.+)", README, re.MULTILINE) == [
        "Use it",
        "How good it is",
        "Limits",
        "Train it",
        "Evaluate, export, report",
        "At scale",
        "Why trust it",
        "How the code is laid out",
        "Citation and licence",
    ]


def test_the_first_command_with_main_trains_the_quickstart_on_one_line():
    assert "pip install" in COMMAND_ONE
    assert "configs/quickstart.py" in COMMAND_ONE
    assert not COMMAND_ONE.endswith("\\")


def test_the_first_line_with_pytest_installs_and_runs_all_tests():
    """CI takes it from here by `grep`, so it must be the first in the whole file."""
    line = next(line for line in README.splitlines() if "python -m pytest" in line)
    assert line in SHELL.splitlines()
    assert "pip install -e '.[test]'" in line
    assert line.endswith("python -m pytest -n 2 --dist loadfile")


def test_the_results_are_those_of_the_models_in_the_package():
    models = [name for name in released_models() if not is_photo_model(name)]
    benchmark, *others = released_tables(list(map(report.load, models)))
    marked = re.search(r"<!-- results:begin -->(.*)<!-- results:end -->", README, re.S)
    header, _, *lines = rows(marked[1])
    assert (header, lines) == (benchmark.header, benchmark.lines)
    written = rows(RESULTS)
    for table in (benchmark, *others):
        start = written.index(table.header)
        assert written[start + 2 : start + 2 + len(table.lines)] == table.lines


def test_the_page_of_photographs_has_the_figures_of_the_models_in_the_package():
    table = photographs.degraded_table(list(map(report.load, released_models())))
    written = rows(PHOTOS)
    start = written.index(table.header)
    assert written[start + 2 : start + 2 + len(table.lines)] == table.lines


def test_each_training_command_stands_in_a_block_below_the_table():
    pages = RESULTS + PHOTOS
    blocks = re.findall(r"^```sh\n(.*?)^```", pages, re.MULTILINE | re.DOTALL)
    joined = [" ".join(block.replace("\\\n", " ").split()) for block in blocks]
    for name in released_models():
        assert report.load(name).config["training_command"] in joined


def test_the_tree_names_every_room_and_every_module_of_the_ground():
    tree = re.search(r"^```\nbtsrn_jax/\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    named = re.findall(r"^  (\S+)  +\S", tree[1], re.MULTILINE)
    rooms = [f"{p.name}/" for p in PACKAGE.iterdir() if p.is_dir() and any(p.iterdir())]
    modules = [p.name for p in PACKAGE.glob("*.py") if p.stem != "__init__"]
    assert sorted(named) == sorted(set(rooms) - {"__pycache__/"} | set(modules))
    for folder in re.findall(r"^(\w+/) ", tree[1], re.MULTILINE):
        assert (ROOT / folder).is_dir()


def test_the_lines_of_python_enlarge_a_photograph(tmp_path, monkeypatch):
    (code,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (13, 9), "orange").save("photo.jpg")
    code = code.replace("btsrn-x4", "btsrn-x2")  # a third of the arithmetic
    one = jax.devices()[:1]  # eight simulated devices would compute eight tiles
    monkeypatch.setattr(jax, "devices", lambda: one)
    exec(compile(code, "README.md", "exec"), {})
    with Image.open("large.png") as image:
        assert image.size == (26, 18)
