"""Where agents of MPE2 see what: against the positions in MPE2's own world."""

import numpy as np
import pytest

from matwm.config import EnvConfig
from matwm.envs import make_env
from matwm.envs.mpe_views import VIEWS, view

OPTIONS = {"simple_tag_v3": {"num_good": 2, "num_adversaries": 2, "num_obstacles": 3}, "simple_spread_v3": {"N": 4}}


@pytest.mark.parametrize(("name", "role"), VIEWS)
def test_positions_are_those_of_the_world(name: str, role: str) -> None:
    config = EnvConfig.model_validate({"family": "mpe", "name": name, "options": OPTIONS.get(name, {})})
    env = make_env(config)
    obs = env.reset(5).obs
    world = env._env.unwrapped.world  # type: ignore[attr-defined]
    bodies = {body.name: body.state.p_pos for body in world.agents}
    for number in env.spec.roles()[role]:
        how = view(config, role)
        assert how
        own = bodies[env.spec.agents[number]]
        start = own if how.own else np.zeros(2)
        places = {kind: found[0] for kind, found in how.places(obs[None, number, : env.spec.obs_sizes[number]]).items()}
        assert places["own"] == pytest.approx(start[None], abs=1e-5)
        assert places["landmarks"] == pytest.approx(start + np.array([one.state.p_pos - own for one in world.landmarks]), abs=1e-5)
        if how.others:
            others = [bodies[env.spec.agents[mate]] for mate in env.spec.mates(number)]
            assert places["others"] == pytest.approx(start + np.array(others) - own, abs=1e-5)


def test_who_sees_only_neighbours_does_not_tell_who_is_who() -> None:
    near = EnvConfig.model_validate({"family": "mpe", "name": "simple_spread_v3", "options": {"num_agent_neighbors": 1}})
    assert view(near, "agent") is None
    other = EnvConfig.model_validate({"family": "mpe", "name": "simple_crypto_v3", "options": {}})
    assert view(other, "eve") is None
