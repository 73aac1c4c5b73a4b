import dataclasses
import math

import pytest
import torch

from matwm.batches import Windows
from matwm.config import LossWeights
from matwm.nets.distributions import symlog
from matwm.rng import seed_torch
from matwm.types import NO_ACTION, EnvSpec
from matwm.world_model import model as model_module
from matwm.world_model.encoder import VectorAutoencoder
from tests.matwm.tiny import dense, make_learner, make_windows, toy_config

UNEVEN = EnvSpec("uneven", ("two_0", "three_0", "four_0"), (5, 3, 4), (2, 3, 4))
MASKED = EnvSpec("masked", ("short_0", "long_0"), (2, 4), (2, 3), has_action_masks=True)
ALONE = EnvSpec("alone", ("a_0",), (3,), (5,))
ORDINAL = {"world_model.latent_code": "ordinal"}
ARRIVAL = {"world_model.reward_input": "arrival"}
CODES = pytest.mark.parametrize("code", [{}, ORDINAL], ids=["one_hot", "ordinal"])


def make_model(spec=UNEVEN, changes=None):
    return make_learner(spec, toy_config(spec, {"world_model.dropout": 0.0, **(changes or {})})).world_model


def likeliest(monkeypatch):
    """Take the likeliest latent instead of a random one: what is left is a function of its inputs."""
    monkeypatch.setattr(model_module, "sample_index", lambda probs: probs.argmax(-1))


def loss_and_gradients(model, windows):
    seed_torch(0, "test", 1)
    model.zero_grad()
    loss, metrics = model.loss(windows)
    loss.backward()
    return metrics, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def changed(windows, **values) -> Windows:
    return dataclasses.replace(windows, **values)


# ---- the loss


@pytest.mark.parametrize("spec", [UNEVEN, MASKED, ALONE], ids=lambda spec: spec.name)
def test_the_total_is_the_weighted_sum_of_the_terms_of_eq_3(spec):
    model = make_model(spec)
    metrics, _ = loss_and_gradients(model, make_windows(spec))
    weights = LossWeights.model_fields.keys()
    terms = set(weights) & set(metrics)
    absent = [name for name, there in (("teammates", spec.num_agents > 1), ("action_mask", spec.has_action_masks)) if not there]
    assert terms == set(weights) - set(absent)
    published = dict.fromkeys(weights, 1.0) | {"action_mask": 0.5, "dynamics": 0.5, "representation": 0.1}
    assert metrics["total"].item() == pytest.approx(sum(published[name] * metrics[name].item() for name in terms), rel=1e-5)


def test_every_loss_weight_scales_its_own_term():
    windows = make_windows(MASKED)
    for name in LossWeights.model_fields:
        model = make_model(MASKED)
        metrics, _ = loss_and_gradients(model, windows)
        model.loss_weights[name] += 2.0
        more, _ = loss_and_gradients(model, windows)
        assert (more["total"] - metrics["total"]).item() == pytest.approx(2 * metrics[name].item(), rel=1e-3), name


@pytest.mark.parametrize("code", [{}, ORDINAL, {**ORDINAL, **ARRIVAL}], ids=["one_hot", "ordinal", "arrival"])
def test_every_parameter_is_trained_by_the_loss(code):
    model = make_model(MASKED, {"world_model.free_nats": 0.0, **code})
    _, gradients = loss_and_gradients(model, make_windows(MASKED))
    # An output layer of zeros passes nothing back: what lies below one moves from the second step on.
    below = ["heads.reward.", "heads.arrival.", "autoencoder.encoder.bends.", "autoencoder.decoder.bends."]
    below += ["heads.dynamics."] if "world_model.latent_code" in code else []
    late = {name for name, _ in model.named_parameters() if name.startswith(tuple(below)) and name.split(".")[-2] != "3"}
    silent = {name for name, gradient in gradients.items() if not gradient.abs().sum() > 0}
    assert set(gradients) == {name for name, _ in model.named_parameters()}
    assert silent == late


@pytest.mark.parametrize("changes", [{}, ARRIVAL])
def test_the_reward_head_starts_at_zero(changes):
    model = make_model(changes=changes)
    metrics, _ = loss_and_gradients(model, make_windows(UNEVEN))
    assert metrics["reward_mean_predicted"].item() == 0.0
    assert metrics["reward"].item() == pytest.approx(math.log(21))


def test_the_reward_head_reads_the_latent_that_follows_and_where_none_is_known_one_of_the_prior(monkeypatch):
    """Row 2 is the last of an episode, on row 5 the agent dies, and behind row 7 the window ends."""
    likeliest(monkeypatch)
    windows = make_windows(UNEVEN, length=8)
    windows.action[:, 2], windows.is_first[:, 3], windows.is_valid[:, 6] = NO_ACTION, True, False
    model, read = make_model(changes=ARRIVAL), []
    for head in (model.heads.reward, model.heads.arrival):
        head.register_forward_hook(lambda head, given, logits: read.append(given[0]))
    model.loss(windows)
    h, arrival = read
    index = model.autoencoder.posterior(windows.obs, windows.agent).argmax(-1)
    z = model.autoencoder.code.read_index(index)
    drawn = model.autoencoder.code.read_index(model.prior(h, index).argmax(-1))
    assert not torch.equal(z[:, 1:], drawn[:, :-1])
    for row in range(8):
        assert torch.allclose(arrival[:, row], drawn[:, row] if row in (2, 5, 6, 7) else z[:, row + 1]), row


def test_what_an_action_earned_teaches_the_encoder_of_what_came_of_it():
    model, windows = make_model(changes=ARRIVAL), make_windows(UNEVEN, length=2)
    model.loss_weights.update(dict.fromkeys(model.loss_weights, 0.0), reward=1.0)
    torch.nn.init.normal_(model.heads.arrival[-1].weight)
    obs = windows.obs.requires_grad_()
    windows = changed(windows, obs=obs, action=torch.cat([windows.action[:, :1], torch.full_like(windows.action[:, 1:], NO_ACTION)], 1))
    model.loss(windows)[0].backward()
    assert obs.grad is not None and obs.grad[:, 1].abs().sum() > 0


@pytest.mark.parametrize("spec", [UNEVEN, MASKED], ids=lambda spec: spec.name)
def test_padded_entries_of_observations_change_no_loss_and_no_gradient(spec):
    """Whatever stands in an entry that the agent does not have must not be read as a target; the replay fills zeros in."""
    model, windows = make_model(spec), make_windows(spec)
    before, gradients = loss_and_gradients(model, windows)
    exists = torch.from_numpy(spec.obs_exists)[windows.agent][:, None]
    assert windows.obs[~exists.expand_as(windows.obs)].eq(0).all()
    real = model.autoencoder.decode
    model.autoencoder.decode = lambda z: real(z) + 7.0 * ~exists  # a decoder that is wrong there
    after, others = loss_and_gradients(model, windows)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(gradients[name], others[name]) for name in gradients)


def test_padded_actions_change_no_loss():
    model, windows = make_model(MASKED), make_windows(MASKED)
    before, gradients = loss_and_gradients(model, windows)
    exists = torch.from_numpy(MASKED.action_exists)[windows.agent][:, None]
    after, others = loss_and_gradients(model, changed(windows, action_mask=windows.action_mask | ~exists))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(gradients[name], others[name]) for name in gradients)


def test_a_row_without_an_action_has_no_target_of_what_follows_from_one():
    """The last row of an episode: its reward, continuation and mates count nothing, its observation does."""
    windows = make_windows(UNEVEN, length=6)
    action, is_first = windows.action.clone(), windows.is_first.clone()
    action[:, 2], is_first[:, 3] = NO_ACTION, True
    mates = windows.mate_actions.clone()
    mates[:, 2] = NO_ACTION
    windows = changed(windows, action=action, is_first=is_first, mate_actions=mates)
    reward, continues = windows.reward.clone(), windows.continues.clone()
    reward[:, 2], continues[:, 2] = 500.0, 0.0
    model = make_model(changes={"world_model.free_nats": 0.0})
    before, gradients = loss_and_gradients(model, windows)
    after, others = loss_and_gradients(model, changed(windows, reward=reward, continues=continues))
    terms = LossWeights.model_fields.keys() & before.keys()
    assert all(torch.equal(before[name], after[name]) for name in terms)
    assert all(torch.equal(gradients[name], others[name]) for name in gradients)
    obs = windows.obs.clone()
    obs[:, 2] += 1.0 * torch.from_numpy(UNEVEN.obs_exists)[windows.agent]
    moved, _ = loss_and_gradients(model, changed(windows, obs=obs))
    assert moved["reconstruction"] != before["reconstruction"]
    assert moved["dynamics"] != before["dynamics"]


def test_no_pair_of_latents_spans_two_episodes(monkeypatch):
    """Episode 2 of a window may be anything: the KL terms of episode 1 and their number stay as they are."""
    likeliest(monkeypatch)
    windows = make_windows(UNEVEN, length=6)
    action, is_first = windows.action.clone(), windows.is_first.clone()
    action[:, 2], is_first[:, 3] = NO_ACTION, True
    windows = changed(windows, action=action, is_first=is_first)
    model = make_model(changes={"world_model.free_nats": 0.0})
    whole, _ = loss_and_gradients(model, windows)
    halves = []
    for rows in (slice(0, 3), slice(3, 6)):
        part = Windows(**{name: value if name == "agent" else value[:, rows] for name, value in vars(windows).items()})
        halves.append(loss_and_gradients(model, part)[0]["kl"])
    assert whole["kl"].item() == pytest.approx((2 * halves[0] + 2 * halves[1]).item() / 4, rel=1e-4)


def test_one_episode_of_a_window_cannot_change_the_other(monkeypatch):
    likeliest(monkeypatch)
    model = make_model().eval()
    seen = []
    real = model.heads.continuation.forward
    model.heads.continuation.forward = lambda h: seen.append(h) or real(h)
    windows = make_windows(UNEVEN, length=6)
    is_first = windows.is_first.clone()
    is_first[:, 3] = True
    windows = changed(windows, is_first=is_first)
    obs = windows.obs.clone()
    obs[:, :3] = -obs[:, :3] * 2
    model.loss(windows)
    model.loss(changed(windows, obs=obs, action=torch.cat([windows.action[:, :3].flip(1), windows.action[:, 3:]], 1)))
    assert torch.equal(seen[0][:, 3:], seen[1][:, 3:])
    assert not torch.allclose(seen[0][:, :3], seen[1][:, :3])


def test_left_padding_changes_no_term(monkeypatch):
    likeliest(monkeypatch)
    model, windows = make_model(MASKED), make_windows(MASKED, length=6)
    plain, gradients = loss_and_gradients(model, windows)

    def widen(name, value):
        if name == "agent":
            return value
        padding = value[:, :2].clone()
        padding = padding.zero_() if name in ("is_valid", "is_first") else padding.fill_(1)
        return torch.cat([padding, value], 1)

    padded = Windows(**{name: widen(name, value) for name, value in vars(windows).items()})
    after, others = loss_and_gradients(model, padded)
    for name in LossWeights.model_fields:
        assert after[name].item() == pytest.approx(plain[name].item(), rel=1e-4), name
    assert all(torch.allclose(gradients[name], others[name], atol=1e-4) for name in gradients)


def deaths(spec) -> Windows:
    """Windows of two episodes; the focal agent of each dies by the action of row 2 of the first, a mate by that of row 5."""
    windows = make_windows(spec, length=8)
    is_first, is_valid, continues, mates = windows.is_first, windows.is_valid, windows.continues, windows.mate_actions
    is_first[:, 4], is_valid[:, 3], continues[:, 2], mates[:, 6:, 0] = True, False, 0.0, NO_ACTION
    return windows


def junk_for(windows) -> Windows:
    """Put anything into the rows that do not count."""

    def filled(name, value):
        if name in ("agent", "is_first", "is_valid"):
            return value
        out = value.clone()
        out[~windows.is_valid] = True if value.dtype == torch.bool else 1
        return out

    return Windows(**{name: filled(name, value) for name, value in vars(windows).items()})


@pytest.mark.parametrize("code", [{}, {**ORDINAL, **ARRIVAL}], ids=["one_hot", "arrival"])
def test_rows_of_the_dead_change_no_loss_no_metric_and_no_gradient(code):
    model, windows = make_model(MASKED, {"world_model.free_nats": 0.0, "world_model.dropout": 0.1, **code}), deaths(MASKED)
    before, gradients = loss_and_gradients(model.train(), windows)
    after, others = loss_and_gradients(model, junk_for(windows))
    not_told_per_row = {"teammate_accuracy", "teammate_majority"}  # of mates' actions, which the dead do not see at all
    assert all(torch.equal(before[name], after[name]) for name in before.keys() - not_told_per_row)
    assert all(torch.equal(gradients[name], others[name]) for name in gradients)


def test_windows_of_the_dead_alone_teach_nothing_and_are_no_divergence():
    model, windows = make_model(MASKED), make_windows(MASKED)
    windows = changed(windows, is_valid=torch.zeros_like(windows.is_valid), mate_actions=torch.full_like(windows.mate_actions, NO_ACTION))
    metrics, gradients = loss_and_gradients(model, windows)
    assert all(value.isfinite() for value in metrics.values())
    assert metrics["total"] == 0
    assert all(gradient.eq(0).all() for gradient in gradients.values())


def test_a_row_on_which_the_agent_dies_has_an_ending_and_no_successor():
    windows = deaths(MASKED)
    model = make_model(MASKED, {"world_model.free_nats": 0.0})
    before, _ = loss_and_gradients(model, windows)
    ends, _ = loss_and_gradients(model, changed(windows, continues=torch.ones_like(windows.continues)))
    assert ends["continuation"] != before["continuation"]
    alive = changed(windows, is_valid=torch.ones_like(windows.is_valid))
    rows = windows.is_valid.sum().item()
    terms = {name: loss_and_gradients(model, w)[0][name] for name, w in (("kl", windows), ("reconstruction", windows))}
    assert rows == 7 * len(windows.agent)
    assert all(terms[name] != loss_and_gradients(model, alive)[0][name] for name in terms)


def test_a_dead_mates_slot_is_in_no_teammate_loss():
    model, windows = make_model(UNEVEN), deaths(UNEVEN)
    model.loss_weights.update(dict.fromkeys(model.loss_weights, 0.0), teammates=1.0)
    real = model.teammates._log_probs

    def other(h, exists):
        log_probs = real(h, exists)
        there = torch.ones_like(log_probs[..., 0]).bool()
        there[:, 6:, 0] = False
        return torch.where(there[..., None], log_probs, log_probs.flip(-1))

    before, gradients = loss_and_gradients(model, windows)
    model.teammates._log_probs = other
    after, others = loss_and_gradients(model, windows)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(gradients[name], others[name]) for name in gradients)
    mates = windows.mate_actions.clone()
    mates[:, 6:, 0] = 0
    assert loss_and_gradients(model, changed(windows, mate_actions=mates))[0]["teammates"] != before["teammates"]


def test_where_nobody_says_what_is_legal_masks_are_not_learned_but_all_else_is():
    windows = make_windows(MASKED)
    told = changed(windows, action_mask=windows.action_mask.clone())
    untold = changed(windows, action_mask=windows.action_mask.clone())
    told.action_mask[:, -1], untold.action_mask[:, -1] = torch.tensor([True, False, False]), False
    model = make_model(MASKED)
    (before, _), (after, gradients) = (loss_and_gradients(model, each) for each in (told, untold))
    assert {name for name in before if not torch.equal(before[name], after[name])} >= {"action_mask", "total"}
    assert all(torch.equal(before[name], after[name]) for name in ("reconstruction", "dynamics", "representation", "continuation"))
    model.heads.action_mask.register_forward_hook(lambda head, given, logits: torch.cat([logits[:, :-1], -9 * logits[:, -1:]], 1))
    other, others = loss_and_gradients(model, untold)
    assert torch.equal(other["action_mask"], after["action_mask"])
    assert all(torch.equal(gradients[name], others[name]) for name in gradients)


def test_the_teammate_loss_trains_the_predictor_alone():
    model = make_model()
    model.loss_weights.update(dict.fromkeys(model.loss_weights, 0.0), teammates=1.0)
    _, gradients = loss_and_gradients(model, make_windows(UNEVEN))
    moved = {name.split(".")[0] for name, gradient in gradients.items() if gradient.abs().sum() > 0}
    assert moved == {"teammates"}


def test_the_dynamics_loss_does_not_reach_the_target_encoding():
    """The encoder may only be moved through the inputs of the trunk; the last row is a target alone."""
    model = make_model(changes={"world_model.free_nats": 0.0})
    windows = make_windows(UNEVEN, length=2)
    for name, reaches in (("dynamics", False), ("representation", True)):
        model.loss_weights.update(dict.fromkeys(model.loss_weights, 0.0), **{name: 1.0})
        captured = []

        def posterior(obs, agent, captured=captured):
            captured.append(VectorAutoencoder.posterior(model.autoencoder, obs, agent))
            return captured[-1]

        model.autoencoder.posterior = posterior
        loss, _ = model.loss(windows)
        (gradient,) = torch.autograd.grad(loss, captured[0])
        assert bool(gradient[:, 1].abs().sum() > 0) == reaches


def test_rewards_and_continuation_move_the_encoder():
    model = make_model()
    model.loss_weights.update(dict.fromkeys(model.loss_weights, 0.0), continuation=1.0)
    _, gradients = loss_and_gradients(model, make_windows(UNEVEN))
    assert all(gradients[name].abs().sum() > 0 for name in gradients if name.startswith("autoencoder.encoder"))


def test_targets_are_in_symlog_space():
    model, windows = make_model(), make_windows(UNEVEN)
    exists = torch.from_numpy(UNEVEN.obs_exists)[windows.agent][:, None]
    model.autoencoder.decode = lambda z: symlog(windows.obs)
    assert loss_and_gradients(model, windows)[0]["reconstruction"].item() == 0.0
    model.autoencoder.decode = lambda z: torch.zeros_like(windows.obs)
    expected = (windows.obs.abs().log1p().square() * exists).sum(-1).mean().item()
    assert loss_and_gradients(model, windows)[0]["reconstruction"].item() == pytest.approx(expected, rel=1e-5)


def test_the_reconstruction_error_is_told_for_an_entry():
    model, windows = make_model(), make_windows(UNEVEN)
    windows = changed(windows, is_valid=windows.is_valid & (torch.arange(windows.obs.shape[1]) > 0))
    model.autoencoder.decode = lambda z: symlog(windows.obs) + torch.tensor([0.2, -0.2, 0.2, 0.2, -0.2])
    assert loss_and_gradients(model, windows)[0]["reconstruction_rmse"].item() == pytest.approx(0.2, rel=1e-5)


# ---- action words


def test_equal_actions_of_different_agents_are_different_words():
    model, agent = make_model(), torch.arange(3)
    assert model._words(torch.zeros(3, 1, dtype=torch.long), agent).flatten().tolist() == [0, 2, 5]
    assert model._words(torch.tensor([[1], [2], [3]]), agent).flatten().tolist() == [1, 4, 8]
    assert model.mixer.weight.shape[0] == 16 + 9
    z = torch.zeros(3, 1, 16)
    words = model._words(torch.zeros(3, 1, dtype=torch.long), agent)
    mixed = model.mixer.dense(z, words)[:, 0]
    assert len({tuple(row) for row in mixed.tolist()}) == 3


def test_a_row_without_an_action_is_nobodys_word():
    """The word of agent 1's action -1 would be agent 0's last action."""
    model = make_model()
    words = model._words(torch.full((3, 1), NO_ACTION), torch.arange(3))
    assert (words < 0).all()
    z = torch.randn(3, 1, 16)
    assert torch.equal(model.mixer.dense(z, words), model.mixer.dense(z))


def test_shared_words_are_the_ablation():
    model = make_model(changes={"world_model.action_words": "shared"})
    assert model._words(torch.ones(3, 1, dtype=torch.long), torch.arange(3)).flatten().tolist() == [1, 1, 1]
    assert model.mixer.weight.shape[0] == 16 + 4


def test_words_and_sizes_beyond_256_keep_apart():
    spec = EnvSpec("crowd", tuple(f"a_{i}" for i in range(3)), (3,) * 3, (150,) * 3)
    model = make_model(spec)
    words = model._words(torch.arange(150).expand(3, 150), torch.arange(3)).flatten()
    assert torch.equal(words, torch.arange(450))


# ---- states


def context_of(windows: Windows, length: int) -> Windows:
    """Cut contexts of 0..length-1 valid past rows, side by side, out of windows."""
    rows = windows.obs.shape[0]
    past = torch.arange(rows) % length
    is_valid = torch.arange(length) >= (length - 1 - past)[:, None]
    parts = {name: value if name == "agent" else value[:, :length] for name, value in vars(windows).items()}
    return Windows(**{**parts, "is_valid": is_valid, "action": torch.where(is_valid, parts["action"], NO_ACTION)})


@CODES
def test_contexts_give_the_hidden_state_of_the_training_pass_whatever_their_padding(monkeypatch, code):
    """h_{t-1} of the loss's full pass without padding == `observe`, with 0 to 4 rows of past."""
    likeliest(monkeypatch)
    model, length = make_model(changes=code).eval(), 5
    windows = make_windows(UNEVEN, per_agent=5, length=length)
    contexts = context_of(windows, length)
    state = model.observe(contexts, horizon=0)
    seen = []
    real = model.heads.continuation.forward
    model.heads.continuation.forward = lambda h: seen.append(h) or real(h)
    for past in range(length):
        rows = torch.arange(past, 3 * length, length)  # one of each agent
        alone = Windows(**{n: v[rows] if n == "agent" else v[rows, length - 1 - past :] for n, v in vars(windows).items()})
        if past == 0:
            assert state.hidden[rows].eq(0).all()
        else:
            model.loss(alone)
            assert torch.allclose(state.hidden[rows], seen[-1][:, -2], atol=1e-5)


def test_the_state_does_not_depend_on_the_action_that_follows_it(monkeypatch):
    likeliest(monkeypatch)
    model = make_model().eval()
    contexts = context_of(make_windows(UNEVEN, per_agent=4, length=4), 4)
    last = contexts.action.clone()
    last[:, -1] = 0
    other = last.clone()
    other[:, -1] = 1
    states = [model.observe(changed(contexts, action=action), horizon=1) for action in (last, other)]
    assert torch.equal(dense(model.features(states[0], 3), 16), dense(model.features(states[1], 3), 16))
    after = [model.advance(state, action[:, -1]) for state, action in zip(states, (last, other), strict=True)]
    assert not torch.isclose(after[0].hidden, after[1].hidden).all(-1).any()


def test_the_past_action_and_the_present_observation_count():
    model = make_model().eval()
    windows = make_windows(UNEVEN, per_agent=4, length=3)
    action = windows.action.clone()
    action[:, 0] = (action[:, 0] + 1) % torch.tensor(UNEVEN.num_actions)[windows.agent]

    def state(context):
        seed_torch(0, "test", 2)
        return model.observe(context, horizon=0)

    before = state(windows)
    assert not torch.allclose(before.hidden, state(changed(windows, action=action)).hidden)
    obs = windows.obs.clone()
    obs[:, -1] *= -3
    after = state(changed(windows, obs=obs))
    assert torch.equal(before.hidden, after.hidden)
    assert not torch.equal(before.latent, after.latent)


def test_a_prior_start_does_not_look_at_the_present_observation_where_there_is_a_past():
    model = make_model().eval()
    contexts = context_of(make_windows(UNEVEN, per_agent=8, length=2), 2)
    obs = contexts.obs.clone()
    obs[:, -1] *= -3

    def latents(context):
        seed_torch(0, "test", 2)
        return model.observe(context, horizon=0, from_prior=True).latent

    has_past = contexts.is_valid[:, 0]
    before, after = latents(contexts), latents(changed(contexts, obs=obs))
    assert torch.equal(before[has_past], after[has_past])
    assert not torch.equal(before[~has_past], after[~has_past])


def test_features_are_latent_hidden_state_and_mates_probabilities():
    model = make_model().eval()
    state = model.observe(make_windows(UNEVEN, length=3), horizon=0)
    features = dense(model.features(state, 3), 16)
    assert features.shape == (3, 2, model.feature_size)
    assert model.feature_size == 16 + 16 + 2 * 4
    z = torch.nn.functional.one_hot(state.latent, 4).flatten(1).float()
    assert torch.equal(features.flatten(0, 1), torch.cat([z, state.hidden, state.mate_probs.flatten(1)], 1))
    assert torch.allclose(state.mate_probs.sum(-1), torch.ones(6, 2))


def test_features_of_ordinal_latents_are_their_levels():
    model = make_model(changes=ORDINAL).eval()
    state = model.observe(make_windows(UNEVEN, length=3), horizon=0)
    features = model.features(state, 3)
    assert features.latent_rows.shape == (3, 2, 0)
    assert model.feature_size == features.numbers.shape[-1] == 4 + 16 + 2 * 4
    levels = torch.tensor([-3.0, -1.0, 1.0, 3.0])[state.latent]
    assert torch.allclose(features.numbers.flatten(0, 1), torch.cat([levels, state.hidden, state.mate_probs.flatten(1)], 1))


@CODES
def test_masks_are_predicted_from_what_the_loss_trains_them_on(code):
    model = make_model(MASKED, code).eval()
    state = model.observe(make_windows(MASKED, length=3), horizon=0)
    z = model.autoencoder.code.read(torch.nn.functional.one_hot(state.latent, 4).float())
    assert model.heads.action_mask is not None
    exists = model.action_exists[state.agent]
    logits = model.heads.action_mask(z).masked_fill(~exists, float("-inf"))
    likeliest = torch.nn.functional.one_hot(logits.argmax(-1), 3).bool()
    assert torch.equal(state.action_mask, (logits > 0) | likeliest)


@pytest.mark.parametrize(("spec", "changes"), [(ALONE, {}), (UNEVEN, {"world_model.teammates.enabled": False})], ids=["alone", "ablation"])
def test_without_a_teammate_predictor_nothing_of_it_is_left(spec, changes):
    model = make_model(spec, changes)
    assert model.feature_size == 32
    assert model.teammates is None
    state = model.advance(model.observe(make_windows(spec, length=3), horizon=1), torch.zeros(spec.num_agents * 2, dtype=torch.long))
    assert dense(model.features(state, spec.num_agents), 16).shape[-1] == 32
    assert "teammates" not in loss_and_gradients(model, make_windows(spec))[0]


def test_predicted_masks_keep_to_what_exists_and_leave_an_action():
    """Legal above one half; the likeliest where none is; never an action that the agent does not have."""
    model = make_model(MASKED).eval()
    logits = torch.tensor([[3.0, -1.0, 9.0], [-5.0, -2.0, 9.0], [1.0, -1.0, 2.0], [-3.0, -1.0, -2.0]])
    model.heads.action_mask.forward = lambda z: logits
    mask = model._action_mask(torch.zeros(4, 4, dtype=torch.long), torch.tensor([0, 0, 1, 1]))
    assert mask.int().tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 1, 0]]


def test_mask_metrics_say_how_rows_are_wrong():
    predicted = torch.tensor([[[True, True, False], [True, False, True], [False, False, False]]])
    mask = torch.tensor([[[True, False, False], [True, True, False], [True, True, True]]])
    counts = torch.tensor([[[True, True, True], [True, False, False], [False, False, False]]])
    metrics = model_module.action_mask_metrics(predicted, mask, counts)
    found = {name.removeprefix("action_mask_"): value.item() for name, value in metrics.items()}
    assert found == {"accuracy": 0.5, "allowed": 0.5, "forbidden": 0.0}
    swapped = model_module.action_mask_metrics(~predicted, mask, counts)
    assert swapped["action_mask_forbidden"].item() == 1.0


def test_without_masks_in_the_environment_an_agents_own_actions_are_legal():
    model = make_model()
    mask = model._action_mask(torch.zeros(3, 4, dtype=torch.long), torch.arange(3))
    assert mask.int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


def test_the_encoder_is_told_who_is_focal_only_if_asked():
    windows = make_windows(EnvSpec("twins", ("a_0", "a_1"), (3, 3), (2, 2)), per_agent=1, length=2)
    obs = windows.obs[:1].expand(2, -1, -1)
    for told in (True, False):
        model = make_model(EnvSpec("twins", ("a_0", "a_1"), (3, 3), (2, 2)), {"world_model.agent_identity": told})
        probs = model.autoencoder.posterior(obs, windows.agent)
        assert torch.allclose(probs[0], probs[1]) != told


def test_accuracy_of_mates_is_held_against_always_naming_the_most_frequent():
    log_probs = torch.log(torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]]))[None, :, None].expand(2, 4, 1, 2)
    actions = torch.tensor([[[0], [1], [0], [1]], [[1], [1], [1], [NO_ACTION]]])
    metrics = model_module.teammate_metrics(log_probs, actions)
    assert metrics["teammate_accuracy"].item() == pytest.approx(3 / 7)
    assert metrics["teammate_majority"].item() == pytest.approx(2 / 3), "counted in the first two rows, judged on the last two"
