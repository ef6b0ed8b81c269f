"""What the pages say exists: commands, fields, links, pictures, code, citation."""

import importlib
import pathlib
import re
import shlex

import pytest
import yaml

import btsrn_jax
from btsrn_jax import cli, main

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]


def blocks(path, language):
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, path.read_text(), re.MULTILINE | re.DOTALL)


def commands():
    """(page, command) of every line in a block of shell; a loop gives one command for
    each of its values, and what is set before a command is left out."""
    for path in PAGES:
        for block in blocks(path, "sh"):
            loop = re.search(r"for (\w+) in (.*); do", block)
            for line in block.replace("\\\n", " ").splitlines():
                for part in re.split(r"&&|\|", line.partition(" #")[0]):
                    command = re.sub(r"^\s*([A-Z_]+=\S+ )*", "", part).strip()
                    values = loop[2].split() if loop and f"${loop[1]}" in part else [""]
                    for value in values:
                        text = (
                            command.replace(f"${loop[1]}", value) if value else command
                        )
                        yield pytest.param(text, id=f"{path.stem}: {text[:60]}")


COMMANDS = list(commands())


def those(start):
    return [command for command in COMMANDS if command.values[0].startswith(start)]


@pytest.mark.parametrize("command", those("python -m btsrn_jax.main"))
def test_every_training_command_is_a_valid_config(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main.parse(["main.py", *shlex.split(command)[3:]]) is not None


@pytest.mark.parametrize("command", those("btsrn "))
def test_every_btsrn_command_parses(command):
    assert cli.build_parser().parse_args(shlex.split(command)[1:]).function


def test_every_command_is_of_a_kind_that_is_checked():
    known = ("python", "btsrn ", "pip install", ". .venv", "for ", "done", "ruff ")
    known += ("tensorboard ", "tail ", "npm pack ", "tar ", "docker push ")
    known += ("mpirun ", "xprof ")
    launchers = [command.values[0] for command in COMMANDS]
    launchers = [text for text in launchers if text and not text.startswith(known)]
    scripts = [
        re.search(r"(launch|\.ci)/\S+|^mkdocs build", text) for text in launchers
    ]
    assert all(scripts), launchers
    missing = [s[0] for s in scripts if "/" in s[0] and not (ROOT / s[0]).exists()]
    assert missing == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_link_and_picture_leads_somewhere(path):
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text())
    files = [link.partition("#")[0] for link in links if "://" not in link]
    assert [f for f in files if f and not (path.parent / f).exists()] == []
    if path.parent == DOCS:  # or the site would have no page for it
        assert [f for f in files if f.startswith("..")] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_lines_are_short_outside_of_tables_and_command_one(path):
    lines = [line for line in path.read_text().splitlines() if len(line) > 120]
    exempt = ("|", "python3 -m venv")
    assert [line for line in lines if not line.startswith(exempt)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_python_in_a_page_compiles(path):
    for code in blocks(path, "python"):
        compile(code, path.name, "exec")


def test_every_page_is_in_the_sites_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    listed = re.findall(r"^  - .+: (\S+\.md)$", text, re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in DOCS.glob("*.md"))


def names():
    """Every `room.module.name` and `module.name` that the account of the code names."""
    first = {p.stem for p in (ROOT / "btsrn_jax").iterdir() if p.suffix in ("", ".py")}
    for name in re.findall(
        r"`([a-z_]+(?:\.\w+)+)`", (DOCS / "architecture.md").read_text()
    ):
        if name.split(".")[0] in first and not name.endswith((".json", ".py")):
            yield name


@pytest.mark.parametrize("name", sorted(set(names())))
def test_the_walks_name_modules_and_functions_that_exist(name):
    module, _, attribute = name.rpartition(".")
    try:
        importlib.import_module(f"btsrn_jax.{name}")
    except ModuleNotFoundError:
        assert hasattr(importlib.import_module(f"btsrn_jax.{module}"), attribute)


def test_the_citation_names_the_paper_and_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "license"} <= citation.keys()
    assert citation["version"] == btsrn_jax.__version__
    paper = citation["preferred-citation"]
    assert paper["type"] == "conference-paper"
    assert paper["title"].startswith("Balanced Two-Stage Residual Networks")
    families = [author["family-names"] for author in paper["authors"]]
    assert " ".join(families) == "Fan Shi Yu Liu Han Yu Wang Wang Huang"
    assert (paper["year"], paper["start"], paper["end"]) == (2017, 1157, 1164)
