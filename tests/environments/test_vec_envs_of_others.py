"""Vectorised environments that others make: they are learned in, or refused with the way out."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper

from jepa_agent import JEPA
from jepa_agent.callbacks import PeriodicCheckpoint, ResumableEvalCallback


class Bare(VecEnvWrapper):
    """As SuperSuit's: a wrapper around what is no VecEnv, with nothing but spaces, reset, step and close."""

    def __init__(self, seeding):
        inner = DummyVecEnv([lambda: gym.make("CartPole-v1")] * 2)
        self.inner, self.seeding, self.venv = inner, seeding, object()
        self.num_envs, self.observation_space, self.action_space = 2, inner.observation_space, inner.action_space
        self.render_mode, self.reset_infos = None, []

    def reset(self):
        return self.inner.reset()

    def step_async(self, actions):
        self.inner.step_async(actions)

    def step_wait(self):
        return self.inner.step_wait()

    def seed(self, seed=None):
        raise self.seeding("no seeds here")

    def _missing(self, *args, **kwargs):
        raise AttributeError("not here")

    get_attr = set_attr = env_method = _missing

    def env_is_wrapped(self, wrapper_class, indices=None):
        return [False, False]

    def close(self):
        self.inner.close()


@pytest.mark.parametrize("seeding", [AttributeError, NotImplementedError, TypeError])
def test_a_vec_env_without_seed_or_attributes_trains_evaluates_saves_and_resumes(small, tmp_path, seeding):
    evaluation = ResumableEvalCallback(Bare(seeding), seed=1, log_path=str(tmp_path), eval_freq=20, n_eval_episodes=1)
    callbacks = [PeriodicCheckpoint(tmp_path / "run", 30), evaluation]
    with pytest.warns(UserWarning, match="Bare cannot be seeded .no seeds here.: its episodes are not repeated"):
        model = small(Bare(seeding))
    model.learn(60, callback=callbacks).save(tmp_path / "agent")
    model.save_checkpoint(tmp_path / "run")
    assert JEPA.load(tmp_path / "agent", Bare(seeding), device="cpu").n_envs == 2
    again = JEPA.resume(tmp_path / "run", Bare(seeding), device="cpu").learn(20, reset_num_timesteps=False)
    assert (again.num_timesteps, again.replay_buffer.added) == (80, 40)


def two(**kwargs):
    return gym.make_vec("CartPole-v1", num_envs=2, **kwargs)


@pytest.mark.parametrize(
    "made",
    [lambda: two(vectorization_mode="sync"), two, lambda: RecordEpisodeStatistics(two())],
    ids=["sync", "entry point", "wrapped"],
)
def test_a_vector_env_of_gymnasium_is_refused_with_make_vec_env(small, made, tmp_path):
    env, says = made(), r"make_vec_env\('CartPole-v1', n_envs=2\)"
    model = small(make_vec_env("CartPole-v1", 2))
    model.save(tmp_path / "agent")
    for take in (small, model.set_env, lambda env: JEPA.load(tmp_path / "agent", env)):
        with pytest.raises(ValueError, match=says) as told:
            take(env)
        assert "\n" not in str(told.value)
    env.close()


@pytest.mark.parametrize("thing", [np.zeros(3), gym.make, object()])
def test_what_is_no_environment_at_all_is_told_so(small, thing):
    with pytest.raises(ValueError, match=r"expected a Gymnasium environment, its id, or a VecEnv .* got"):
        small(thing)
