"""Where checkpoints lie: published, imported, in work directories, in DVC's cache, on a DVC remote, in MLflow.

protocol.py   what every store says of itself and can do (`steps`, `folder`, `open`, `pull`), and what some can (`put`, `delete`)
table.py      which stores there are, the quickest first; resume, `continue`, `show`, `verify`, `diff` and `prune` go by it
folders.py dvc_cache.py mlflow.py remote.py     one store each, or one kind; filesystems.py what remotes lie on

To add one: a class that keeps to `CheckpointStore`, a line in `STORES`, and a way to fill it in `tests/pipeline/stores/test_contract.py`,
which fails until there is one.
"""
