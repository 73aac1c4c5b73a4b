"""Code of others may fail in any way: there is a sentence that says whose it is and what failed, and nothing is learned from nonsense."""

import numpy as np
import pytest

from matwm.config import EnvConfig
from matwm.envs import make_env
from matwm.envs.base import EnvError, NoPictureError
from matwm.envs.probe import probe
from matwm.manifest import from_spec, to_spec

MODULE = "tests.matwm.envs.broken"


def config(name, **options):
    return EnvConfig(family="pettingzoo", name=f"{MODULE}:{name}", options=options)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ResetRaises", r"reset\(seed=0\) of .*ResetRaises fails: RuntimeError: the simulator is not licensed$"),
        ("ResetExits", r"reset\(seed=0\) of .*ResetExits fails: it calls sys\.exit\('no display'\)$"),
        ("ResetTakesNoSeed", r"reset\(seed=0\) of .* fails: TypeError: .*unexpected keyword argument 'seed'"),
        ("Exits", r"env\.name is .*Exits, and making it with \(\) fails: it calls sys\.exit\(3\)$"),
        ("SpaceRaises", r"observation_space of .*SpaceRaises fails: NotImplementedError$"),
        ("NoSpaces", r"action_space of .*NoSpaces fails: AttributeError: .*'action_spaces'"),
        ("NoAgents", r"reading possible_agents of .*NoAgents fails: TypeError: 'NoneType' object is not iterable$"),
        ("AgentsRaise", r"reading possible_agents of .*AgentsRaise fails: ValueError: call setup first$"),
        ("Metadata", r"env\.name is .*Metadata, and reading it fails: AttributeError: 'list' object has no attribute 'get'"),
        ("Length", "Length has a metric called 'length': which every episode has anyway, so give it another name"),
        ("Slash", "Slash has a metric called 'return/left': names are made of letters"),
        ("NoNumber", "NoNumber says that its metric score is nan: give a finite number"),
        ("Text", "Text says that its metric outcome is 'win': give a finite number"),
        ("FloatPicture", "left of .* observed float64, but its observation space says uint8$"),
        ("NoArray", r"left of .* observed a dict, but its observation space says numbers of the shape \(2,\)$"),
        ("NoDict", "left of .* observed a ndarray, but its observation space says a Dict of 'observation' and 'action_mask'$"),
        ("OtherKeys", "left of .* observed a dict of 'obs', 'action_mask', but its observation space says a Dict of"),
        ("DictWithoutMask", "left of .* got no action_mask, which its observation space says$"),
        ("EndsUnseen", "EndsUnseen gave no observation to left, who is truncated here: say what it sees last$"),
        ("Penalties", r"left of .* got the action mask \[-inf, 0\.0, 0\.0\]: expected a 0 or 1 for each of its 3 actions$"),
        ("Indices", r"left of .* got the action mask \[0, 1, 2\]: expected a 0 or 1"),
        ("NoMask", "left of .* got the action mask None: expected a 0 or 1"),
        ("LongMask", r"left of .* got an action mask of the shape \(4,\), but it has 3 actions$"),
        ("LateMask", "left of .* got an action_mask, which its infos lacked at the start$"),
        ("ManyActions", "left of .* has 32768 actions: MATWM can choose from 32,767 at most$"),
        ("Stranger", "third came into .*Stranger, but its possible_agents do not name it$"),
        ("LateStranger", "third came into .*LateStranger, but its possible_agents do not name it$"),
    ],
)
def test_what_fails_is_said_in_one_sentence(name, sentence):
    with pytest.raises(EnvError, match=sentence) as caught:
        probe(config(name))
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)


def test_a_signal_is_no_fault_of_an_environment():
    with pytest.raises(SystemExit) as caught:
        make_env(config("IsStopped"))
    assert caught.value.code == 143


def test_infos_may_be_none():
    assert not probe(config("NoInfos")).has_action_masks


@pytest.mark.parametrize("name", ["NoRender", "RenderExits"])
def test_one_that_fails_to_draw_itself_has_no_pictures(name):
    env = make_env(config(name), render=True)
    env.reset(0)
    with pytest.raises(NoPictureError, match=f"{name} cannot draw itself: its render.* fails: .*no display found"):
        env.render()


@pytest.mark.parametrize(("right", "its_mask"), [(False, [True, True, True]), (True, [False, True, True])])
def test_each_agent_has_masks_or_none(right, its_mask):
    env = make_env(config("LeftHasMasks", right=right))
    assert env.reset(0).action_mask.tolist() == [[True, False, True], its_mask]
    assert env.step(np.array([2, 1])).action_mask.tolist() == [[True, False, False], its_mask]
    assert [agent.has_action_mask for agent in env.spec.agent_specs] == [True, right]
    assert env.spec.has_action_masks
    assert "masked" not in from_spec(env.spec), "manifests stay as they were"
    assert to_spec(from_spec(env.spec)) == env.spec
