"""SB3's callbacks, and what it writes to the log."""

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    ConvertCallback,
    EvalCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from jepa_agent import JEPA


class Order(BaseCallback):
    """Notes what is called, and the variables that are there at a step."""

    def __init__(self):
        super().__init__()
        self.calls, self.there = [], set()

    def _on_training_start(self):
        self.calls.append("training_start")

    def _on_rollout_start(self):
        self.calls.append("rollout_start")

    def _on_step(self):
        self.calls.append("step")
        self.there |= self.locals.keys()
        return True

    def _on_rollout_end(self):
        self.calls.append("rollout_end")

    def _on_training_end(self):
        self.calls.append("training_end")


def test_callbacks_are_called_in_order_with_the_variables_people_use(small):
    watch = Order()
    small("Pendulum-v1", train_freq=2).learn(4, callback=watch)
    rollout = ["rollout_start", "step", "step", "rollout_end"]
    assert watch.calls == ["training_start", *rollout, *rollout, "training_end"]
    assert {"self", "new_obs", "rewards", "dones", "infos", "actions", "buffer_actions", "env"} <= watch.there


def test_the_progress_bar_says_why_it_runs_ahead_and_why_it_stands_still(small, monkeypatch):
    said = []
    monkeypatch.setattr("tqdm.rich.tqdm_rich.set_description", lambda self, what: said.append((self.n, what)))
    small("Pendulum-v1", learning_starts=20, mode="actor").learn(85, progress_bar=True)
    # The first episode, of 200 steps, is acted at random for four times learning_starts at most.
    assert said == [(0, "random steps"), (21, "20 updates"), (21, "random steps"), (80, "")]


def test_lists_functions_intervals_and_the_progress_bar(small):
    at, steps = [], []
    every = EveryNTimesteps(20, ConvertCallback(lambda local, _: at.append(local["self"].num_timesteps) or True))
    small("Pendulum-v1").learn(60, callback=[CallbackList([every, LogEveryNTimesteps(30)])], progress_bar=True)
    assert at == [20, 40, 60]
    small("Pendulum-v1").learn(100, callback=lambda local, _: steps.append(local["rewards"]) or len(steps) < 40)
    assert len(steps) == 40


def test_checkpoints_with_buffer_and_statistics_can_be_gone_on_from(small, tmp_path):
    env = VecNormalize(make_vec_env("Pendulum-v1", 2, seed=0))
    callback = CheckpointCallback(20, str(tmp_path), save_replay_buffer=True, save_vecnormalize=True)
    model = small(env, mode="planner").learn(80, callback=callback)

    def saved(kind, ending):
        return tmp_path / f"rl_model_{kind}80_steps.{ending}"

    again_env = VecNormalize.load(str(saved("vecnormalize_", "pkl")), make_vec_env("Pendulum-v1", 2, seed=0))
    again = JEPA.load(saved("", "zip"), env=again_env, device="cpu")
    again.load_replay_buffer(saved("replay_buffer_", "pkl"))
    assert (tmp_path / "rl_model_40_steps.zip").exists()
    np.testing.assert_array_equal(again_env.obs_rms.mean, env.obs_rms.mean)
    stored = again.replay_buffer.size()
    assert stored == 39  # a callback runs before its step is stored
    for name in ("observations", "actions", "rewards", "plan_mean", "planned"):
        np.testing.assert_array_equal(
            getattr(again.replay_buffer, name)[:stored], getattr(model.replay_buffer, name)[:stored]
        )
    again.learn(20, reset_num_timesteps=False)
    assert again.num_timesteps == 100
    assert again.replay_buffer.window(np.array([38]), np.array([1]), 2).mask[0].tolist() == [1.0, 0.0]


def test_the_best_agent_is_kept_and_a_threshold_stops(small, tmp_path):
    stop = StopTrainingOnRewardThreshold(reward_threshold=-1e9, verbose=0)
    folder = str(tmp_path)
    env = gym.make("Pendulum-v1")
    callback = EvalCallback(
        env,
        callback_on_new_best=stop,
        eval_freq=30,
        n_eval_episodes=1,
        log_path=folder,
        best_model_save_path=folder,
        verbose=0,
    )
    model = small("Pendulum-v1").learn(90, callback=callback)
    assert model.num_timesteps == 30
    best = JEPA.load(tmp_path / "best_model.zip", device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(best.policy.parameters(), model.policy.parameters(), strict=True))
    assert np.load(tmp_path / "evaluations.npz")["results"].shape == (1, 1)


def test_no_improvement_stops(small):
    env = gym.make("JEPA/ConstantReward-v0")  # every policy is as good as every other
    stop = StopTrainingOnNoModelImprovement(max_no_improvement_evals=1, min_evals=1, verbose=0)
    callback = EvalCallback(env, callback_after_eval=stop, eval_freq=10, n_eval_episodes=1, verbose=0, warn=False)
    model = small("JEPA/ConstantReward-v0").learn(200, callback=callback)
    assert model.num_timesteps == 30


class Succeeding(gym.Wrapper):
    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, terminated, truncated, {**info, "is_success": True}


def test_the_log_has_sb3s_tags_at_environment_steps_in_a_folder_that_a_continued_run_shares(small, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    env = make_vec_env("Pendulum-v1", 2, wrapper_class=Succeeding, env_kwargs={"max_episode_steps": 10})
    model = small(env, tensorboard_log=str(tmp_path), mode="actor").learn(60, log_interval=2)
    model.learn(40, log_interval=2, reset_num_timesteps=False)
    assert [path.name for path in tmp_path.iterdir()] == ["JEPA_1"]
    log = EventAccumulator(str(tmp_path / "JEPA_1")).Reload()
    tags = set(log.Tags()["scalars"])
    assert {"rollout/ep_rew_mean", "rollout/ep_len_mean", "rollout/success_rate", "time/fps", "train/learning_rate"} <= tags
    assert "train/n_updates" not in tags
    steps = sorted(event.step for event in log.Scalars("rollout/success_rate"))  # files of one second come in any order
    assert steps == [20, 40, 60, 80, 100]
    model.learn(20, tb_log_name="other")
    assert (tmp_path / "other_1").is_dir()
