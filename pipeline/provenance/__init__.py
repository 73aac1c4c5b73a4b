"""What is known of the lineage (see `pipeline/lineage.py`): where its checkpoints lie, and whether they are what is recorded."""
