"""What params.yaml says: its segments and sweeps, changed values, which checkpoints stay."""
