"""The `matwm` command."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from matwm.errors import run_program

COMMANDS = {
    "preset": ("preset", "write a complete params.yaml"),
    "validate": ("validate", "check params.yaml"),
    "repro": ("repro", "validate params.yaml, then run `dvc repro`; further arguments are its own (train@s00, --force, --pull, …)"),
    "train": ("train", "train one segment or trial without DVC: dvc.lock is left alone, and `matwm repro` finds it done"),
    "sweep": ("sweep", "append, watch or run a sweep: trials over seeds and values"),
    "report": ("report", "hold sweeps and runs side by side: figures and tables over seeds, and one page of HTML"),
    "continue": ("continue_run", "append a segment that goes on from a run's checkpoint"),
    "doctor": ("doctor", "find what is set up wrongly, and mend it"),
    "runs": ("runs", "list the runs"),
    "tree": ("tree", "draw the lineage: every run below the one that it goes on from"),
    "show": ("show", "show a checkpoint: what is in it, which run made it, where it lies"),
    "diff": ("diff", "compare two checkpoints: parameters, code, metrics, common ancestor"),
    "verify": ("verify", "walk from a checkpoint back to the root and name the first thing that is wrong"),
    "prune": ("prune", "remove checkpoints that retention does not keep from MLflow and the work directories (dry run by default)"),
    "pin": ("pin", "keep a checkpoint from ever being pruned"),
    "push": ("push", "carry finished checkpoints to the DVC remote, also while training"),
    "import": ("import_runs", "give the runs of a clone back to MLflow: parameters, curves, evaluations, checkpoints, tags"),
    "fingerprint": ("fingerprint", "print the fingerprint of a checkpoint's training state"),
    "eval": ("eval_checkpoint", "play whole episodes with a checkpoint's agents and say what each role gets, with errors"),
    "export": ("export", "write policies as one file that runs without MATWM, with torch or ONNX Runtime alone"),
    "envs": ("envs", "list families of environments and their scenarios, and how to install what is missing"),
}
"""Name: the module in `pipeline.commands` that declares `arguments(parser)` and `run(options)`, and what it does."""
PASSES_ON = {"repro"}
"""Commands that hand arguments which they do not know to another program."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; what a person got wrong is one sentence on stderr and exit code 1."""
    return run_program(lambda: _run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: Sequence[str]) -> int:
    options = _parsed(arguments)
    return importlib.import_module(f"pipeline.commands.{COMMANDS[options.command][0]}").run(options)


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="matwm", description="Train multi-agent world models, go on from any checkpoint, and trace it.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, purpose) in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose, allow_abbrev=False)
        if name == next(iter(arguments), None):  # only what is called is imported: torch, MLflow and DVC take seconds
            importlib.import_module(f"pipeline.commands.{module}").arguments(command)
    options, options.rest = parser.parse_known_args(arguments)
    if options.rest and options.command not in PASSES_ON:
        parser.error(f"unrecognized arguments: {' '.join(options.rest)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
