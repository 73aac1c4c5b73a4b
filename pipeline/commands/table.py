"""Lays out rows of text: plain and whole for a pipe, as wide as the terminal for a person."""

import sys
from collections.abc import Collection, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES = {"FINISHED": "green", "RUNNING": "cyan", "KILLED": "yellow", "FAILED": "red"}
"""Of cells that begin with such a word. Rich leaves colours out where `NO_COLOR` is set."""
PLAIN = str.maketrans({"├": "|", "└": "`", "│": "|", "→": ">", "…": "~", "±": "~"})


def table(rows: Sequence[Sequence[str]], *, whole: Collection[int] = (0,), has_head: bool = True) -> str:
    """Return rows as lines of aligned columns; the first row names the columns, unless there is no head.

    On a terminal cells are folded so that all of it fits; the columns of `whole` keep to one line as long as they can. Elsewhere each row
    is one line, and nothing is cut off.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    return drawn(rows, Console(file=sys.stdout, highlight=False), whole, has_head=has_head) if sys.stdout.isatty() else _aligned(rows)


def drawn(rows: Sequence[Sequence[str]], console: Console, whole: Collection[int], *, has_head: bool = True) -> str:
    """Return rows as text for a terminal."""
    laid_out = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold", show_header=has_head)
    for number, name in enumerate(rows[0]):
        laid_out.add_column(Text(name if has_head else ""), no_wrap=number in whole, overflow="ellipsis" if number in whole else "fold")
    for row in rows[has_head:]:
        laid_out.add_row(*(Text(cell, style=STYLES.get(cell.partition(" ")[0].rstrip(","), "")) for cell in row))
    with console.capture() as captured:
        console.print(laid_out)
    return encodable("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def printable(text: str) -> str:
    """Return a text without what would command a terminal: anybody can write MLflow's tags."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def encodable(text: str) -> str:
    """Return a text as stdout can show it."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(PLAIN).encode(encoding, "replace").decode(encoding)
    return text


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return encodable("".join(f"{line}\n" for line in lines))
