"""An imitation of SMAC's `StarCraft2Env`: its interface and conventions, with a battle on a grid in the place of the game.

As in SMAC: the seed is given to the constructor, and `reset` takes none and goes on with the game's randomness; no-op is legal for the dead
alone, stop for all who live, a move where there is room, an attack in range; what the dead observe is zeros; an illegal action is an
assertion; a battle is over when one side is dead, else at the limit, which the info tells only if `continuing_episode`; the reward is
damage, 10 a kill and 200 the win, scaled so that all is 20; if the game breaks down, `step` returns (0, True, {}) and a new one begins.
"""

import numpy as np

# map: units of ours, of the enemy's, limit, whether each side has shields (Protoss), bits of the unit type, in smac_maps.py's words
MAPS = {
    "3m": (3, 3, 60, 0, 0, 0),
    "8m": (8, 8, 120, 0, 0, 0),
    "5m_vs_6m": (5, 6, 70, 0, 0, 0),
    "MMM": (10, 10, 150, 0, 0, 3),
    "2s3z": (5, 5, 120, 1, 1, 2),
    "3s_vs_3z": (3, 3, 150, 1, 1, 0),
    "3s_vs_4z": (3, 4, 200, 1, 1, 0),
    "3s_vs_5z": (3, 5, 250, 1, 1, 0),
    "2m_vs_1z": (2, 1, 150, 0, 1, 0),
    "2s_vs_1sc": (2, 1, 300, 1, 0, 0),
    "so_many_baneling": (7, 32, 100, 1, 0, 0),
    "2c_vs_64zg": (2, 64, 400, 1, 0, 0),
}
SIDE, RANGE, SIGHT, HEALTH, FIRST_ATTACK = 16, 6, 9, 5, 6
MOVES = {2: (0, 1), 3: (0, -1), 4: (1, 0), 5: (-1, 0)}


class StarCraft2Env:
    """The arguments are SMAC's, as far as MATWM gives them."""

    def __init__(
        self,
        map_name="8m",
        step_mul=None,
        difficulty="7",
        seed=None,
        continuing_episode=False,
        obs_last_action=False,
        obs_pathing_grid=False,
        obs_terrain_height=False,
        reward_sparse=False,
        reward_only_positive=True,
    ):
        self.n_agents, self.n_enemies, self.episode_limit, self._shield_ally, self._shield_enemy, self._type_bits = MAPS[map_name]
        assert difficulty in "123456789A" and step_mul, (difficulty, step_mul)
        self.n_actions = FIRST_ATTACK + self.n_enemies
        self._flags = obs_last_action, obs_pathing_grid, obs_terrain_height, reward_sparse, reward_only_positive
        self._seed, self._continuing = seed, continuing_episode
        self._rng = None
        self.is_running, self.breaks_down = False, False

    def get_env_info(self):
        return {
            "state_shape": 2 * (self.n_agents + self.n_enemies),
            "obs_shape": self.get_obs_size(),
            "n_actions": self.n_actions,
            "n_agents": self.n_agents,
            "episode_limit": self.episode_limit,
        }

    def get_obs_size(self):
        last_action, pathing, height, *_ = self._flags
        enemy = 4 + self._type_bits + 1 + self._shield_enemy
        ally = 4 + self._type_bits + 1 + self._shield_ally + last_action * self.n_actions
        own = self._type_bits + 1 + self._shield_ally
        return 4 + 8 * pathing + 9 * height + self.n_enemies * enemy + (self.n_agents - 1) * ally + own

    def reset(self):
        if not self.is_running:
            self._rng, self.is_running = np.random.default_rng(self._seed), True
        self._steps, self._is_over = 0, False
        sizes = self.n_agents + self.n_enemies
        self.at = self._rng.integers(0, SIDE, (sizes, 2))
        self.at[:, 0] = self.at[:, 0] // 2 + np.repeat([0, SIDE // 2], [self.n_agents, self.n_enemies])
        self.health = np.full(sizes, HEALTH)
        return self.get_obs(), self.get_state()

    def step(self, actions):
        assert not self._is_over, "SMAC's users reset after an end"
        for agent, action in enumerate(actions):
            assert self.get_avail_agent_actions(agent)[action] == 1, f"Agent {agent} cannot perform action {action}"
        if self.breaks_down:
            self.is_running, self.breaks_down, self._is_over = False, False, True
            return 0, True, {}
        before, n = self.health.copy(), self.n_agents
        for agent, action in enumerate(actions):
            if action in MOVES:
                self.at[agent] += MOVES[action]
            elif action >= FIRST_ATTACK and self._rng.random() < 0.5:
                self.health[n + action - FIRST_ATTACK] -= 1
        self._enemy_fights()
        self.health = np.maximum(self.health, 0)
        self._steps += 1
        ours, theirs = (self.health[:n] > 0).any(), (self.health[n:] > 0).any()
        info = {"battle_won": False}
        reward = float((before - self.health)[n:].sum() + 10 * ((before > 0) & (self.health == 0))[n:].sum())
        if not (ours and theirs):
            self._is_over, info["battle_won"] = True, bool(ours)
            reward += 200.0 * bool(ours)
        elif self._steps >= self.episode_limit:
            self._is_over = True
            if self._continuing:
                info["episode_limit"] = True
        return reward / ((self.n_enemies * (10 + HEALTH) + 200) / 20), self._is_over, info

    def _enemy_fights(self):
        n, alive = self.n_agents, np.flatnonzero(self.health[: self.n_agents] > 0)
        for enemy in np.flatnonzero(self.health[n:] > 0) + n:
            distances = np.abs(self.at[alive] - self.at[enemy]).sum(1)
            if len(alive) and distances.min() > RANGE:
                self.at[enemy] += np.sign(self.at[alive[distances.argmin()]] - self.at[enemy])
            elif len(alive) and self._rng.random() < 0.4:
                self.health[alive[distances.argmin()]] -= 1

    def get_avail_agent_actions(self, agent):
        if self.health[agent] <= 0:
            return [1] + [0] * (self.n_actions - 1)
        moves = [int(((self.at[agent] + move >= 0) & (self.at[agent] + move < SIDE)).all()) for move in MOVES.values()]
        targets = range(self.n_agents, self.n_agents + self.n_enemies)
        return [0, 1, *moves, *(int(self.health[unit] > 0 and self._distance(agent, unit) <= RANGE) for unit in targets)]

    def get_avail_actions(self):
        return [self.get_avail_agent_actions(agent) for agent in range(self.n_agents)]

    def get_obs(self):
        return [self._observation(agent) for agent in range(self.n_agents)]

    def get_state(self):
        return np.append(self.at, self.health).astype(np.float32)

    def close(self):
        self.is_running = False

    def _distance(self, one, other):
        return np.abs(self.at[one] - self.at[other]).sum()

    def _observation(self, agent):
        """Its moves; of each other unit in sight: seen, distance, direction, health; zeros for what a grid lacks; last, own health."""
        seen = np.zeros(self.get_obs_size(), np.float32)
        if self.health[agent] <= 0:
            return seen
        seen[:4] = self.get_avail_agent_actions(agent)[2:6]
        for slot, unit in enumerate(unit for unit in range(len(self.health)) if unit != agent):
            if self.health[unit] > 0 and self._distance(agent, unit) < SIGHT:
                facts = [1, self._distance(agent, unit) / SIGHT, *(self.at[unit] - self.at[agent]) / SIGHT, self.health[unit] / HEALTH]
                seen[4 + 5 * slot : 9 + 5 * slot] = facts
        seen[-1] = self.health[agent] / HEALTH
        return seen
