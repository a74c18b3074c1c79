"""What the pages that a command writes are made of: one HTML file that needs nothing else, no network and no script."""

import html
from collections.abc import Mapping, Sequence

CSS = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5b626b; --paper: #fdfdfc; --card: #f3f3f1; --line: #dcdcd8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e6; --soft: #9aa1aa; --paper: #16181b; --card: #1f2226; --line: #34383d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.2rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .3rem; }
p { margin: .3rem 0 .8rem; color: var(--soft); max-width: 46rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.4rem, 1fr)); gap: .8rem; margin: 1.4rem 0; padding: 0; }
.figures div { background: var(--card); border-radius: .5rem; padding: .8rem 1rem; }
.figures dt { color: var(--soft); font-size: .85rem; } .figures dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .35rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } tr.now { font-weight: 600; }
article { background: var(--card); border-radius: .5rem; padding: 1rem; margin: .8rem 0; }
article h3 { font-size: .85rem; margin: 0 0 .5rem; color: var(--soft); font-weight: 500; overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 1rem; }
pre { margin: .2rem 0 0; white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; font-size: .92rem; color: var(--ink); }
"""


def document(title: str, parts: Sequence[str]) -> str:
    """The whole file; `parts` are HTML already."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(title)}</title>'
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{CSS}</style></head><body><main>{"".join(parts)}</main></body></html>\n'


def figures(shown: Mapping[str, str]) -> str:
    """Headline figures by their names."""
    inside = "".join(f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>" for name, value in shown.items())
    return f'<dl class="figures">{inside}</dl>'


def section(title: str, note: str, *inside: str) -> str:
    return f"<section><h2>{title}</h2><p>{note}</p>{''.join(inside)}</section>"


def table(titles: list[str], rows: list[list[str]], marked: int | None = None) -> str:
    head = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in titles)
    body = [
        f"<tr{' class=now' if number == marked else ''}>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>"
        for number, row in enumerate(rows)
    ]
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
