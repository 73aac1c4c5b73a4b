"""Names the two versions on which checkpoints depend: of the arithmetic and of the files."""

NUMERICS = 2
"""Moves when the same parameters train to other numbers (`tests/matwm/test_golden.py` guards it)."""

FORMAT = 1
"""Moves when the files of a checkpoint change (`CHANGELOG.md` lists each change)."""
