"""The `matwm` command."""

import sys
from collections.abc import Sequence

from matwm.errors import UserError, run_program
from pipeline.commands import COMMANDS, module_of, parsed

HELP = ("help", "--help", "-h")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; what a person got wrong is one sentence on stderr and exit code 1."""
    return run_program(lambda: _run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: list[str]) -> int:
    first, *rest = arguments or ["help"]
    if first in HELP and rest and not rest[0].startswith("-"):
        first, rest = rest[0], ["--help"]  # `matwm help runs`
    if first in HELP:
        sys.stdout.write(overview())
        return 0
    if first == "--version":
        sys.stdout.write(version())
        return 0
    if first not in COMMANDS:
        raise UserError(_unknown(first))
    return module_of(first).run(parsed(first, rest))


def overview() -> str:
    """Return what `matwm help` prints: each command in its group, with a line and an example."""
    text = "Train multi-agent world models, go on from any checkpoint, and trace it.\n\nusage: matwm COMMAND [ARGUMENTS]\n"
    group = None
    for name, command in COMMANDS.items():
        if command.group != group:
            group = command.group
            text += f"\n{group}\n"
        text += f"  {name:<13}{command.purpose}\n{'':15}$ {command.example}\n"
    return f'{text}\n"matwm help COMMAND" explains its arguments, "matwm --version" prints the version.\n'


def version() -> str:
    """Return the version of the package, and the two on which checkpoints depend."""
    from importlib import metadata

    from matwm.version import FORMAT, NUMERICS

    try:
        installed = metadata.version("matwm")
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        installed = "(not installed)"
    return f"matwm {installed}, checkpoints of format {FORMAT}, numerics {NUMERICS}\n"


def _unknown(word: str) -> str:
    from matwm.spelling import close

    kind = "option" if word.startswith("-") else "command"
    meant = close(word, [*COMMANDS, *HELP, "--version"])
    return f'there is no {kind} {word!r}{f", did you mean {meant[0]}?" if meant else ""}: "matwm help" lists the commands'


if __name__ == "__main__":
    sys.exit(main())
