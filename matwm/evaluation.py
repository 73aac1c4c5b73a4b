"""Judges policies by whole episodes: against each other, against frozen opponents, and beside the scripts' own returns.

Episode e starts from the environment seed `first_seed + e` in every match-up. All other draws come from `first_seed` and the
match-up's name: a result does not depend on what else is evaluated, and nothing outside notices that it was. Where agents tell
each other of goals, each match-up is played a second time with other words (see communication.py).
"""

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from matwm import scenarios
from matwm.acting import EpisodeContext, Seen, choose_actions
from matwm.actor_critic import Actors
from matwm.communication import Communication, other_goals, with_other_goals, word_counts
from matwm.config import EnvConfig
from matwm.envs import make_env
from matwm.envs.base import Env, EnvError
from matwm.envs.scripted import LineUp, opponents, references, scripts, sides
from matwm.envs.words import Channel, channels
from matwm.rng import generator_for, seed_torch
from matwm.scenarios.sides import Script
from matwm.types import NO_ACTION, EnvSpec, Tick
from matwm.world_model import WorldModel

Mode = Literal["sampled", "greedy"]
Choose = Callable[[Seen, Bool[np.ndarray, "E N A"]], Int[np.ndarray, "E N"]]

LOCKSTEP = 50
"""Episodes that run side by side. An MPE2 environment takes megabytes; larger batches bring little."""


@dataclass(frozen=True)
class Summary:
    """Returns over episodes: of one agent, or of the mean over a role's agents."""

    mean: float
    median: float
    std: float
    """With n - 1."""
    stderr: float
    min: float
    max: float
    episodes: int

    @classmethod
    def of(cls, returns: Float[np.ndarray, " E"]) -> "Summary":
        """Summarise episodes; of a single one, the spread is NaN."""
        std = float(returns.std(ddof=1)) if len(returns) > 1 else float("nan")
        mean, median, low, high = (float(f(returns)) for f in (np.mean, np.median, np.min, np.max))
        return cls(mean, median, std, std / len(returns) ** 0.5, low, high, len(returns))


@dataclass(frozen=True)
class Scene:
    """A moment of an episode that somebody watches."""

    spec: EnvSpec
    seed: int
    """The environment seed of the episode."""
    step: int
    """Steps taken until now."""
    picture: UInt8[np.ndarray, "height width 3"]
    returns: Float[np.ndarray, " N"]
    """So far."""
    is_last: bool


Watch = Callable[[Scene], None]


@dataclass(frozen=True)
class Result:
    """The episodes of one match-up."""

    matchup: str
    """`self_play`, `learned_v_flee`, `random_v_learned`, `chase_v_random`; sides in the order of the scenario."""
    mode: Mode | None
    """None where nobody learns."""
    learned: tuple[int, ...]
    """Numbers of the agents that learn."""
    spec: EnvSpec
    seeds: tuple[int, ...]
    """Environment seed of each episode."""
    returns: Float[np.ndarray, "E N"]
    actions: Int[np.ndarray, "E T N"]
    """-1 after an episode's end: with the seed they bring an episode back."""
    outcomes: Mapping[str, Float[np.ndarray, " E"]] = field(default_factory=dict)
    """What the environment said of each episode at its end, such as `win`: 1 or 0."""
    communication: tuple[Communication, ...] = ()
    """What was said and heard, for each channel of the scenario."""
    agents: Mapping[str, Summary] = field(init=False)
    roles: Mapping[str, Summary] = field(init=False)
    """Of the mean over the role's agents in each episode, which is one observation."""
    metrics: Mapping[str, Summary] = field(init=False)
    """Of the outcomes: the mean of `win` is the win rate."""

    def __post_init__(self) -> None:
        by_agent = {name: Summary.of(self.returns[:, number]) for number, name in enumerate(self.spec.agents)}
        by_role = {role: Summary.of(self.returns[:, numbers].mean(1)) for role, numbers in self.spec.roles().items()}
        object.__setattr__(self, "agents", by_agent)
        object.__setattr__(self, "roles", by_role)
        object.__setattr__(self, "metrics", {name: Summary.of(values) for name, values in self.outcomes.items()})

    @property
    def typical(self) -> int:
        """The episode whose return for the first role is the median (the lower one of two)."""
        first = next(iter(self.spec.roles().values()))
        order = np.argsort(self.returns[:, first].mean(1), kind="stable")
        return int(order[(len(order) - 1) // 2])


def evaluate(
    world_model: WorldModel,
    actors: Actors,
    env: EnvConfig,
    *,
    episodes: int,
    first_seed: int,
    modes: Sequence[Mode],
    acting_context: int,
    against: Sequence[LineUp] | None = None,
    guests: "Mapping[str, Guest] | None" = None,
    should_stop: Callable[[], bool] = lambda: False,
    watch: Watch | None = None,
) -> list[Result]:
    """Return, for each mode, self-play and the match-ups of learned agents with each frozen opponent (or with `against` alone).

    Where a line-up has the name of a guest for a tactic, that side's agents are the guest's.

    Training that goes on afterwards is bit for bit what it would have been. `should_stop` is asked before every step of the
    environments; where it says yes there are no results at all. `watch` is shown every moment of every episode: these are then played
    one by one, which draws other numbers than side by side, and never a second time with other words.

    Raises:
        NoPictureError: `watch` is given, and the environment cannot draw itself.
    """
    self_play = LineUp((None,) * len(sides(env)))
    line_ups = [self_play, *opponents(env)] if against is None else list(against)
    # The generators come back as they were, on every device that seeding touches.
    with (
        contextlib.suppress(_StoppedError),
        torch.random.fork_rng(range(torch.cuda.device_count())),
        _Table(env, first_seed, episodes, should_stop, guests or {}, watch) as table,
    ):
        results: list[Result] = []
        for mode in modes:
            for line_up in line_ups:
                casting = table.casting(line_up)
                learned = tuple(number for number in range(table.spec.num_agents) if number not in casting)
                team = _Team(world_model, actors, learned, acting_context, greedy=mode == "greedy")
                results.append(table.play(line_up, mode, team))
        return results
    return []


def reference_lines(env: EnvConfig, *, episodes: int, first_seed: int, line_ups: Sequence[LineUp] | None = None) -> list[Result]:
    """Return what scripts get on the same seeds: every line-up of scripts alone (or `line_ups`)."""
    with _Table(env, first_seed, episodes) as table:
        chosen = references(env) if line_ups is None else line_ups
        return [table.play(line_up, None, None) for line_up in chosen]


def play_guests(
    env: EnvConfig, guests: "Mapping[str, Guest]", castings: Sequence[Sequence[str]], *, episodes: int, first_seed: int
) -> list[Result]:
    """Return what guests get together: each casting names the guest of every agent, in the agents' order."""
    with torch.random.fork_rng(range(torch.cuda.device_count())), _Table(env, first_seed, episodes, guests=guests) as table:
        return [table.play_guests(casting) for casting in castings]


def matchup_name(line_up: LineUp) -> str:
    """Return what a line-up is called in results: that of learners alone is `self_play`."""
    return line_up.matchup


@dataclass(frozen=True)
class Guest:
    """Agents that were trained elsewhere, to play against."""

    world_model: WorldModel
    actors: Actors
    acting_context: int
    greedy: bool = False

    def script(self, spec: EnvSpec, number: int) -> Script:
        """Return one of them as a script of an episode that begins."""
        return _Trained(self, spec, number)


class _Trained:
    """A trained agent as a script: what it draws follows from the script's generator, as all that scripts draw."""

    def __init__(self, guest: Guest, spec: EnvSpec, number: int) -> None:
        self._guest, self._spec = guest, spec
        self._actors, self._context = _only(guest.actors, [number]), EpisodeContext([number], guest.acting_context)

    def act(self, obs: Shaped[np.ndarray, "E *shape"], mask: Bool[np.ndarray, "E a"], rng: np.random.Generator) -> Int[np.ndarray, " E"]:
        """Return the policy's choice in every episode."""
        seen = np.zeros((len(obs), 1, *self._spec.obs_shape), self._spec.obs_dtype)
        legal = np.zeros((len(obs), 1, self._spec.action_size), bool)
        seen[:, 0, : obs.shape[1]], legal[:, 0, : mask.shape[1]] = obs, mask
        self._context.see(seen)
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            seed_torch(int(rng.integers(2**62)), "guest", 0)
            action = choose_actions(self._guest.world_model, self._actors, self._context, legal, greedy=self._guest.greedy)
        self._context.did(action)
        return action[:, 0]


class _StoppedError(Exception):
    """Whoever asked for the evaluation does not want it any more."""


class _Team:
    """The learned agents of a line-up."""

    def __init__(self, world_model: WorldModel, actors: Actors, numbers: Sequence[int], acting_context: int, *, greedy: bool) -> None:
        self.numbers, self._greedy = list(numbers), greedy
        self._world_model, self._actors = world_model, _only(actors, self.numbers)
        self._context = EpisodeContext(self.numbers, acting_context)

    def begin(self) -> None:
        self._context.clear()

    def act(self, obs: Seen, mask: Bool[np.ndarray, "E N A"]) -> Int[np.ndarray, "E learned"]:
        self._context.see(obs[:, self.numbers])
        action = choose_actions(self._world_model, self._actors, self._context, mask[:, self.numbers], greedy=self._greedy)
        self._context.did(action)
        return action


class _Table:
    """Environments to play at, used again for every match-up, since a seed alone determines an episode."""

    def __init__(
        self,
        env: EnvConfig,
        first_seed: int,
        episodes: int,
        should_stop: Callable[[], bool] = lambda: False,
        guests: Mapping[str, Guest] | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._config, self._first_seed, self._should_stop, self._guests = env, first_seed, should_stop, guests or {}
        self._watch = watch
        self._seeds = tuple(range(first_seed, first_seed + episodes))
        self._channels = () if watch else channels(env)
        with contextlib.ExitStack() as opened:
            self._envs = [self._made(opened)]
            self.spec = self._envs[0].spec
            self._at_once = 1 if watch or scenarios.family(env.family).is_heavy or self.spec.one_at_a_time else LOCKSTEP
            self._envs += [self._made(opened) for _ in range(1, min(episodes, self._at_once))]
            self._opened = opened.pop_all()

    def __enter__(self) -> "_Table":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _made(self, opened: contextlib.ExitStack) -> Env:
        try:
            return opened.enter_context(contextlib.closing(make_env(self._config, render=self._watch is not None)))
        except EnvError as error:
            if self._config.family != scenarios.OWN:
                raise
            hint = "if no second one can be open, say metadata = {'one_at_a_time': True} there"
            raise EnvError(f"{error}; evaluation plays up to {LOCKSTEP} side by side: {hint}") from error

    def casting(self, line_up: LineUp) -> dict[int, Script]:
        """Return the script or guest of every agent that does not learn, by its number: for episodes that begin together."""
        cast = scripts(self._config, self.spec, LineUp(tuple(None if tactic in self._guests else tactic for tactic in line_up.tactics)))
        for name, guest in self._guests.items():
            seats = scripts(self._config, self.spec, LineUp(tuple("random" if tactic == name else None for tactic in line_up.tactics)))
            cast |= {number: guest.script(self.spec, number) for number in seats}
        return cast

    def play(self, line_up: LineUp, mode: Mode | None, team: _Team | None) -> Result:
        """Play all episodes of a match-up, and where there are words to swap, play them again with other ones."""
        name = matchup_name(line_up)
        stream, cast = f"evaluation/{mode or 'reference'}/{name}", partial(self.casting, line_up)
        played = self._play_all(cast, stream, team)
        swapped = self._play_all(cast, stream, team, is_swapped=True) if self._channels else played
        communication = tuple(self._compared(channel, played, swapped) for channel in self._channels)
        learned = tuple(team.numbers) if team else ()
        return Result(name, mode, learned, self.spec, self._seeds, played.returns, played.actions, played.outcomes, communication)

    def play_guests(self, casting: Sequence[str]) -> Result:
        """Play all episodes with a guest in each agent's place."""
        name = " ".join(casting)

        def cast() -> dict[int, Script]:
            return {number: self._guests[guest].script(self.spec, number) for number, guest in enumerate(casting)}

        played = self._play_all(cast, f"evaluation/guests/{name}", None)
        return Result(name, None, (), self.spec, self._seeds, played.returns, played.actions, played.outcomes)

    def _play_all(self, cast: Callable[[], Mapping[int, Script]], stream: str, team: _Team | None, *, is_swapped: bool = False) -> "Played":
        """Play `LOCKSTEP` episodes at a time, or one by one where the family is heavy."""
        groups: list[Played] = []
        for group, start in enumerate(range(0, len(self._seeds), self._at_once)):
            choose = self._chooser(cast(), team, stream, group)
            if team is not None:
                seed_torch(self._first_seed, stream, group)
                team.begin()
            seeds = self._seeds[start : start + self._at_once]
            if is_swapped:
                choose = self._misled(choose, np.arange(start, start + len(seeds)))
            groups.append(play_episodes(self._envs, seeds, choose, self._watch))
        return _joined(groups)

    def _misled(self, choose: Choose, episodes: Int[np.ndarray, " E"]) -> Choose:
        """Return the same policies, whose speakers see other goals. They draw what they would have drawn."""
        return lambda obs, mask: choose(with_other_goals(self._channels, self.spec, obs, episodes), mask)

    def _compared(self, channel: Channel, played: "Played", swapped: "Played") -> Communication:
        """Return what a channel did in episodes that were played as they are, and with words swapped."""
        speaker, listener = self.spec.agents.index(channel.speaker), self.spec.agents.index(channel.listener)
        goals = channel.goals_seen(played.first_obs[:, speaker])
        return Communication(
            channel,
            counts=word_counts(channel, goals, played.actions[:, :, speaker]),
            goals=goals,
            ends=channel.nearest(played.last_obs[:, listener]),
            swapped_goals=other_goals(channel, goals, np.arange(len(goals))),
            swapped_ends=channel.nearest(swapped.last_obs[:, listener]),
            swapped_returns=swapped.returns[:, listener],
        )

    def _chooser(self, casting: Mapping[int, Script], team: _Team | None, stream: str, group: int) -> Choose:
        sizes, counts = self.spec.obs_sizes, self.spec.num_actions
        rngs = {number: generator_for(self._first_seed, f"{stream}/{self.spec.agents[number]}", group) for number in casting}

        def choose(obs: Seen, mask: Bool[np.ndarray, "E N A"]) -> Int[np.ndarray, "E N"]:
            if self._should_stop():
                raise _StoppedError
            actions = np.zeros(obs.shape[:2], np.int64)
            for number, script in casting.items():
                actions[:, number] = script.act(obs[:, number, : sizes[number]], mask[:, number, : counts[number]], rngs[number])
            if team is not None:
                actions[:, team.numbers] = team.act(obs, mask)
            return actions

        return choose


@dataclass(frozen=True)
class Played:
    """Episodes that ran side by side (see `Result`)."""

    returns: Float[np.ndarray, "E N"]
    actions: Int[np.ndarray, "E T N"]
    outcomes: Mapping[str, Float[np.ndarray, " E"]]
    first_obs: Seen
    last_obs: Seen
    """After the last step of each episode."""


def play_episodes(envs: Sequence[Env], seeds: Sequence[int], choose: Choose, watch: Watch | None = None) -> Played:
    """Play one episode of each seed side by side until the last has ended; `watch` is shown the first.

    An episode that is over keeps its place in the batch, but takes no further step.
    """
    ticks: list[Tick] = [env.reset(seed) for env, seed in zip(envs, seeds, strict=False)]
    first_obs = np.stack([tick.obs for tick in ticks])
    returns = np.zeros((len(ticks), envs[0].spec.num_agents))
    history: list[Int[np.ndarray, "E N"]] = []

    def show() -> None:
        if watch is not None:
            watch(Scene(envs[0].spec, seeds[0], len(history), envs[0].render(), returns[0].copy(), ticks[0].is_over))

    show()
    while running := [e for e, tick in enumerate(ticks) if not tick.is_over]:
        actions = choose(np.stack([tick.obs for tick in ticks]), np.stack([tick.action_mask for tick in ticks]))
        taken = np.full_like(actions, NO_ACTION)
        for e in running:
            ticks[e] = envs[e].step(actions[e])
            returns[e] += ticks[e].reward
            taken[e] = actions[e]
        history.append(taken)
        show()
    told = [key for key in ticks[0].metrics if all(key in tick.metrics for tick in ticks)]
    outcomes = {key: np.array([tick.metrics[key] for tick in ticks], np.float64) for key in told}
    return Played(returns, np.stack(history, axis=1), outcomes, first_obs, np.stack([tick.obs for tick in ticks]))


def _joined(groups: Sequence[Played]) -> Played:
    """Return groups of episodes as one, the actions of shorter ones padded."""
    longest = max(group.actions.shape[1] for group in groups)
    padded = [np.pad(g.actions, ((0, 0), (0, longest - g.actions.shape[1]), (0, 0)), constant_values=NO_ACTION) for g in groups]
    told = [key for key in groups[0].outcomes if all(key in group.outcomes for group in groups)]
    outcomes = {key: np.concatenate([group.outcomes[key] for group in groups]) for key in told}
    returns, first_obs, last_obs = (np.concatenate([getattr(g, name) for g in groups]) for name in ("returns", "first_obs", "last_obs"))
    return Played(returns, np.concatenate(padded), outcomes, first_obs, last_obs)


def _only(actors: Actors, numbers: Sequence[int]) -> Actors:
    """Return a copy that holds some of the agents."""
    chosen = copy.deepcopy(actors)
    for parameter in chosen.parameters():
        parameter.data = parameter.data[list(numbers)]
    return chosen
