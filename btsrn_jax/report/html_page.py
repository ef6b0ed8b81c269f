"""The report's HTML page, one file that loads nothing."""

import csv
import html
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from btsrn_jax import evaluation
from btsrn_jax.report.tables import Table

PAGE = pathlib.Path(__file__).parent / "page"


class Part(NamedTuple):
    """One thing of a section, in all the ways that a report shows it."""

    html: str
    markdown: Sequence[str] = ()
    """Its paragraphs."""
    files: Mapping[str, str | bytes] = {}
    """What it is as files of its own, by name."""


class Section(NamedTuple):
    """A section of the report."""

    name: str
    """Its address in the page."""
    title: str
    parts: Sequence[Part]


def render(title: str, about: str, sections: Sequence[Section]) -> str:
    """Returns an HTML document with a table of contents.

    Args:
      title: plain text.
      about: a line below it, plain text.
      sections: in their order on the page.
    """
    contents = "".join(
        f'<li><a href="#{section.name}">{html.escape(section.title)}</a></li>'
        for section in sections
    )
    body = "\n".join(
        f'<section id="{section.name}"><h2>{html.escape(section.title)}</h2>\n'
        + "\n".join(part.html for part in section.parts)
        + "\n</section>"
        for section in sections
    )
    blanks = {
        "title": html.escape(title),
        "about": html.escape(about),
        "contents": contents,
        "body": body,
        "style": (PAGE / "style.css").read_text(),
        "script": (PAGE / "script.js").read_text(),
    }
    text = (PAGE / "page.html").read_text()
    # In one pass, so that nothing which was filled in is searched for blanks.
    first, *rest = text.split("{{")
    for piece in rest:
        name, _, after = piece.partition("}}")
        first += blanks[name] + after
    return first


def table_part(table: Table, folded: bool = False) -> Part:
    """Returns a table with its title, its notes and its commands; folded, it can be
    opened, and sorted by a click on a column's name."""
    title, page = html.escape(table.title), table_html(table, sortable=folded)
    if folded:
        page = f"<details><summary>{title}</summary>{page}</details>"
    else:
        page = f"<h3>{title}</h3>{page}"
    lines = [
        [f"**{x}**" if (i, j) in table.best else x for j, x in enumerate(line)]
        for i, line in enumerate(table.lines)
    ]
    text = [f"### {table.title}", evaluation.markdown(table.header, lines)]
    text += table.notes
    if table.commands:
        text.append("\n".join(["```sh", *table.commands, "```"]))
    lines_of_csv = io.StringIO()
    csv.writer(lines_of_csv).writerows([table.header, *table.lines])
    return Part(page, text, {f"{table.name}.csv": lines_of_csv.getvalue()})


def table_html(table: Table, sortable: bool = False) -> str:
    """Returns a table with its notes and commands as HTML."""
    title, heads = html.escape(table.title), map(html.escape, table.header)
    if sortable:
        heads = [f'<button type="button">{head}</button>' for head in heads]
    head = "".join(f'<th scope="col">{head}</th>' for head in heads)
    rows = "".join(_row(table, i) for i in range(len(table.lines)))
    # A narrow window moves through a wide table instead of squeezing it.
    return (
        f'<div class="scroll" tabindex="0" role="group"'
        f' aria-label="{title}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{_below(table)}"
    )


def _row(table, i):
    # A number and its unit stay on one line.
    cells = [html.escape(cell).replace(" %", "&nbsp;%") for cell in table.lines[i]]
    cells = [f"<b>{x}</b>" if (i, j) in table.best else x for j, x in enumerate(cells)]
    kind = ' class="reference"' if i in table.references else ""
    long = [' class="long"' if len(cell) > 60 else "" for cell in table.lines[i]]
    cells = [f"<td{k}>{cell}</td>" for k, cell in zip(long, cells, strict=True)]
    return f"<tr{kind}>{''.join(cells)}</tr>"


def _below(table):
    below = "".join(note(text) for text in table.notes)
    if table.commands:
        commands = html.escape("\n".join(table.commands))
        below += f'<pre class="scroll" tabindex="0">{commands}</pre>'
    return below


def note(text: str) -> str:
    """Returns a sentence below or above something as HTML."""
    return f'<p class="note">{html.escape(text)}</p>'
