"""The family of SMAC, the StarCraft Multi-Agent Challenge: battles in StarCraft II.

The dead have the no-op, action 0, alone, and the living every legal action but that. A battle that is won, lost or drawn terminates for
all, in its last step too; the time limit, which SMAC is asked to tell from that, truncates. All share the team's reward.

The game takes a seed when it starts, not at a reset, which kills all units in the running game; the state of its randomness can neither be
read nor set (https://github.com/oxwhirl/smac/issues/45). So only the seed of the first episode after a start is used, and no episode can
be brought back: the resume class is "episode".
"""

import importlib
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int, UInt8

from matwm.config import EnvConfig
from matwm.envs.base import EnvError, NoPictureError, said
from matwm.envs.legal import check_actions, idle_unless
from matwm.scenarios.family import Family, Scenario
from matwm.scenarios.options import Options, count, option, options
from matwm.types import AgentSpec, EnvSpec, Tick

NO_OP = 0
# The maps that the paper plays, with what SMAC's `smac_maps.py` says of them; a test compares them with an imitation of it.
# map: units of ours, of the enemy's, entries of an observation with the default options, environment steps an episode
_MAPS = {
    "2m_vs_1z": (2, 1, 16, 150),
    "2s_vs_1sc": (2, 1, 17, 300),
    "2s3z": (5, 5, 80, 120),
    "3m": (3, 3, 30, 60),
    "3s_vs_3z": (3, 3, 36, 150),
    "3s_vs_4z": (3, 4, 42, 200),
    "3s_vs_5z": (3, 5, 48, 250),
    "5m_vs_6m": (5, 6, 55, 70),
    "8m": (8, 8, 80, 120),
    "MMM": (10, 10, 160, 150),
    "so_many_baneling": (7, 32, 202, 100),
    "2c_vs_64zg": (2, 64, 332, 400),
}
Difficulty = Literal["1", "2", "3", "4", "5", "6", "7", "8", "9", "A"]
_log = logging.getLogger(__name__)


def _options(limit: int) -> type[Options]:
    return options(
        max_steps=count(limit, "environment steps an episode", high=None),
        difficulty=option(Difficulty, "7", "strength of the game's own player, 7: very hard"),
        step_mul=count(8, "steps of the game an environment step", high=1000),
        reward_sparse=option(bool, False, "reward 1 or -1 at the end alone"),
        reward_only_positive=option(bool, True, "no penalty for losses of ours"),
        obs_last_action=option(bool, False, "units see what those in sight did last"),
        obs_pathing_grid=option(bool, False, "units see where they could walk around them"),
        obs_terrain_height=option(bool, False, "units see the heights around them"),
    )


SCENARIOS: Mapping[str, Scenario] = {
    name: Scenario(
        _options(limit), (allies,), AgentSpec("ally", "ally", "vector", (size,), 6 + enemies, has_action_mask=True), objectives=("win",)
    )
    for name, (allies, enemies, size, limit) in _MAPS.items()
}


def make(config: EnvConfig, render: bool) -> "SmacEnv":
    """Return one battle; the game is started at its first reset, and never draws."""
    return SmacEnv(config)


def missing_game() -> str | None:
    """Return where the game or its maps are not, None if they are there."""
    default = "/Applications/StarCraft II" if sys.platform == "darwin" else "~/StarCraftII"
    game = Path(os.environ.get("SC2PATH", default)).expanduser()
    if not game.is_dir():
        return (
            f"StarCraft II is not in {game}: install the game (https://github.com/Blizzard/s2client-proto has it for Linux) and set SC2PATH"
        )
    maps = game / "Maps" / "SMAC_Maps"
    if not maps.is_dir():
        return f"SMAC's maps are not in {maps}: unpack SMAC_Maps.zip from https://github.com/oxwhirl/smac/releases there"
    return None


FAMILY = Family(
    "battles in StarCraft II (SMAC)",
    "smac.env",
    ".venv/bin/pip install --no-deps git+https://github.com/oxwhirl/smac.git pysc2 s2clientprotocol absl-py websocket-client "
    "portpicker mpyq",
    "episode",
    SCENARIOS,
    packages=("smac", "pysc2"),
    note="tested against an imitation of SMAC's interface, never with the game itself",
    also="StarCraft II in $SC2PATH (else ~/StarCraftII) with SMAC's maps in Maps/SMAC_Maps, and "
    "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python in the environment",
    lacks=missing_game,
    namesake="the smac of the package index is SMAC3, an optimiser of hyper-parameters",
    is_heavy=True,
)


class SmacEnv:
    """One battle, which has a running game to itself."""

    def __init__(self, config: EnvConfig) -> None:
        """Raise an EnvError if the package cannot be imported or does not know the map."""
        self._config = config
        self._engine: Any = None
        self._tick: Tick | None = None
        facts = self._made(None).get_env_info()
        n = int(facts["n_agents"])
        self.spec = EnvSpec(
            name=config.name,
            agents=tuple(f"ally_{number}" for number in range(n)),
            obs_sizes=(int(facts["obs_shape"]),) * n,
            num_actions=(int(facts["n_actions"]),) * n,
            has_action_masks=True,
            resume="episode",
            max_steps=config.options["max_steps"],
        )

    def reset(self, seed: int) -> Tick:
        """Start a battle; the seed is that of the game if it must be started for it.

        Raises:
            EnvError: the game does not start.
        """
        self._tick = None
        try:
            if self._engine is None:
                self._engine = self._made(int(seed))
            self._engine.reset()
        except EnvError:
            raise
        except Exception as error:  # Whatever of PySC2 and the game fails.
            self.close()
            raise EnvError(f"env.name is {self._config.name}, and StarCraft II does not begin it: {said(error)}") from error
        self._tick = self._seen(np.zeros(self.spec.num_agents, np.float32))
        return self._own(self._tick)

    def step(self, actions: Int[np.ndarray, " N"]) -> Tick:
        """Move every unit, in the order of `spec.agents`; the dead have action 0.

        Raises:
            ValueError: an action is not legal for its unit now.
            RuntimeError: no episode is under way.
        """
        before = self._tick
        if before is None:
            raise RuntimeError("no episode is under way: call reset with a seed first")
        chosen = np.asarray(actions).tolist()
        check_actions(self.spec, chosen, before.action_mask)
        reward, is_over, told = self._engine.step(chosen)
        if is_over and "battle_won" not in told:
            return self._broken_down(before)
        is_cut = bool(is_over and told.get("episode_limit"))
        shared = np.full(self.spec.num_agents, reward, np.float32)
        metrics = {"win": float(told["battle_won"])} if is_over else {}
        tick = self._seen(shared, is_decided=bool(is_over and not is_cut), is_cut=is_cut, metrics=metrics)
        self._tick = None if is_over else tick
        return self._own(tick)

    def render(self) -> UInt8[np.ndarray, "height width 3"]:
        """Raise a NoPictureError, as SMAC draws nothing."""
        raise NoPictureError("SMAC draws nothing")

    def close(self) -> None:
        """End the game."""
        engine, self._engine, self._tick = self._engine, None, None
        if engine is not None:
            engine.close()

    def _made(self, seed: int | None) -> Any:
        options = {key: value for key, value in self._config.options.items() if key != "max_steps"}
        try:
            package = importlib.import_module("smac.env")
            engine = package.StarCraft2Env(map_name=self._config.name, seed=seed, continuing_episode=True, **options)
        except Exception as error:  # Whatever its imports raise: PySC2 and protobuf are of different years.
            raise EnvError(f"env.name is {self._config.name}, and making it with SMAC fails: {said(error)}") from error
        engine.episode_limit = self._config.options["max_steps"]
        return engine

    def _seen(
        self,
        reward: Float32[np.ndarray, " N"],
        *,
        is_decided: bool = False,
        is_cut: bool = False,
        metrics: dict[str, float] | None = None,
    ) -> Tick:
        mask = np.array(self._engine.get_avail_actions(), bool)
        alive = ~mask[:, NO_OP]
        acts = alive & (not is_decided)
        obs = np.stack(self._engine.get_obs()).astype(np.float32)
        return Tick(obs, idle_unless(acts, mask, NO_OP), reward, ~acts, truncated=is_cut, alive=alive, metrics=metrics or {})

    def _own(self, tick: Tick) -> Tick:
        """Return a tick whose arrays are the caller's: what the next step is checked against stays."""
        return Tick(**{**vars(tick), "action_mask": tick.action_mask.copy(), "alive": tick.alive.copy(), "obs": tick.obs.copy()})

    def _broken_down(self, before: Tick) -> Tick:
        """Cut the battle where it stood; the next one is fought in a new game."""
        _log.warning("StarCraft II broke down in %s: the battle is cut here, and counts as not won", self.spec.name)
        self.close()
        nothing = np.zeros(self.spec.num_agents, np.float32)
        return Tick(**{**vars(before), "reward": nothing, "truncated": True, "metrics": {"win": 0.0}})
