"""report.html: no script, no link, pictures inlined; readable in light and dark, on paper and on a phone."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

from vae.report.tables import ranking_table, settings_table, table_note, tuning_table
from vae.report.words import (
    PICTURES,
    Comparison,
    estimate,
    how_it_was_judged,
    is_tested,
    method,
    nats,
    pairs_note,
    probability,
    tuning_note,
)


def page(comparison: Comparison, pictures: Mapping[str, bytes], colors: Sequence[str]) -> str:
    """The whole report as HTML: no script, no link, pictures inlined. `colors` are those of the ranks in the charts."""
    first, *rest = comparison["conclusion"]
    sections = [
        f'<header><p class="kicker">{text(comparison["title"])}</p><h1>{text(first)}</h1>'
        + (f'<p class="lede">{text(" ".join(rest))}</p>' if rest else "")
        + f'<p class="small">{text(how_it_was_judged(comparison))}</p></header>',
        section("Ranking", _ranking(comparison, colors)),
        section("Every pair", _matrix(comparison)),
        *([section("Pictures", _pictures(pictures))] if pictures else []),
        *([section("Tuning", _tuning(comparison))] if comparison["tuning"] else []),
        section("How it was done", _settings(comparison) + entries(method(comparison))),
    ]
    return document(comparison["title"], sections)


def document(title: str, sections: Sequence[str]) -> str:
    """A page of sections, each as HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f'<meta name="color-scheme" content="light dark"/><title>{text(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><main>\n" + "\n".join(sections) + "\n</main></body></html>\n"
    )


def _ranking(comparison: Comparison, colors: Sequence[str]) -> str:
    heads, rows = ranking_table(comparison)
    body = []
    for rank, (label, *values) in enumerate(rows):
        swatch = f'<span class="swatch" style="background:{colors[rank % len(colors)]}"></span>'
        body.append(f'<tr><th scope="row">{swatch}{text(label)}</th>{cells(heads, values)}</tr>')
    return table(heads, body, "ranking") + f'<p class="small">{text(table_note(comparison))}</p>'


def _matrix(comparison: Comparison) -> str:
    """The lead of the row over the column, above the diagonal."""
    names = [one["label"] for one in comparison["objectives"]]
    pairs = {(pair["higher"], pair["lower"]): pair for pair in comparison["pairs"]}
    body = []
    for position, row in enumerate(names[:-1]):
        cells = ['<td class="none"></td>'] * position
        for column in names[position + 1 :]:
            pair = pairs.get((row, column)) or pairs[column, row]
            kind = "yes" if pair["significant"] else "no"
            value = text(estimate(pair["difference"], pair["standard_error"]))
            if pair["p"] is not None:
                p = probability(pair["p_holm"])
                value += f"<small>{nats(pair['low'])} to {nats(pair['high'])}</small>"
                value += f"<small>{text('p (Holm) ' + p if p.startswith('<') else 'p (Holm) = ' + p)}</small>"
            cells.append(f'<td class="{kind}" data-head="over {text(column)}"><span>{value}</span></td>')
        body.append(f'<tr><th scope="row">{text(row)}</th>{"".join(cells)}</tr>')
    colors = "Green: significant; grey: not. " if is_tested(comparison) else ""
    note = f"The lead of the row over the column. {colors}{pairs_note(comparison)}"
    return table(["leads", *names[1:]], body, "matrix") + f'<p class="small">{text(note)}</p>'


def _pictures(pictures: Mapping[str, bytes]) -> str:
    shown = []
    for name in (name for name in PICTURES if name in pictures):
        heading, caption, wide = PICTURES[name]
        source = "data:image/png;base64," + base64.b64encode(pictures[name]).decode()
        shown.append(
            f'<figure class="{"wide" if wide else "chart"}">'
            f'<div class="scroll"><img alt="{text(heading)}" src="{source}"/></div>'
            f"<figcaption>{text(caption)}</figcaption></figure>"
        )
    return f'<div class="pictures">{"".join(shown)}</div>'


def _tuning(comparison: Comparison) -> str:
    heads, rows = tuning_table(comparison)
    body = []
    for label, *values in rows:
        kind = "chosen" if values[-1] else "tried"
        body.append(f'<tr class="{kind}"><th scope="row">{text(label)}</th>{cells(heads, values)}</tr>')
    return table(heads, body, "tuning") + f'<p class="small">{text(tuning_note(comparison))}</p>'


def _settings(comparison: Comparison) -> str:
    heads, rows = settings_table(comparison)
    body = [f'<tr><th scope="row">{text(label)}</th>{cells(heads, values)}</tr>' for label, *values in rows]
    return table(heads, body, "settings")


def entries(pairs: Sequence[tuple[str, Any]]) -> str:
    """Names and what they are, one below the other."""
    return "<dl>" + "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in pairs) + "</dl>"


def section(heading: str, content: str) -> str:
    """A heading and what is below it, as HTML."""
    return f"<section><h2>{text(heading)}</h2>{content}</section>"


def table(heads: Sequence[str], body: Sequence[str], kind: str) -> str:
    """A table of the rows `body`, as HTML; `kind` is its class in STYLE."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in heads)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def cells(heads: Sequence[str], values: Sequence[str]) -> str:
    """What follows the first cell of a row; on a phone, which shows no heads, each is beside its value."""
    pairs = zip(heads[1:], values, strict=True)
    return "".join(f'<td data-head="{text(head)}"><span>{text(value)}</span></td>' for head, value in pairs)


def text(value: Any) -> str:
    """`value` as HTML shows it."""
    return html.escape(str(value))


STYLE = """
:root { --ink: #1d2127; --soft: #5b6470; --page: #fbfaf7; --rule: #e2dfd8; --yes: #dcefe2; --yes-ink: #14532d;
  --accent: #332288; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e6e3; --soft: #a2a8b1; --page: #16181c; --rule: #33373e;
  --yes: #1d3a2a; --yes-ink: #a7e3bd; --accent: #b3a7f0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 1rem/1.55 system-ui, "Segoe UI", Roboto,
  "DejaVu Sans", sans-serif; }
main { max-width: 74rem; margin: 0 auto; padding: 3rem 1.25rem 5rem; }
header { max-width: 52rem; margin-bottom: 2.5rem; }
.kicker { margin: 0 0 .5rem; color: var(--accent); font-weight: 600; letter-spacing: .02em; }
h1 { margin: 0 0 .75rem; font-size: clamp(1.25rem, 3vw, 1.7rem); line-height: 1.25; text-wrap: pretty; }
.lede { margin: 0 0 .75rem; font-size: 1.15rem; }
.small, figcaption { color: var(--soft); font-size: .875rem; max-width: 60rem; }
section { margin-top: 2.75rem; }
h2 { font-size: 1.15rem; margin: 0 0 .9rem; padding-bottom: .35rem; border-bottom: 1px solid var(--rule); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
table.ranking { width: 100%; }
th, td { padding: .5rem; text-align: right; border-bottom: 1px solid var(--rule); }
td { white-space: nowrap; }
th:first-child { text-align: left; padding-left: .2rem; }
thead th { color: var(--soft); font-weight: 500; font-size: .85rem; vertical-align: bottom; }
tbody th { font-weight: 600; min-width: 9rem; max-width: 16rem; }
.ranking tbody tr:first-child td:nth-child(2) { font-weight: 700; }
.ranking tbody th { padding-left: 1.6em; text-indent: -1.35em; }
.tried :is(th, td) { color: var(--soft); font-weight: 400; }
.swatch { display: inline-block; width: .75em; height: .75em; border-radius: 50%; margin-right: .6em;
  box-shadow: 0 0 0 2px #fff; }
.matrix td { text-align: center; color: var(--soft); border: 1px solid var(--rule); }
.matrix td.yes { background: var(--yes); color: var(--yes-ink); font-weight: 600; }
.matrix td.none { border: 0; }
.matrix thead th { text-align: center; }
.matrix thead th:first-child { text-align: left; }
.matrix small { display: block; font-size: .75rem; font-weight: 400; opacity: .85; }
.settings { margin-bottom: 1.5rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1.25rem; }
/* The pictures are white: so are their cards, in the dark too. */
figure { margin: 0; padding: 1rem 1.1rem; background: #fff; border: 1px solid var(--rule); border-radius: .6rem;
  display: flex; flex-direction: column; min-width: 0; }
figure.wide { grid-column: 1 / -1; }
figure .scroll { margin: auto 0; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { margin-top: .7rem; color: #5b6470; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .45rem 1.2rem; margin: 0;
  font-size: .925rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
@media screen and (max-width: 44rem) {
  dl { grid-template-columns: 1fr; gap: .1rem; }
  dd { margin-bottom: .6rem; }
  /* Each row is a list of its cells, with their heads beside them. */
  thead, .matrix td.none { display: none; }
  table, tbody, tr, tbody th { display: block; max-width: none; }
  tr { margin-bottom: 1.1rem; }
  tbody th { border-bottom: 2px solid var(--rule); overflow-wrap: anywhere; }
  .matrix tbody th::after { content: " leads"; font-weight: 400; }
  td, .matrix td { display: flex; justify-content: space-between; gap: 1rem; padding: .3rem .5rem; text-align: right;
    white-space: normal; border: 0; border-bottom: 1px solid var(--rule); }
  td::before { content: attr(data-head); color: var(--soft); font-weight: 400; text-align: left; }
  .matrix td span { white-space: nowrap; }
  /* A chart is whole, up to the edges of the screen: what has to be scrolled for may be the best one. */
  figure { margin: 0 -1rem; padding: .6rem .25rem; }
  figcaption { margin: .7rem .75rem 0; }
}
@media print {
  :root { --page: #fff; font-size: 11px; }
  main { max-width: none; padding: 0; }
  header { margin-bottom: 1rem; }
  section { margin-top: 1.8rem; }
  h2, thead { break-after: avoid; }
  figure, tr, dd { break-inside: avoid; }
  /* All columns on the page: names wrap as much as they must, and what is in a cell between words. */
  .scroll { overflow: visible; }
  th, td { padding: .3rem .35rem; }
  tbody th { min-width: 6rem; overflow-wrap: anywhere; }
  td:not(.ranking td) { white-space: normal; }
  .matrix td.yes, .swatch { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .pictures { display: block; }
  figure { display: inline-flex; width: 49%; margin: 0 0 .8rem; padding: .5rem; vertical-align: top; }
  figure.chart:nth-of-type(odd) { margin-right: 1%; }
  figure.wide { width: 100%; }
}
"""
