"""Tables of the documents are tables: GitHub shows one without a head as text, and takes a line right behind one for its last row."""

from itertools import groupby

import pytest

from benchmarks.learning import REPOSITORY


def tables(text: str) -> list[list[str]]:
    """Return the blocks of lines without an empty one between them that have a row of a table."""
    blocks = [list(lines) for filled, lines in groupby(text.splitlines(), key=bool) if filled]
    return [block for block in blocks if any(line.startswith("|") for line in block)]


@pytest.mark.parametrize(
    "document", ["README.md", "benchmarks/RESULTS.md", "benchmarks/results/scaling.md", "benchmarks/results/learning/diagnosis.md"]
)
def test_every_table_has_a_head_and_nothing_but_rows(document):
    found = tables((REPOSITORY / document).read_text(encoding="utf-8"))
    assert found
    for block in found:
        assert all(line.startswith("|") and line.endswith("|") for line in block), block[-1]
        assert set(block[1]) <= set("|-: "), block[0]
        assert len({line.count("|") for line in block}) == 1, block[0]
