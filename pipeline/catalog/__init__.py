"""Which runs there are, what is recorded of them and how they hang together; `catalog.py` is the way in.

Nothing here writes, but `pruning`, `pushing` and `importing`, which carry out what a person asked for.
"""
