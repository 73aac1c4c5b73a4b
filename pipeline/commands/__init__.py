"""Lists what `matwm` can do. A command is imported, and its parser built, when it is called: torch, MLflow and DVC take seconds."""

import argparse
import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

TRAIN, LOOK, PROVE, KEEP, USE = "Train", "Look at what there is", "Prove", "Keep and share", "Use what was learned"


class Command(NamedTuple):
    """A line of `matwm help`."""

    module: str
    """The module of this package that declares `arguments(parser)` and `run(options)`."""
    group: str
    purpose: str
    """What it does, in at most 64 characters."""
    example: str


COMMANDS = {
    "init": Command("init", TRAIN, "make a project in a folder, where matwm is installed", "matwm init tag --preset simple-tag"),
    "preset": Command("preset", TRAIN, "write a complete params.yaml", "matwm preset cpu-small"),
    "envs": Command("envs", TRAIN, "list environments, and how to install what is missing", "matwm envs mpe"),
    "validate": Command("validate", TRAIN, "check params.yaml", "matwm validate"),
    "repro": Command("repro", TRAIN, "check params.yaml, then run `dvc repro` with further arguments", "matwm repro train@s00"),
    "train": Command("train", TRAIN, "train one segment or trial without DVC", "matwm train s00 --max-time 2h"),
    "sweep": Command(
        "sweep", TRAIN, "append, watch or run a sweep: trials over seeds and values", "matwm sweep add lr --seeds 0-4 --until 5000"
    ),
    "continue": Command(
        "continue_run", TRAIN, "append a segment that goes on from a run's checkpoint", "matwm continue s00@final --until 20000"
    ),
    "runs": Command("runs", LOOK, "list the runs", "matwm runs --last 10"),
    "tree": Command("tree", LOOK, "draw the lineage: runs below the one that they go on from", "matwm tree"),
    "show": Command("show", LOOK, "show a checkpoint: its content, its run, where it lies", "matwm show s00@final"),
    "diff": Command("diff", LOOK, "compare two checkpoints: parameters, code, metrics, ancestor", "matwm diff s00@final s01@final"),
    "report": Command("report", LOOK, "hold sweeps and runs side by side, over seeds", "matwm report lr s00"),
    "ui": Command("ui", LOOK, "start MLflow's UI and print where it shows this project", "matwm ui"),
    "verify": Command("verify", PROVE, "check every byte from a checkpoint back to the root", "matwm verify s00 --deep"),
    "fingerprint": Command("fingerprint", PROVE, "print the fingerprint of a checkpoint's training state", "matwm fingerprint s00@final"),
    "doctor": Command("doctor", PROVE, "find what is set up wrongly, and mend it", "matwm doctor --fix"),
    "prune": Command("prune", KEEP, "remove checkpoints that retention drops (dry run by default)", "matwm prune --keep-last 2"),
    "pin": Command("pin", KEEP, "keep a checkpoint from ever being pruned", 'matwm pin s00@5000 --note "in the report"'),
    "push": Command("push", KEEP, "carry checkpoints to the DVC remote, also while training", "matwm push s00"),
    "import": Command("import_runs", KEEP, "give the runs of a clone back to MLflow", "matwm import"),
    "eval": Command(
        "eval_checkpoint", USE, "play episodes with a checkpoint's agents, and say what each gets", "matwm eval s00 --against random"
    ),
    "play": Command("play", USE, "show episodes: a GIF, an MP4 or a window", "matwm play s00@final --mp4"),
    "arena": Command("arena", USE, "play checkpoints against each other, each role of each", "matwm arena s00@5000 s00@final"),
    "imagine": Command("imagine", USE, "hold what is imagined against the real episode", "matwm imagine s00@final --gif"),
    "export": Command("export", USE, "write policies as one file for torch or ONNX Runtime alone", "matwm export s00@final --format onnx"),
    "completion": Command(
        "completion", USE, "print a script by which a shell completes commands and options", "matwm completion bash > ~/.matwm.bash"
    ),
}
"""By name; `matwm help` and `matwm NAME --help` show what stands here."""
PASSES_ON = {"repro"}
"""Commands that hand arguments which they do not know to another program."""


def module_of(name: str) -> ModuleType:
    """Import a command."""
    return importlib.import_module(f"pipeline.commands.{COMMANDS[name].module}")


def parser_of(name: str) -> argparse.ArgumentParser:
    """Return the parser of a command, which is imported for it."""
    command = COMMANDS[name]
    parser = argparse.ArgumentParser(
        prog=f"matwm {name}", description=command.purpose, epilog=f"example: {command.example}", allow_abbrev=False
    )
    module_of(name).arguments(parser)
    return parser


def parsed(name: str, arguments: Sequence[str]) -> argparse.Namespace:
    """Return a command's arguments; `rest` are those that it hands on. Wrong ones end the program, with exit code 2."""
    parser = parser_of(name)
    options, options.rest = parser.parse_known_args(arguments)
    if options.rest and name not in PASSES_ON:
        parser.error(f"unrecognized arguments: {' '.join(options.rest)}")
    return options
