"""What the README says exists: links, modules and their sizes, commands and fields."""

import pathlib
import re
import shlex

import pytest

from btsrn_jax import cli, main
from btsrn_jax.evaluation import figures
from btsrn_jax.inference import weights
from btsrn_jax.report import released_tables
from btsrn_jax.report import write as report

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "btsrn_jax"
README = (ROOT / "README.md").read_text()
FENCED = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    part.strip()
    for block in FENCED
    for line in block.replace("\\\n", " ").splitlines()
    for part in re.split(r"&&|\|", line.partition(" #")[0])
]


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_first_command_with_main_trains_the_quickstart_on_one_line():
    line = next(
        line for line in "".join(FENCED).splitlines() if "btsrn_jax.main" in line
    )
    assert "pip install" in line
    assert "configs/quickstart.py" in line
    assert not line.endswith("\\")


def test_the_results_are_those_of_the_models_in_the_package():
    entries = [report.load(name) for name in weights.released_models()]
    *tables, training = released_tables(entries)
    assert tables
    assert all(f"| `{command}`" in README for command in training.commands)
    for table in tables:
        assert figures.markdown(table.header, table.lines) in README


def test_every_module_is_in_the_layout_with_about_its_number_of_lines():
    said = dict(re.findall(r"^\| `([\w/]+)\.py` \| (\d+) \|", README, re.MULTILINE))
    modules = {
        path.relative_to(PACKAGE).with_suffix("").as_posix(): path.read_text().count(
            "\n"
        )
        for path in PACKAGE.rglob("*.py")
        if path.stem != "__init__"
    }
    assert said.keys() == modules.keys()
    off = {
        name: lines
        for name, lines in modules.items()
        if abs(lines - int(said[name])) > 40
    }
    assert off == {}


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c.startswith("python -m btsrn_jax.main")]
)
def test_every_training_command_is_a_valid_config(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    if "--help" not in command:
        assert main.parse(["main.py", *shlex.split(command)[3:]]) is not None


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("btsrn ")])
def test_every_btsrn_command_parses(command):
    assert cli.build_parser().parse_args(shlex.split(command)[1:]).function
