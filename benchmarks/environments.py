"""Measures what environments cost: `.venv/bin/python benchmarks/environments.py` (some CPU minutes), then the same with `--report`.

Steps a CPU second of our adapters and of the packages' own environments: both play the same recorded episodes of random legal
actions, in turns within one process, resets included. And the bytes of a real replay and a real checkpoint by 1,000 steps of random
play with the preset of their kind. Each case is a process of its own, on one core. Families that are not installed keep the figures
that they have in `benchmarks/results/environments.json`; `--report` writes the table of `docs/environments.md` from that file.
"""

import argparse
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from env_speed import speeds
from learn import files
from measuring import in_a_process, machine

from matwm import durable
from matwm.config import Config, EnvConfig
from matwm.envs import make_env, missing
from matwm.errors import run_program
from matwm.manifest import ROOT
from matwm.params_yaml import load_config, parse_config, preset_path
from matwm.rng import generator_for
from matwm.store import LocalStore
from matwm.trainer import Trainer, build_trainer
from matwm.types import EnvSpec

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results" / "environments.json"
PAGE = REPOSITORY / "docs" / "environments.md"
BEGIN, END = "<!-- environments -->", "<!-- /environments -->"
TURN, PAIRS = 0.5, 15
"""CPU seconds that an environment plays until it is the other's turn, about; and how often both do."""
STEPS = 1000
"""Of play between the two checkpoints whose sizes are compared."""
EXACT = (
    "tests/matwm/envs/test_base.py::test_an_episode_continues_identically_in_a_new_process",
    "tests/pipeline/test_mid_episode.py::test_a_kill_within_an_episode_changes_nothing",
)
TESTS = {
    "replay": EXACT,
    "snapshot": EXACT,
    "episode": ("tests/matwm/envs/test_meltingpot.py::test_training_goes_on_with_a_fresh_episode",),
}
"""By resume class: what shows in another process, or after an interruption, that it is so."""
COLUMNS = (
    "family",
    "scenario",
    "agents",
    "observation",
    "steps a CPU second, bare",
    "adapter",
    "slower by",
    "resume",
    "replay, MB per 1,000 steps",
    "checkpoint, MB per 1,000 steps",
    "… and once",
)


@dataclass(frozen=True)
class Case:
    """A scenario to measure."""

    family: str
    name: str
    preset: str
    """Whose networks and replay a checkpoint of it holds."""
    options: dict[str, Any] = field(default_factory=dict)
    """Those that are not the scenario's defaults."""

    @property
    def env(self) -> EnvConfig:
        """The environment's configuration."""
        return EnvConfig.model_validate({"family": self.family, "name": self.name, "options": self.options})


CASES = [
    *(Case("mpe", name, "cpu-small") for name in ("simple_tag_v3", "simple_spread_v3", "simple_speaker_listener_v4")),
    Case("butterfly", "cooperative_pong_v6", "image-small"),
    *(Case("butterfly", "pistonball_v6", "image-small", {"n_pistons": pistons}) for pistons in (5, 20)),
    Case("butterfly", "knights_archers_zombies_v11", "cpu-small"),
    Case("butterfly", "knights_archers_zombies_v11", "image-small", {"obs_method": "image"}),
    *(Case("smax", name, "smax-easy") for name in ("3m", "2s3z")),
    *(
        Case("meltingpot", f"{name}_in_the_matrix__{kind}", "image-small")
        for name, kind in (("pure_coordination", "repeated"), ("chicken", "arena"))
    ),
    Case("pettingzoo", "mpe2.simple_spread_v3:parallel_env", "cpu-small"),
]


def sizes(case: Case, steps: int) -> dict[str, int]:
    """Return the bytes that the replay and the whole checkpoint grow by in so many steps, and those that they do not grow by."""
    trainer = build_trainer(config_of(case))
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(folder)
        for _ in range(steps):
            trainer.step()
        update(trainer)  # after which the optimizers have their moments
        first = usage(trainer.save(store, ROOT).path)
        for _ in range(steps):
            trainer.step()
        second = usage(trainer.save(store, ROOT).path)
    growth = {what: second[what] - first[what] for what in first}
    return {"replay": growth["replay"], "checkpoint": growth["all"], "once": first["all"] - growth["all"]}


def config_of(case: Case) -> Config:
    """Return the case's preset in its environment, which never comes to an update of its own."""
    data = load_config(preset_path(case.preset)).resolved()
    data["env"] = case.env.model_dump()
    data["schedule"]["warmup_steps"] = 10**9
    return parse_config(data)


def update(trainer: Trainer) -> None:
    """Update everything once."""
    rng = generator_for(0, "environments", 1)
    trainer.learner.update_world_model(trainer.sample_windows(rng)[0])
    trainer.learner.update_agents(trainer.sample_contexts(rng))


def usage(folder: Path) -> dict[str, int]:
    """Return the bytes of a checkpoint's files: of its replay, and of all."""
    sized = {file.relative_to(folder): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    return {"replay": sum(size for file, size in sized.items() if file.parts[0] == "replay"), "all": sum(sized.values())}


def measure(case: Case, *, seconds: float = TURN, pairs: int = PAIRS, steps: int = STEPS) -> dict[str, Any]:
    """Return what is to be known of a case."""
    return {
        **asdict(case),
        **facts(make_env(case.env).spec),
        **speeds(case.env, seconds, pairs),
        **sizes(case, steps),
        "machine": machine(),
    }


def facts(spec: EnvSpec) -> dict[str, Any]:
    """Return how many agents there are, what they see and how their episodes come back."""
    if spec.image_shape:
        channels, height, width = spec.image_shape
        seen = f"image {height}×{width}×{channels}"
    else:
        seen = f"vector {', '.join(map(str, sorted(set(spec.obs_sizes), reverse=True)))}"
    return {"agents": spec.num_agents, "observation": seen, "resume": spec.resume}


def results() -> list[dict[str, Any]]:
    """Return what was measured of every case."""
    return (files.read(RESULTS) or {"cases": []})["cases"]


def section(results: list[dict[str, Any]]) -> str:
    """Return what stands between the page's marks."""
    tests = list(dict.fromkeys(TESTS[one["resume"]] for one in results))
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    for one in results:
        low, middle, high = (f"{100 * share:.0f}" for share in one["slower"])
        name = ", ".join([f"`{one['name']}`", *(f"{key} {value}" for key, value in one["options"].items())])
        resume = f"{one['resume']} ({tests.index(TESTS[one['resume']]) + 1})"
        megabytes = [f"{one[key] / 1e6:.2f}" for key in ("replay", "checkpoint", "once")]
        speed = [f"{one[who]:,.0f}" for who in ("bare", "adapter")]
        megabytes[-1] += f" (`{one['preset']}`)"
        cells = [one["family"], name, str(one["agents"]), one["observation"], *speed, f"{middle} % ({low} to {high})", resume, *megabytes]
        lines.append(f"| {' | '.join(cells)} |")
    shown = "; ".join(f"({number}) {' and '.join(f'`{name}`' for name in names)}" for number, names in enumerate(tests, 1))
    return "\n".join([*lines, "", f"Tests of resuming: {shown}."]) + "\n"


def report(results: list[dict[str, Any]]) -> None:
    """Write the table between its marks in the page."""
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    durable.replace(PAGE, f"{head}{BEGIN}\n\n{section(results)}\n{END}{tail}".encode())


def main() -> None:
    """Measure every case whose family is installed, in a process of its own."""
    parser = argparse.ArgumentParser(description="Measure what environments cost.")
    families = list(dict.fromkeys(case.family for case in CASES))
    parser.add_argument(
        "--family", nargs="+", metavar="F", choices=families, help=f"only these (all that are installed): {' '.join(families)}"
    )
    parser.add_argument("--report", action="store_true", help="measure nothing, write the table of docs/environments.md")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        # One core: the idle threads of JAX would cost more CPU time than the step does.
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        torch.set_num_threads(1)
        print(json.dumps(measure(Case(**json.loads(options.child)))))
        return
    found = results()
    if options.report:
        report(found)
        return
    kept = {json.dumps([one["family"], one["name"], one["options"]]): one for one in found}
    for case in CASES:
        key = json.dumps([case.family, case.name, case.options])
        if options.family and case.family not in options.family:
            continue
        if problem := missing(case.family):
            print(problem)
            continue
        kept[key] = in_a_process(__file__, json.dumps(asdict(case)))
        print(json.dumps(kept[key]), flush=True)
        keys = [json.dumps([one.family, one.name, one.options]) for one in CASES]
        files.write(RESULTS, {"cases": [kept[key] for key in keys if key in kept]})


if __name__ == "__main__":
    raise SystemExit(run_program(main))
