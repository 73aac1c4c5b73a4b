"""One process's share in training a segment (see `pipeline/train.py`)."""
