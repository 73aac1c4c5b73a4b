"""Any parallel environment is read by stated rules, and every mistake gets a sentence."""

import sys

import numpy as np
import pytest

from matwm.config import ConfigError, EnvConfig
from matwm.envs import make_env
from matwm.envs.base import EnvError, NoPictureError
from matwm.envs.probe import probe, tried
from tests.matwm.envs.mistakes import Plain
from tests.readme import own_environment

MODULE = "tests.matwm.envs.mistakes"


def config(name, **options):
    return EnvConfig(family="pettingzoo", name=f"{MODULE}:{name}", options=options)


def ticks_of(name, actions=((0, 0), (1, 1), (1, 0), (0, 1), (1, 1))):
    env = make_env(config(name))
    ticks = [env.reset(0)]
    for joint in actions:
        if not ticks[-1].is_over:
            ticks.append(env.step(np.array(joint) * ticks[-1].alive))
    return env.spec, ticks


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere.at_all:parallel_env", r"env\.name is nowhere\.at_all:parallel_env, but there is no module nowhere among"),
        ("tests.matwm.envs.nothing:make", r"there is no module tests\.matwm\.envs\.nothing among the installed packages or in "),
        (f"{MODULE}:Plaine", r"but tests\.matwm\.envs\.mistakes has no Plaine, did you mean Plain"),
        (f"{MODULE}:NO_ENVIRONMENT", r"which is no function or class that makes an environment but 7"),
        (f"{MODULE}:turn_based", r"is turn-based \(AEC\): give its parallel_env, or wrap it"),
        (f"{MODULE}:something_else", r"is no parallel environment of PettingZoo but a dict, which has no possible_agents"),
        (f"{MODULE}:Nobody", "has no agents: its possible_agents is empty"),
        (f"{MODULE}:BadName", "has an agent called 'left/right': names are made of letters"),
        (f"{MODULE}:LongName", "has an agent called 'x{65}': names are made of .*, and have 64 characters at most"),
        (f"{MODULE}:Continuous", r"left of .* has continuous actions \(Box.*\): MATWM needs one Discrete choice"),
        (f"{MODULE}:SeveralActions", r"left of .* has actions of several parts \(MultiDiscrete"),
        (f"{MODULE}:OtherDict", r"left of .* observes a Dict of 'position', 'speed': MATWM reads .* so join its entries to one Box"),
        (f"{MODULE}:Texts", r"left of .* observes Text.*: MATWM reads Box, Discrete"),
        (f"{MODULE}:Mixed", "shows images to some agents and vectors to others"),
        (f"{MODULE}:OldReset", r"does not return \(observations, infos\) from reset\(seed=\.\.\.\)"),
        (f"{MODULE}:OtherShape", r"left of .* observed something of the shape \(3,\), but its observation space says \(2,\)"),
        (f"{MODULE}:NotFinite", "left of .* observed a value that is not finite"),
        (f"{MODULE}:NotFiniteReward", "gave a reward that is not finite to left: inf$"),
        (f"{MODULE}:LeavesSilently", "right left .* without being terminated or truncated"),
        (f"{MODULE}:ComesLate", "right came into .* within an episode: agents are there from the start"),
        (
            f"{MODULE}:ComesBack",
            "left came back into .*ComesBack after it was terminated or truncated: who has ended is gone until the next",
        ),
        (f"{MODULE}:NothingLegal", "left of .* got an action mask that allows nothing"),
        (f"{MODULE}:LosesMask", "left of .* got no action_mask, which its infos had at the start"),
        (f"{MODULE}:Unseeded", r"goes another way when it is played again from the same seed \(other observations at step 0\): draw"),
        (f"{MODULE}:Breaks", r"Breaks: step\(\) of .*Breaks fails: KeyError: 'missing'$"),
    ],
)
def test_every_mistake_gets_one_clear_sentence(name, sentence):
    with pytest.raises(EnvError, match=sentence) as caught:
        tried(EnvConfig(family="pettingzoo", name=name, options={}))
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ConfigError), "whoever catches wrong parameters catches this too"


@pytest.mark.parametrize("how", [{"again": 60, "length": 100}, {"leaves": False}])
def test_who_comes_back_late_or_never_left_the_agents_is_refused_too(how):
    """The first in the midst of training, where nobody has tried it."""
    env = make_env(config("ComesBack", **how))
    tick = env.reset(0)
    with pytest.raises(EnvError, match="left came back into .*ComesBack"):
        while not tick.is_over:
            tick = env.step(np.zeros(2, np.int64))


def test_a_name_of_64_characters_is_taken():
    assert make_env(config("LongName", letters=64)).spec.agents == ("x" * 64, "right")


def test_arguments_that_it_does_not_take_are_said_with_what_was_given():
    with pytest.raises(EnvError, match=r"making it with \(size=3\) fails: TypeError: .*unexpected keyword argument 'size'"):
        make_env(config("Plain", size=3))
    assert tried(config("Plain", length=2))[0].agents == ("left", "right")


def test_a_module_that_fails_to_be_imported_says_why(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lying_beside.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "crashing.py").write_text("1 / 0\n")
    with pytest.raises(EnvError, match="importing lying_beside fails: ModuleNotFoundError: No module named 'not_installed_anywhere'"):
        make_env(EnvConfig(family="pettingzoo", name="lying_beside:make", options={}))
    with pytest.raises(EnvError, match="importing crashing fails: ZeroDivisionError: division by zero"):
        make_env(EnvConfig(family="pettingzoo", name="crashing:make", options={}))


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("no_colon", {}, "env.name is 'no_colon': expected an import path like package.module:parallel_env"),
        ("a/b.py:make", {}, "expected an import path"),
        ("m:make", {"render_mode": "human"}, "env.options.render_mode is not yours to set"),
        ("m:make", {"continuous_actions": True}, "env.options.continuous_actions is True, but MATWM has discrete actions only"),
        ("m:make", {"size": {1, 2}}, "env.options.size is {1, 2}: expected a number, text"),
        ("m:make", {"two words": 1}, "env.options has the key 'two words'"),
    ],
)
def test_what_the_configuration_can_see_it_refuses_without_importing_anything(name, options, sentence):
    with pytest.raises(ValueError) as caught:
        EnvConfig(family="pettingzoo", name=name, options=options)
    assert sentence in str(caught.value)


def test_numbers_and_pairs_become_one_hots_and_actions_may_begin_anywhere():
    spec, ticks = ticks_of("OneHots")
    assert (spec.obs_sizes, spec.num_actions) == ((5, 5), (2, 2))
    assert ticks[1].obs.tolist() == [[0, 1, 0, 0, 1], [0, 1, 0, 1, 0]]
    assert ticks[2].reward.tolist() == [5, 5]
    spec, ticks = ticks_of("Numbers")
    assert ticks[3].obs.tolist() == [[0, 0, 0, 1], [0, 0, 0, 1]]


def test_arrays_are_read_row_by_row():
    assert ticks_of("Bits")[1][1].obs.tolist() == [[1, 0, 0, 1]] * 2
    spec, ticks = ticks_of("Table")
    assert (spec.obs_sizes, spec.image_shape) == ((48, 48), None)
    assert ticks[2].obs.dtype == np.float32
    assert (ticks[2].obs == 2).all()


def test_grey_pictures_with_channels_first_become_colour_at_64():
    spec, ticks = ticks_of("GreyPictures")
    assert (spec.image_shape, spec.obs_dtype, spec.agent_specs[0].kind) == ((3, 64, 64), np.uint8, "image")
    picture = ticks[4].obs[1]
    assert (picture[:, :, :28] == 0).all()
    assert (picture[:, :, 36:] == 200).all()
    assert (picture[0] == picture[1]).all()


def test_who_ends_first_is_gone_though_the_environment_keeps_it():
    _, ticks = ticks_of("Lingers")
    assert [tick.alive.tolist() for tick in ticks] == [[True, True]] * 2 + [[False, True]] * 4
    assert ticks[2].obs[0].tolist() == [2, 1], "its last observation"
    assert not ticks[3].obs[0].any()
    assert ticks[3].action_mask.tolist() == [[True, False, False], [True] * 3]
    assert (ticks[-1].truncated, ticks[-1].terminated.tolist()) == (True, [True, False])


def test_who_is_cut_while_others_go_on_is_gone_and_has_not_terminated():
    _, ticks = ticks_of("CutOne")
    assert [tick.alive.tolist() for tick in ticks] == [[True, True]] * 2 + [[False, True]] * 4
    assert [tick.truncated for tick in ticks] == [False] * 5 + [True]
    assert not any(tick.terminated.any() for tick in ticks)


def test_an_environment_that_says_it_is_not_reproducible_is_resumed_between_episodes_only():
    assert probe(config("UnseededAndSaysSo")).resume == "episode"
    assert probe(config("HashesAndSaysSo")).resume == "episode"
    assert probe(config("Plain")).resume == "replay"


def test_each_episode_has_an_environment_of_its_own(monkeypatch):
    made = []
    monkeypatch.setattr(Plain, "__init__", lambda self, original=Plain.__init__: (made.append(1), original(self))[1])
    env = make_env(config("Plain"))
    before = len(made)
    env.reset(0)
    env.reset(1)
    assert len(made) == before + 2


def test_the_example_of_the_readme_is_an_environment(tmp_path, monkeypatch):
    code, section = own_environment()
    (tmp_path / "meeting.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    meeting = EnvConfig.model_validate(section)
    spec = probe(meeting)
    assert (spec.obs_sizes, spec.num_actions, spec.resume) == ((7, 7), (3, 3), "replay")
    env = make_env(meeting)
    tick = env.reset(0)
    assert tick.obs.sum() == 2
    for _ in range(20):
        tick = env.step(np.zeros(2, np.int64))
    assert tick.truncated
    assert tick.metrics == {"met": 0.0}
    sys.modules.pop("meeting")


def test_an_environment_without_pictures_says_so():
    env = make_env(config("Plain"), render=True)
    env.reset(0)
    with pytest.raises(NoPictureError, match="Plain cannot draw itself: its render"):
        env.render()
    drawn = make_env(EnvConfig(family="pettingzoo", name="tests.matwm.arena:Arena", options={}), render=True)
    drawn.reset(0)
    assert drawn.render().shape == (64, 64, 3)


def test_masks_come_from_observations_and_from_infos_alike():
    envs = [make_env(EnvConfig(family="pettingzoo", name="tests.matwm.arena:Arena", options={"masks": m})) for m in ("observation", "info")]
    for seed in range(3):
        one, other = (env.reset(seed) for env in envs)
        assert np.array_equal(one.action_mask, other.action_mask)
        assert np.array_equal(one.obs, other.obs)
        assert not one.action_mask[2, 5]
    assert all(env.spec.has_action_masks for env in envs)
    bare = make_env(EnvConfig(family="pettingzoo", name="tests.matwm.arena:Arena", options={"masks": "none"}))
    assert not bare.spec.has_action_masks
    assert bare.reset(0).action_mask.sum(1).tolist() == [6, 6, 5]
