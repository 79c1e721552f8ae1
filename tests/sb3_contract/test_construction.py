"""What SB3 and its users take for granted about the constructor, parameters and copies."""

import copy
import inspect
import re

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise

from jepa_agent import JEPA, JEPAPolicy
from jepa_agent.config import PlannerConfig, as_kwargs

OF_SAC_ALONE = {"ent_coef", "target_update_interval", "target_entropy", "use_sde", "sde_sample_freq", "use_sde_at_warmup"}
GIVEN_TO_SB3 = {"policy", "env", "device", "stats_window_size", "_init_setup_model"}


def names(owner):
    return list(inspect.signature(owner).parameters)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_arguments_stand_in_sacs_order():
    sac = [name for name in names(SAC) if name not in OF_SAC_ALONE]
    shared = sac.index("n_steps") + 1
    assert names(JEPA)[:shared] == sac[:shared]
    assert [name for name in names(JEPA) if name in sac] == sac


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"ent_coef": 0.1}, "JEPA has no argument 'ent_coef': the actor's temperature is learned by itself"),
        ({"train_horizn": 3}, "JEPA has no argument 'train_horizn'; did you mean train_horizon"),
    ],
)
def test_an_argument_that_there_is_not_is_refused_with_the_reason_or_near_names(given, says):
    with pytest.raises(TypeError, match=re.escape(says)):
        JEPA("MlpPolicy", "CartPole-v1", **given)


@pytest.mark.parametrize("name", sorted(OF_SAC_ALONE))
def test_every_argument_of_sac_alone_is_refused_with_a_reason(name):
    with pytest.raises(TypeError, match=f"JEPA has no argument '{name}': "):
        JEPA("MlpPolicy", "CartPole-v1", **{name: 1})


def test_every_argument_but_policy_and_env_has_a_default_and_is_kept_under_its_name(small):
    parameters = inspect.signature(JEPA).parameters
    assert [name for name, p in parameters.items() if p.default is p.empty] == ["policy", "env"]
    model = small("Pendulum-v1")
    kept = {*vars(model), *as_kwargs(model.settings)}
    assert [name for name in parameters if name not in GIVEN_TO_SB3 and name not in kept] == []


def test_a_second_setup_changes_no_setting(small):
    model = small("Pendulum-v1", train_freq=(2, "episode"), planner=PlannerConfig(horizon=2), mode="every_3", n_steps=4)
    kept = {name: value for name, value in vars(model).items() if name in {*names(JEPA), "settings"} - GIVEN_TO_SB3}
    assert "settings" in kept
    model._setup_model()
    assert {name: getattr(model, name) for name in kept} == kept
    assert (model.policy.planner.horizon, model.policy.mode_switch.k) == (2, 3)
    model.learn(30)


def test_the_callers_dictionaries_are_not_written_into():
    given = {"policy_kwargs": {"latent_dim": 8}, "replay_buffer_kwargs": {"handle_timeout_termination": True}}
    kept = copy.deepcopy(given)
    JEPA("MlpPolicy", "Pendulum-v1", buffer_size=100, device="cpu", **given).learn(5)
    assert given == kept


def test_the_policy_knows_all_it_was_built_from(small):
    told = small("Pendulum-v1").policy._get_constructor_parameters()
    assert set(names(JEPAPolicy)) == set(told)


def test_noise_on_actions_that_cannot_be_added_to_is_refused(small):
    with pytest.raises(ValueError, match="action_noise needs Box actions"):
        small("CartPole-v1", action_noise=NormalActionNoise(np.zeros(1), np.ones(1)))


# ---------------------------------------------------------------------- copies and parameters


def test_a_copy_learns_on_alike_and_apart(small):
    model = small("Pendulum-v1", mode="planner", gradient_steps=2).learn(30)
    twin = copy.deepcopy(model)
    before = weights(model)
    assert twin.world_model is twin.policy.world_model
    assert twin.replay_buffer is not model.replay_buffer
    for learner in (twin, model):
        torch.manual_seed(0)
        np.random.seed(0)
        learner.learn(20, reset_num_timesteps=False)
        if learner is twin:
            assert equal(before, weights(model))
    assert not equal(before, weights(twin))
    assert equal(weights(model), weights(twin))


def test_parameters_can_be_taken_from_one_agent_and_given_to_another(small):
    first, second = (small("Pendulum-v1", seed=seed).learn(30) for seed in (1, 2))
    second.set_parameters(first.get_parameters())
    assert equal(weights(first), weights(second))
    assert second.world_model is second.policy.world_model


def test_parameters_that_do_not_match_are_refused_unless_asked_otherwise(small):
    model = small("Pendulum-v1")
    part = {"policy": model.get_parameters()["policy"]}
    model.set_parameters(part, exact_match=False)
    with pytest.raises(ValueError, match="do not match"):
        model.set_parameters(part)
    with pytest.raises(ValueError, match="invalid object name"):
        model.set_parameters({"nonsense": {}})


def test_seeding_again_repeats_what_was_drawn(small):
    model = small("Pendulum-v1", mode="planner").learn(30)
    obs = np.zeros((4, 3), dtype=np.float32)
    drawn = []
    for seed in (5, 5, 6):
        model.set_random_seed(seed)
        drawn.append((model.predict(obs)[0], model.action_space.sample(), np.random.random(), torch.rand(1).item()))
    for first, again, other in zip(*drawn, strict=True):
        np.testing.assert_array_equal(first, again)
        assert np.any(first != other)


def test_the_policy_moves_as_one_and_stays_the_agents_own(small):
    model = small("Pendulum-v1").learn(25)
    assert model.policy.to("cpu") is model.policy
    model.learn(10, reset_num_timesteps=False)
    assert all(own is of_policy for own, of_policy in zip(model._parameters, model.world_model.parameters(), strict=True))


# ---------------------------------------------------------------------- environments


def test_another_environment_of_the_same_kind_can_be_set_and_starts_afresh(small):
    model = small("Pendulum-v1").learn(30)
    other = gym.make("Pendulum-v1", g=5.0)
    model.set_env(other)
    model.learn(10, reset_num_timesteps=False)
    assert model.num_timesteps == 40
    assert model.get_env().envs[0].unwrapped is other.unwrapped
    assert model.replay_buffer.window(np.array([29]), np.array([0]), 2).mask[0].tolist() == [1.0, 0.0]


def test_the_number_of_environments_may_change_at_loading_only(small, tmp_path):
    model = small("Pendulum-v1").learn(25)
    with pytest.raises((AssertionError, ValueError), match="number of environments"):
        model.set_env(make_vec_env("Pendulum-v1", 3))
    model.save(tmp_path / "agent")
    again = JEPA.load(tmp_path / "agent", env=make_vec_env("Pendulum-v1", 3), device="cpu")
    again.learn(60)
    assert again.replay_buffer.observations.shape[1] == 3
