"""The family of Melting Pot's substrates, of which players see their own picture and nothing else, at 64 x 64.

What else a substrate tells is dropped: COLLECTIVE_REWARD above all, the sum of everybody's rewards. Where it ends an episode itself, at a
random step after about a thousand, all have terminated; the time limit `max_cycles` truncates.

A substrate's random numbers follow from no seed: the same seed and actions differ within one process, and its state cannot be copied. So
seeds are not used, and the resume class is "episode".
"""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, UInt8

from matwm.config import EnvConfig
from matwm.envs.base import EnvError, said
from matwm.envs.images import IMAGE_SHAPE, small
from matwm.envs.legal import check_actions, idle_unless
from matwm.scenarios.family import Family, Scenario
from matwm.scenarios.options import option, options
from matwm.types import AgentSpec, EnvSpec, Tick

# The substrates of Melting Pot 2.4.1 that the paper plays: players, actions; a test compares them with the package, where it is installed.
_SUBSTRATES = {
    "chicken_in_the_matrix__arena": (8, 8),
    "coop_mining": (6, 8),
    "externality_mushrooms__dense": (5, 8),
    "gift_refinements": (6, 9),
    "pure_coordination_in_the_matrix__repeated": (2, 8),
    "rationalizable_coordination_in_the_matrix__repeated": (2, 8),
    "stag_hunt_in_the_matrix__arena": (8, 8),
}
_SHARED = {"pure_coordination_in_the_matrix__repeated", "rationalizable_coordination_in_the_matrix__repeated"}
"""Those where both players earn the same; in the others each has an interest of its own."""
# Left alone an episode ends at a random step from about 1,000 on, or at 5,000; PettingZoo's own example cuts it at 1,000.
_OPTIONS = options(max_cycles=option(int | None, 1000, "environment steps an episode; null: until the substrate ends it", low=1))

SCENARIOS: Mapping[str, Scenario] = {
    name: Scenario(
        _OPTIONS,
        (players,),
        AgentSpec("player", "player", "image", IMAGE_SHAPE, actions, has_action_mask=False),
        objectives=("self_play/player",) if name in _SHARED else (),
    )
    for name, (players, actions) in _SUBSTRATES.items()
}

FAMILY = Family(
    "social dilemmas with pictures (Melting Pot)",
    "meltingpot",
    "make meltingpot",
    "episode",
    SCENARIOS,
    packages=("dm-meltingpot", "dmlab2d"),
    note="players see RGB only; returns depend on max_cycles, 1,000 steps unless told otherwise: state it with every number",
)


def make(config: EnvConfig, render: bool) -> "MeltingPotEnv":
    """Return one substrate with its own number of players."""
    return MeltingPotEnv(config, render)


class MeltingPotEnv:
    """One substrate."""

    def __init__(self, config: EnvConfig, render: bool) -> None:
        """Raise an EnvError if it cannot be built."""
        self._world = _built(config.name)
        self._draws, self._limit, self._time = render, config.options["max_cycles"], 0
        self._seen: Any = None
        self._is_running = False
        counts = tuple(int(one.num_values) for one in self._world.action_spec())
        self.spec = EnvSpec(
            name=config.name,
            agents=tuple(f"player_{number}" for number in range(len(counts))),
            obs_sizes=(int(np.prod(IMAGE_SHAPE)),) * len(counts),
            num_actions=counts,
            resume="episode",
            image_shape=IMAGE_SHAPE,
            max_steps=self._limit,
        )

    def reset(self, seed: int) -> Tick:
        """Start an episode, which no seed determines."""
        self._time = 0
        return self._tick(self._world.reset(), np.zeros(self.spec.num_agents, np.float32))

    def step(self, actions: Int[np.ndarray, " N"]) -> Tick:
        """Move every player, in the order of `spec.agents`.

        Raises:
            ValueError: there is no such action.
            RuntimeError: no episode is under way.
        """
        if not self._is_running:
            raise RuntimeError("no episode is under way: call reset with a seed first")
        chosen = np.asarray(actions).tolist()
        check_actions(self.spec, chosen, self.spec.action_exists)
        self._time += 1
        told = self._world.step(chosen)
        return self._tick(told, np.array([float(one) for one in told.reward], np.float32))

    def render(self) -> UInt8[np.ndarray, "height width 3"]:
        """Return the whole world from above.

        Raises:
            RuntimeError: no episode was started, or the environment was made without `render=True`.
        """
        if not self._draws or self._seen is None:
            raise RuntimeError("nothing to draw: make the environment with render=True and reset it first")
        return np.array(self._seen[0]["WORLD.RGB"])

    def close(self) -> None:
        """Let go of the substrate; it cannot be used afterwards."""
        self._world.close()
        self._seen, self._is_running = None, False

    def _tick(self, told: Any, reward: Float32[np.ndarray, " N"]) -> Tick:
        self._seen = told.observation
        # The first step's discount is 0, too.
        is_ended = bool(told.last() and told.discount == 0)
        is_cut = not is_ended and bool(told.last() or self._time == self._limit)
        self._is_running = not (is_ended or is_cut)
        ended = np.full(self.spec.num_agents, is_ended)
        mask = idle_unless(~ended, self.spec.action_exists)
        obs = np.stack([small(one["RGB"]) for one in self._seen])
        return Tick(obs, mask, reward, ended, truncated=is_cut, alive=np.ones_like(ended))


def _built(name: str) -> Any:
    try:
        with _no_bots():
            package = importlib.import_module("meltingpot.substrate")
        return package.build(name, roles=package.get_config(name).default_player_roles)
    except Exception as error:  # Whatever its imports, and the engine below it, raise.
        raise EnvError(f"env.name is {name}, and building it with Melting Pot fails: {said(error)}") from error


@contextlib.contextmanager
def _no_bots() -> Iterator[None]:
    """Let the package be imported without tensorflow, gigabytes that its saved bots alone need; substrates have none."""
    if "tensorflow" in sys.modules or importlib.util.find_spec("tensorflow") is not None:
        yield
        return
    stand_in = ModuleType("tensorflow")
    stand_in.__getattr__ = lambda name: type(name, (), {})  # type: ignore[method-assign]  # For the annotations that name its types.
    sys.modules["tensorflow"] = stand_in
    try:
        yield
    finally:
        del sys.modules["tensorflow"]
