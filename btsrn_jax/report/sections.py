"""The sections of a report, in their order: what one compares comes first."""

import base64
import html
from collections.abc import Sequence

from btsrn_jax.report import (
    comparison,
    experiments,
    paper_tables,
    photographs,
    plots,
    published,
    tables,
    viewer,
)
from btsrn_jax.report.html_page import Part, Section, note, table_html, table_part
from btsrn_jax.report.tables import ReportedModel
from btsrn_jax.report.time_table import time_table

NOTHING = "Nothing was measured yet; `btsrn report --sets` measures."


def arrange(
    entries: Sequence[ReportedModel], shown: Sequence[viewer.Picture]
) -> list[Section]:
    """Returns the sections that have something to show.

    To add one, add a line here: its parts may be any `table_part`.
    """
    studies = experiments.find([entry for entry in entries if "train" in entry.config])
    found = [
        Section("comparison", "Comparison", _compared(entries)),
        Section("photographs", "Photographs as they are", _degraded(entries)),
        Section("pictures", "Pictures", _pictures(shown)),
        Section("curves", "Training curves", _curves(entries, studies)),
        Section("time", "Where the time went", _time(entries)),
        Section("paper", "Beside the paper's tables", _paper(entries, studies)),
        Section("figures", "All figures", _all_figures(entries)),
    ]
    return [section for section in found if section.parts]


def _compared(entries):
    found = comparison.compare(entries)
    protocols = list(dict.fromkeys(each.protocol for each in found))
    chosen = protocols[0] if protocols else ""
    parts = [_switch(protocols)] if found else [Part(note(NOTHING), [NOTHING])]
    for scale in dict.fromkeys(each.scale for each in found):
        parts.append(Part(f"<h3>x{scale}</h3>"))
        of_scale = {each.protocol: each for each in found if each.scale == scale}
        for protocol in protocols:
            if protocol in of_scale:
                _, *others = table_part(of_scale[protocol].table)
                inner = table_html(of_scale[protocol].table)
            else:
                others, inner = [], note(f"Nothing was measured under {protocol}.")
            hidden = "" if protocol == chosen else " hidden"
            page = f'<div data-protocol="{protocol}"{hidden}>{inner}</div>'
            parts.append(Part(page, *others))
    notes = [*(comparison.NOTES if found else ()), *tables.reduction_notes(entries)]
    parts += [Part(note(text), [text]) for text in notes]
    differing = tables.compared(entries)
    return parts + ([table_part(differing, folded=True)] if differing else [])


def _switch(protocols):
    """Returns the choice of a protocol, and a line about each."""
    choices = "".join(
        f'<label><input type="radio" name="protocol" value="{name}"'
        f"{'' if i else ' checked'}> {name}</label>"
        for i, name in enumerate(protocols)
    )
    about = "".join(
        f'<div data-protocol="{name}"{" hidden" if i else ""}>'
        f"{note(comparison.ABOUT[name])}</div>"
        for i, name in enumerate(protocols)
    )
    page = (
        '<div class="switch" role="radiogroup" aria-label="protocol">'
        f"<span>protocol</span>{choices}</div>{about}"
    )
    lines = [f"- {name}: {comparison.ABOUT[name]}" for name in protocols]
    return Part(page, ["\n".join(lines)])


def _pictures(shown):
    if not shown:
        return []
    parts = [viewer.part(picture, i) for i, picture in enumerate(shown, 1)]
    page = "".join(part.html for part in parts)
    about = f"{note(f'{viewer.HINT} {viewer.NOTE}')}"
    files = {name: data for part in parts for name, data in part.files.items()}
    markdown = [text for part in parts for text in part.markdown]
    page = f'{about}<div class="pictures">{page}</div>'
    return [Part(page, [viewer.NOTE, *markdown], files)]


def _curves(entries, studies):
    """Returns the curves of each study, and of the runs that have nothing beside
    them."""
    studies = [study for study in studies if len({x for x, _ in study.curves}) > 1]
    of_studies = [run for study in studies for run in study.runs]
    rest = [(e.name, e.metrics) for e in entries if e not in of_studies]
    groups = [(study.name, study.title, study.curves) for study in studies]
    groups.append(("training", "Other runs" if studies else "", rest))
    return [
        _plots(name, title, svgs)
        for name, title, runs in groups
        if (svgs := plots.curves(runs, title or "Training"))
    ]


def _plots(name, title, svgs):
    files = {f"{name}-{key}.svg": svg for key, svg in svgs.items()}
    # As pictures of their own, their ids meet no others.
    shown = "".join(
        f'<img alt="{html.escape(file)}" src="data:image/svg+xml;base64,'
        f'{base64.b64encode(svg.encode()).decode()}">'
        for file, svg in files.items()
    )
    heading = f"<h3>{html.escape(title)}</h3>" if title else ""
    lines = [f"### {title}"] if title else []
    lines.append("\n".join(f"![{file}]({file})" for file in files))
    return Part(f'{heading}<div class="curves">{shown}</div>', lines, files)


def _degraded(entries):
    table = photographs.degraded_table(entries)
    return [table_part(table)] if table else []


def _time(entries):
    table = time_table(entries)
    return [table_part(table)] if table else []


def _paper(entries, studies):
    found = [table for study in studies for table in study.tables]
    found += [paper_tables.table3(entries), paper_tables.table4(entries)]
    return [table_part(table) for table in found if table]


def _all_figures(entries):
    found = [tables.overview(entries), *published.released_tables(entries)]
    return [table_part(table, folded=True) for table in found]
