"""Prints the README's table of faults, which the tests that provoke them make: `python -m tests.pipeline.faults_table`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

TestT = TypeVar("TestT", bound=Callable[..., object])

BEGIN, END = "<!-- faults -->", "<!-- /faults -->"
README = Path(__file__).parents[2] / "README.md"
ROWS: list[tuple[str, str]] = []


def fault(what: str, outcome: str) -> Callable[[TestT], TestT]:
    """Mark a test as the one that provokes a fault and sees that this comes of it: a row of the table."""
    ROWS.append((what, outcome))
    return lambda test: test


def table(rows: list[tuple[str, str]]) -> str:
    """Return the table as Markdown."""
    lines = ["| What goes wrong | What comes of it |", "| --- | --- |", *(f"| {what} | {outcome} |" for what, outcome in rows)]
    return "\n".join(lines) + "\n"


def table_in(readme: str) -> str:
    """Return what the README has between its two marks."""
    _, found, rest = readme.partition(BEGIN)
    inside, ended, _ = rest.partition(END)
    assert found and ended, f"README.md lacks {BEGIN} or {END}"
    return inside.strip() + "\n"


def main() -> int:
    """Print the table; with `--write`, put it into README.md."""
    from tests.pipeline import test_faults

    rows = test_faults.ROWS  # this file is __main__ and has a list of its own
    if "--write" in sys.argv[1:]:
        readme = README.read_text(encoding="utf-8")
        head, tail = readme.partition(BEGIN)[0], readme.partition(END)[2]
        README.write_text(f"{head}{BEGIN}\n\n{table(rows)}\n{END}{tail}", encoding="utf-8")
    else:
        sys.stdout.write(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
