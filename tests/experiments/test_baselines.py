import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, TD3
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from jepa_agent.experiments.baselines import BASELINES, algorithm_class, fits, make_baseline, settings

ENVS = ("CartPole-v1", "Acrobot-v1", "MountainCarContinuous-v0", "Pendulum-v1", "LunarLander-v3")


@pytest.mark.parametrize("algorithm", BASELINES)
def test_every_entry_names_its_source(algorithm: str) -> None:
    for env_id in (*ENVS, "Unheard-v0"):
        assert settings(algorithm, env_id)["source"].count(f"rl-baselines3-zoo hyperparams/{algorithm.lower()}.yml") == 1


def test_settings_are_those_of_the_environment_and_a_copy() -> None:
    first = settings("DQN", "CartPole-v1")
    first["policy_kwargs"]["net_arch"].append(1)
    assert settings("DQN", "CartPole-v1")["policy_kwargs"] == {"net_arch": [256, 256]}
    assert list(settings("PPO", "Unheard-v0")) == ["source"]
    assert settings("PPO", "package:CartPole-v1") == settings("PPO", "CartPole-v1")


@pytest.mark.parametrize(
    ("algorithm", "env_id"),
    [(name, env_id) for name in ("PPO", "A2C", "DQN", "QRDQN") for env_id in ("CartPole-v1", "Acrobot-v1")]
    + [(name, "Pendulum-v1") for name in BASELINES if "DQN" not in name]
    + [(name, "MountainCarContinuous-v0") for name in BASELINES if "DQN" not in name],
)
def test_constructors_accept_every_setting(algorithm: str, env_id: str) -> None:
    model = make_baseline(algorithm, env_id, seed=0, overrides=None if algorithm in ("PPO", "A2C") else {"buffer_size": 100})
    assert type(model).__name__ == algorithm
    assert type(model) is algorithm_class(algorithm)
    assert model.device.type == "cpu"


def test_schedules_fall_linearly_to_zero() -> None:
    model = make_baseline("PPO", "CartPole-v1", seed=0)
    assert isinstance(model, PPO)
    assert [model.lr_schedule(left) for left in (1.0, 0.5, 0.0)] == pytest.approx([1e-3, 5e-4, 0.0])
    assert model.clip_range(0.25) == pytest.approx(0.05)
    assert model.n_envs == 8


def test_normalisation_discounts_as_the_algorithm_does() -> None:
    env = make_baseline("PPO", "MountainCarContinuous-v0", seed=0).get_env()
    assert isinstance(env, VecNormalize)
    assert env.gamma == 0.9999


def test_noise_has_the_given_spread() -> None:
    model = make_baseline("TD3", "Pendulum-v1", seed=0, overrides={"noise_std": 0.3, "buffer_size": 100})
    assert isinstance(model, TD3)
    assert isinstance(model.action_noise, NormalActionNoise)
    assert np.allclose(model.action_noise._sigma, [0.3])


def test_overrides_and_environment_arguments_are_used() -> None:
    model = make_baseline("DQN", "CartPole-v1", 0, {"sutton_barto_reward": True}, {"gamma": 0.5, "buffer_size": 100})
    assert isinstance(model, DQN)
    assert model.gamma == 0.5
    env = model.get_env()
    assert env is not None
    env.reset()
    assert env.step(np.array([0]))[1] == 0.0


def test_the_same_seed_gives_the_same_network() -> None:
    first, again, other = (make_baseline("PPO", "CartPole-v1", seed) for seed in (3, 3, 4))
    weights = [next(iter(model.policy.parameters())).detach().numpy() for model in (first, again, other)]
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_fits_knows_who_can_act_where() -> None:
    discrete, box = spaces.Discrete(2), spaces.Box(-1, 1, (1,))
    assert [name for name in BASELINES if fits(name, discrete)] == ["PPO", "A2C", "DQN", "QRDQN"]
    assert [name for name in BASELINES if fits(name, box)] == ["PPO", "A2C", "SAC", "TD3", "TQC", "CrossQ"]


def test_an_unknown_baseline_is_answered_with_near_names() -> None:
    with pytest.raises(ValueError, match="did you mean TD3"):
        settings("TD4", "CartPole-v1")
    with pytest.raises(ValueError, match="did you mean PPO"):
        make_baseline("ppo", "CartPole-v1", 0)


def test_an_action_space_that_does_not_fit_is_answered_with_baselines_that_do() -> None:
    with pytest.raises(ValueError, match=r"SAC cannot act in CartPole-v1.*Discrete\(2\).*can: PPO, A2C, DQN"):
        make_baseline("SAC", "CartPole-v1", 0)
    with pytest.raises(ValueError, match="can: PPO, A2C, SAC, TD3, TQC, CrossQ"):
        make_baseline("DQN", "Pendulum-v1", 0)


def test_an_unknown_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="noise_type must be one of normal, ornstein-uhlenbeck, got 'pink'"):
        make_baseline("TD3", "Pendulum-v1", 0, overrides={"noise_type": "pink", "noise_std": 0.1})
    with pytest.raises(ValueError, match="'normal' was given without noise_std"):
        make_baseline("SAC", "Pendulum-v1", 0, overrides={"noise_type": "normal"})


def test_an_algorithm_of_ones_own_is_named_by_module_and_class() -> None:
    assert algorithm_class("stable_baselines3:DQN") is DQN
    assert settings("stable_baselines3:DQN", "CartPole-v1") == {}
    model = make_baseline("stable_baselines3:DQN", "CartPole-v1", 0, overrides={"buffer_size": 50})
    assert (type(model), model.batch_size) == (DQN, 32)  # its own default, not the tuned one


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such:Thing", "'no_such', which is not installed"),
        ("json:Thing", "has no 'Thing'"),
        ("json:dumps", "is no Stable"),
    ],
)
def test_what_is_no_algorithm_is_refused(name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        algorithm_class(name)


def test_names_are_taken_as_papers_spell_them() -> None:
    assert algorithm_class("QR-DQN") is algorithm_class("QRDQN")


def test_activations_are_named_and_the_callers_settings_stay_as_they_are() -> None:
    overrides = {"policy_kwargs": {"activation_fn": "ELU"}}
    model = make_baseline("PPO", "CartPole-v1", 0, overrides=overrides)
    assert model.policy.activation_fn is nn.ELU
    assert overrides == {"policy_kwargs": {"activation_fn": "ELU"}}
    with pytest.raises(ValueError, match="such as ReLU, got 'Relu'"):
        make_baseline("PPO", "CartPole-v1", 0, overrides={"policy_kwargs": {"activation_fn": "Relu"}})
