"""Values that are what they say: what a step costs, in which unit costs are scaled, what the world model's verbs give."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from jepa_agent import JEPA
from jepa_agent.config import PlannerConfig
from jepa_agent.model.cost import CostModule, JointCostToGo
from jepa_agent.objectives.costs import GoalCost, LatentCost
from jepa_agent.objectives.objective import Objective
from jepa_agent.types import StepCost

SHORT = PlannerConfig(horizon=2)


class Pays(gym.Env):
    """A picture or two numbers, in episodes of ten steps, each rewarded by what is drawn around a mean."""

    action_space = spaces.Discrete(2)

    def __init__(self, space=None, mean=0.0, std=1.0):
        self.observation_space = spaces.Box(-9.0, 9.0, (2,)) if space is None else space
        self.observation_space.seed(0)
        self.mean, self.std, self.steps = mean, std, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        reward = float(self.np_random.normal(self.mean, self.std))
        return self.observation_space.sample(), reward, False, self.steps == 10, {}


# ---------------------------------------------------------------------- a step's own cost


class Ends:
    """A world model in which each step ends the episode with a given probability."""

    gamma = 0.99

    def __init__(self, chance):
        self.chance = chance

    def imagine(self, z, actions):
        return z.unsqueeze(-2).expand(*z.shape[:-1], actions.shape[-2] + 1, z.shape[-1])

    def cost(self, z, action):
        return StepCost(torch.zeros(z.shape[:-1]), torch.full(z.shape[:-1], self.chance))


@pytest.mark.parametrize(
    ("chance", "total"),
    [
        (1.0, 7.0 + 0.99 + 0.99**2),  # 8.97: the first step is paid for, then it is over
        (0.0, 7.0 * (1.0 + 0.99 + 0.99**2)),  # 20.79
        (0.5, 7.0 + 0.99 * 4.0 + 0.99**2 * 2.5),  # 13.41
    ],
)
def test_a_step_costs_its_own_though_it_may_end_the_episode(chance, total):
    objective = Objective(Ends(chance), lambda latents, actions: torch.full(actions.shape[:-1], 7.0), end_cost=1.0)
    costs = objective(torch.zeros(2, 4), torch.zeros(2, 5, 3, 1))
    torch.testing.assert_close(costs, torch.full((1, 2, 5), total))


# ---------------------------------------------------------------------- the unit of costs


def test_the_scale_of_costs_is_in_the_unit_that_they_are_sampled_in():
    module = CostModule(4, 1, [8], JointCostToGo(4, 1, [8], ensemble_size=2), gamma=0.9)
    module.observe_cost(torch.tensor([30.0]), unit=0.01)  # a first reward, normalised by hardly anything
    module.observe_cost(torch.tensor([40.0]), unit=50.0)
    assert module.cost_scale.item() == pytest.approx((0.5 * (30.0**2 + 40.0**2)) ** 0.5 / 50.0)


@pytest.mark.parametrize(("mean", "std"), [(-6.0, 3.0), (1.0, 0.1)])
def test_under_vecnormalize_the_scale_of_costs_follows_what_is_sampled(small, mean, std):
    env = VecNormalize(DummyVecEnv([lambda: Pays(mean=mean, std=std)]))
    model = small(env, learning_starts=1_000, mode="actor").learn(300)
    sampled = env.normalize_reward(model.replay_buffer.rewards[: model.replay_buffer.size()].copy())
    scale = model.world_model.cost_module.cost_scale.item()
    assert scale == pytest.approx(np.sqrt(np.square(sampled).mean()), rel=0.1)


def test_rewards_that_are_not_normalised_have_the_scale_that_they_are_given_in(small):
    env = VecNormalize(DummyVecEnv([lambda: Pays(mean=-6.0, std=3.0)]), norm_reward=False)
    model = small(env, learning_starts=1_000, mode="actor").learn(100)
    rewards = model.replay_buffer.rewards[: model.replay_buffer.size()]
    assert model.world_model.cost_module.cost_scale.item() == pytest.approx(np.sqrt(np.square(rewards).mean()), rel=1e-4)


# ---------------------------------------------------------------------- the verbs on their own

PICTURES = {
    "channels first": spaces.Box(0, 255, (3, 36, 40), np.uint8),
    "channels last": spaces.Box(0, 255, (36, 40, 3), np.uint8),
    "one of several parts": spaces.Dict({"eye": spaces.Box(0, 255, (36, 40, 3), np.uint8), "k": spaces.Box(-1, 1, (2,))}),
}


def camera(small, space, steps=30):
    settings = {"mode": "actor", "learning_starts": 20, "batch_size": 8, "buffer_size": 60, "train_freq": 5}
    return small(Pays(space), **settings).learn(steps)


def several(*obs):
    return {key: np.stack([one[key] for one in obs]) for key in obs[0]} if isinstance(obs[0], dict) else np.stack(obs)


@pytest.mark.parametrize("space", PICTURES.values(), ids=PICTURES.keys())
def test_after_learning_a_picture_has_the_latent_that_acting_sees(small, space):
    model = camera(small, space)
    assert model._n_updates > 0
    world, one, other = model.world_model.requires_grad_(False), space.sample(), space.sample()
    z = world.encode(several(one, other))
    torch.testing.assert_close(z, world.encode(several(one, other)), rtol=0, atol=0)  # nothing is shifted at random
    torch.testing.assert_close(z[0], world.encode(one))
    seen, _ = model.policy.obs_to_tensor(several(one, other))
    torch.testing.assert_close(z, model.policy.act(seen, model.policy.recall(None, 2), True)[1].latent)
    assert not torch.allclose(z[0], z[1])


def test_channels_may_be_last_under_any_leading_axes(small):
    world = camera(small, PICTURES["channels last"]).world_model
    pictures = np.stack([PICTURES["channels last"].sample() for _ in range(6)]).reshape(2, 3, 36, 40, 3)
    torch.testing.assert_close(world.encode(pictures), world.encode(np.moveaxis(pictures, -1, -3)))


def test_a_picture_of_another_shape_is_refused_and_not_cut_anew(small):
    world = camera(small, PICTURES["channels first"]).world_model
    with pytest.raises(ValueError, match=r"must have the shape \(\.\.\., 3, 36, 40\), got"):
        world.encode(np.zeros((3, 40, 36), np.uint8))


def test_only_an_update_is_made_in_training_mode_however_it_ends(small, monkeypatch):
    model = small(Pays(PICTURES["channels first"]), batch_size=8, learning_starts=20, buffer_size=60, mode="actor")
    assert not model.policy.training
    seen = []

    def fails(batch, *more):
        seen.append(model.world_model.training)
        raise ArithmeticError

    monkeypatch.setattr(model, "_fit_representation", fails)
    with pytest.raises(ArithmeticError):
        model.learn(60)
    assert seen == [True]
    assert not any(module.training for module in model.policy.modules())


def test_a_loaded_agent_is_not_in_training_mode(small, tmp_path):
    camera(small, PICTURES["channels first"], steps=5).save(tmp_path / "agent.zip")
    assert not JEPA.load(tmp_path / "agent.zip").world_model.training


@pytest.mark.parametrize("space", [PICTURES["channels first"], PICTURES["channels last"]], ids=["first", "last"])
def test_a_users_cost_may_ask_the_world_model_and_hears_the_same_inside_and_outside(small, space):
    model, goal, heard = camera(small, space), space.sample(), []
    world = model.world_model

    def cost(z):
        heard.append(world.encode(goal))
        return (z - heard[-1]).square().mean(-1)

    model.set_cost(LatentCost(cost), SHORT)
    model.predict(model.get_env().reset(), deterministic=True)
    model.set_cost(None)
    model.learn(10, reset_num_timesteps=False)  # which moves the latent, but the way there stays the same
    moved = world.encode(goal)
    with model.using_cost(GoalCost(goal), SHORT):
        of_goal = model.policy.objective.steps(moved.expand(1, 1, 2, -1), torch.zeros(1, 1, 1, 2))
    assert len(heard) > 1
    assert all(torch.equal(one, heard[0]) for one in heard)
    assert of_goal.item() == pytest.approx(0.0, abs=1e-6)
