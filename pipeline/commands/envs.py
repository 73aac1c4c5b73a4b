"""`matwm envs`: lists families of environments and their scenarios, what agents see and do there, and how to install what is missing."""

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

from matwm import scenarios
from matwm.config import ConfigError, EnvConfig
from matwm.spelling import nearest
from matwm.types import AgentSpec
from pipeline import project as places
from pipeline.commands.table import table

COLUMNS = ("scenario", "agents", "observation", "actions", "masks", "steps")
RESUME = {
    "replay": "exact, by playing the episode again",
    "snapshot": "exact, from a copy of the state",
    "episode": "a fresh episode: the run is continued, not reproduced",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("which", nargs="*", metavar="FAMILY", help="only these; or your own environment, package.module:parallel_env")
    parser.add_argument("--json", action="store_true", help="as a list of objects, with every agent and option")


def run(options: argparse.Namespace) -> int:
    """List them.

    With --json: one object a family, with `family`, `meaning`, `resume`, `note`, `installed`, `install` (the command), `also` (what must be
    there besides) and `scenarios`: `name`, `num_agents`, `max_steps`, `has_action_masks`, `agents` (one object each; null if only the
    package knows and is not there) and `options`.

    Raises:
        ConfigError: there is no such family, or an environment given by its import path cannot be played.
    """
    with contextlib.suppress(places.ProjectError):  # It can be asked anywhere.
        places.make_importable(places.root())
    entries = [_family(name, list(filter(_is_path, options.which))) for name in _wanted(options.which)]
    if options.json:
        sys.stdout.write(json.dumps(entries, indent=2) + "\n")
        return 0
    for entry in entries:
        sys.stdout.write(f"{entry['family']}: {entry['meaning']}\n  resume: {RESUME[entry['resume']]}\n")
        for scenario in entry["scenarios"]:
            if scenario["resume"] != entry["resume"]:
                sys.stdout.write(f"  resume of {scenario['name']}: {RESUME[scenario['resume']]}\n")
        sys.stdout.write(f"  note: {entry['note']}\n" if entry["note"] else "")
        if not entry["installed"]:
            also = f"\n  and: {entry['also']}" if entry["also"] else ""
            sys.stdout.write(f"  NOT INSTALLED: {entry['install']}{also}\n")
        if rows := [_row(scenario) for scenario in entry["scenarios"]]:
            sys.stdout.write("".join(f"  {line}\n" for line in table([COLUMNS, *rows]).splitlines()))
        sys.stdout.write("\n")
    return 0


def _wanted(which: list[str]) -> list[str]:
    """Return the families to list."""
    families = [scenarios.OWN if _is_path(word) else word for word in which]
    for word in families:
        if word not in scenarios.FAMILIES:
            raise ConfigError([f"there is no family {word!r}{nearest(word, list(scenarios.FAMILIES))}"])
    for path in filter(_is_path, which):
        try:
            scenarios.complete_options(scenarios.OWN, path, {})
        except ValueError as error:
            raise ConfigError(str(error).splitlines()) from None
    return [name for name in scenarios.FAMILIES if name in families or not families]


def _is_path(word: str) -> bool:
    """Return whether a word stands for an environment of one's own."""
    return ":" in word


def _family(name: str, paths: list[str]) -> dict[str, Any]:
    from matwm.envs import is_installed

    known, here = scenarios.family(name), is_installed(name)
    told = {key: getattr(known, key) for key in ("meaning", "resume", "note", "install", "also")}
    facts: dict[str, Any] = {"family": name, **told, "installed": here}
    configs = [EnvConfig(family=name, name=scenario, options={}) for scenario in known.scenarios or paths]
    return {**facts, "scenarios": [_scenario(config, here) for config in configs]}


def _scenario(config: EnvConfig, is_here: bool) -> dict[str, Any]:
    from matwm.envs.probe import probe

    if is_here:
        spec = probe(config)
        agents = spec.agent_specs
        facts = {"num_agents": spec.num_agents, "max_steps": spec.max_steps, "resume": spec.resume}
    else:
        known = scenarios.family(config.family)
        agents = _alike(known.scenarios[config.name].agent, config.num_agents) if known.scenarios else ()
        limit = config.options.get("max_cycles", config.options.get("max_steps"))
        facts = {"num_agents": config.num_agents, "max_steps": limit, "resume": known.resume}
    return {
        "name": config.name,
        **facts,
        "has_action_masks": any(agent.has_action_mask for agent in agents) if agents else None,
        "agents": [dataclasses.asdict(agent) for agent in agents] or None,
        "options": config.options,
    }


def _alike(agent: AgentSpec | None, count: int | None) -> tuple[AgentSpec, ...]:
    """Return the agents of a scenario of which the package need not be asked; none if it must be."""
    return tuple(dataclasses.replace(agent, name=f"{agent.name}_{number}") for number in range(count or 0)) if agent else ()


def _row(scenario: dict[str, Any]) -> tuple[str, ...]:
    agents, limit = scenario["agents"], str(scenario["max_steps"] or "?")
    if agents is None:
        return (scenario["name"], str(scenario["num_agents"]), "?", "?", "?", limit)
    roles: dict[str, int] = {}
    for agent in agents:
        roles[agent["role"]] = roles.get(agent["role"], 0) + 1
    team = " + ".join(f"{count} {role}" for role, count in roles.items())
    masks = "yes" if scenario["has_action_masks"] else "no"
    return (scenario["name"], team, _by_role(agents, _sight), _by_role(agents, lambda agent: str(agent["num_actions"])), masks, limit)


def _sight(agent: dict[str, Any]) -> str:
    return f"{agent['kind']} {' x '.join(map(str, agent['obs_shape']))}"


def _by_role(agents: list[dict[str, Any]], told: Callable[[dict[str, Any]], str]) -> str:
    """Return what is told of every agent: once if it is the same of all, else in the order of the roles."""
    found = {agent["role"]: told(agent) for agent in agents}
    return " / ".join(found.values()) if len(set(found.values())) > 1 else next(iter(found.values()))
