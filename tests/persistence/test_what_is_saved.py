"""What is saved is declared: it is all that loading needs, and nothing that others hung on the model."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from jepa_agent import JEPA
from jepa_agent.persistence import archive
from jepa_agent.persistence.archive import CheckpointError

TINY = {"latent_dim": 16, "net_arch": [32], "ensemble_size": 2, "memory_size": 3}
CART = "CartPole-v1"


def settings(**more):
    return {"seed": 0, "device": "cpu", "learning_starts": 20, "batch_size": 16, "policy_kwargs": TINY, **more}


def same_weights(first, second):
    pairs = zip(first.policy.state_dict().values(), second.policy.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


class PassesOn(JEPA):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


class Fixes(JEPA):
    """Fixes a setting that the file holds too."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, gamma=0.9, **kwargs)


class Adds(JEPA):
    """Has an argument of its own, and builds something of it."""

    def __init__(self, *args, bonus=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.bonus, self.doubled = bonus, 2 * bonus


class WithoutPolicy(JEPA):
    def __init__(self, env, bonus=1.0, **kwargs):
        super().__init__("MlpPolicy", env, **kwargs)
        self.bonus, self.doubled = bonus, 2 * bonus


class GrandChild(Adds):
    def __init__(self, *args, other=3, **kwargs):
        super().__init__(*args, **kwargs)
        self.other = other


@pytest.mark.parametrize(
    ("made_by", "own"),
    [
        (PassesOn, {}),
        (Fixes, {}),
        (Adds, {"bonus": 5.0}),
        (WithoutPolicy, {"bonus": 5.0}),
        (GrandChild, {"bonus": 5.0, "other": 4}),
    ],
)
def test_a_subclass_that_hands_its_arguments_on_saves_loads_and_resumes(made_by, own, tmp_path):
    first = () if made_by is WithoutPolicy else ("MlpPolicy",)
    model = made_by(*first, CART, **settings(train_horizon=3, stats_window_size=7, **own)).learn(30)
    model.save(tmp_path / "agent")
    model.save_checkpoint(tmp_path / "checkpoints")
    for again in (made_by.load(tmp_path / "agent", CART), made_by.resume(tmp_path / "checkpoints", CART)):
        assert type(again) is made_by
        assert same_weights(again, model)
        assert (again.gamma, again.settings.train_horizon, again._stats_window_size) == (model.gamma, 3, 7)
        assert again.policy.settings is again.settings
        assert {name: getattr(again, name) for name in own} == own
        if own:
            assert again.doubled == 10.0
        again.learn(25, reset_num_timesteps=False)
    assert made_by.load(tmp_path / "agent", train_horizon=2).settings.train_horizon == 2


def test_an_agent_of_normalised_observations_warns_of_an_environment_without(tmp_path):
    model = JEPA("MlpPolicy", VecNormalize(make_vec_env("CartPole-v1", 1, seed=0)), **settings())
    model.save(tmp_path / "agent")
    with pytest.warns(UserWarning, match="trained under VecNormalize, but the environment given to load has none"):
        JEPA.load(tmp_path / "agent", make_vec_env("CartPole-v1", 1, seed=0))


def test_a_subclass_that_takes_no_settings_is_told_how_to_be_loadable(tmp_path):
    class Closed(JEPA):
        def __init__(self, policy, env):
            super().__init__(policy, env, **settings())

    Closed("MlpPolicy", CART).save(tmp_path / "agent")
    with pytest.raises(CheckpointError, match=r"agent.*Closed.*_init_setup_model.*\*\*kwargs"):
        Closed.load(tmp_path / "agent")


class Stateful:
    """Has a state_dict that is none of tensors."""

    def state_dict(self):
        return {"a word": "x", "a function": print}

    def load_state_dict(self, state):
        raise AssertionError("was not saved")


def test_what_a_callback_hung_on_the_model_neither_enters_the_file_nor_spoils_it(tmp_path):
    clean = JEPA("MlpPolicy", CART, **settings()).learn(30)
    hung = {
        "best": 3,
        "ratio": 0.5,
        "hook": lambda: None,
        "running": torch.ones(3),
        "shadow": nn.Linear(2, 2),
        "adam": torch.optim.Adam([nn.Parameter(torch.ones(1))]),
        "stateful": Stateful(),
        "dice": torch.Generator(),
        "side_env": gym.make(CART),
        "_private": object(),
    }
    model = JEPA("MlpPolicy", CART, **settings())
    for name, value in hung.items():
        setattr(model, name, value)
    model.policy.adam, model.policy.dice, model.policy.hook = hung["adam"], hung["dice"], hung["hook"]
    model.replay_buffer.notes = np.full((model.replay_buffer.buffer_size, 1), None)
    model.learn(30)
    for one, name in ((clean, "clean"), (model, "hung")):
        one.save(tmp_path / name)
        one.save_checkpoint(tmp_path / f"{name}_run")
        one.save_replay_buffer(tmp_path / f"{name}_buffer")
    files = [archive.read(tmp_path / name, "agent") for name in ("clean", "hung")]
    assert files[0].manifest == files[1].manifest
    assert files[0].members["tensors"].keys() == files[1].members["tensors"].keys()
    again = JEPA.load(tmp_path / "hung", CART, device="cpu")
    again.load_replay_buffer(tmp_path / "hung_buffer")
    assert same_weights(again, clean)
    resumed = JEPA.resume(tmp_path / "hung_run", CART, device="cpu").learn(20, reset_num_timesteps=False)
    assert not any(hasattr(one, name) for one in (again, resumed) for name in hung)
    assert same_weights(
        resumed, JEPA.resume(tmp_path / "clean_run", CART, device="cpu").learn(20, reset_num_timesteps=False)
    )


def test_a_file_written_when_numbers_of_callbacks_were_saved_still_loads(tmp_path):
    path = tmp_path / "agent.zip"
    JEPA("MlpPolicy", CART, **settings()).learn(10).save(path)
    manifest, members = archive.read(path, "agent")
    counters = {**manifest["counters"], "best": 3, "sde_sample_freq": -1}
    archive.write(path, "agent", {**manifest, "counters": counters}, members)
    again = JEPA.load(path)
    assert again.num_timesteps == 10
    assert not hasattr(again, "best")


def written_when_actors_explored_by_given_noise(env, tmp_path):
    """An agent and a file of it as format 5 had it, but for the networks of Box actions."""
    model = JEPA("MlpPolicy", env, **settings(mode="actor")).learn(40)
    model.save(tmp_path / "new.zip")
    manifest, members = archive.read(tmp_path / "new.zip", "agent")
    arguments = {**manifest["arguments"], "exploration_std": 0.2, "target_noise": 0.2}
    del arguments["actor_horizon"]
    tensors = {k: v for k, v in members["tensors"].items() if not k.endswith(("cost_mean", "value_offset"))}
    archive.write(tmp_path / "old.zip", "agent", {**manifest, "arguments": arguments, "format": 5}, {"tensors": tensors})
    return model, tmp_path / "old.zip"


def test_moments_of_weights_that_are_not_there_are_refused(tmp_path):
    model = JEPA("MlpPolicy", CART, **settings(mode="actor")).learn(30)
    model.save(tmp_path / "agent.zip")
    manifest, members = archive.read(tmp_path / "agent.zip", "agent")
    for index in (99999, -1):
        tensors = {**members["tensors"], f"policy.optimizer/{index}/exp_avg": torch.zeros(1)}
        archive.write(tmp_path / "agent.zip", "agent", manifest, {"tensors": tensors})
        with pytest.raises(CheckpointError, match=rf"{index}/exp_avg.*expected an index below"):
            JEPA.load(tmp_path / "agent.zip")


def test_an_agent_for_choices_saved_when_noise_was_given_acts_and_learns_on(tmp_path):
    model, old = written_when_actors_explored_by_given_noise(CART, tmp_path)
    again, obs = JEPA.load(old, CART), model.observation_space.sample()
    assert again.predict(obs, deterministic=True)[0] == model.predict(obs, deterministic=True)[0]
    again.learn(20, reset_num_timesteps=False)
    assert again._n_updates > model._n_updates


def test_an_agent_for_box_actions_saved_when_noise_was_given_says_what_reads_it(tmp_path):
    _, old = written_when_actors_explored_by_given_noise("Pendulum-v1", tmp_path)
    with pytest.raises(CheckpointError, match=r"old.*written by jepa_agent 0\.\d.*load it with that version"):
        JEPA.load(old)


def test_a_subclass_declares_what_of_its_own_is_saved(tmp_path):
    class Counting(JEPA):
        saved_counters = (*JEPA.saved_counters, "visits")
        saved_generators = (*JEPA.saved_generators, "dice")

        def _setup_model(self):
            super()._setup_model()
            self.visits, self.heat, self.dice = 0, torch.zeros(2), torch.Generator()

        def _get_torch_save_params(self):
            parts, tensors = super()._get_torch_save_params()
            return parts, [*tensors, "heat"]

    model = Counting("MlpPolicy", CART, **settings()).learn(5)
    model.visits, model.heat = 12, torch.tensor([1.0, 2.0])
    model.dice.manual_seed(5)
    model.save_checkpoint(tmp_path)
    again = Counting.resume(tmp_path, CART, device="cpu")
    assert (again.visits, again.heat.tolist()) == (12, [1.0, 2.0])
    assert torch.equal(again.dice.get_state(), model.dice.get_state())


# ---------------------------------------------------------------------- the scales of a buffer


def scales(model):
    found = model.policy.state_dict()
    names = ("norm.mean", "norm.var", "norm.count", "cost_scale", "cost_count")
    return {key: value.double().numpy() for key, value in found.items() if key.endswith(names)}


@pytest.mark.parametrize("env", ["Pendulum-v1", CART, "JEPA/PictureAndNumber-v0", "JEPA/BrightOrDark-v0"])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_a_fresh_agent_given_a_buffer_has_the_scales_of_the_one_that_collected_it(env, n_envs, small, tmp_path):
    settings = {"learning_starts": 1_000, "buffer_size": 900}
    model = small(make_vec_env(env, n_envs, seed=0), **settings).learn(840)
    model.save_replay_buffer(tmp_path / "buffer")
    fresh = small(make_vec_env(env, n_envs, seed=0), **settings, seed=1)
    fresh.load_replay_buffer(tmp_path / "buffer")
    wanted, found = scales(model), scales(fresh)
    assert len(wanted) >= 4
    assert float(found["world_model.cost_module.cost_count"]) == 840
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_an_agent_that_knows_its_scales_keeps_them_when_given_a_buffer(small, tmp_path):
    model = small("Pendulum-v1", learning_starts=1_000).learn(60)
    model.save(tmp_path / "agent")
    model.save_replay_buffer(tmp_path / "buffer")
    again = JEPA.load(tmp_path / "agent", "Pendulum-v1", device="cpu")
    again.load_replay_buffer(tmp_path / "buffer")
    for name, value in scales(model).items():
        np.testing.assert_array_equal(scales(again)[name], value)


def test_the_scales_of_a_buffer_are_of_what_will_be_sampled_under_normalisation(small, tmp_path):
    def made():
        return VecNormalize(make_vec_env("Pendulum-v1", 1, seed=0))

    env = made()
    small(env, learning_starts=1_000).learn(80).save_replay_buffer(tmp_path / "buffer")
    fresh = small(env, learning_starts=1_000)
    fresh.load_replay_buffer(tmp_path / "buffer")
    cost = fresh.replay_buffer.window(np.arange(80), np.zeros(80, int), 1, env).cost
    found = scales(fresh)["world_model.cost_module.cost_scale"]
    np.testing.assert_allclose(found, cost.square().mean().sqrt(), rtol=1e-4)
