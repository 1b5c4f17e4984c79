"""One HTML page of a study that needs no network, no other file and no JavaScript."""

import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template

from vitlocal.study.statistics import GAPS, Gap
from vitlocal.study.style import INK, Drawn
from vitlocal.study.tables import Report, Table

KINDS = ("html", "css", "js")
OF_IMAGES = (
    "MAD is the mean attention distance of a head over the grid's largest distance, if no other unit is "
    "named: 0 looks at its own patch, 1 from corner to corner. Filled markers and solid lines are conditions "
    "with CutMix, open markers and dashed lines those without."
)
OF_SEQUENCES = (
    "MAD is the mean attention distance of a head, in tokens: 0 looks at the token itself. Every token sees "
    "those up to itself, and distances grow with a sequence's length, so uniform attention is drawn beside "
    "them."
)
MANY = 25  # rows of a table that is folded up


def page(
    title: str, about: str, reports: Sequence[Report], figures: dict[str, list[Drawn]], last: Table
) -> str:
    """The page.

    Args:
        title: its title.
        about: what is said below that.
        reports: of each data set.
        figures: of each data set, by its name.
        last: a table at the end.
    """
    template, css, script = (files(__package__).joinpath(f"page.{kind}").read_text("utf-8") for kind in KINDS)
    sections = [_section(index, report, figures[report.data]) for index, report in enumerate(reports)]
    links = [f'<a href="#data-{index}">{escape(report.data)}</a>' for index, report in enumerate(reports)]
    return Template(template).substitute(
        title=escape(title),
        about=escape(about),
        css=css,
        script=script,
        links="\n".join([*links, '<a href="#commands">commands</a>']),
        body="\n".join(sections) + f'\n<section id="commands">{_table(last, "h2")}</section>',
    )


def _section(index: int, report: Report, figures: Sequence[Drawn]) -> str:
    notes = [f'<p class="note">{escape(note)}</p>' for note in report.notes]
    drawn = [_figure(f"d{index}-{each.name}", each, report.data) for each in figures]
    parts = [*notes, *map(_verdict, report.gaps), *map(_table, report.tables[:3]), *drawn]
    parts += map(_table, report.tables[3:])
    return f'<section id="data-{index}"><h2>{escape(report.data)}</h2>\n' + "\n".join(parts) + "</section>"


def _verdict(gap: Gap) -> str:
    kind = gap.verdict.replace("'", "").replace(" ", "-")
    reason = gap.reason[0].upper() + gap.reason[1:]
    return (
        f'<p class="verdict {kind}">Gap in {escape(GAPS[gap.measure])}: '
        f"<strong>{escape(gap.verdict)}</strong><br>{escape(reason)}</p>"
    )


def _figure(name: str, drawn: Drawn, data: str) -> str:
    svg = _inline(drawn.svg(transparent=True).decode(), name, f"{drawn.title}, {data}")
    return (
        f'<figure id="{name}"><h3>{escape(drawn.title)}</h3><div class="scroll">{svg}</div><figcaption>'
        f"<p><b>It shows:</b> {escape(drawn.shows)}</p>"
        f"<p><b>It doesn't show:</b> {escape(drawn.limits)}</p></figcaption></figure>"
    )


def _inline(svg: str, name: str, label: str) -> str:
    """An SVG file as an element of a page: in the page's text colour, its ids its own."""
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)


def _table(table: Table, heading: str = "h3") -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{_interval_below(escape(cell))}</td>" for cell in row) + "</tr>"
        for row in table.rows
    )
    element = (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(table.title)}">'
        f'<table class="sortable"><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>'
    )
    if len(table.rows) > MANY:
        element = f"<details><summary>{len(table.rows)} rows</summary>{element}</details>"
    return f"<{heading}>{escape(table.title)}</{heading}><p>{escape(table.note)}</p>{element}"


def _interval_below(cell: str) -> str:
    """A cell's interval in a line of its own: half as wide."""
    return cell.replace(" [", "<br>[", 1)
