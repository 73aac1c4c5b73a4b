"""The `matwm` command."""

import argparse
import logging
import sys
from collections.abc import Sequence

REPRO_HELP = "validate params.yaml, then run `dvc repro`; further arguments are its own (train@s00, --force, --pull, …)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; what a person got wrong is one sentence on stderr and exit code 1."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # A server that does not answer is told of once, by us.
    parser = _parser()
    if arguments[:1] == ["repro"] and not {"-h", "--help"} & set(arguments):
        # Taken out of argparse's hands: the options are DVC's.
        rest = [argument for argument in arguments[1:] if argument != "--retrain"]
        options = argparse.Namespace(command="repro", dvc=rest, retrain="--retrain" in arguments)
    else:
        options = parser.parse_args(arguments)
    try:
        return _call(options)
    except Exception as error:
        if not _is_a_persons_business(error):
            raise
        sys.stderr.write(f"{error}\n")
        return 1


def _call(options: argparse.Namespace) -> int:
    match options.command:
        case "preset":
            from pipeline.commands import preset

            return preset.run(options.name, force=options.force)
        case "repro":
            from pipeline.commands import repro

            return repro.run(options.dvc, retrain=options.retrain)
        case "continue":
            from pipeline.commands import continue_run

            return continue_run.run(options.run, options.until, options.name)
        case "fingerprint":
            from pipeline.commands import show

            return show.fingerprint(options.checkpoint)
        case "runs":
            from pipeline.commands import show

            return show.runs(as_json=options.json)
        case "envs":
            from pipeline.commands import show

            return show.envs()
        case _:
            from pipeline.commands import show

            return show.validate_params()


def _is_a_persons_business(error: Exception) -> bool:
    """Return whether an error says in one sentence what a person can do; anything else is a fault of the code and keeps its traceback."""
    from matwm.config import ConfigError
    from pipeline.project import ProjectError

    kinds: tuple[type[Exception], ...] = (ConfigError, ProjectError)
    if "matwm.checkpoint" in sys.modules:
        from matwm.checkpoint import CheckpointError

        kinds += (CheckpointError,)
    if "pipeline.runs" in sys.modules:
        from pipeline.runs import TrackingError

        kinds += (TrackingError,)
    return isinstance(error, kinds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="matwm", description="Train multi-agent world models, go on from any checkpoint, and trace it.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    preset = commands.add_parser("preset", help="write a complete params.yaml")
    preset.add_argument("name", help="cpu-small, paper or ci-tiny")
    preset.add_argument("--force", action="store_true", help="overwrite a params.yaml that was changed, without asking")
    commands.add_parser("validate", help="check params.yaml")
    repro = commands.add_parser("repro", help=REPRO_HELP, description=REPRO_HELP)
    repro.add_argument("--retrain", action="store_true", help="train again what dvc.lock has and neither workspace nor cache hold")
    proceed = commands.add_parser("continue", help="append a segment that goes on from a run's checkpoint")
    proceed.add_argument("run", metavar="RUN[@STEP]", help="beginning of a run's ID; STEP is a number, latest (default) or final")
    proceed.add_argument("--until", type=int, required=True, metavar="N", help="environment step to train to")
    proceed.add_argument("--name", help="name of the new segment (default: the next sNN)")
    fingerprint = commands.add_parser("fingerprint", help="print the fingerprint of a checkpoint's training state")
    fingerprint.add_argument("checkpoint", metavar="DIR|RUN@STEP")
    runs = commands.add_parser("runs", help="list the runs")
    runs.add_argument("--json", action="store_true", help="as a list of objects")
    commands.add_parser("envs", help="list the scenarios")
    return parser


if __name__ == "__main__":
    sys.exit(main())
