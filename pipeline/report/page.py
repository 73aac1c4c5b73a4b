"""Writes one page of HTML with everything in it: figures, table, an episode, parameters that differ, lineage."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.report.tables import COLUMNS

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff; }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid #e0e0e0; text-align: right; white-space: nowrap; }
th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left; }
img { max-width: 100%; } pre { overflow-x: auto; background: #f6f6f6; padding: 0.8rem; font-size: 13px; }
"""


def page(
    title: str,
    table: Sequence[Sequence[str]],
    figures: Mapping[str, bytes],
    gif: tuple[str, Path] | None,
    differing: Mapping[str, Mapping[str, str]],
    lineage: str,
) -> str:
    """Return the page; `figures` are SVGs by name, `gif` is a name and its file, `differing` values by parameter and training."""
    parts = [f"<h1>{_text(title)}</h1>", "<h2>Scores</h2>", _table(COLUMNS, table)]
    parts += [f'<h2>{_text(name)}</h2><img alt="{_text(name)}" src="{_data(data, "svg+xml")}">' for name, data in figures.items()]
    if gif:
        parts.append(f'<h2>An episode of {_text(gif[0])}</h2><img alt="episode" src="{_data(gif[1].read_bytes(), "gif")}">')
    if differing:
        names = list(dict.fromkeys(name for values in differing.values() for name in values))
        body = [[name, *(values.get(name, "-") for values in differing.values())] for name in names]
        parts += ["<h2>What differs</h2>", _table(["training", *differing], body)]
    parts += ["<h2>Lineage</h2>", f"<pre>{_text(lineage)}</pre>"]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{_text(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{"".join(parts)}</body></html>\n'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _data(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _text(text: str) -> str:
    return html.escape(text)
