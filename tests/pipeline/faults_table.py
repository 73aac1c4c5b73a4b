"""Prints the table of faults in docs/faults.md, which the tests that provoke them make: `python -m tests.pipeline.faults_table`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

TestT = TypeVar("TestT", bound=Callable[..., object])

BEGIN, END = "<!-- faults -->", "<!-- /faults -->"
PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
ROWS: list[tuple[str, str]] = []


def fault(what: str, outcome: str) -> Callable[[TestT], TestT]:
    """Mark a test as the one that provokes a fault and sees that this comes of it: a row of the table."""
    ROWS.append((what, outcome))
    return lambda test: test


def table(rows: list[tuple[str, str]]) -> str:
    """Return the table as Markdown."""
    lines = ["| What goes wrong | What comes of it |", "| --- | --- |", *(f"| {what} | {outcome} |" for what, outcome in rows)]
    return "\n".join(lines) + "\n"


def table_in(page: str) -> str:
    """Return what the page has between its two marks."""
    _, found, rest = page.partition(BEGIN)
    inside, ended, _ = rest.partition(END)
    assert found and ended, f"{PAGE.name} lacks {BEGIN} or {END}"
    return inside.strip() + "\n"


def main() -> int:
    """Print the table; with `--write`, put it into the page."""
    from tests.pipeline import test_faults

    rows = test_faults.ROWS  # this file is __main__ and has a list of its own
    if "--write" in sys.argv[1:]:
        page = PAGE.read_text(encoding="utf-8")
        head, tail = page.partition(BEGIN)[0], page.partition(END)[2]
        PAGE.write_text(f"{head}{BEGIN}\n\n{table(rows)}\n{END}{tail}", encoding="utf-8")
    else:
        sys.stdout.write(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
