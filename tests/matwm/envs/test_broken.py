"""Code of others may fail in any way: there is a sentence that says whose it is and what failed, and nothing is learned from nonsense."""

import numpy as np
import pytest

from matwm.config import EnvConfig
from matwm.envs import make_env
from matwm.envs.base import EnvError, NoPictureError
from matwm.envs.probe import tried
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
        ("LongMetric", "LongMetric has a metric called 'x{65}': names are made of .*, and have 64 characters at most, so give it another"),
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
        (
            "FourValues",
            r"FourValues returns 4 values from step\(\.\.\.\): expected \(observations, rewards, terminations, truncations, infos\)",
        ),
        ("Nothing", r"Nothing returns a NoneType from step\(\.\.\.\): expected \(observations, rewards"),
        ("NoneForInfos", r"NoneForInfos returns infos that are a NoneType from step\(\.\.\.\): expected .*, each a dict by agent"),
        ("OneReward", r"OneReward returns rewards that are a float from step\(\.\.\.\)"),
        ("UpperCase", "UpperCase gave left, who could act in this step, no entry in its rewards: they have 'LEFT', 'RIGHT'$"),
        ("OnlyLeftRewarded", "OnlyLeftRewarded gave right, who could act in this step, no entry in its rewards: they have 'left'$"),
        ("FlagForAll", "FlagForAll gave left, who could act in this step, no entry in its terminations: they have '__all__'$"),
        ("NoTruncations", "NoTruncations gave left, who could act in this step, no entry in its truncations: they have nobody$"),
        ("Rewards none", "Rewards gave a reward that is not one number to right: None$"),
        ("Rewards text", "Rewards gave a reward that is not one number to right: '1'$"),
        ("Rewards complex", r"Rewards gave a reward that is not one number to right: \(1\+0j\)$"),
        ("Rewards array", r"Rewards gave a reward that is not one number to right: array\(\[1\.\]\)$"),
        ("Rewards nan", "Rewards gave a reward that is not finite to right: nan$"),
        ("Rewards huge", r"Rewards gave a reward beyond float32 to left: 1e\+308$"),
        ("Seeing complex", r"left of .* observed an array of complex128, but its observation space says numbers of the shape \(2,\)$"),
        ("Seeing texts", r"left of .* observed a list, but its observation space says numbers of the shape \(2,\)$"),
        ("Seeing objects", r"left of .* observed an array of object, but its observation space says numbers of the shape \(2,\)$"),
        ("Seeing huge", "left of .* observed a value that is not finite as float32$"),
        ("Seeing fraction", r"left of .* observed 0\.5, which its observation space Discrete\(9\) does not have$"),
        ("Seeing digit", r"left of .* observed '1', which its observation space Discrete\(9\) does not have$"),
        ("Seeing no_number", r"left of .* observed nan, which its observation space Discrete\(9\) does not have$"),
        ("Seeing pair_of_texts", r"left of .* observed 'ab', which its observation space MultiDiscrete\(\[3 4\]\) does not have$"),
        (
            "Seeing grey",
            r"left of .* observes an array of the shape \(84, 84\), 7,056 numbers: 4,096 at most are read as a vector, and as a picture",
        ),
        (
            "Seeing four_channels",
            r"an array of the shape \(84, 84, 4\), 28,224 numbers: .* uint8 of height x width x 3 or 1, or channels first",
        ),
        ("Seeing float_picture", r"an array of the shape \(64, 64, 3\), 12,288 numbers: 4,096 at most"),
        (
            "Seeing many_numbers",
            r"left of .* observes Discrete\(4097\): its one-hots have 4,097 entries, 4,096 at most are read: use a Box$",
        ),
    ],
)
def test_what_fails_is_said_in_one_sentence(name, sentence):
    name, *kind = name.split()
    with pytest.raises(EnvError, match=sentence) as caught:
        tried(config(name, **({"kind": kind[0]} if kind else {})))
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "reward"), [("integer", 2), ("truth", 1), ("zero_dimensional", 0.5)])
def test_a_reward_is_any_one_number(kind, reward):
    env = make_env(config("Rewards", kind=kind))
    env.reset(0)
    assert env.step(np.array([0, 0])).reward.tolist() == [0, reward]


@pytest.mark.parametrize(
    ("kind", "seen"), [("truths", [1, 0]), ("whole_float", [0, 0, 1]), ("large_table", [0] * 4096), ("long_vector", [0] * 5000)]
)
def test_what_is_a_vector_is_read(kind, seen):
    env = make_env(config("Seeing", kind=kind))
    assert env.reset(0).obs.tolist() == [seen] * 2


def test_a_signal_is_no_fault_of_an_environment():
    with pytest.raises(SystemExit) as caught:
        make_env(config("IsStopped"))
    assert caught.value.code == 143


def test_infos_may_be_none():
    assert not tried(config("NoInfos"))[0].has_action_masks


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
