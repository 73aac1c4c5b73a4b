"""Measures what agents' words say of goals and what listeners make of them, over whole episodes.

The same episodes are played a second time with every speaker shown another goal than the true one, so that what reaches its listener
are the words of that goal. Nothing but words leads from a speaker to its listener: where the listener ends then is the words' doing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from matwm.envs.words import Channel
from matwm.types import EnvSpec


@dataclass(frozen=True)
class Communication:
    """One channel in one match-up."""

    channel: Channel
    counts: Int[np.ndarray, "goals words"]
    """Steps at which the speaker, in episodes with a goal, said a word."""
    goals: Int[np.ndarray, " E"]
    """The true goal of each episode."""
    ends: Int[np.ndarray, " E"]
    """The goal to which the listener was nearest at the end."""
    swapped_goals: Int[np.ndarray, " E"]
    """What the speaker was shown instead in the second playing."""
    swapped_ends: Int[np.ndarray, " E"]
    swapped_returns: Float[np.ndarray, " E"]
    """The listener's: the reward goes by the true goal all the same."""

    @property
    def shares(self) -> Float[np.ndarray, "goals words"]:
        """How often each word is said where a goal is given; NaN for goals that no episode had."""
        totals = self.counts.sum(1, keepdims=True)
        return np.where(totals > 0, self.counts / np.maximum(totals, 1), np.nan)

    @property
    def entropy(self) -> float:
        """Of the goals, in nats: the most that words can say."""
        return _entropy(self.counts.sum(1))

    @property
    def information(self) -> float:
        """Mutual information of word and goal in nats, of the counts: words drawn anew at each of n steps get (goals-1)(words-1)/2n."""
        return max(0.0, self.entropy + _entropy(self.counts.sum(0)) - _entropy(self.counts.ravel()))

    @property
    def information_share(self) -> float | None:
        """Information by the goals' entropy; None where all episodes had one goal."""
        return self.information / self.entropy if self.entropy else None

    @property
    def reached(self) -> float:
        """Share of the episodes in which the listener ended nearest to the true goal."""
        return float((self.ends == self.goals).mean())

    @property
    def swapped_reached(self) -> float:
        """The same where it was told of another goal."""
        return float((self.swapped_ends == self.goals).mean())

    @property
    def swapped_followed(self) -> float:
        """Share of the episodes in which it then ended nearest to that other goal."""
        return float((self.swapped_ends == self.swapped_goals).mean())

    @property
    def swapped_return(self) -> tuple[float, float]:
        """The listener's mean return there, and its standard error."""
        returns = self.swapped_returns
        return float(returns.mean()), float(returns.std(ddof=1)) / len(returns) ** 0.5


def with_other_goals(
    channels: Sequence[Channel], spec: EnvSpec, obs: Float[np.ndarray, "E N O"], episodes: Int[np.ndarray, " E"]
) -> Float[np.ndarray, "E N O"]:
    """Return observations in which every speaker sees another goal (see `other_goals`)."""
    shown = obs.copy()
    for channel in channels:
        speaker = spec.agents.index(channel.speaker)
        others = other_goals(channel, channel.goals_seen(obs[:, speaker]), episodes)
        shown[:, speaker] = channel.showing(obs[:, speaker], others)
    return shown


def other_goals(channel: Channel, goals: Int[np.ndarray, " E"], episodes: Int[np.ndarray, " E"]) -> Int[np.ndarray, " E"]:
    """Return which goal takes the place of each: every other one equally often, decided by the episode's number alone."""
    return (goals + 1 + episodes % (len(channel.goals) - 1)) % len(channel.goals)


def word_counts(channel: Channel, goals: Int[np.ndarray, " E"], actions: Int[np.ndarray, "E T"]) -> Int[np.ndarray, "goals words"]:
    """Return at how many steps the speaker said each word, by the goal of the episode; steps after an episode's end (-1) do not count."""
    words = channel.words(actions)
    counts = np.zeros((len(channel.goals), channel.num_words), np.int64)
    np.add.at(counts, (np.broadcast_to(goals[:, None], words.shape)[words >= 0], words[words >= 0]), 1)
    return counts


def _entropy(counts: Int[np.ndarray, " K"]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
