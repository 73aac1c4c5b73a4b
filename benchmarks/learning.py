"""Shows whether the method learns: trains presets over seeds, judges them by fixed opponents, writes the documentation's tables and plots.

    .venv/bin/python benchmarks/learning.py train --scenario simple_spread_v3 --seeds 1 2 3 --jobs 2
    .venv/bin/python benchmarks/learning.py train --scenario 3m --seeds 1 2
    .venv/bin/python benchmarks/learning.py show
    .venv/bin/python benchmarks/learning.py report
    .venv/bin/python benchmarks/learning.py references --scenario simple_reference_v3
    .venv/bin/python benchmarks/learning.py diagnose .matwm/learning/final/simple_spread_v3/seed_1

Each seed is a job of its own, stopped at any moment (Ctrl-C, SIGTERM, kill -9, a reboot): the same command goes on and skips
what is finished. A finished job is one small file below benchmarks/results/learning, which belongs in git; checkpoints stay in the
work folder, which does not.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Nothing of the project is imported before its folder is in the path.
    from benchmarks.learn.plan import Plan

REPOSITORY = Path(__file__).resolve().parents[1]
if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))
RESULTS = REPOSITORY / "benchmarks" / "results" / "learning"
WORK = REPOSITORY / ".matwm" / "learning"
PRESET_HELP = "whose family, and options where it is its own scenario (the one that the tables have; of others cpu-small)"


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(given)
    options.given = given[1:]
    from matwm.errors import run_program

    return run_program(lambda: options.run(options))


def train(options: argparse.Namespace) -> int:
    """Carry out the jobs of the command line, each in a process of its own."""
    from benchmarks.learn import fleet
    from benchmarks.learn.plan import Judging, make_plan
    from benchmarks.measuring import ready_folder
    from pipeline.process import Interruption

    judging = Judging(options.episodes, options.evaluate_every, options.evaluate_episodes)
    preset = options.preset or _preset(options.scenario)
    plans = [make_plan(options.name, preset, options.scenario, seed, options.steps, options.words, judging) for seed in options.seeds]
    for option, folder in (("--work", options.work), ("--results", options.results)):
        ready_folder(option, folder)
    with Interruption() as interruption, interruption.deferred():
        if options.parent:
            return _work(options, plans[0], lambda: interruption.signal is not None or os.getppid() != options.parent)
        alone = [["train", *options.given, "--seeds", str(plan.config.seed)] for plan in plans]  # the last --seeds counts
        commands = [fleet.child_command(Path(__file__), words) for words in alone]
        codes = fleet.run_all(commands, options.jobs, lambda: interruption.signal is not None)
        return interruption.exit_code if interruption.signal is not None else max(codes)


def _work(options: argparse.Namespace, plan: "Plan", should_stop: Callable[[], bool]) -> int:
    from benchmarks.learn.job import Job
    from pipeline.memory import keep_freed_memory
    from pipeline.process import exclusive

    keep_freed_memory()
    job = Job(plan, options.work, options.results, save_every=options.save_every, say=lambda line: print(line, flush=True))
    with exclusive(job.folder / "lock", str(plan), wait_seconds=30.0):
        if job.is_finished():
            print(f"{plan}: finished already, {job.result_file}", flush=True)
            return 0
        return 0 if job.run(should_stop) else 128 + 15


def report(options: argparse.Namespace) -> int:
    """Write the documentation's tables and the plots from the result files."""
    from benchmarks.learn import report as writing
    from benchmarks.measuring import ready_folder

    ready_folder("--docs", options.docs)
    print(writing.write(options.results, options.page, options.docs, options.readme))
    return 0


def show(options: argparse.Namespace) -> int:
    """List the jobs, finished or not."""
    from benchmarks.learn.overview import lines

    for line in lines(options.work, options.results, options.name):
        print(line)
    return 0


def references(options: argparse.Namespace) -> int:
    """Print what scripts and random players get, of each other alone."""
    from benchmarks.learn.plan import Judging, make_plan
    from matwm.evaluation import reference_lines

    judging = Judging(options.episodes, 0, options.episodes)
    env = make_plan("references", options.preset or _preset(options.scenario), options.scenario, 0, 1, [], judging).config.env
    for result in reference_lines(env, episodes=options.episodes, first_seed=options.first_seed):
        for name, summary in {**result.roles, **result.metrics}.items():
            print(f"{result.matchup}  {name}: {summary.mean:.3f} ± {summary.stderr:.3f}")
    return 0


def _preset(scenario: str) -> str:
    from benchmarks.learn.measures import TASKS, USUAL_PRESET

    return TASKS[scenario].preset if scenario in TASKS else USUAL_PRESET


def diagnose(options: argparse.Namespace) -> int:
    """Print what a checkpoint's networks know of fresh episodes of its own play."""
    from benchmarks.learn.diagnosis import diagnose as examine
    from benchmarks.learn.diagnosis_text import text
    from matwm.checkpoint import open_checkpoint
    from matwm.errors import UserError
    from matwm.step_names import step_of
    from matwm.store import LocalStore

    folder = options.checkpoint
    checkpoint = open_checkpoint(folder) if step_of(folder) is not None else LocalStore(folder).newest()
    if checkpoint is None:
        raise UserError(f"{folder} holds no checkpoint: give a folder step_…, or one of a job")
    print(f"{checkpoint.path}: {checkpoint.spec.name}, step {checkpoint.step:,}, {options.episodes} episodes\n")
    print(text(examine(checkpoint, episodes=options.episodes, first_seed=options.first_seed)), end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks/learning.py", description="Show whether the method learns.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    training = commands.add_parser("train", help="train and judge a preset on a scenario, a job for each seed")
    training.set_defaults(run=train)
    training.add_argument("--scenario", required=True, help="of the preset's family (`matwm envs`), for example simple_spread_v3")
    training.add_argument("--preset", help=PRESET_HELP)
    training.add_argument("--seeds", type=_natural, nargs="+", default=[1, 2, 3], metavar="N", help="(1 2 3)")
    training.add_argument("--steps", type=_positive, default=50_000, metavar="N", help="environment steps (50,000)")
    training.add_argument("--set", dest="words", action="append", default=[], metavar="KEY=VALUE", help="another value; repeat it")
    training.add_argument("--name", default="final", help="of the set of jobs: another configuration needs another one (final)")
    training.add_argument("--jobs", type=_positive, default=1, metavar="N", help="seeds trained side by side, a thread each (1)")
    training.add_argument("--episodes", type=_several, default=200, metavar="N", help="of the final evaluation, a match-up and mode (200)")
    training.add_argument(
        "--evaluate-every", type=_natural, default=10_000, metavar="N", help="steps an evaluation inside; 0: none (10,000)"
    )
    training.add_argument("--evaluate-episodes", type=_several, default=100, metavar="N", help="of those, a match-up (100)")
    training.add_argument("--save-every", type=_positive, default=2_500, metavar="N", help="steps a checkpoint (2,500)")
    training.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    reporting = commands.add_parser("report", help="write the documentation's tables and the plots from the result files")
    reporting.set_defaults(run=report)
    reporting.add_argument(
        "--page", type=Path, default=REPOSITORY / "docs" / "results.md", metavar="FILE", help="all tables (docs/results.md)"
    )
    reporting.add_argument("--readme", type=Path, default=REPOSITORY / "README.md", metavar="FILE", help="six rows (README.md)")
    reporting.add_argument("--docs", type=Path, default=REPOSITORY / "docs", metavar="DIR", help="where the plots go (docs)")
    diagnosing = commands.add_parser("diagnose", help="print what a checkpoint's networks know of fresh episodes of its own play")
    diagnosing.set_defaults(run=diagnose)
    diagnosing.add_argument("checkpoint", type=Path, help="a folder step_…, or a job's folder, whose newest it is")
    diagnosing.add_argument("--episodes", type=_several, default=100, metavar="N", help="(100)")
    diagnosing.add_argument("--first-seed", type=_natural, default=30_000, metavar="N", help="of the environments (30,000)")
    playing = commands.add_parser("references", help="print what scripts and random players get, per agent and episode")
    playing.set_defaults(run=references)
    playing.add_argument("--scenario", required=True, help="for example simple_reference_v3")
    playing.add_argument("--preset", help=PRESET_HELP)
    playing.add_argument("--episodes", type=_several, default=1000, metavar="N", help="a match-up (1,000)")
    playing.add_argument("--first-seed", type=_natural, default=10_000, metavar="N", help="of the environments (10,000)")
    showing = commands.add_parser("show", help="list the jobs, finished or not, with what they were judged")
    showing.set_defaults(run=show)
    showing.add_argument("--name", help="only these jobs (all)")
    for command in (training, showing):
        command.add_argument("--work", type=Path, default=WORK, metavar="DIR", help="checkpoints and progress (.matwm/learning)")
    for command in (training, reporting, showing):
        command.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="(benchmarks/results/learning)")
    return parser


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 0")
    return int(text)


def _positive(text: str) -> int:
    if not (value := _natural(text)):
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1")
    return value


def _several(text: str) -> int:
    if (value := _natural(text)) < 2:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 2")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
