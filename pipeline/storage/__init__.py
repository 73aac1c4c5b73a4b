"""Where checkpoints lie besides the work directory: the DVC remote and `imports/`; and what removes those that nobody needs."""
